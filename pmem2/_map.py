# SPDX-License-Identifier: BSD-3-Clause
"""Map: a mapped source, memory that can be read, written and made durable."""

from __future__ import annotations

import operator
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, SupportsIndex, TypeVar, Union, cast, final, overload

import attrs

from pmem2._arrays import view_as_array
from pmem2._buffers import Ranges, borrow, borrow_ranges
from pmem2._checks import NO_FLAGS, SIZE_MAX, as_int, as_size, check_mem_flags, check_type, int_repr
from pmem2._config import Config
from pmem2._enums import Granularity, Protection, Sharing
from pmem2._error_map import error_from_rc, new_error_buffer
from pmem2._ffi import ffi, lib
from pmem2._granularity import warn_if_ignored
from pmem2._map_create import MapRequest, alloc_map, create_map
from pmem2._resource import CPYTHON, Resource, drop_attrs_init, gc_collect, pinned_pointer
from pmem2._slices import as_slice, slice_span
from pmem2._source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy
    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import Buffer

    from pmem2._ffi import CharPointer, MapHandle, Pin, Uint64Array
    from pmem2._slices import Slice

    Data = Union[Buffer, "Map"]
    Scalar = TypeVar("Scalar", bound=numpy.generic)
    Shape = Union[SupportsIndex, tuple[SupportsIndex, ...]]

# Bind hot C functions once; saves an attribute lookup per call.
_guarded_persist = lib.guarded_persist
_guarded_flush = lib.guarded_flush
_guarded_drain = lib.guarded_drain
_guarded_flush_many = lib.guarded_flush_many
_guarded_memmove = lib.guarded_memmove
_guarded_store_u64 = lib.guarded_store_u64
_release = ffi.release

