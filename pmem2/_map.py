# SPDX-License-Identifier: BSD-3-Clause
"""Map: a mapped source, memory that can be read, written and made durable."""

from __future__ import annotations

import errno
import operator
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Protocol, SupportsIndex, TypeVar, Union, cast, final, overload

import attrs

from pmem2._advice import ADVICE_MAX, check_advice
from pmem2._arrays import bytes_as_array, view_as_array
from pmem2._buffers import (
    Ranges,
    borrow,
    borrow_ranges,
    copy_of,
    export,
    is_memory,
    pointer_to,
    release_all,
    scratch,
    span_of,
    view_of,
)
from pmem2._checks import (
    NO_FLAGS,
    SIZE_MAX,
    as_int,
    as_size,
    check_mem_flags,
    check_type,
    int_repr,
    is_index,
    raise_if_deeper,
)
from pmem2._config import Config
from pmem2._enums import ErrorCode, Granularity, MemFlag, Protection, Sharing
from pmem2._error_map import error_from_rc, new_error_buffer
from pmem2._ffi import ffi, lib
from pmem2._granularity import forced_in_c, warn_if_ignored
from pmem2._map_create import MAP_HINTS, MapRequest, alloc_map, create_map
from pmem2._resource import (
    CPYTHON,
    HAS_GIL,
    NO_DESCRIPTORS,
    Resource,
    drop_attrs_init,
    new_pin,
    pinned_pointer,
    retry_after_gc,
)
from pmem2._shared_memory import CACHE_HINTS
from pmem2._slices import SLICE, as_slice, clip, slice_parts
from pmem2._source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy
    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import Buffer, TypeIs

    from pmem2._buffers import Memory
    from pmem2._ffi import CharArray, CharPointer, MapHandle, Pin, Uint64Array
    from pmem2._slices import Slice

    Data = Union[Buffer, "Map"]
    Piece = tuple[int, CharPointer, int]
    Scalar = TypeVar("Scalar", bound=numpy.generic)
    Shape = Union[SupportsIndex, tuple[SupportsIndex, ...], list[int]]

    class IndexedMemory(Protocol):
        """A memoryview of bytes, without the `Any` in the types of slices."""

        @overload
        def __getitem__(self, key: SupportsIndex, /) -> int: ...
        @overload
        def __getitem__(self, key: Slice, /) -> memoryview: ...
        def __setitem__(self, key: SupportsIndex | Slice, value: SupportsIndex | Data, /) -> None:
            """Store a byte or a slice."""

        def release(self) -> None:
            """Release the view."""


# Bind hot C functions once; saves an attribute lookup per call.
_guarded_persist = lib.guarded_persist
_guarded_flush = lib.guarded_flush
_guarded_drain = lib.guarded_drain
_guarded_flush_many = lib.guarded_flush_many
_guarded_publish = lib.guarded_publish
_guarded_acquire = lib.guarded_acquire
_guarded_get_byte = lib.guarded_get_byte
_guarded_set_byte = lib.guarded_set_byte
_guarded_read = lib.guarded_read
_guarded_write = lib.guarded_write
_guarded_memmove = lib.guarded_memmove
_guarded_load_u64 = lib.guarded_load_u64
_guarded_store_u64 = lib.guarded_store_u64
_guarded_compare_exchange_u64 = lib.guarded_compare_exchange_u64
_guarded_fetch_add_u64 = lib.guarded_fetch_add_u64

READ_WRITE = Protection.READ | Protection.WRITE
BYTES_PASS_ZERO_COPY = CPYTHON  # PyPy copies bytes that are passed as char *
DELTA_MIN = -(2**63)
FEW = 64  # bytes of a slice with a step: a call of C takes longer to begin, and less for each byte
UNTORN_LENGTHS = {2, 4, 8}  # stored by C, with one instruction if they are aligned
CHAR_ARRAY = ffi.typeof("char[]")


