# SPDX-License-Identifier: BSD-3-Clause
"""Map: the result of mapping a source; memory that can be written and made durable."""

from __future__ import annotations

import operator
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, SupportsIndex, TypeVar, Union, cast, final, overload

import attrs

from pmem2._arrays import view_as_array
from pmem2._buffers import Ranges, borrow, borrow_ranges
from pmem2._checks import NO_FLAGS, SIZE_MAX, as_int, as_size, check_mem_flags, int_repr
from pmem2._config import Config
from pmem2._enums import Granularity, Protection, Sharing
from pmem2._error_map import error_from_rc, new_error_buffer
from pmem2._ffi import ffi, lib
from pmem2._granularity import forced
from pmem2._map_create import READ_WRITE, alloc_map, create_map
from pmem2._resource import CPYTHON, Resource, drop_attrs_init, gc_collect, pinned_pointer
from pmem2._slices import as_slice, slice_span
from pmem2._source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy
    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import Buffer

    from pmem2._ffi import CharPointer, MapHandle, Pin
    from pmem2._slices import Slice

    Data = Union[Buffer, "Map"]
    Scalar = TypeVar("Scalar", bound=numpy.generic)
    Shape = Union[SupportsIndex, tuple[SupportsIndex, ...]]

# what is called most often, one look-up nearer
persist = lib.guarded_persist
flush = lib.guarded_flush
drain = lib.guarded_drain
flush_many = lib.guarded_flush_many
copy = lib.guarded_memmove
store_u64 = lib.guarded_store_u64
release = ffi.release

BYTES_PASS_ZERO_COPY = CPYTHON  # PyPy copies bytes that are passed as char *