READ_WRITE = Protection.READ | Protection.WRITE
BYTES_PASS_ZERO_COPY = CPYTHON  # PyPy copies bytes that are passed as char *


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

    def __init__(self, source: Source, config: Config = Config()) -> None:
        """Map *source* as *config* says.

        The map does not need the descriptor, the source or the config afterwards.

        Raises:
            TypeError: *source* is no Source, or *config* no Config.
            ValueError: The source or the reservation is closed, *reservation_offset* is past its end, or the object is
                already initialised.
            GranularityNotSetError: The config requires no granularity.
            GranularityNotSupportedError: The source gives only a coarser granularity; the text says why.
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
        handle = create_map(source._handle, map_request(source, config), source._name)
        self._buffer = None
        self._config = config
        self._attach(handle)
        if config.reservation is not None:
            config.reservation._add(handle.serial, self)

    @classmethod
    def from_existing(cls, source: Source, buffer: Buffer, granularity: SupportsIndex) -> Map:
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
            OSError: EAGAIN when the process has no pthread keys left for one more map.

        See pmem2_map_from_existing(3).
        """
        check_type(source, Source, "source")
        number = as_int(granularity, "granularity")
        if number not in tuple(Granularity):
            raise ValueError(f"granularity must be Granularity.BYTE, CACHE_LINE or PAGE, got {int_repr(number)}")
        view = memoryview(buffer)
        try:
            return cls._from_view(source, view, Granularity(number))
        except BaseException:
            view.release()
            raise

    @classmethod
    def _from_view(cls, source: Source, view: memoryview, granularity: Granularity) -> Map:
        with borrow(view) as borrowed:
            address, length = int(ffi.cast("uintptr_t", borrowed)), len(borrowed)
        if length == 0:
            raise ValueError("buffer must not be empty")
        protection = Protection.READ if view.readonly else READ_WRITE
        self = cls.__new__(cls)
        self._buffer = view
        self._config = Config(required_granularity=granularity)
        handle = alloc_map()
        message = new_error_buffer()
        rc = lib.guarded_map_from_existing(handle, source._handle, address, length, granularity, protection, message)
        if rc:
            asked = f"cannot make a Map of {length} bytes at {address:#x}"
            raise error_from_rc(rc, "pmem2_map_from_existing", asked, message)
        self._attach(handle)
        return self

    def _attach(self, handle: MapHandle) -> None:
        self._address = handle.address
        self._size = handle.size
        self._handle = handle

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
        span = as_slice(key)
        if span is not None:
            return self._read(span)
        byte = lib.guarded_get_byte(self._handle, self._index(key))
        if byte < 0:
            raise self._error(-byte, "pmem2_map_get_address", "read")
        return byte

    def __setitem__(self, key: SupportsIndex | Slice, value: SupportsIndex | Data, /) -> None:
        """Store a byte, or a slice of the same length: a plain store, not flushed.

        Raises:
            IndexError: The index is outside.
            TypeError: *key* or *value* has a wrong type, or the map was made without WRITE.
            ValueError: The byte is not in 0..255, the slice has another length, or the map is closed.
            BufferError: *value* is not C-contiguous.
        """
        span = as_slice(key)
        if span is not None:
            self._write(span, cast("Data", value))
            return
        byte = bytes((as_size(cast("SupportsIndex", value), "byte", 255),))
        rc = lib.guarded_store(self._handle, self._index(key), byte, 1)
        if rc:
            raise self._error(rc, "pmem2_map_get_address", "write to")

    def _index(self, key: SupportsIndex | Slice) -> int:
        index = operator.index(cast("SupportsIndex", key))
        offset = index + self._size if index < 0 else index
        if not 0 <= offset < self._size:
            self._check_open()
            raise IndexError(f"index must be >= {-self._size} and < {self._size}, got {int_repr(index)}")
        return offset

    def _read(self, key: Slice) -> bytes:
        low, length, step = slice_span(key, self._size)
        with self._pinned(Protection.READ, low, length) as memory:
            span = ffi.buffer(memory, length)
            # For small steps, copying the span and slicing it beats a strided copy.
            return span[:][::step] if abs(step) < 64 else bytes(memoryview(span)[::step])

    def _write(self, key: Slice, data: Data) -> None:
        low, length, step = slice_span(key, self._size)
        with borrowed(data) as (source, given):
            wanted = len(range(0, length, abs(step)))
            if given != wanted:
                self._check_open()
                raise ValueError(f"data must have {wanted} bytes, the length of the slice, got {given}")
            if step == 1:
                rc = lib.guarded_store(self._handle, low, source, length)
                if rc:
                    raise self._error(rc, "pmem2_map_get_address", "write to")
                return
            with self._pinned(Protection.WRITE, low, length) as memory:
                memoryview(ffi.buffer(memory, length))[::step] = ffi.buffer(source, given)[:]

    @contextmanager
    def _pinned(self, need: Protection, offset: int, length: int) -> Iterator[CharPointer]:
        """Yield the address of a range; the map cannot be closed while the block runs."""
        pin, handle = new_pin(), self._handle
        rc = lib.guarded_pin_operation(pin, handle, need, offset, length)
        if rc:
            raise self._error(rc, "pmem2_map_get_address", "read" if need is Protection.READ else "write to")
        try:
            yield ffi.cast("char *", handle.address + offset)
        finally:
            lib.guarded_unpin(pin)

    # ---- views

    def view(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> memoryview:
        """Return the memory itself, read-only if the map was made without WRITE.

        A view, and every slice of it, keeps the map alive and open.

        Args:
            offset: Where the view begins, in bytes.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError: A number has a wrong type, or the map was made without READ.
            ValueError: The range does not lie inside the map, or the map is closed.
        """
        start, count = self._range(offset, length)
        pin, handle = new_pin(), self._handle
        rc = lib.guarded_pin_view(pin, handle, start, count)
        if rc:
            raise self._range_error(rc, "pmem2_map_get_address", "view", start, count)
        memory = pinned_pointer(ffi.cast("char *", handle.address + start), pin, self)
        view = memoryview(ffi.buffer(memory, count))
        return view if handle.protection & Protection.WRITE else view.toreadonly()

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int, /) -> memoryview:
            """Return `view()`, for `memoryview(m)` and C functions."""
            return self.view()

    @overload
    def as_array(
        self, dtype: type[Scalar] | numpy.dtype[Scalar], shape: Shape | None = None, offset: SupportsIndex = 0
    ) -> NDArray[Scalar]: ...
    @overload
    def as_array(
        self, dtype: DTypeLike, shape: Shape | None = None, offset: SupportsIndex = 0
    ) -> NDArray[numpy.generic]: ...
    def as_array(
        self, dtype: DTypeLike, shape: Shape | None = None, offset: SupportsIndex = 0
    ) -> NDArray[numpy.generic]:
        """Return the memory as a NumPy array, without a copy; read-only if the map was made without WRITE.

        Args:
            dtype: The type of the items.
            shape: A number, or a tuple of numbers; `None` is one dimension of all whole items.
            offset: The first item's place, in bytes.

        Raises:
            ImportError: NumPy is not installed (`pip install pmem2[numpy]`).
            TypeError: The items hold Python objects, an argument has a wrong type, or the map was made without READ.
            ValueError: The array does not fit the map, the items have no size, or the map is closed.
        """
        return view_as_array(self.view, self._size, dtype, shape, offset)  # type: ignore[misc] # NumPy's types hold Any

    # ---- durability

    def persist(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Make a range durable: flush it, then drain. See pmem2_get_persist_fn(3).

        Args:
            offset: Where the range begins, in bytes.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError: A number has a wrong type, or the map was made with neither READ nor WRITE.
            ValueError: The range does not lie inside the map, or the map is closed.
            OSError: On a PAGE map, writing back failed, in this call or in an earlier one.
        """
        if offset.__class__ is not int or length.__class__ is not int:
            offset, length = self._range(offset, length)
        try:
            rc = _guarded_persist(self._handle, offset, length)
        except OverflowError:
            self._range(offset, length)  # raises the precise error
            raise  # pragma: no cover
        if rc:
            raise self._range_error(rc, "pmem2_get_persist_fn", "persist", offset, length)

    def flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Begin to make a range durable; `drain` completes it. See pmem2_get_flush_fn(3).

        Args:
            offset: Where the range begins, in bytes.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError, ValueError, OSError: As `persist`.
        """
        if offset.__class__ is not int or length.__class__ is not int:
            offset, length = self._range(offset, length)
        try:
            rc = _guarded_flush(self._handle, offset, length)
        except OverflowError:
            self._range(offset, length)  # raises the precise error
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

    def deep_flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Persist a range past the memory controller too, where the platform can; on PAGE the same as `persist`.

        See pmem2_deep_flush(3).

        Args:
            offset: Where the range begins, in bytes.
            length: Bytes; `None` is to the end of the map.

        Raises:
            NosuppError: The source is anonymous.
            DaxRegionNotFoundError: No region of persistent memory backs the device.
            TypeError, ValueError, OSError: As `persist`.
        """
        start, count = self._range(offset, length)
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
            TypeError, ValueError, OSError: As `persist`.
        """
        self._flush_many(ranges, 1, "pmem2_get_persist_fn", "persist")

    def flush_many(self, ranges: Ranges) -> None:
        """Flush many ranges, as `persist_many` does but without the drain.

        Raises:
            TypeError, ValueError, OSError: As `persist`.
        """
        self._flush_many(ranges, 0, "pmem2_get_flush_fn", "flush")

    def _flush_many(self, ranges: Ranges, drain: int, function: str, action: str) -> None:
        numbers = borrow_ranges(ranges)
        try:
            count = len(numbers) // 2
            rc = _guarded_flush_many(self._handle, numbers, count, drain)
            if rc == lib.GUARD_RANGE:
                raise self._first_range_error(numbers)
        finally:
            _release(numbers)
        if rc:
            raise self._error(rc, function, f"{action} {count} ranges of")

    def _first_range_error(self, numbers: Uint64Array) -> Exception:
        """Return the exception for the first range that does not lie inside the map."""
        flat = iter(numbers)
        outside = next((pair for pair in zip(flat, flat) if sum(pair) > self._size), (0, 0))
        return self._range_error(lib.GUARD_RANGE, "", "", *outside)

    # ---- copies

    def memcpy(self, offset: SupportsIndex, data: Data, flags: SupportsIndex = NO_FLAGS) -> None:
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
            elif isinstance(data, Map):
                length = data._size
                with data._pinned(Protection.READ, 0, length) as memory:
                    rc = _guarded_memmove(self._handle, offset, memory, length, checked)
            else:
                memory = borrow(data)
                try:
                    length = len(memory)
                    rc = _guarded_memmove(self._handle, offset, memory, length, checked)
                finally:
                    _release(memory)
        except OverflowError:
            as_size(offset, "offset")  # raises the precise error
            raise  # pragma: no cover: from Python 3.12 on, data may raise OverflowError
        if rc:
            raise self._range_error(rc, "pmem2_get_memcpy_fn", "copy", offset, length)

    def memmove(self, offset: SupportsIndex, data: Data, flags: SupportsIndex = NO_FLAGS) -> None:
        """Copy as `memcpy` does; *data* may be a view of this map and overlap. See pmem2_get_memmove_fn(3).

        Raises:
            TypeError, ValueError, BufferError, OSError: As `memcpy`.
        """
        self.memcpy(offset, data, flags)  # libpmem2 uses one function for both

    def memset(
        self, offset: SupportsIndex, value: SupportsIndex, length: SupportsIndex, flags: SupportsIndex = NO_FLAGS
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
        with ExitStack() as stack:
            # Borrow each distinct buffer once: the number of operations on one map is limited.
            distinct = {id(data): data for _, data in checked}
            memory = {key: stack.enter_context(borrowed(data)) for key, data in distinct.items()}
            table = [(start, *memory[id(data)]) for start, data in checked]
            rc = lib.guarded_memcpy_many(self._handle, ffi.new("struct guarded_piece[]", table), len(table))
        if rc == lib.GUARD_RANGE:
            start, _, length = next(piece for piece in table if piece[0] + piece[2] > self._size)
            raise self._range_error(rc, "pmem2_get_memcpy_fn", "copy", start, length)
        if rc:
            raise self._error(rc, "pmem2_get_memcpy_fn", f"copy {len(table)} pieces to")

    # ---- 8-byte atomics

    def load_u64(self, offset: SupportsIndex) -> int:
        """Load the 8 bytes at *offset* atomically, as an unsigned integer; the address must be a multiple of 8.

        Raises:
            TypeError: *offset* is not an integer, or the map was made without READ.
            ValueError: The address is unaligned or outside, or the map is closed.
        """
        start, value = as_size(offset, "offset"), ffi.new("uint64_t *")
        rc = lib.guarded_load_u64(self._handle, start, value)
        if rc:
            raise self._range_error(rc, "pmem2_map_get_address", "load", start, 8)
        return value[0]

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
        start, number = as_size(offset, "offset"), as_size(desired, "desired")
        wanted = as_size(expected, "expected")
        previous = ffi.new("uint64_t *", wanted)
        rc = lib.guarded_compare_exchange_u64(self._handle, start, previous, number, bool(persist))
        if rc:
            raise self._range_error(rc, "pmem2_get_persist_fn", "exchange", start, 8)
        return previous[0] == wanted, previous[0]

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
        start, number = as_size(offset, "offset"), as_int(delta, "delta")
        if not -(2**63) <= number <= SIZE_MAX:
            raise ValueError(f"delta must be >= -2**63 and < 2**64, got {int_repr(number)}")
        previous = ffi.new("uint64_t *")
        rc = lib.guarded_fetch_add_u64(self._handle, start, number & SIZE_MAX, bool(persist), previous)
        if rc:
            raise self._range_error(rc, "pmem2_get_persist_fn", "add to", start, 8)
        return previous[0]

    # ---- closing

    def close(self) -> None:
        """Unmap, without flushing. Closing twice does nothing. See pmem2_map_delete(3).

        Raises:
            BufferError: Views or arrays of the map are alive, or another thread is inside an operation of it; it
                stays open.
            OSError: The system refused; it stays open.
        """
        message = new_error_buffer()
        rc = lib.guarded_map_close(self._handle, message)
        if rc in (lib.GUARD_EXPORTED, lib.GUARD_BUSY):
            gc_collect()
            rc = lib.guarded_map_close(self._handle, message)
        if rc and rc != lib.GUARD_CLOSED:
            raise error_from_rc(rc, "pmem2_map_delete", f"cannot close {self!r}", message)
        if self._buffer is not None:
            self._buffer.release()
        if self._config.reservation is not None:
            self._config.reservation._remove(self._handle.serial)

    def __del__(self) -> None:
        """Warn about a map that was not closed, and unmap existing memory before its owner goes."""
        Resource.__del__(self)
        try:
            if self._buffer is not None:
                lib.guarded_map_close(self._handle, new_error_buffer())
        except AttributeError:
            pass  # __init__ raised before there was a handle

    def __repr__(self) -> str:
        """Return its size, address and granularity."""
        if self.closed:
            return "<pmem2.Map, closed>"
        return f"<pmem2.Map of {self._size} bytes at {self._address:#x}, {self.granularity.name} granularity>"


def map_request(source: Source, config: Config) -> MapRequest:
    """Return *config* as C takes it; the descriptor of *source* decides a protection of `None`."""
    protection, reservation = config.protection, config.reservation
    if protection is None:
        read_only = config.sharing is Sharing.SHARED and not source._handle.writable
        protection = Protection.READ if read_only else READ_WRITE
    return MapRequest(
        lib.GUARD_GRANULARITY_UNSET if config.required_granularity is None else config.required_granularity,
        config.offset,
        config.length or 0,
        config.sharing,
        protection,
        ffi.NULL if reservation is None else reservation._handle,
        config.reservation_offset,
    )


def check_mappable(source: Source, config: Config) -> None:
    """Raise as `Map(source, config)` would; map nothing."""
    lib.guarded_map_close(create_map(source._handle, map_request(source, config), source._name), new_error_buffer())


def new_pin() -> Pin:
    """Return a pin that pins nothing yet; `ffi.gc` unpins it at the latest when it is collected."""
    return ffi.gc(ffi.new("struct guarded_pin *"), lib.guarded_unpin)


@contextmanager
def borrowed(data: Data) -> Iterator[tuple[CharPointer, int]]:
    """Yield address and length of the data of a copy; the memory stays in place while the block runs."""
    if isinstance(data, Map):
        length = data._size
        with data._pinned(Protection.READ, 0, length) as memory:
            yield memory, length
    else:
        with borrow(data) as memory:
            yield memory, len(memory)