@final
@drop_attrs_init
@attrs.define(eq=False, init=False, repr=False, getstate_setstate=False)
class Map(Resource):
    """A mapped source: memory that can be read, written and made durable.

    Offsets and lengths are in bytes, relative to the beginning of the map. `m[i]` and `m[a:b]` work as those of a
    bytearray of fixed size; `view()` and `as_array()` return the memory itself, without a copy. A store is durable
    after `persist`; a copy is durable at return unless its flags say otherwise. See pmem2_map_new(3).
    """

    _handle: MapHandle
    _address: int
    _size: int
    _config: Config
    _buffer: memoryview | None
    _memory: IndexedMemory | None

    def __init__(self, source: Source, config: Config = Config()) -> None:
        """Map *source* as *config* says.

        The map does not need the descriptor, the source or the config afterwards.

        Raises:
            TypeError: *source* is no Source, or *config* no Config.
            ValueError: The source or the reservation is closed, *reservation_offset* is past its end, or the object is
                already initialised.
            GranularityNotSetError: The config requires no granularity.
            GranularityNotSupportedError: The source gives only a coarser granularity; the text says why.
            NosuppError: The granularity is CACHE_LINE, and libpmem2 cannot flush the caches of this processor.
            OffsetUnalignedError, LengthUnalignedError: Not a multiple of the alignment of the source.
            SourceEmptyError: There is nothing to map.
            MapRangeError: The range does not lie inside the source.
            NoAccessError: The descriptor does not allow the protection.
            SrcDevdaxPrivateError: A DAX device cannot be mapped PRIVATE.
            LengthOutOfRangeError, AddressUnalignedError, MappingExistsError: The range in the reservation is too
                small, not aligned as the device needs it, or in use.
            OSError: The system refused; EAGAIN when the process has no pthread keys left for one more map.
            RuntimeWarning: libpmem2 ignores the value of PMEM2_FORCE_GRANULARITY.

        See pmem2_map_new(3).
        """
        check_type(source, Source, "source")
        check_type(config, Config, "config")
        self._check_uninitialized()
        warn_if_ignored()
        self._buffer = self._memory = None
        self._config = config
        handle = alloc_map()
        try:
            create_map(handle, source._handle, map_request(source, config), source._name)
            self._attach(handle)
            if config.reservation is not None:
                config.reservation._add(handle.serial, self)
        except BaseException:
            lib.guarded_map_close(handle, 1, new_error_buffer())
            raise

    @classmethod
    def from_existing(cls, source: Source, buffer: Buffer, granularity: Granularity) -> Map:
        """Make a Map of memory that is already mapped; the caller states its granularity.

        Args:
            source: The source that is mapped there.
            buffer: The memory: an mmap, or any C-contiguous buffer. It stays alive and exported until the map is
                closed. (PyPy lets callers close an mmap and resize a bytearray all the same: do not.)
            granularity: The granularity of the memory; one that is too fine loses data on power failure.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: *buffer* is empty, *granularity* is unknown, or *source* is closed.
            BufferError: *buffer* is not C-contiguous.
            MapExistsError: The memory is part of another Map.
            NosuppError: *granularity* is CACHE_LINE, and libpmem2 cannot flush the caches of this processor.
            OSError: EAGAIN when the process has no pthread keys left for one more map.

        See pmem2_map_from_existing(3).
        """
        check_type(source, Source, "source")
        number = as_int(granularity, "granularity")
        if number not in tuple(Granularity):
            raise ValueError(f"granularity must be Granularity.BYTE, CACHE_LINE or PAGE, got {int_repr(number)}")
        view = view_of(buffer, "buffer")
        handle = alloc_map()
        try:
            return cls._from_view(handle, source, view, Granularity(number))
        except BaseException:
            lib.guarded_map_close(handle, 1, new_error_buffer())
            with suppress(BufferError):  # a frame of the traceback may hold an export
                view.release()
            raise

    @classmethod
    def _from_view(cls, handle: MapHandle, source: Source, view: memoryview, granularity: Granularity) -> Map:
        pointer, length = pointer_to(view)
        if length == 0:
            raise ValueError("buffer must not be empty")
        address = int(ffi.cast("uintptr_t", pointer))
        protection = Protection.READ if view.readonly else READ_WRITE
        self = cls.__new__(cls)
        self._buffer, self._memory = view, None
        self._config = Config(required_granularity=granularity)
        message = new_error_buffer()
        # Dropped maps that are not collected yet own pthread keys, or the memory.
        rc = retry_after_gc(
            (-errno.EAGAIN, ErrorCode.MAP_EXISTS),
            lib.guarded_map_from_existing,
            *(handle, source._handle, address, length, granularity, protection, message),
        )
        if rc:
            asked = f"cannot make a Map of {length} bytes at {address:#x}"
            raise error_from_rc(rc, "pmem2_map_from_existing", asked, message, MAP_HINTS)
        self._attach(handle)
        return self

    def _attach(self, handle: MapHandle) -> None:
        self._address = handle.address
        self._size = handle.size
        self._handle = handle

    def _internal_view(self) -> IndexedMemory | None:
        """Return the view through which the map is indexed, or `None` where C does that.

        With CPython's lock, indexing a memoryview is one operation that no other thread can interrupt, and three times
        as fast as a call into C. No caller gets this view, and `close` releases it first.
        """
        if not HAS_GIL or not self._handle.protection & Protection.READ:
            return None
        try:
            return cast("IndexedMemory", self._pinned_view(0, self._size, self._handle, internal=True))
        except (BufferError, ValueError):  # pragma: no cover: another thread has closed the map
            return None

    def _pinned_view(self, start: int, count: int, owner: object, *, internal: bool = False) -> memoryview:
        """Return a view that pins the map; *owner* lives as long as the view does.

        Pinning is the last step and can be undone, so that an exception of a signal handler leaves nothing pinned. Nor
        does a variable keep the view or the pin: CPython 3.9 and 3.10 can handle a signal right before the return.
        """
        handle = self._handle  # read once: another thread that initialises the same Map may replace it
        pins = [new_pin()]
        views = [unpinned_view(handle, start, count, pins[0], owner)]
        try:
            rc = lib.guarded_pin_view(pins[0], handle, start, count, internal)
            if rc == 0:
                pins.clear()
                return views.pop()
        except BaseException:  # pragma: no cover: an exception of a signal handler
            views.clear()
            for pin in pins:
                lib.guarded_unpin(pin)
            raise
        raise self._range_error(rc, "pmem2_map_get_address", "view", start, count)

    # ---- properties

    @property
    def address(self) -> int:
        """The address of the first byte; see pmem2_map_get_address(3).

        Raises:
            ValueError: The map is closed.
        """
        self._check_open()
        return self._address

    @property
    def size(self) -> int:
        """The size in bytes; see pmem2_map_get_size(3).

        Raises:
            ValueError: The map is closed.
        """
        self._check_open()
        return self._size

    @property
    def granularity(self) -> Granularity:
        """The granularity of the map; see pmem2_map_get_store_granularity(3)."""
        return Granularity(self._handle.granularity)

    @property
    def protection(self) -> Protection:
        """What the map may be used for."""
        return Protection(self._handle.protection)

    @property
    def sharing(self) -> Sharing:
        """Whether stores reach the source."""
        return self._config.sharing

    @property
    def config(self) -> Config:
        """The Config that the map was made with."""
        return self._config

    @property
    def closed(self) -> bool:
        """Whether `close()` has succeeded."""
        return lib.guarded_map_closed(self._handle) != 0

    def __len__(self) -> int:
        """Return `size`."""
        return self.size

    def _check_open(self) -> None:
        if self.closed:
            raise self._error(lib.GUARD_CLOSED, "pmem2_map_get_address", "use")

    def _error(self, rc: int, function: str, action: str) -> Exception:
        return error_from_rc(rc, function, f"cannot {action} {self!r}")

    def _range_error(
        self, rc: int, function: str, action: str, offset: SupportsIndex, length: SupportsIndex | None
    ) -> Exception:
        """Return the exception for an operation on one range."""
        if rc == lib.GUARD_RANGE:
            return ValueError(f"range {offset}+{length} ends beyond the map of {self._size} bytes")
        return self._error(rc, function, f"{action} {length} bytes at {offset} of")

    def _range(self, offset: SupportsIndex, length: SupportsIndex | None) -> tuple[int, int]:
        """Return a range as C takes it; C checks that it lies inside the map."""
        start = as_size(offset, "offset")
        return start, max(self._size - start, 0) if length is None else as_size(length, "length")

    def _span(self, offset: SupportsIndex | Memory | Map, length: SupportsIndex | None) -> tuple[int, int]:
        """Return a range as `_range` does; *offset* may be a view or an array of this map instead of a number.

        Raises:
            TypeError: *offset* is neither, or there is a *length* with a view or an array.
            ValueError: The memory of the view or the array does not lie in this map.
        """
        if is_map(offset):
            address, count = offset._address, offset._size
        elif is_memory(offset):
            address, count = span_of(offset, "offset")
        else:
            return self._range(offset, length)
        if length is not None:
            raise TypeError(f"offset must be an integer if there is a length, not {type(offset).__name__}")
        start = address - self._address
        if not 0 <= start <= self._size - count:
            raise ValueError(f"offset must be a view or an array of this map, got {count} bytes of other memory")
        return start, count

    # ---- indexing

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: Slice, /) -> bytes: ...
    def __getitem__(self, key: SupportsIndex | Slice, /) -> int | bytes:
        """Return a byte as an int, or a slice as bytes: a copy.

        Raises:
            IndexError: The index is outside.
            TypeError: *key* is no index and no slice, or the map was made without READ.
            ValueError: The map is closed.
        """
        memory, kind = self._memory, type(key)
        if memory is not None:
            try:
                if kind is int:
                    return memory[key]  # type: ignore[return-value] # mypy does not narrow by `type`
                if kind is SLICE:
                    part: slice[int, int, int | None] = key  # type: ignore[assignment] # exceptions tell if they are not
                    if part.step is None:
                        return memory[part].tobytes()  # no local variable, which a traceback would keep
                    start, stop, step = part.start, part.stop, part.step
                    count = len(range(start, stop, step))
                    if 0 < count <= FEW:
                        return memory[part].tobytes()
                    if stop >= 0 and 0 < count <= self._size:
                        data = bytes(count)  # C may still store to it, as in `_read_slice`
                        if not _guarded_read(self._handle, start, step, count, data):
                            return data
            except (IndexError, OverflowError, TypeError, ValueError) as error:
                raise_if_deeper(error)  # else C finds the precise error, and whether the map is still open
        span = as_slice(key)
        result = self._read_byte(key) if span is None else self._read_slice(span)
        if memory is None:
            self._memory = self._internal_view()
        return result

    @overload
    def __setitem__(self, key: SupportsIndex, value: SupportsIndex, /) -> None: ...
    @overload
    def __setitem__(self, key: Slice, value: Data, /) -> None: ...
    def __setitem__(self, key: SupportsIndex | Slice, value: SupportsIndex | Data, /) -> None:
        """Store a byte, or a slice of the same length: a plain store, not flushed.

        Raises:
            IndexError: The index is outside.
            TypeError: *key* or *value* has a wrong type, or the map was made without WRITE.
            ValueError: The byte is not in 0..255, the slice has another length, or the map is closed.
            BufferError: *value* is not C-contiguous.
        """
        kind = type(key)  # an object can lie about its `__class__`
        try:
            if kind is SLICE and type(value) is bytes:
                part: slice[int, int, int | None] = key  # type: ignore[assignment] # exceptions tell if they are not
                start, stop, length = part.start or 0, part.stop, len(value)
                if part.step is None:
                    if length not in UNTORN_LENGTHS and (memory := self._memory) is not None:
                        if type(start) is int and type(stop) is int:  # no Python code could release the view now
                            memory[part] = value  # refuses another length
                            return
                    elif stop - start == length and not _guarded_write(self._handle, start, 1, length, value):
                        return
                elif length <= FEW:
                    if type(start) is type(stop) is type(part.step) is int and (memory := self._memory) is not None:
                        memory[part] = value
                        return
                elif (
                    stop >= 0
                    and len(range(start, stop, part.step)) == length
                    and not _guarded_write(self._handle, start, part.step, length, value)
                ):
                    return
            elif kind is int and type(value) is int and (memory := self._memory) is not None:
                memory[key] = value
                return
        except (IndexError, OverflowError, TypeError, ValueError) as error:
            raise_if_deeper(error)  # else the general way finds the precise error, and whether the map is still open
        span = as_slice(key)
        if span is None:
            self._write_byte(key, cast("SupportsIndex", value))
        else:
            self._write_slice(span, cast("Data", value))
        if self._memory is None:
            self._memory = self._internal_view()

    def _index(self, key: SupportsIndex | Slice) -> int:
        try:
            index = operator.index(cast("SupportsIndex", key))
        except TypeError as error:
            raise_if_deeper(error)
            raise TypeError(f"index must be an integer or a slice, not {type(key).__name__}") from None
        offset = index + self._size if index < 0 else index
        if not 0 <= offset < self._size:
            self._check_open()
            raise IndexError(f"index must be >= {-self._size} and < {self._size}, got {int_repr(index)}")
        return offset

    def _read_byte(self, key: SupportsIndex | Slice) -> int:
        byte = _guarded_get_byte(self._handle, self._index(key))
        if byte < 0:
            raise self._error(-byte, "pmem2_map_get_address", "read")
        return byte

    def _write_byte(self, key: SupportsIndex | Slice, value: SupportsIndex) -> None:
        byte = as_size(value, "byte", 255)
        rc = _guarded_set_byte(self._handle, self._index(key), byte)
        if rc:
            raise self._error(rc, "pmem2_map_get_address", "write to")

    def _read_slice(self, key: Slice) -> bytes:
        start, step, count = slice_parts(key, self._size)
        if CPYTHON and count > 1:
            data = bytes(count)  # C may still store to it: unlike b"" and single bytes, it is a new object
            rc = _guarded_read(self._handle, start, step, count, data)
        else:
            with scratch(count) as target:
                rc = _guarded_read(self._handle, start, step, count, target)
                data = ffi.unpack(target, count)
        if rc:
            raise self._error(rc, "pmem2_map_get_address", "read")
        return data

    def _write_slice(self, key: Slice, data: Data) -> None:
        if is_map(data):
            data = data[:]
        if type(data) is bytes and BYTES_PASS_ZERO_COPY:
            self._write_parts(key, data, len(data))
        else:
            with borrow(data) as memory, memory:
                # With a step, the data may be a view of this map and overlap: store a copy.
                source = memory if key.step is None else copy_of(memory)
                self._write_parts(key, source, len(memory))

    def _write_parts(self, key: Slice, source: CharPointer | bytes, length: int) -> None:
        start, step, count = slice_parts(key, self._size)
        if length != count:
            self._check_open()
            raise ValueError(f"data must have {count} bytes, the length of the slice, got {length}")
        rc = _guarded_write(self._handle, start, step, count, source)
        if rc:
            raise self._error(rc, "pmem2_map_get_address", "write to")

    def read_into(self, buffer: Buffer, offset: SupportsIndex = 0) -> None:
        """Copy out of the map, into the whole of a writable *buffer*; other threads run during the copy.

        Args:
            buffer: Any writable C-contiguous buffer.
            offset: Where the copied range begins, in bytes.

        Raises:
            TypeError: *buffer* is read-only or no buffer, *offset* is not an integer, or the map was made without READ.
            ValueError: The range does not lie inside the map, or the map is closed.
            BufferError: *buffer* is not C-contiguous.
        """
        start = as_size(offset, "offset")
        with borrow(buffer, "buffer", writable=True) as memory, memory:
            length = len(memory)
            rc = _guarded_read(self._handle, start, 1, length, memory)
        if rc:
            raise self._range_error(rc, "pmem2_map_get_address", "read", start, length)

    def find(self, sub: SupportsIndex | Buffer, start: SupportsIndex = 0, end: SupportsIndex | None = None) -> int:
        """Return the offset of the first occurrence of *sub*, or -1, as `bytearray.find` does.

        Args:
            sub: Any C-contiguous buffer, or one byte as an int.
            start: Where the searched range begins; negative numbers count from the end.
            end: Where it ends; `None` is the end of the map.

        Raises:
            TypeError: An argument has a wrong type, or the map was made without READ.
            ValueError: The byte is not in 0..255, or the map is closed.
            BufferError: *sub* is not C-contiguous.
        """
        if is_index(sub):
            sub = bytes((as_size(sub, "sub", 255),))
        first = as_int(start, "start")
        low, high = clip(first, None if end is None else as_int(end, "end"), self._size)
        is_past_end = high < low or first > self._size
        with borrow(sub, "sub") as wanted, wanted:
            place = lib.guarded_find(self._handle, low, max(high - low, 0), wanted, len(wanted))
        if place < -1:
            raise self._error(-1 - place, "pmem2_map_get_address", "search")
        return -1 if is_past_end else place

    def __contains__(self, item: SupportsIndex | Buffer, /) -> bool:
        """Return whether a byte or a sequence of bytes occurs in the map.

        Raises:
            TypeError, ValueError, BufferError: As `find`.
        """
        return self.find(item) >= 0

    # ---- views

    def view(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> memoryview:
        """Return the memory itself, read-only if the map was made without WRITE.

        A view, and every slice of it, keeps the map alive and open. `memoryview(m)`, and functions that take a buffer,
        need Python 3.12 or newer: pass them `m.view()` before.

        Args:
            offset: Where the view begins, in bytes.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError: A number has a wrong type, or the map was made without READ.
            ValueError: The range does not lie inside the map, or the map is closed.
        """
        start, count = self._range(offset, length)
        return self._pinned_view(start, count, self)

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int, /) -> memoryview:
            """Return `view()`, for `memoryview(m)` and C functions."""
            return self.view()

    @overload
    def as_array(
        self,
        dtype: type[Scalar] | numpy.dtype[Scalar],
        shape: Shape | None = None,
        offset: SupportsIndex = 0,
        order: Literal["C", "F"] = "C",
    ) -> NDArray[Scalar]: ...
    @overload
    def as_array(
        self,
        dtype: DTypeLike,
        shape: Shape | None = None,
        offset: SupportsIndex = 0,
        order: Literal["C", "F"] = "C",
    ) -> NDArray[numpy.generic]: ...
    def as_array(
        self,
        dtype: DTypeLike,
        shape: Shape | None = None,
        offset: SupportsIndex = 0,
        order: Literal["C", "F"] = "C",
    ) -> NDArray[numpy.generic]:
        """Return the memory as a NumPy array, without a copy; read-only if the map was made without WRITE.

        The array keeps the map alive and open. Pickling or copying it copies its bytes.

        Args:
            dtype: The type of the items.
            shape: A number, or a tuple or list of numbers; `None` is one dimension of all whole items.
            offset: The first item's place, in bytes.
            order: Which index changes fastest in memory: "C", the last, or "F", the first.

        Raises:
            ImportError: NumPy is not installed (`pip install pmem2[numpy]`).
            TypeError: The items hold Python objects, an argument has a wrong type, or the map was made without READ.
            ValueError: The array does not fit the map, the items have no size, the order is unknown, or the map is
                closed.
        """
        return view_as_array(self.view, self._size, dtype, shape, offset, order)  # type: ignore[misc] # it holds Any

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[numpy.generic]:
        """Return all bytes of the map, for `numpy.asarray(m)`: the memory itself, as `as_array("u1")` does.

        Raises:
            TypeError: The map was made without READ.
            ValueError: The map is closed, or NumPy would have to copy where *copy* forbids it.
        """
        return bytes_as_array(self.view, dtype, copy)  # type: ignore[misc] # NumPy's types hold Any

    # ---- durability

    @overload
    def persist(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None: ...
    @overload
    def persist(self, offset: Memory) -> None: ...
    def persist(self, offset: SupportsIndex | Memory = 0, length: SupportsIndex | None = None) -> None:
        """Make a range durable: flush it, then drain. See pmem2_get_persist_fn(3).

        Args:
            offset: Where the range begins, in bytes; or a view or an array of this map, from first to last byte.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError: An argument has a wrong type, or the map was made with neither READ nor WRITE.
            ValueError: The range, view or array does not lie inside the map, or the map is closed.
            OSError: On a PAGE map, writing back failed, in this call or in an earlier one.
        """
        if offset.__class__ is not int or length.__class__ is not int:
            offset, length = self._span(offset, length)
        try:
            rc = _guarded_persist(self._handle, offset, length)
        except OverflowError:
            self._span(offset, length)  # raises the precise error
            raise  # pragma: no cover
        if rc:
            raise self._range_error(rc, "pmem2_get_persist_fn", "persist", offset, length)

    @overload
    def flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None: ...
    @overload
    def flush(self, offset: Memory) -> None: ...
    def flush(self, offset: SupportsIndex | Memory = 0, length: SupportsIndex | None = None) -> None:
        """Begin to make a range durable; `drain` completes it. See pmem2_get_flush_fn(3).

        Args:
            offset: Where the range begins, in bytes; or a view or an array of this map, from first to last byte.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError, ValueError, OSError: As `persist`.
        """
        if offset.__class__ is not int or length.__class__ is not int:
            offset, length = self._span(offset, length)
        try:
            rc = _guarded_flush(self._handle, offset, length)
        except OverflowError:
            self._span(offset, length)  # raises the precise error
            raise  # pragma: no cover
        if rc:
            raise self._range_error(rc, "pmem2_get_flush_fn", "flush", offset, length)

    def drain(self) -> None:
        """Wait until all earlier flushes are durable. See pmem2_get_drain_fn(3).

        Raises:
            OSError: On a PAGE map, writing back has failed in an earlier call.
            TypeError: The map was made with neither READ nor WRITE.
            ValueError: The map is closed.
        """
        rc = _guarded_drain(self._handle)
        if rc:
            raise self._error(rc, "pmem2_get_drain_fn", "drain")

    @overload
    def deep_flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None: ...
    @overload
    def deep_flush(self, offset: Memory) -> None: ...
    def deep_flush(self, offset: SupportsIndex | Memory = 0, length: SupportsIndex | None = None) -> None:
        """Persist a range past the memory controller too, where the platform can; on PAGE the same as `persist`.

        See pmem2_deep_flush(3).

        Args:
            offset: Where the range begins, in bytes; or a view or an array of this map, from first to last byte.
            length: Bytes; `None` is to the end of the map.

        Raises:
            NosuppError: The source is anonymous.
            DaxRegionNotFoundError: No region of persistent memory backs the device.
            TypeError, ValueError, OSError: As `persist`.
        """
        start, count = self._span(offset, length)
        message = new_error_buffer()
        rc = lib.guarded_deep_flush(self._handle, start, count, message)
        if rc:
            if rc == lib.GUARD_RANGE:
                raise self._range_error(rc, "pmem2_deep_flush", "deep-flush", start, count)
            asked = f"cannot deep-flush {count} bytes at {start} of {self!r}"
            raise error_from_rc(rc, "pmem2_deep_flush", asked, message)

    def persist_many(self, ranges: Ranges) -> None:
        """Persist many ranges with one drain, after checking all of them.

        Args:
            ranges: Pairs of offset and length, or a C-contiguous buffer of unsigned 64-bit integers of the shape
                (n, 2) or (2n,), which is not copied.

        Raises:
            TypeError, ValueError, OSError: As `persist`. OSError(EMFILE): ranges are far apart, and the map gets no
                descriptor to wait for all of them at once.
        """
        self._flush_many(ranges, 1, "pmem2_get_persist_fn", "persist")

    def flush_many(self, ranges: Ranges) -> None:
        """Flush many ranges, as `persist_many` does but without the drain.

        Raises:
            TypeError, ValueError, OSError: As `persist`.
        """
        self._flush_many(ranges, 0, "pmem2_get_flush_fn", "flush")

    def _flush_many(self, ranges: Ranges, drain: int, function: str, action: str) -> None:
        with borrow_ranges(ranges) as numbers, numbers:
            count = len(numbers) // 2
            rc = _guarded_flush_many(self._handle, numbers, count, drain)
            if rc in NO_DESCRIPTORS:  # pragma: no cover: in a child of tests/safety
                rc = retry_after_gc(NO_DESCRIPTORS, _guarded_flush_many, self._handle, numbers, count, drain)
            if rc == lib.GUARD_RANGE:
                raise self._first_range_error(numbers)
        if rc:
            raise self._error(rc, function, f"{action} {count} ranges of")

    def _first_range_error(self, numbers: Uint64Array) -> Exception:
        """Return the exception for the first range that does not lie inside the map."""
        offset = length = 0  # another thread may have changed the numbers
        flat = iter(numbers)
        for offset, length in zip(flat, flat):
            if offset + length > self._size:
                break
        return self._range_error(lib.GUARD_RANGE, "", "", offset, length)

    # ---- memory that several hosts share

    @overload
    def publish(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None: ...
    @overload
    def publish(self, offset: Memory) -> None: ...
    def publish(self, offset: SupportsIndex | Memory = 0, length: SupportsIndex | None = None) -> None:
        """Write a range back to memory, past every cache of this host: other hosts that acquire it load the new bytes.

        It works on whole 64-byte lines, whatever the granularity, and is a full barrier. On a file it acts on the page
        cache of this host, and other hosts see nothing.

        Args:
            offset: Where the range begins, in bytes; or a view or an array of this map, from first to last byte.
            length: Bytes; `None` is to the end of the map.

        Raises:
            NosuppError: The processor has no instruction for it.
            TypeError: An argument has a wrong type, or the map was made without WRITE.
            ValueError: The range, view or array does not lie inside the map, or the map is closed.
        """
        if offset.__class__ is not int or length.__class__ is not int:
            offset, length = self._span(offset, length)
        try:
            rc = _guarded_publish(self._handle, offset, length)
        except OverflowError:
            self._span(offset, length)  # raises the precise error
            raise  # pragma: no cover
        if rc:
            raise self._cache_error(rc, "publish", offset, length)

    @overload
    def acquire(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None: ...
    @overload
    def acquire(self, offset: Memory) -> None: ...
    def acquire(self, offset: SupportsIndex | Memory = 0, length: SupportsIndex | None = None) -> None:
        """Drop a range from every cache of this host: the next load comes from memory, with what other hosts published.

        Changed lines are written back first: a host must not store to lines that another one stores to. It works on
        whole 64-byte lines, whatever the granularity, and is a full barrier. On a file it acts on the page cache of
        this host.

        Args:
            offset: Where the range begins, in bytes; or a view or an array of this map, from first to last byte.
            length: Bytes; `None` is to the end of the map.

        Raises:
            NosuppError: The processor has no instruction for it.
            TypeError: An argument has a wrong type, or the map was made without READ.
            ValueError: The range, view or array does not lie inside the map, or the map is closed.
        """
        if offset.__class__ is not int or length.__class__ is not int:
            offset, length = self._span(offset, length)
        try:
            rc = _guarded_acquire(self._handle, offset, length)
        except OverflowError:
            self._span(offset, length)  # raises the precise error
            raise  # pragma: no cover
        if rc:
            raise self._cache_error(rc, "acquire", offset, length)

    def _cache_error(self, rc: int, action: str, offset: SupportsIndex, length: SupportsIndex | None) -> Exception:
        if rc == lib.GUARD_RANGE:
            return self._range_error(rc, "", "", offset, length)
        asked = f"cannot {action} {length} bytes at {offset} of {self!r}"
        return error_from_rc(rc, f"guarded_{action}", asked, hints=CACHE_HINTS)

    def publish_many(self, ranges: Ranges) -> None:
        """Publish many ranges in one call, after checking all of them.

        Args:
            ranges: As in `persist_many`.

        Raises:
            NosuppError, TypeError, ValueError: As `publish`.
        """
        self._control_many(lib.guarded_publish_many, ranges, "publish")

    def acquire_many(self, ranges: Ranges) -> None:
        """Acquire many ranges in one call, after checking all of them.

        Args:
            ranges: As in `persist_many`.

        Raises:
            NosuppError, TypeError, ValueError: As `acquire`.
        """
        self._control_many(lib.guarded_acquire_many, ranges, "acquire")

    def _control_many(self, act: Callable[[MapHandle, Uint64Array, int], int], ranges: Ranges, action: str) -> None:
        with borrow_ranges(ranges) as numbers:
            count = len(numbers) // 2
            rc = act(self._handle, numbers, count)
            if rc == lib.GUARD_RANGE:
                raise self._first_range_error(numbers)
        if rc:
            asked = f"cannot {action} {count} ranges of {self!r}"
            raise error_from_rc(rc, f"guarded_{action}_many", asked, hints=CACHE_HINTS)

    # ---- copies

    def memcpy(self, offset: SupportsIndex, data: Data, flags: MemFlag = NO_FLAGS) -> None:
        """Copy *data* into the map; durable at return unless *flags* say otherwise. See pmem2_get_memcpy_fn(3).

        Args:
            offset: The place of the copy, in bytes.
            data: Any C-contiguous buffer, or a Map.
            flags: Members of `MemFlag`, joined with `|`.

        Raises:
            TypeError: An argument has a wrong type, or the map was made without WRITE.
            ValueError: The data does not fit, the flags exclude each other or are unknown, or a map is closed.
            BufferError: *data* is not C-contiguous.
            OSError: On a PAGE map, writing back failed, in this call or in an earlier one.
        """
        if offset.__class__ is not int:
            offset = as_size(offset, "offset")
        checked = 0 if flags is NO_FLAGS else check_mem_flags(flags)
        try:
            if type(data) is bytes and BYTES_PASS_ZERO_COPY:  # a subclass may lie about its class and length
                length = len(data)
                rc = _guarded_memmove(self._handle, offset, data, length, checked)
            elif is_map(data):
                length = data._size
                rc = lib.guarded_copy_map(self._handle, offset, data._copied_handle(), checked)
            else:
                with borrow(data) as memory, memory:
                    length = len(memory)
                    rc = _guarded_memmove(self._handle, offset, memory, length, checked)
        except OverflowError:
            as_size(offset, "offset")  # raises the precise error
            raise  # pragma: no cover: from Python 3.12 on, data may raise OverflowError
        if rc:
            raise self._range_error(rc, "pmem2_get_memcpy_fn", "copy", offset, length)

    def memmove(self, offset: SupportsIndex, data: Data, flags: MemFlag = NO_FLAGS) -> None:
        """Copy as `memcpy` does; *data* may be a view of this map and overlap. See pmem2_get_memmove_fn(3).

        Raises:
            TypeError, ValueError, BufferError, OSError: As `memcpy`.
        """
        self.memcpy(offset, data, flags)  # libpmem2 uses one function for both

    def memset(
        self, offset: SupportsIndex, value: SupportsIndex, length: SupportsIndex, flags: MemFlag = NO_FLAGS
    ) -> None:
        """Fill a range with one byte; durable at return unless *flags* say otherwise. See pmem2_get_memset_fn(3).

        Args:
            offset: Where the range begins, in bytes.
            value: The byte, 0 to 255.
            length: Bytes.
            flags: Members of `MemFlag`, joined with `|`.

        Raises:
            TypeError, ValueError, OSError: As `memcpy`.
        """
        start, count = as_size(offset, "offset"), as_size(length, "length")
        byte, checked = as_size(value, "value", 255), 0 if flags is NO_FLAGS else check_mem_flags(flags)
        rc = lib.guarded_memset(self._handle, start, byte, count, checked)
        if rc:
            raise self._range_error(rc, "pmem2_get_memset_fn", "set", start, count)

    def memcpy_many(self, pieces: Iterable[tuple[SupportsIndex, Data]]) -> None:
        """Copy many pieces with one drain, after checking all of them.

        Args:
            pieces: Pairs of an offset and data as `memcpy` takes them.

        Raises:
            TypeError, ValueError, BufferError, OSError: As `memcpy`.
        """
        # Exhaust the caller's iterator before borrowing buffers.
        checked = [(as_size(offset, "offset"), data) for offset, data in pieces]
        exports: list[memoryview] = []
        try:
            try:
                rc, table = self._copy_pieces(checked, exports)
            finally:
                release_all(exports)
        finally:
            release_all(exports)  # again, in case a signal handler raised before the other call or in it
        if rc == lib.GUARD_RANGE:
            for start, _, length in table:  # pragma: no branch: one is outside
                if start + length > self._size:
                    raise self._range_error(rc, "pmem2_get_memcpy_fn", "copy", start, length)
        if rc:
            raise self._error(rc, "pmem2_get_memcpy_fn", f"copy {len(table)} pieces to")

    def _copy_pieces(self, pieces: list[tuple[int, Data]], exports: list[memoryview]) -> tuple[int, list[Piece]]:
        """Copy *pieces*; *exports* receives views that keep the memory in place.

        Each distinct map is entered once, however many pieces it has: the number of operations on a map is limited.
        """
        memory: dict[int, tuple[CharPointer, int]] = {}
        sources: dict[int, MapHandle] = {}
        for _, data in pieces:
            key = id(data)
            if key in memory:
                continue
            if is_map(data):
                sources[key] = handle = data._copied_handle()
                memory[key] = ffi.cast("char *", handle.address), handle.size
            else:
                export(data, exports)
                memory[key] = pointer_to(exports[-1])
        table = []
        for start, data in pieces:  # no comprehension: CPython 3.11 leaks arguments if it cannot allocate its closure
            table.append((start, *memory[id(data)]))
        handles = list(sources.values())
        arguments = self._handle, table, len(table), handles, len(handles)
        return retry_after_gc(NO_DESCRIPTORS, lib.guarded_memcpy_many, *arguments), table

    def _copied_handle(self) -> MapHandle:
        """Return the handle from which C copies the whole map to another one."""
        return self._handle

    # ---- hints

    def madvise(self, option: SupportsIndex, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Give the kernel a hint about the use of a range. See the man page of that system call.

        Args:
            option: A constant `MADV_*` of the module `mmap`, or its number.
            offset: Where the range begins, in bytes; it is widened to whole pages.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError: A number has a wrong type, or the map was made with neither READ nor WRITE.
            ValueError: The option can lose data or end the process, a number is negative or too large, the range does
                not lie inside the map, or the map is closed.
            OSError: The kernel refused: EINVAL for an option that it does not have for this memory; ENOSYS on Windows.
        """
        number = as_size(option, "option", ADVICE_MAX)
        check_advice(number, volatile=self._config.sharing is Sharing.PRIVATE or self._buffer is not None)
        start, count = self._range(offset, length)
        rc = lib.guarded_madvise(self._handle, number, start, count)
        if rc:
            raise self._range_error(rc, "madvise", f"advise the kernel ({number}) on", start, count)

    def prefault(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Fault a range in, so that no page fault slows down its first use; its contents stay.

        The pages of a map with WRITE are made ready for stores. In a PRIVATE map this copies them to memory; in a
        sparse file it allocates them. Other threads run during the call.

        Args:
            offset: Where the range begins, in bytes.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError: A number has a wrong type, or the map was made with neither READ nor WRITE.
            ValueError: The range does not lie inside the map, or the map is closed.
            OSError: Memory is short (ENOMEM); the disk is full, the file was truncated, or the medium fails (EFAULT).
        """
        start, count = self._range(offset, length)
        rc = lib.guarded_prefault(self._handle, start, count)
        if rc:
            raise self._range_error(rc, "prefault", "fault in", start, count)

    # ---- 8-byte atomics

    def load_u64(self, offset: SupportsIndex) -> int:
        """Load the 8 bytes at *offset* atomically, as an unsigned integer; the address must be a multiple of 8.

        Raises:
            TypeError: *offset* is not an integer, or the map was made without READ.
            ValueError: The address is unaligned or outside, or the map is closed.
        """
        if offset.__class__ is not int:
            offset = as_size(offset, "offset")
        try:
            value = _guarded_load_u64(self._handle, offset)
        except OverflowError:
            as_size(offset, "offset")  # raises the precise error
            raise  # pragma: no cover
        if value == SIZE_MAX and (rc := ffi.errno):
            raise self._range_error(rc, "pmem2_map_get_address", "load", offset, 8)
        return value

    def store_u64(self, offset: SupportsIndex, value: SupportsIndex, persist: bool = False) -> None:
        """Store 8 bytes atomically: after a power failure the old or the new value is there, never a mixture.

        Args:
            offset: The place, in bytes; the address must be a multiple of 8.
            value: An unsigned 64-bit integer.
            persist: Whether to persist them too.

        Raises:
            TypeError: A number has a wrong type, or the map was made without WRITE.
            ValueError: The address is unaligned or outside, the value is negative or too large, or the map is closed.
            OSError: On a PAGE map, writing back failed, in this call or in an earlier one.
        """
        if offset.__class__ is not int or value.__class__ is not int:
            offset, value = as_size(offset, "offset"), as_size(value, "value")
        try:
            rc = _guarded_store_u64(self._handle, offset, value, 1 if persist else 0)
        except OverflowError:
            as_size(offset, "offset"), as_size(value, "value")  # raise the precise error
            raise  # pragma: no cover
        if rc:
            raise self._range_error(rc, "pmem2_get_persist_fn", "store", offset, 8)

    def compare_exchange_u64(
        self, offset: SupportsIndex, expected: SupportsIndex, desired: SupportsIndex, persist: bool = False
    ) -> tuple[bool, int]:
        """Store *desired* if the 8 bytes at *offset* are *expected*; atomic for all threads and processes.

        Args:
            offset: The place, in bytes; the address must be a multiple of 8.
            expected: The value that must be there.
            desired: The value to store.
            persist: Whether to persist the 8 bytes too, swapped or not.

        Returns:
            Whether *desired* was stored, and the previous value.

        Raises:
            TypeError: A number has a wrong type, or the map was made without READ or without WRITE.
            ValueError, OSError: As `store_u64`.
        """
        if offset.__class__ is not int or expected.__class__ is not int or desired.__class__ is not int:
            offset, desired = as_size(offset, "offset"), as_size(desired, "desired")
            expected = as_size(expected, "expected")
        try:
            previous = _guarded_compare_exchange_u64(self._handle, offset, expected, desired, 1 if persist else 0)
        except OverflowError:
            as_size(offset, "offset"), as_size(desired, "desired"), as_size(expected, "expected")  # the precise error
            raise  # pragma: no cover
        if previous == SIZE_MAX and (rc := ffi.errno):
            raise self._range_error(rc, "pmem2_get_persist_fn", "exchange", offset, 8)
        return previous == expected, previous

    def fetch_add_u64(self, offset: SupportsIndex, delta: SupportsIndex, persist: bool = False) -> int:
        """Add to the 8 bytes at *offset*; atomic for all threads and processes; wraps at 2**64.

        Args:
            offset: The place, in bytes; the address must be a multiple of 8.
            delta: The number to add, from -2**63 to 2**64 - 1.
            persist: Whether to persist the sum too.

        Returns:
            The previous value.

        Raises:
            TypeError: A number has a wrong type, or the map was made without READ or without WRITE.
            ValueError, OSError: As `store_u64`.
        """
        if offset.__class__ is not int or delta.__class__ is not int:
            offset, delta = as_size(offset, "offset"), as_int(delta, "delta")
        try:
            previous = _guarded_fetch_add_u64(self._handle, offset, delta, 1 if persist else 0)
        except OverflowError:  # a negative delta too
            offset = as_size(offset, "offset")
            if not DELTA_MIN <= delta <= SIZE_MAX:
                raise ValueError(f"delta must be >= -2**63 and < 2**64, got {int_repr(delta)}") from None
            if delta >= 0:
                raise  # pragma: no cover: an exception of a signal handler
            previous = _guarded_fetch_add_u64(self._handle, offset, delta & SIZE_MAX, 1 if persist else 0)
        if previous == SIZE_MAX and (rc := ffi.errno):
            raise self._range_error(rc, "pmem2_get_persist_fn", "add to", offset, 8)
        return previous

    # ---- closing

    @overload
    def close(self, *, defer: Literal[False] = False) -> None: ...
    @overload
    def close(self, *, defer: Literal[True]) -> bool: ...
    def close(self, *, defer: bool = False) -> bool | None:
        """Unmap, without flushing. Closing twice does nothing. See pmem2_map_delete(3).

        Args:
            defer: Close even while views of the map are alive or another thread is inside an operation of it: no thread
                can enter the map any more, and the memory is unmapped when the last of them is gone. It never refuses
                and never collects garbage.

        Returns:
            With *defer*: whether the memory is unmapped now.

        Raises:
            BufferError: Views or arrays of the map are alive, or another thread is inside an operation of it; it
                stays open.
            OSError: The system refused; it stays open.
        """
        message = new_error_buffer()
        if defer:
            rc = self._close_once(1, message)
        else:
            rc = retry_after_gc((lib.GUARD_EXPORTED, lib.GUARD_BUSY), self._close_once, 0, message)
        if rc not in (0, lib.GUARD_CLOSED, lib.GUARD_DEFERRED):
            raise error_from_rc(rc, "pmem2_map_delete", f"cannot close {self!r}", message)
        if self._buffer is not None and rc == 0:
            self._buffer.release()
        if self._config.reservation is not None:
            self._config.reservation._remove(self._handle.serial)
        return lib.guarded_map_mapped(self._handle) == 0 if defer else None

    def _close_once(self, defer: int, message: CharArray) -> int:
        """Close, or return why not."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.release()
        return lib.guarded_map_close(self._handle, defer, message)

    def __del__(self) -> None:
        """Unmap existing memory before its owner goes, and warn about a map that was not closed."""
        try:
            Resource.__del__(self)
        finally:
            try:
                if self._buffer is not None:
                    lib.guarded_map_close(self._handle, 1, new_error_buffer())
            except AttributeError:
                pass  # __init__ raised before there was a handle

    def __repr__(self) -> str:
        """Return its size, address and granularity."""
        if self.closed:
            return "<pmem2.Map, closed>"
        return f"<pmem2.Map of {self._size} bytes at {self._address:#x}, {self.granularity.name} granularity>"


def is_map(data: object) -> TypeIs[Map]:
    """Return whether *data* is a Map; `isinstance` would believe its `__class__`."""
    return issubclass(type(data), Map)


def unpinned_view(handle: MapHandle, start: int, count: int, pin: Pin, owner: object) -> memoryview:
    """Return a view that *pin* does not pin yet; pinning refuses a range outside."""
    memory = pinned_pointer(ffi.cast("char *", handle.address + start), pin, owner)
    view = memoryview(ffi.buffer(memory, min(count, handle.size)))
    return view if handle.protection & Protection.WRITE else view.toreadonly()


def map_request(source: Source, config: Config) -> MapRequest:
    """Return *config* as C takes it; the descriptor of *source* decides a protection of `None`."""
    protection, reservation = config.protection, config.reservation
    if protection is None:
        read_only = config.sharing is Sharing.SHARED and not source._handle.writable
        protection = Protection.READ if read_only else READ_WRITE
    return MapRequest(
        lib.GUARD_GRANULARITY_UNSET if config.required_granularity is None else config.required_granularity,
        forced_in_c(),
        config.offset,
        config.length or 0,
        config.sharing,
        protection,
        ffi.NULL if reservation is None else reservation._handle,
        config.reservation_offset,
    )


def check_mappable(source: Source, config: Config) -> None:
    """Raise as `Map(source, config)` would; map nothing."""
    handle = alloc_map()
    create_map(handle, source._handle, map_request(source, config), source._name)
    lib.guarded_map_close(handle, 0, new_error_buffer())
