# SPDX-License-Identifier: BSD-3-Clause
"""VMReservation: where in memory to map."""

from __future__ import annotations

import errno
import weakref
from typing import TYPE_CHECKING, SupportsIndex, final

import attrs

from pmem2._checks import as_positive, as_size
from pmem2._enums import ErrorCode
from pmem2._error_map import HINTS, error_from_rc, new_error_buffer
from pmem2._ffi import ffi, lib
from pmem2._resource import Resource, drop_attrs_init, gc_collect, own

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pmem2._ffi import MapHandle, ReservationHandle
    from pmem2._map import Map

MAX_ADDRESS = 2**63 - 1
PAGE_MULTIPLE_HINT = "use a multiple of the page size"
RESERVATION_HINTS = {
    **HINTS,
    ErrorCode.NOSUPP: "give back a part at the beginning or the end, and close() the whole",
    ErrorCode.OFFSET_OUT_OF_RANGE: "stay inside the reservation",
    ErrorCode.OFFSET_UNALIGNED: PAGE_MULTIPLE_HINT,
    ErrorCode.LENGTH_UNALIGNED: PAGE_MULTIPLE_HINT,
}


@final
@drop_attrs_init
@attrs.define(eq=False, init=False, repr=False, getstate_setstate=False)
class VMReservation(Resource):
    """A range of addresses, kept free so that maps can be placed in it side by side.

    A Config with a `reservation` and a `reservation_offset` maps into it. A reservation outlives its maps.
    See pmem2_vm_reservation_new(3).
    """

    _handle: ReservationHandle
    _maps: weakref.WeakValueDictionary[int, Map]

    def __init__(self, size: SupportsIndex, address: SupportsIndex | None = None) -> None:
        """Reserve *size* bytes of addresses, at *address* or wherever there is room.

        Args:
            size: Bytes, a multiple of the page size.
            address: A multiple of the page size. libpmem2 keeps some more addresses behind the range for itself.

        Raises:
            LengthUnalignedError: *size* is not a multiple of the page size.
            AddressUnalignedError: *address* is not.
            MappingExistsError: Something is mapped there.
            OSError: There are not that many addresses.
            TypeError, ValueError: A number is of a wrong type, negative, 0 or too large; or this is a VMReservation
                already.

        See pmem2_vm_reservation_new(3).
        """
        self._check_uninitialized()
        number = as_positive(size, "size")
        place = 0 if address is None else as_size(address, "address")
        if place + number > MAX_ADDRESS:
            raise ValueError(f"size {number} at the address {place:#x} does not fit the address space")
        handle = own(lib.guarded_reservation_alloc(), lib.guarded_reservation_drop)
        message = new_error_buffer()
        rc = lib.guarded_reservation_new(handle, place, number, message)
        if rc:
            where = f" at {place:#x}" if place else ""
            # 1.12 returns -1 where its malloc fails; what the kernel calls EPERM is a low address that was asked for
            code = -errno.ENOMEM if rc == -errno.EPERM and not place else rc
            raise error_from_rc(
                code, "pmem2_vm_reservation_new", f"cannot reserve {number} bytes{where}", message, RESERVATION_HINTS
            )
        self._maps = weakref.WeakValueDictionary()
        self._handle = handle

    def _extent(self) -> tuple[int, int]:
        address, size = ffi.new("uintptr_t *"), ffi.new("size_t *")
        rc = lib.guarded_reservation_extent(self._handle, address, size)
        if rc:
            raise error_from_rc(rc, "pmem2_vm_reservation_get_address", "cannot look at the reservation")
        return address[0], size[0]

    @property
    def address(self) -> int:
        """Where it begins; see pmem2_vm_reservation_get_address(3).

        Raises:
            ValueError: It is closed.
        """
        return self._extent()[0]

    @property
    def size(self) -> int:
        """How many bytes it has; see pmem2_vm_reservation_get_size(3).

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
            TypeError, ValueError: *n* is of a wrong type, negative, 0 or too large; or the reservation is closed.
        """
        number = as_positive(n, "n")
        message = new_error_buffer()
        rc = lib.guarded_reservation_extend(self._handle, number, message)
        if rc:
            asked = f"cannot extend the reservation by {number} bytes"
            raise error_from_rc(rc, "pmem2_vm_reservation_extend", asked, message, RESERVATION_HINTS)

    def shrink(self, offset: SupportsIndex, size: SupportsIndex) -> None:
        """Give *size* bytes at *offset* back: a free part at the beginning or at the end, not the whole.

        Shrinking at the beginning moves `address` up; maps stay where they are. See pmem2_vm_reservation_shrink(3).

        Raises:
            OffsetUnalignedError, LengthUnalignedError: Not a multiple of the page size.
            OffsetOutOfRangeError, LengthOutOfRangeError: Not inside the reservation.
            NosuppError: The middle, or the whole.
            VmReservationNotEmptyError: A map lies there.
            TypeError, ValueError: A number is of a wrong type, negative, 0 or too large, *offset* is past the end, or
                the reservation is closed.
        """
        start, number = as_size(offset, "offset"), as_positive(size, "size")
        message = new_error_buffer()
        rc = lib.guarded_reservation_shrink(self._handle, start, number, message)
        if rc:
            asked = f"cannot shrink the reservation by {number} bytes at {start}"
            raise error_from_rc(rc, "pmem2_vm_reservation_shrink", asked, message, RESERVATION_HINTS)

    def find(self, offset: SupportsIndex, length: SupportsIndex) -> Map:
        """Return the first Map that overlaps *length* bytes at *offset*; see pmem2_vm_reservation_map_find(3).

        Raises:
            MappingNotFoundError: Nothing is mapped there.
            TypeError, ValueError: A number is of a wrong type, negative or too large, *offset* is past the end, or the
                reservation is closed.
        """
        start, number = as_size(offset, "offset"), as_size(length, "length")
        return self._find("pmem2_vm_reservation_map_find", lib.FIND_RANGE, start, number)

    def first(self) -> Map:
        """Return the Map at the lowest address; see pmem2_vm_reservation_map_find_first(3).

        Raises:
            MappingNotFoundError: There is none.
            ValueError: The reservation is closed.
        """
        return self._find("pmem2_vm_reservation_map_find_first", lib.FIND_FIRST)

    def last(self) -> Map:
        """Return the Map at the highest address; see pmem2_vm_reservation_map_find_last(3).

        Raises:
            MappingNotFoundError: There is none.
            ValueError: The reservation is closed.
        """
        return self._find("pmem2_vm_reservation_map_find_last", lib.FIND_LAST)

    def next(self, map: Map) -> Map:
        """Return the Map that follows *map*; see pmem2_vm_reservation_map_find_next(3).

        Raises:
            MappingNotFoundError: *map* is the last.
            TypeError: *map* is no Map.
            ValueError: *map* is closed or lies elsewhere, or the reservation is closed.
        """
        return self._find("pmem2_vm_reservation_map_find_next", lib.FIND_NEXT, origin=map_handle(map))

    def prev(self, map: Map) -> Map:
        """Return the Map before *map*; see pmem2_vm_reservation_map_find_prev(3).

        Raises:
            MappingNotFoundError: *map* is the first.
            TypeError: *map* is no Map.
            ValueError: *map* is closed or lies elsewhere, or the reservation is closed.
        """
        return self._find("pmem2_vm_reservation_map_find_prev", lib.FIND_PREV, origin=map_handle(map))

    def _find(self, function: str, how: int, offset: int = 0, length: int = 0, origin: MapHandle | None = None) -> Map:
        place = ffi.NULL if origin is None else origin
        serial = ffi.new("uint64_t *")
        for _attempt in (1, 2):
            message = new_error_buffer()
            rc = lib.guarded_reservation_find(self._handle, how, offset, length, place, serial, message)
            if rc:
                raise error_from_rc(rc, function, "cannot find a map in the reservation", message)
            found = self._maps.get(serial[0])
            if found is not None:
                return found
            gc_collect()  # a Map that was dropped and, on PyPy, is not yet collected
        raise error_from_rc(ErrorCode.MAPPING_NOT_FOUND, function, "cannot find a map in the reservation")

    def __iter__(self) -> Iterator[Map]:
        """Return the maps that lie in it now, in the order of their addresses.

        Raises:
            ValueError: The reservation is closed.
        """
        if self.closed:
            raise ValueError("cannot iterate over the reservation: it is closed")
        alive = [map for reference in self._maps.valuerefs() if (map := reference()) is not None and not map.closed]
        return iter(sorted(alive, key=address_of))

    def close(self) -> None:
        """Give the addresses back; see pmem2_vm_reservation_delete(3).

        Raises:
            VmReservationNotEmptyError: There are still maps in it; it stays open.
            OSError: The system refused.
        """
        message = new_error_buffer()
        rc = lib.guarded_reservation_close(self._handle, message)
        if rc == ErrorCode.VM_RESERVATION_NOT_EMPTY:
            gc_collect()  # a Map that was dropped and, on PyPy, is not yet collected
            rc = lib.guarded_reservation_close(self._handle, message)
        if rc and rc != lib.GUARD_CLOSED:
            raise error_from_rc(rc, "pmem2_vm_reservation_delete", "cannot close the reservation", message)

    def __repr__(self) -> str:
        """Return where it is."""
        if self.closed:
            return "<pmem2.VMReservation, closed>"
        address, size = self._extent()
        return f"<pmem2.VMReservation of {size} bytes at {address:#x}>"


def address_of(map: Map) -> int:
    """Return where a map lies, even if it has been closed meanwhile."""
    return map._address


def map_handle(map: Map) -> MapHandle:
    """Return the C handle of what ought to be a Map."""
    from pmem2._map import Map as MapType

    if not isinstance(map, MapType):
        raise TypeError(f"a Map is needed, not {type(map).__name__}")
    return map._handle
