# SPDX-License-Identifier: BSD-3-Clause
"""VMReservation: where in memory to map."""

from __future__ import annotations

import errno
import weakref
from typing import TYPE_CHECKING, ClassVar, SupportsIndex, final

import attrs

from pmem2._checks import as_positive, as_size
from pmem2._enums import ErrorCode
from pmem2._error_map import HINTS, error_from_rc, new_error_buffer
from pmem2._ffi import ffi, lib
from pmem2._resource import Resource, drop_attrs_init, gc_collect, own, retry_after_gc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmem2._ffi import MapHandle, ReservationHandle
    from pmem2._map import Map

MAX_ADDRESS = 2**63 - 1
MAP_HANDLE = ffi.typeof("struct guarded_map *")
PAGE_MULTIPLE_HINT = "use a multiple of the page size"
RESERVATION_HINTS = {
    **HINTS,
    ErrorCode.NOSUPP: "only a part at the beginning or the end can be given back; close() gives back the whole",
    ErrorCode.OFFSET_OUT_OF_RANGE: "stay inside the reservation",
    ErrorCode.OFFSET_UNALIGNED: PAGE_MULTIPLE_HINT,
    ErrorCode.LENGTH_UNALIGNED: PAGE_MULTIPLE_HINT,
}


@final
@drop_attrs_init
@attrs.define(eq=False, init=False, repr=False, getstate_setstate=False)
class VMReservation(Resource):
    """A reserved range of addresses in which maps can be placed side by side.

    A Config with a `reservation` and a `reservation_offset` maps into it. A reservation outlives its maps.
    See pmem2_vm_reservation_new(3).
    """

    _COPY_HINT: ClassVar[str] = (
        "its addresses belong to this process; to map a file in a reservation of another process, pass a Config "
        "without one, and open it there"
    )

    _handle: ReservationHandle
    _maps: dict[int, weakref.ref[Map]]

    def __init__(self, size: SupportsIndex, address: SupportsIndex | None = None) -> None:
        """Reserve *size* bytes of addresses, at *address* or where the system finds room.

        Args:
            size: Bytes, a multiple of the page size.
            address: A multiple of the page size. libpmem2 reserves some more addresses behind the range.

        Raises:
            LengthUnalignedError: *size* is not a multiple of the page size.
            AddressUnalignedError: *address* is not a multiple of the page size.
            MappingExistsError: Something is mapped there.
            OSError: There are not that many addresses.
            TypeError: A number has a wrong type.
            ValueError: A number is negative, 0 or too large, or the object is already initialised.

        See pmem2_vm_reservation_new(3).
        """
        self._check_uninitialized()
        length = as_positive(size, "size")
        start = 0 if address is None else as_size(address, "address")
        if start + length > MAX_ADDRESS:
            raise ValueError(f"address + size must be <= {MAX_ADDRESS:#x}, got {start:#x} + {length}")
        handle = own(lib.guarded_reservation_alloc(), lib.guarded_reservation_drop)
        message = new_error_buffer()
        rc = lib.guarded_reservation_new(handle, start, length, message)
        if rc:
            where = f" at {start:#x}" if start else ""
            # 1.12 returns -1 when its malloc fails; the kernel returns EPERM only for a low address that was asked for.
            code = -errno.ENOMEM if rc == -errno.EPERM and not start else rc
            asked = f"cannot reserve {length} bytes{where}"
            raise error_from_rc(code, "pmem2_vm_reservation_new", asked, message, RESERVATION_HINTS)
        self._maps = {}
        self._handle = handle

    def _extent(self) -> tuple[int, int]:
        address, size = ffi.new("uintptr_t *"), ffi.new("size_t *")
        rc = lib.guarded_reservation_extent(self._handle, address, size)
        if rc:
            raise error_from_rc(rc, "pmem2_vm_reservation_get_address", "cannot use the reservation")
        return address[0], size[0]

    @property
    def address(self) -> int:
        """The address of its first byte; see pmem2_vm_reservation_get_address(3).

        Raises:
            ValueError: It is closed.
        """
        return self._extent()[0]

    @property
    def size(self) -> int:
        """The size in bytes; see pmem2_vm_reservation_get_size(3).

        Raises:
            ValueError: It is closed.
        """
        return self._extent()[1]

    @property
    def closed(self) -> bool:
        """Whether `close()` has succeeded."""
        return lib.guarded_reservation_closed(self._handle) != 0

    def extend(self, n: SupportsIndex) -> None:
        """Grow at the end by *n* bytes; the address stays. See pmem2_vm_reservation_extend(3).

        Raises:
            LengthUnalignedError: *n* is not a multiple of the page size.
            MappingExistsError: Something is mapped behind it; nothing has changed.
            OSError: There are not that many addresses.
            TypeError: *n* has a wrong type.
            ValueError: *n* is negative, 0 or too large, or the reservation is closed.
        """
        length = as_positive(n, "n")
        message = new_error_buffer()
        rc = lib.guarded_reservation_extend(self._handle, length, message)
        if rc:
            asked = f"cannot extend the reservation by {length} bytes"
            raise error_from_rc(rc, "pmem2_vm_reservation_extend", asked, message, RESERVATION_HINTS)

    def shrink(self, offset: SupportsIndex, size: SupportsIndex) -> None:
        """Give back *size* bytes at *offset*: a free part at the beginning or at the end, not the whole.

        Shrinking at the beginning moves `address` up; maps stay where they are. See pmem2_vm_reservation_shrink(3).

        Raises:
            OffsetUnalignedError, LengthUnalignedError: Not a multiple of the page size.
            OffsetOutOfRangeError, LengthOutOfRangeError: Not inside the reservation.
            NosuppError: The range is in the middle, or the whole.
            VmReservationNotEmptyError: A map lies there.
            TypeError: A number has a wrong type.
            ValueError: A number is negative, 0 or too large, *offset* is past the end, or the reservation is closed.
        """
        start, length = as_size(offset, "offset"), as_positive(size, "size")
        message = new_error_buffer()
        rc = lib.guarded_reservation_shrink(self._handle, start, length, message)
        if rc:
            asked = f"cannot shrink the reservation by {length} bytes at {start}"
            raise error_from_rc(rc, "pmem2_vm_reservation_shrink", asked, message, RESERVATION_HINTS)

    def find(self, offset: SupportsIndex, length: SupportsIndex) -> Map:
        """Return the first Map that overlaps *length* bytes at *offset*; see pmem2_vm_reservation_map_find(3).

        Raises:
            MappingNotFoundError: Nothing is mapped there.
            TypeError: A number has a wrong type.
            ValueError: A number is negative or too large, *offset* is past the end, or the reservation is closed.
        """
        start, count = as_size(offset, "offset"), as_size(length, "length")
        return self._find("pmem2_vm_reservation_map_find", lib.FIND_RANGE, start, count)

    def first(self) -> Map:
        """Return the Map at the lowest address; see pmem2_vm_reservation_map_find_first(3).

        Raises:
            MappingNotFoundError: The reservation is empty.
            ValueError: The reservation is closed.
        """
        return self._find("pmem2_vm_reservation_map_find_first", lib.FIND_FIRST)

    def last(self) -> Map:
        """Return the Map at the highest address; see pmem2_vm_reservation_map_find_last(3).

        Raises:
            MappingNotFoundError: The reservation is empty.
            ValueError: The reservation is closed.
        """
        return self._find("pmem2_vm_reservation_map_find_last", lib.FIND_LAST)

    def next(self, map: Map) -> Map:
        """Return the Map that follows *map*; see pmem2_vm_reservation_map_find_next(3).

        Raises:
            MappingNotFoundError: *map* is the last.
            TypeError: *map* is no Map.
            ValueError: *map* is closed or lies outside, or the reservation is closed.
        """
        return self._find("pmem2_vm_reservation_map_find_next", lib.FIND_NEXT, origin=map_handle(map))

    def prev(self, map: Map) -> Map:
        """Return the Map before *map*; see pmem2_vm_reservation_map_find_prev(3).

        Raises:
            MappingNotFoundError: *map* is the first.
            TypeError: *map* is no Map.
            ValueError: *map* is closed or lies outside, or the reservation is closed.
        """
        return self._find("pmem2_vm_reservation_map_find_prev", lib.FIND_PREV, origin=map_handle(map))

    def _find(self, function: str, how: int, offset: int = 0, length: int = 0, origin: MapHandle | None = None) -> Map:
        origin_or_null = ffi.NULL if origin is None else origin
        serial = ffi.new("uint64_t *")
        for _attempt in (1, 2):
            message = new_error_buffer()
            rc = lib.guarded_reservation_find(self._handle, how, offset, length, origin_or_null, serial, message)
            if rc:
                raise error_from_rc(rc, function, "cannot find a map in the reservation", message)
            found = self._map_of(serial[0])
            if found is not None:
                return found
            gc_collect()  # the Map was dropped and is not yet collected (PyPy)
        raise error_from_rc(ErrorCode.MAPPING_NOT_FOUND, function, "cannot find a map in the reservation")

    def _add(self, serial: int, map: Map) -> None:
        """Enter *map*, whose handle has this serial number.

        Its weak reference has no callback, in which an exception would get lost: dropped maps are removed here, now
        and then.
        """
        self._maps[serial] = weakref.ref(map)
        count = len(self._maps)
        if count & (count - 1) == 0:
            for other in list(self._maps):
                if self._map_of(other) is None:
                    self._maps.pop(other, None)

    def _map_of(self, serial: int) -> Map | None:
        """Return the living map whose handle has this serial number."""
        reference = self._maps.get(serial)
        return None if reference is None else reference()

    def _remove(self, serial: int) -> None:
        """Remove the map whose handle has this serial number."""
        self._maps.pop(serial, None)

    def __iter__(self) -> Iterator[Map]:
        """Return the maps that lie in it now, in the order of their addresses.

        Raises:
            ValueError: The reservation is closed.
        """
        if self.closed:
            raise ValueError("cannot iterate over the reservation: it is closed")
        # Numbers alone: a list of (key, value) pairs starts the collector, whose finalizers change the dictionary.
        serials = list(self._maps)
        alive = [map for serial in serials if (map := self._map_of(serial)) is not None and not map.closed]
        return iter(sorted(alive, key=map_address))

    def close(self) -> None:
        """Give the addresses back. Closing twice does nothing. See pmem2_vm_reservation_delete(3).

        Raises:
            VmReservationNotEmptyError: There are maps in it; it stays open.
            OSError: The system refused.
        """
        message = new_error_buffer()
        # A map that was dropped may not be collected yet.
        refusals = (ErrorCode.VM_RESERVATION_NOT_EMPTY,)
        rc = retry_after_gc(refusals, lib.guarded_reservation_close, self._handle, message)
        if rc and rc != lib.GUARD_CLOSED:
            raise error_from_rc(rc, "pmem2_vm_reservation_delete", "cannot close the reservation", message)

    def __repr__(self) -> str:
        """Return its size and address."""
        if self.closed:
            return "<pmem2.VMReservation, closed>"
        address, size = self._extent()
        return f"<pmem2.VMReservation of {size} bytes at {address:#x}>"


def map_address(map: Map) -> int:
    """Return the address of a map; another thread may have closed it."""
    return map._address


def map_handle(map: Map) -> MapHandle:
    """Return the C handle of *map*.

    Raises:
        TypeError: *map* is no Map.
    """
    try:
        handle = map._handle
        if ffi.typeof(handle) is MAP_HANDLE:
            return handle
    except (AttributeError, TypeError):
        pass
    raise TypeError(f"map must be a Map, not {type(map).__name__}")