@final
@drop_attrs_init
@attrs.define(eq=False, init=False, repr=False, getstate_setstate=False)
class Map(Resource):
    """A mapped source: memory to be read, written, and made durable.

    Offsets and lengths are in bytes, relative to the beginning of the map. `m[i]` and `m[a:b]` are those of a
    bytearray of fixed size, `view()` and `as_array()` are the memory itself without a copy. What is stored is durable
    after `persist`, or after a copy without flags that say otherwise. See pmem2_map_new(3).
    """

    _handle: MapHandle
    _address: int
    _size: int
    _config: Config
    _buffer: memoryview | None

    def __init__(self, source: Source, config: Config = Config()) -> None:
        """Map *source* as *config* says.

        The descriptor, the source and the config are not needed afterwards.

        Raises:
            TypeError: *source* is no Source, or *config* no Config.
            ValueError: One of them, or the reservation, is closed; or *reservation_offset* is past its end; or this is
                a Map already.
            GranularityNotSetError: The config requires none.
            GranularityNotSupportedError: The source gives only a coarser one; the text says why.
            OffsetUnalignedError, LengthUnalignedError: Not a multiple of the alignment of the source.
            SourceEmptyError: There is nothing to map.
            MapRangeError: The range does not lie inside the source.
            NoAccessError: The descriptor does not allow the protection.
            SrcDevdaxPrivateError: A DAX device cannot be mapped PRIVATE.
            LengthOutOfRangeError, AddressUnalignedError, MappingExistsError: The place in the reservation is too
                small, not aligned as the device needs it, or taken.
            OSError: The system refused; EAGAIN when the process has no pthread keys left for one more map.

        See pmem2_map_new(3).
        """
        if not isinstance(source, Source):
            raise TypeError(f"a Source is needed, not {type(source).__name__}")
        if not isinstance(config, Config):
            raise TypeError(f"a Config is needed, not {type(config).__name__}")
        self._check_uninitialized()
        if lib.guarded_force_granularity_ignored():
            forced()  # which warns
        handle = create_map(source, config)
        self._buffer = None
        self._config = config
        self._attach(handle)
        if config.reservation is not None:
            config.reservation._maps[handle.serial] = self

    @classmethod
    def from_existing(cls, source: Source, buffer: Buffer, granularity: SupportsIndex) -> Map:
        """Make a Map of memory that is mapped already, and of which the caller knows the granularity.

        Args:
            source: What the memory is a mapping of.
            buffer: The memory: an mmap, or any C-contiguous buffer. It is kept alive and exported until the map is
                closed. (PyPy lets an mmap be closed and a bytearray be resized all the same: do not.)
            granularity: What the caller claims; a claim that is too fine loses data on power failure.

        Raises:
            TypeError: An argument of a wrong type.
            ValueError: *buffer* is empty, *granularity* is unknown, or *source* is closed.
            BufferError: *buffer* is not C-contiguous.
            MapExistsError: The memory is part of another Map.
            OSError: EAGAIN when the process has no pthread keys left for one more map.

        See pmem2_map_from_existing(3).
        """
        if not isinstance(source, Source):
            raise TypeError(f"a Source is needed, not {type(source).__name__}")
        claim = as_int(granularity, "granularity")
        if claim not in tuple(Granularity):
            raise ValueError(f"{int_repr(claim)} is no granularity; use Granularity.BYTE, CACHE_LINE or PAGE")
        view = memoryview(buffer)
        try:
            return cls._from_view(source, view, Granularity(claim))
        except BaseException:
            view.release()
            raise

    @classmethod
    def _from_view(cls, source: Source, view: memoryview, claim: Granularity) -> Map:
        with borrow(view) as lent:
            address, length = int(ffi.cast("uintptr_t", lent)), len(lent)
        if length == 0:
            raise ValueError("the buffer is empty")
        protection = Protection.READ if view.readonly else READ_WRITE
        self = cls.__new__(cls)
        self._buffer = view
        self._config = Config(required_granularity=claim)
        handle = alloc_map()
        message = new_error_buffer()
        rc = lib.guarded_map_from_existing(handle, source._handle, address, length, claim, protection, message)
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
        """Where the map begins in memory; see pmem2_map_get_address(3).

        Raises:
            ValueError: The map is closed.
        """
        self._check_open()
        return self._address

    @property
    def size(self) -> int:
        """How many bytes are mapped; see pmem2_map_get_size(3).

        Raises:
            ValueError: The map is closed.
        """
        self._check_open()
        return self._size

    @property
    def granularity(self) -> Granularity:
        """The granularity that the map has; see pmem2_map_get_store_granularity(3)."""
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
        """What the map was made with."""
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

    def _error(self, code: int, function: str, what: str) -> Exception:
        return error_from_rc(code, function, f"cannot {what} {self!r}")

    def _range(self, offset: SupportsIndex, length: SupportsIndex | None) -> tuple[int, int]:
        """Return a range as C takes it; whether it lies inside is checked there."""
        start = as_size(offset, "offset")
        return start, max(self._size - start, 0) if length is None else as_size(length, "length")

    # ---- as a bytearray of fixed size

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: Slice, /) -> bytes: ...
    def __getitem__(self, key: SupportsIndex | Slice, /) -> int | bytes:
        """Return a byte as an int, or a slice as bytes: a copy.

        Raises:
            IndexError: The index is outside.
            TypeError: *key* is neither, or the map was made without READ.
            ValueError: The map is closed.
        """
        places = as_slice(key)
        if places is not None:
            return self._read(places)
        byte = lib.guarded_get_byte(self._handle, self._index(key))
        if byte < 0:
            raise self._error(-byte, "pmem2_map_get_address", "read")
        return byte

    def __setitem__(self, key: SupportsIndex | Slice, value: SupportsIndex | Data, /) -> None:
        """Store a byte, or a slice of the same length: a plain store, which nothing has flushed yet.

        Raises:
            IndexError: The index is outside.
            TypeError: *key* or *value* is of a wrong type, or the map was made without WRITE.
            ValueError: The byte is not in 0..255, the slice is of another length, or the map is closed.
            BufferError: *value* is not C-contiguous.
        """
        places = as_slice(key)
        if places is not None:
            self._write(places, cast("Data", value))
            return
        byte = bytes((as_int(cast("SupportsIndex", value), "the byte"),))
        rc = lib.guarded_store(self._handle, self._index(key), byte, 1)
        if rc:
            raise self._error(rc, "pmem2_map_get_address", "write to")

    def _index(self, key: SupportsIndex | Slice) -> int:
        index = operator.index(cast("SupportsIndex", key))
        place = index + self._size if index < 0 else index
        if not 0 <= place < self._size:
            self._check_open()
            raise IndexError(f"index {int_repr(index)} is outside {self!r}")
        return place

    def _read(self, key: Slice) -> bytes:
        low, length, step = slice_span(key, self._size)
        with self._operation(Protection.READ, low, length) as memory:
            bytes_ = ffi.buffer(memory, length)
            # with what lies between and then without is many times as fast as byte by byte, while that is not much
            return bytes_[:][::step] if abs(step) < 64 else bytes(memoryview(bytes_)[::step])

    def _write(self, key: Slice, data: Data) -> None:
        low, length, step = slice_span(key, self._size)
        with lent(data) as (source, given):
            expected = len(range(0, length, abs(step)))
            if given != expected:
                self._check_open()
                raise ValueError(f"{given} bytes cannot be stored in a slice of {expected}")
            if step == 1:
                rc = lib.guarded_store(self._handle, low, source, length)
                if rc:
                    raise self._error(rc, "pmem2_map_get_address", "write to")
                return
            with self._operation(Protection.WRITE, low, length) as memory:
                memoryview(ffi.buffer(memory, length))[::step] = ffi.buffer(source, given)[:]

    @contextmanager
    def _operation(self, need: Protection, offset: int, length: int) -> Iterator[CharPointer]:
        """Keep the map from being closed for as long as the block uses its memory."""
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
        """Return the memory itself; read-only if the map was made without WRITE.

        A view, and every slice of it, keeps the map alive and open.

        Args:
            offset: Where it begins, in bytes.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError: A number is of a wrong type, or the map was made without READ.
            ValueError: The range does not lie inside the map, or the map is closed.
        """
        start, count = self._range(offset, length)
        pin, handle = new_pin(), self._handle
        rc = lib.guarded_pin_view(pin, handle, start, count)
        if rc:
            raise self._error(rc, "pmem2_map_get_address", f"view {count} bytes at {start} of")
        memory = pinned_pointer(ffi.cast("char *", handle.address + start), pin, self)
        view = memoryview(ffi.buffer(memory, count))
        return view if handle.protection & Protection.WRITE else view.toreadonly()

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int, /) -> memoryview:
            """Return `view()`: what `memoryview(m)` and C functions see."""
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
            offset: Where the first item is, in bytes.

        Raises:
            ImportError: NumPy is not installed (`pip install pmem2[numpy]`).
            TypeError: The items hold Python objects, an argument is of a wrong type, or the map was made without READ.
            ValueError: The array does not fit the map, the items have no size, or the map is closed.
        """
        return view_as_array(self, dtype, shape, offset)  # type: ignore[misc] # NumPy's types hold Any

    # ---- durability

    def persist(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Make what was stored in a range durable: `flush` and `drain`. See pmem2_get_persist_fn(3).

        Args:
            offset: Where the range begins, in bytes.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError: A number is of a wrong type, or the map was made with neither READ nor WRITE.
            ValueError: The range does not lie inside the map, or the map is closed.
            OSError: On a PAGE map, writing back failed.
        """
        if offset.__class__ is not int or length.__class__ is not int:
            offset, length = self._range(offset, length)
        try:
            rc = persist(self._handle, offset, length)
        except OverflowError:
            self._range(offset, length)  # says what is wrong with them
            raise  # pragma: no cover: it has
        if rc:
            raise self._error(rc, "pmem2_get_persist_fn", f"persist {length} bytes at {offset} of")

    def flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Begin to make what was stored in a range durable; `drain` completes it. See pmem2_get_flush_fn(3).

        Args:
            offset: Where the range begins, in bytes.
            length: Bytes; `None` is to the end of the map.

        Raises:
            TypeError, ValueError, OSError: As `persist`.
        """
        if offset.__class__ is not int or length.__class__ is not int:
            offset, length = self._range(offset, length)
        try:
            rc = flush(self._handle, offset, length)
        except OverflowError:
            self._range(offset, length)  # says what is wrong with them
            raise  # pragma: no cover: it has
        if rc:
            raise self._error(rc, "pmem2_get_flush_fn", f"flush {length} bytes at {offset} of")

    def drain(self) -> None:
        """Wait until everything flushed before is durable. See pmem2_get_drain_fn(3).

        Raises:
            TypeError: The map was made with neither READ nor WRITE.
            ValueError: The map is closed.
        """
        rc = drain(self._handle)
        if rc:
            raise self._error(rc, "pmem2_get_drain_fn", "drain")

    def deep_flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Persist a range past the memory controller too, where the platform can; on PAGE it is `persist`.

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
            asked = f"cannot deep-flush {count} bytes at {start} of {self!r}"
            raise error_from_rc(rc, "pmem2_deep_flush", asked, message)

    def persist_many(self, ranges: Ranges) -> None:
        """Persist many ranges with one drain: all of them are checked before the first is flushed.

        Args:
            ranges: Pairs of offset and length; or a C-contiguous buffer of unsigned 64-bit integers, of the shape
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

    def _flush_many(self, ranges: Ranges, drain: int, function: str, what: str) -> None:
        numbers = borrow_ranges(ranges)
        try:
            count = len(numbers) // 2
            rc = flush_many(self._handle, numbers, count, drain)
        finally:
            release(numbers)
        if rc:
            raise self._error(rc, function, f"{what} {count} ranges of")

    # ---- copies

    def memcpy(self, offset: SupportsIndex, data: Data, flags: SupportsIndex = NO_FLAGS) -> None:
        """Copy *data* into the map; durable at return unless *flags* say otherwise. See pmem2_get_memcpy_fn(3).

        Args:
            offset: Where to, in bytes.
            data: Any C-contiguous buffer, or a Map.
            flags: Of `MemFlag`, joined with `|`.

        Raises:
            TypeError: An argument is of a wrong type, or the map was made without WRITE.
            ValueError: The data does not fit, the flags exclude each other or are unknown, or a map is closed.
            BufferError: *data* is not C-contiguous.
            OSError: On a PAGE map, writing back failed.
        """
        if offset.__class__ is not int:
            offset = as_size(offset, "offset")
        checked = 0 if flags is NO_FLAGS else check_mem_flags(flags)
        try:
            if type(data) is bytes and BYTES_PASS_ZERO_COPY:  # a subclass may say anything of its class and its length
                rc = copy(self._handle, offset, data, len(data), checked)
            elif isinstance(data, Map):
                length = data._size
                with data._operation(Protection.READ, 0, length) as memory:
                    rc = copy(self._handle, offset, memory, length, checked)
            else:
                memory = borrow(data)
                try:
                    rc = copy(self._handle, offset, memory, len(memory), checked)
                finally:
                    release(memory)
        except OverflowError:
            as_size(offset, "offset")  # says what is wrong with it
            raise  # pragma: no cover: from Python 3.12 on data may raise it
        if rc:
            raise self._error(rc, "pmem2_get_memcpy_fn", f"copy to {offset} of")

    def memmove(self, offset: SupportsIndex, data: Data, flags: SupportsIndex = NO_FLAGS) -> None:
        """Copy as `memcpy` does; *data* may be a view of this very map and overlap. See pmem2_get_memmove_fn(3).

        Raises:
            TypeError, ValueError, BufferError, OSError: As `memcpy`.
        """
        self.memcpy(offset, data, flags)  # libpmem2 has one function for both

    def memset(
        self, offset: SupportsIndex, value: SupportsIndex, length: SupportsIndex, flags: SupportsIndex = NO_FLAGS
    ) -> None:
        """Fill a range with one byte; durable at return unless *flags* say otherwise. See pmem2_get_memset_fn(3).

        Args:
            offset: Where the range begins, in bytes.
            value: The byte, 0 to 255.
            length: Bytes.
            flags: Of `MemFlag`, joined with `|`.

        Raises:
            TypeError, ValueError, OSError: As `memcpy`.
        """
        start, count = as_size(offset, "offset"), as_size(length, "length")
        byte, checked = as_size(value, "value", 255), 0 if flags is NO_FLAGS else check_mem_flags(flags)
        rc = lib.guarded_memset(self._handle, start, byte, count, checked)
        if rc:
            raise self._error(rc, "pmem2_get_memset_fn", f"set {count} bytes at {start} of")

    def memcpy_many(self, pieces: Iterable[tuple[SupportsIndex, Data]]) -> None:
        """Copy many pieces with one drain: all of them are checked before the first is copied.

        Args:
            pieces: Pairs of an offset and data as `memcpy` takes them.

        Raises:
            TypeError, ValueError, BufferError, OSError: As `memcpy`.
        """
        checked = [
            (as_size(offset, "offset"), data) for offset, data in pieces
        ]  # the caller's code, before anything is lent
        with ExitStack() as stack:  # each is lent once, however many pieces are of it
            places = {key: stack.enter_context(lent(data)) for key, data in {id(d): d for _, d in checked}.items()}
            table = [(start, *places[id(data)]) for start, data in checked]
            rc = lib.guarded_memcpy_many(self._handle, ffi.new("struct guarded_piece[]", table), len(table))
        if rc:
            raise self._error(rc, "pmem2_get_memcpy_fn", f"copy {len(table)} pieces to")

    # ---- 8-byte atomics

    def load_u64(self, offset: SupportsIndex) -> int:
        """Return the 8 bytes at *offset*, whose address must be a multiple of 8, as an unsigned integer.

        Raises:
            TypeError: *offset* is not an integer, or the map was made without READ.
            ValueError: The address is unaligned or outside, or the map is closed.
        """
        start, value = as_size(offset, "offset"), ffi.new("uint64_t *")
        rc = lib.guarded_load_u64(self._handle, start, value)
        if rc:
            raise self._error(rc, "pmem2_map_get_address", f"load 8 bytes at {start} of")
        return value[0]

    def store_u64(self, offset: SupportsIndex, value: SupportsIndex, persist: bool = False) -> None:
        """Store 8 bytes at once: after a power failure they are the old ones or the new ones, never torn.

        Args:
            offset: Where, in bytes; the address must be a multiple of 8.
            value: An unsigned 64-bit integer.
            persist: Whether to persist them too.

        Raises:
            TypeError: A number is of a wrong type, or the map was made without WRITE.
            ValueError: The address is unaligned or outside, the value negative or too large, or the map closed.
            OSError: On a PAGE map, writing back failed.
        """
        if offset.__class__ is not int or value.__class__ is not int:
            offset, value = as_size(offset, "offset"), as_size(value, "value")
        try:
            rc = store_u64(self._handle, offset, value, 1 if persist else 0)
        except OverflowError:
            as_size(offset, "offset"), as_size(value, "value")  # say what is wrong with them
            raise  # pragma: no cover: they have
        if rc:
            raise self._error(rc, "pmem2_get_persist_fn", f"store 8 bytes at {offset} of")

    def compare_exchange_u64(
        self, offset: SupportsIndex, expected: SupportsIndex, desired: SupportsIndex, persist: bool = False
    ) -> tuple[bool, int]:
        """Store *desired* if the 8 bytes at *offset* are *expected*, in one step for all threads and processes.

        Args:
            offset: Where, in bytes; the address must be a multiple of 8.
            expected: What must be there.
            desired: What to store.
            persist: Whether to persist what is there then, swapped or not.

        Returns:
            Whether it was stored, and what was there before.

        Raises:
            TypeError: A number is of a wrong type, or the map was made without READ or without WRITE.
            ValueError, OSError: As `store_u64`.
        """
        start, number = as_size(offset, "offset"), as_size(desired, "desired")
        wanted = as_size(expected, "expected")
        previous = ffi.new("uint64_t *", wanted)
        rc = lib.guarded_compare_exchange_u64(self._handle, start, previous, number, bool(persist))
        if rc:
            raise self._error(rc, "pmem2_get_persist_fn", f"exchange 8 bytes at {start} of")
        return previous[0] == wanted, previous[0]

    def fetch_add_u64(self, offset: SupportsIndex, delta: SupportsIndex, persist: bool = False) -> int:
        """Add to the 8 bytes at *offset*, in one step for all threads and processes; wraps at 2**64.

        Args:
            offset: Where, in bytes; the address must be a multiple of 8.
            delta: What to add, from -2**63 to 2**64 - 1.
            persist: Whether to persist the sum too.

        Returns:
            What was there before.

        Raises:
            TypeError: A number is of a wrong type, or the map was made without READ or without WRITE.
            ValueError, OSError: As `store_u64`.
        """
        start, number = as_size(offset, "offset"), as_int(delta, "delta")
        if not -(2**63) <= number <= SIZE_MAX:
            raise ValueError(f"delta must be from -2**63 to 2**64 - 1, and {int_repr(number)} is not")
        previous = ffi.new("uint64_t *")
        rc = lib.guarded_fetch_add_u64(self._handle, start, number & SIZE_MAX, bool(persist), previous)
        if rc:
            raise self._error(rc, "pmem2_get_persist_fn", f"add to 8 bytes at {start} of")
        return previous[0]

    # ---- end of life

    def close(self) -> None:
        """Unmap; a closed map is left alone. Does not flush. See pmem2_map_delete(3).

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
            self._config.reservation._maps.pop(self._handle.serial, None)

    def __del__(self) -> None:
        """Warn of a map that nobody closed, and let go of existing memory before its owner does."""
        Resource.__del__(self)
        try:
            if self._buffer is not None:
                lib.guarded_map_close(self._handle, new_error_buffer())
        except AttributeError:
            pass  # __init__ has raised before there was a handle

    def __repr__(self) -> str:
        """Return where it is."""
        if self.closed:
            return "<pmem2.Map, closed>"
        return f"<pmem2.Map of {self._size} bytes at {self._address:#x}, {self.granularity.name} granularity>"


def new_pin() -> Pin:
    """Return a pin that pins nothing yet; `ffi.gc` unpins it at the latest when it is collected."""
    return ffi.gc(ffi.new("struct guarded_pin *"), lib.guarded_unpin)


@contextmanager
def lent(data: Data) -> Iterator[tuple[CharPointer, int]]:
    """Yield address and length of what is to be copied, which stays where it is for as long as the block runs."""
    if isinstance(data, Map):
        length = data._size
        with data._operation(Protection.READ, 0, length) as memory:
            yield memory, length
    else:
        with borrow(data) as memory:
            yield memory, len(memory)
