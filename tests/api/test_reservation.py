# SPDX-License-Identifier: BSD-3-Clause
"""Reservations: making, searching, resizing and closing them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Callable

import pytest
from support.values import PAGE, Index, invalid_sizes, non_integers

import pmem2
from pmem2 import Config, Map, Source, VMReservation

PAGES = 16
SIZE = PAGES * PAGE
ROOM = 64 * 1024 * 1024  # libpmem2 needs free space behind a requested address


@pytest.fixture
def reservation() -> Iterator[VMReservation]:
    """A reservation of 16 pages."""
    with VMReservation(SIZE) as reservation:
        yield reservation


@pytest.fixture
def one_page() -> Iterator[Source]:
    """A source of one page of anonymous memory."""
    with Source.from_anon(PAGE) as source:
        yield source


@pytest.fixture
def map_page(reservation: VMReservation, one_page: Source) -> Iterator[Callable[[int], Map]]:
    """A function that maps a page at an index in the reservation, counted in pages."""
    with ExitStack() as stack:
        yield lambda index: stack.enter_context(
            one_page.map(Config(reservation=reservation, reservation_offset=index * PAGE))
        )


# ---- making one


def test_properties(reservation: VMReservation) -> None:
    """A reservation has an address and the requested size, and is open."""
    assert reservation.address % PAGE == 0
    assert reservation.address > 0
    assert type(reservation.address) is int
    assert reservation.size == SIZE
    assert reservation.closed is False


def test_requested_address() -> None:
    """A reservation lies at the requested address if that is free."""
    with VMReservation(ROOM) as reservation:
        address = reservation.address
    with VMReservation(SIZE, address) as reservation:
        assert reservation.address == address
        assert reservation.size == SIZE
    with VMReservation(size=Index(SIZE), address=Index(address)) as reservation:
        assert reservation.address == address
    with VMReservation(SIZE, None) as reservation:
        assert reservation.address > 0


def test_occupied_address(reservation: VMReservation) -> None:
    """An occupied address raises MappingExistsError."""
    with pytest.raises(pmem2.MappingExistsError) as caught:
        VMReservation(PAGE, reservation.address + PAGE)
    assert caught.value.code is pmem2.ErrorCode.MAPPING_EXISTS


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE + 1])
def test_unaligned_size(size: int) -> None:
    """A size that is not a multiple of the page size raises LengthUnalignedError."""
    with pytest.raises(pmem2.LengthUnalignedError):
        VMReservation(size)


def test_unaligned_address(reservation: VMReservation) -> None:
    """An address that is not a multiple of the page size raises AddressUnalignedError."""
    with pytest.raises(pmem2.AddressUnalignedError):
        VMReservation(PAGE, reservation.address + 1)


@pytest.mark.parametrize("size", [0, 2**63, 2**64 - PAGE, 2**64 - 1])
def test_impossible_size(size: int) -> None:
    """A size that is 0 or exceeds the address space raises ValueError."""
    with pytest.raises(ValueError, match="size"):
        VMReservation(size)


@pytest.mark.parametrize("address", [PAGE, 2**40, 2**63, 2**64 - PAGE])
def test_end_wraps(address: int) -> None:
    """A reservation that would wrap around the address space raises ValueError."""
    with pytest.raises(ValueError, match="address"):
        VMReservation(2**64 - PAGE, address)
    with pytest.raises(ValueError, match="address"):
        VMReservation(2**63 - PAGE, address)


@non_integers
def test_integer_of_wrong_type(reservation: VMReservation, wrong: int) -> None:
    """A bool, a float or another non-integer raises TypeError in every method and changes nothing."""
    calls: list[Callable[[], object]] = [
        lambda: VMReservation(wrong),
        lambda: VMReservation(PAGE, wrong),
        lambda: reservation.extend(wrong),
        lambda: reservation.shrink(wrong, PAGE),
        lambda: reservation.shrink(0, wrong),
        lambda: reservation.find(wrong, PAGE),
        lambda: reservation.find(0, wrong),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="integer"):
            call()
    assert reservation.size == SIZE


@invalid_sizes
def test_integer_out_of_range(reservation: VMReservation, outside: int) -> None:
    """A number that is negative or exceeds 64 bits raises ValueError in every method and changes nothing."""
    calls: list[Callable[[], object]] = [
        lambda: VMReservation(outside),
        lambda: VMReservation(PAGE, outside),
        lambda: reservation.extend(outside),
        lambda: reservation.shrink(outside, PAGE),
        lambda: reservation.shrink(0, outside),
        lambda: reservation.find(outside, PAGE),
        lambda: reservation.find(0, outside),
    ]
    for call in calls:
        with pytest.raises(ValueError):  # noqa: PT011 # Python or pmem2 raises it
            call()
    assert reservation.size == SIZE


def test_not_enough_address_space(reservation: VMReservation) -> None:
    """More addresses than are available raise OSError(ENOMEM)."""
    calls: list[Callable[[], object]] = [lambda: VMReservation(2**62), lambda: reservation.extend(2**62)]
    for call in calls:
        with pytest.raises(OSError, match="reserv") as caught:
            call()
        assert caught.value.errno == errno.ENOMEM
        assert not isinstance(caught.value, pmem2.Pmem2Error)
    assert reservation.size == SIZE


def test_attributes_are_read_only(reservation: VMReservation) -> None:
    """Setting a property or adding an attribute raises AttributeError."""
    for name in ("address", "size", "closed", "color"):
        with pytest.raises(AttributeError):
            setattr(reservation, name, 0)


def test_repr() -> None:
    """The repr shows size and address, and shows when the reservation is closed."""
    with VMReservation(SIZE) as reservation:
        assert str(SIZE) in repr(reservation)
        assert f"{reservation.address:#x}" in repr(reservation)
    assert "closed" in repr(reservation)


# ---- maps in a reservation


@pytest.mark.parametrize("index", [0, 1, 7, PAGES - 1])
def test_map_at_offset(reservation: VMReservation, map_page: Callable[[int], Map], index: int) -> None:
    """A map lies at the reservation_offset of its Config."""
    assert map_page(index).address == reservation.address + index * PAGE


def test_adjacent_maps(reservation: VMReservation, source: Source) -> None:
    """Parts of a source that are mapped at adjacent addresses hold the right bytes."""
    with source.map(Config(offset=PAGE, length=2 * PAGE, reservation=reservation)) as one:
        with source.map(Config(length=PAGE, reservation=reservation, reservation_offset=2 * PAGE)) as two:
            assert two.address == one.address + one.size
            one.memset(0, 1, 2 * PAGE)
            two.memset(0, 2, PAGE)
            assert source.pread_mcsafe(4 * PAGE) == b"\2" * PAGE + b"\1" * 2 * PAGE + bytes(PAGE)


def test_occupied_range(reservation: VMReservation, map_page: Callable[[int], Map]) -> None:
    """A range that a map occupies raises MappingExistsError until that map is closed."""
    map = map_page(3)
    with pytest.raises(pmem2.MappingExistsError):
        map_page(3)
    map.close()
    assert map_page(3).address == map.config.reservation_offset + reservation.address


@pytest.mark.parametrize("index", [PAGES - 1, PAGES])
def test_map_too_large(reservation: VMReservation, source: Source, index: int) -> None:
    """A map that exceeds the rest of the reservation raises LengthOutOfRangeError."""
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.map(Config(length=2 * PAGE, reservation=reservation, reservation_offset=index * PAGE))


@pytest.mark.parametrize("offset", [1, PAGE - 1, PAGE + 1, SIZE - 1])
def test_unaligned_offset(reservation: VMReservation, one_page: Source, offset: int) -> None:
    """An offset that is not a multiple of the page size raises OffsetUnalignedError."""
    with pytest.raises(pmem2.OffsetUnalignedError):
        one_page.map(Config(reservation=reservation, reservation_offset=offset))


@pytest.mark.parametrize("offset", [SIZE + 1, SIZE + PAGE, 2**63, 2**64 - PAGE])
def test_offset_past_the_end(reservation: VMReservation, offset: int) -> None:
    """find and shrink raise ValueError for an offset past the end."""
    calls: list[Callable[[], object]] = [
        lambda: reservation.find(offset, PAGE),
        lambda: reservation.find(offset, 0),
        lambda: reservation.shrink(offset, PAGE),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"past the end|outside|beyond"):
            call()


# ---- searches


SEARCHES: dict[str, Callable[[VMReservation], Map]] = {
    "find": lambda r: r.find(0, SIZE),
    "find at the end": lambda r: r.find(SIZE, PAGE),
    "find 0 bytes": lambda r: r.find(0, 0),
    "first": VMReservation.first,
    "last": VMReservation.last,
}


@pytest.mark.parametrize("name", SEARCHES)
def test_empty_reservation(reservation: VMReservation, name: str) -> None:
    """An empty reservation iterates over nothing, and every search raises MappingNotFoundError."""
    with pytest.raises(pmem2.MappingNotFoundError) as caught:
        SEARCHES[name](reservation)
    assert caught.value.code is pmem2.ErrorCode.MAPPING_NOT_FOUND
    assert list(reservation) == []


def test_find(reservation: VMReservation, map_page: Callable[[int], Map]) -> None:
    """find returns the first Map object that overlaps the range."""
    third, seventh = map_page(3), map_page(7)
    assert reservation.find(0, SIZE) is third
    assert reservation.find(3 * PAGE, PAGE) is third
    assert reservation.find(3 * PAGE + 5, 1) is third
    assert reservation.find(4 * PAGE - 1, 1) is third
    assert reservation.find(4 * PAGE, SIZE) is seventh
    assert reservation.find(0, 2**64 - 1) is third
    assert reservation.find(4 * PAGE, 2**64 - 1) is seventh
    assert reservation.find(offset=Index(0), length=Index(SIZE)) is third
    for offset, length in [(0, 3 * PAGE), (4 * PAGE, 3 * PAGE), (8 * PAGE, 8 * PAGE), (2 * PAGE, 1), (SIZE, 2**64 - 1)]:
        with pytest.raises(pmem2.MappingNotFoundError):
            reservation.find(offset, length)


def test_address_order(reservation: VMReservation, map_page: Callable[[int], Map]) -> None:
    """first, last, next, prev and iteration return the Map objects in address order."""
    made = {index: map_page(index) for index in (5, 2, 11, 0, 7)}
    ordered = [made[index] for index in sorted(made)]
    assert reservation.first() is ordered[0]
    assert reservation.last() is ordered[-1]
    for before, after in zip(ordered, ordered[1:]):
        assert reservation.next(before) is after
        assert reservation.prev(after) is before
    found = list(reservation)
    assert len(found) == len(ordered)
    assert all(one is other for one, other in zip(found, ordered))
    with pytest.raises(pmem2.MappingNotFoundError):
        reservation.next(ordered[-1])
    with pytest.raises(pmem2.MappingNotFoundError):
        reservation.prev(ordered[0])


def test_closed_map_is_skipped(reservation: VMReservation, map_page: Callable[[int], Map]) -> None:
    """Searches and iteration skip closed maps."""
    one, two, three = map_page(1), map_page(2), map_page(3)
    two.close()
    assert reservation.next(one) is three
    assert reservation.prev(three) is one
    assert list(reservation) == [one, three]
    with pytest.raises(pmem2.MappingNotFoundError):
        reservation.find(2 * PAGE, PAGE)


def test_found_map_is_original(reservation: VMReservation, map_page: Callable[[int], Map]) -> None:
    """Closing a map that a search returned closes the original map."""
    map = map_page(0)
    reservation.first().close()
    assert map.closed
    map.close()
    with pytest.raises(pmem2.MappingNotFoundError):
        reservation.first()


def test_changes_while_iterating(reservation: VMReservation, map_page: Callable[[int], Map]) -> None:
    """Maps may be closed and made during iteration."""
    maps = [map_page(index) for index in range(4)]
    for map in reservation:
        map.close()
        map_page(10 + map.config.reservation_offset // PAGE)
    assert all(map.closed for map in maps)
    assert [map.config.reservation_offset // PAGE for map in reservation] == [10, 11, 12, 13]


@pytest.mark.parametrize("method", [VMReservation.next, VMReservation.prev])
def test_neighbours_of_foreign_map(
    reservation: VMReservation,
    one_page: Source,
    map_page: Callable[[int], Map],
    method: Callable[[VMReservation, Map], Map],
) -> None:
    """next and prev raise ValueError for a closed map and for a map outside this reservation."""
    map_page(0)
    with VMReservation(SIZE) as other, one_page.map(Config(reservation=other)) as foreign, one_page.map() as free:
        with pytest.raises(ValueError, match="reservation"):
            method(reservation, foreign)
        with pytest.raises(ValueError, match="reservation"):
            method(reservation, free)
    closed = map_page(1)
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        method(reservation, closed)


@pytest.mark.parametrize("wrong", [None, 0, "map", Map, object()])
def test_neighbours_of_wrong_type(reservation: VMReservation, wrong: Map) -> None:
    """next and prev raise TypeError for an object that is not a Map."""
    with pytest.raises(TypeError, match="map must be a Map, not VMReservation"):
        reservation.next(reservation)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Map"):
        reservation.next(wrong)
    with pytest.raises(TypeError, match="Map"):
        reservation.prev(wrong)


# ---- extend and shrink


def test_extend() -> None:
    """extend grows a reservation at its end and keeps its address and maps."""
    with VMReservation(4 * SIZE) as reservation, Source.from_anon(PAGE) as one_page:
        reservation.shrink(SIZE, 3 * SIZE)
        address = reservation.address
        assert reservation.size == SIZE
        with one_page.map(Config(reservation=reservation)) as first:
            reservation.extend(SIZE)
            assert (reservation.address, reservation.size) == (address, 2 * SIZE)
            reservation.extend(n=Index(PAGE))
            assert reservation.size == 2 * SIZE + PAGE
            with one_page.map(Config(reservation=reservation, reservation_offset=2 * SIZE)) as last:
                assert list(reservation) == [first, last]


def test_extend_into_mapping() -> None:
    """extend raises MappingExistsError and changes nothing if the addresses behind are in use."""
    with VMReservation(ROOM) as reservation:
        reservation.shrink(SIZE, ROOM - SIZE)
        with VMReservation(SIZE, reservation.address + ROOM // 2), pytest.raises(pmem2.MappingExistsError):
            reservation.extend(ROOM)
        assert reservation.size == SIZE


@pytest.mark.parametrize("n", [0, 2**63, 2**64 - PAGE, 2**64 - SIZE])
def test_extend_by_impossible_size(reservation: VMReservation, n: int) -> None:
    """extend raises ValueError for 0 and for a size that wraps around the address space."""
    with pytest.raises(ValueError, match=r"\bn\b|address space|outside|beyond"):
        reservation.extend(n)
    assert reservation.size == SIZE


@pytest.mark.parametrize("n", [1, PAGE - 1, PAGE + 1])
def test_extend_unaligned(reservation: VMReservation, n: int) -> None:
    """extend raises LengthUnalignedError for a size that is not a multiple of the page size."""
    with pytest.raises(pmem2.LengthUnalignedError):
        reservation.extend(n)
    assert reservation.size == SIZE


def test_shrink(reservation: VMReservation, map_page: Callable[[int], Map]) -> None:
    """shrink releases the beginning or the end of a reservation, and its maps stay in place."""
    address = reservation.address
    map = map_page(5)
    reservation.shrink(SIZE - 2 * PAGE, 2 * PAGE)
    assert (reservation.address, reservation.size) == (address, SIZE - 2 * PAGE)
    reservation.shrink(offset=0, size=3 * PAGE)
    assert (reservation.address, reservation.size) == (address + 3 * PAGE, SIZE - 5 * PAGE)
    assert map.address == address + 5 * PAGE
    assert reservation.find(2 * PAGE, PAGE) is map
    map.memset(0, 1, PAGE)
    assert map[-1] == 1


INVALID_SHRINKS: list[tuple[int, int, type[pmem2.Pmem2Error]]] = [
    (PAGE, PAGE, pmem2.NosuppError),
    (0, SIZE, pmem2.NosuppError),
    (1, PAGE, pmem2.OffsetUnalignedError),
    (0, 1, pmem2.LengthUnalignedError),
    (0, SIZE - 1, pmem2.LengthUnalignedError),
    (SIZE, PAGE, pmem2.OffsetOutOfRangeError),
    (0, SIZE + PAGE, pmem2.LengthOutOfRangeError),
    (SIZE - PAGE, 2 * PAGE, pmem2.LengthOutOfRangeError),
    (0, 2**63, pmem2.LengthOutOfRangeError),
]


@pytest.mark.parametrize(("offset", "size", "error"), INVALID_SHRINKS)
def test_shrink_invalid_range(
    reservation: VMReservation, offset: int, size: int, error: type[pmem2.Pmem2Error]
) -> None:
    """shrink raises libpmem2's error for the middle, the whole, parts of pages and ranges outside."""
    address = reservation.address
    with pytest.raises(error):
        reservation.shrink(offset, size)
    assert (reservation.address, reservation.size) == (address, SIZE)


def test_shrink_by_zero(reservation: VMReservation) -> None:
    """shrink raises ValueError for a size of 0."""
    with pytest.raises(ValueError, match="size"):
        reservation.shrink(0, 0)


@pytest.mark.parametrize(("offset", "size"), [(PAGE, 2**64 - PAGE), (2 * PAGE, 2**64 - PAGE)])
def test_shrink_range_wraps(reservation: VMReservation, offset: int, size: int) -> None:
    """shrink raises an error for a size that wraps around the address space, as for one that is too large."""
    with pytest.raises((ValueError, pmem2.LengthOutOfRangeError)):
        reservation.shrink(offset, size)
    assert reservation.size == SIZE


def test_shrink_occupied_range(reservation: VMReservation, map_page: Callable[[int], Map]) -> None:
    """shrink raises VmReservationNotEmptyError for a range that a map occupies."""
    map_page(0)
    map_page(PAGES - 1)
    for offset in (0, SIZE - PAGE):
        with pytest.raises(pmem2.VmReservationNotEmptyError):
            reservation.shrink(offset, PAGE)
    assert reservation.size == SIZE


# ---- closing


def test_close_with_maps(reservation: VMReservation, map_page: Callable[[int], Map]) -> None:
    """close() and `with` raise VmReservationNotEmptyError while a map is inside, and the reservation stays open."""
    map = map_page(3)
    with pytest.raises(pmem2.VmReservationNotEmptyError) as caught:
        reservation.close()
    assert caught.value.code is pmem2.ErrorCode.VM_RESERVATION_NOT_EMPTY
    with pytest.raises(pmem2.VmReservationNotEmptyError), reservation:
        pass
    assert not reservation.closed
    assert reservation.first() is map
    map.close()
    reservation.close()
    assert reservation.closed


def test_map_keeps_reservation_alive(reservation: VMReservation, one_page: Source) -> None:
    """A map keeps its reservation alive and usable."""
    map = one_page.map(Config(reservation=VMReservation(SIZE)))
    with map:
        map.memset(0, 7, PAGE)
        assert map[:] == b"\7" * PAGE
        assert map.config.reservation is not None
        assert not map.config.reservation.closed
    map.config.reservation.close()


CALLS: dict[str, Callable[[VMReservation], object]] = {
    "address": lambda r: r.address,
    "size": lambda r: r.size,
    "extend": lambda r: r.extend(PAGE),
    "shrink": lambda r: r.shrink(0, PAGE),
    "find": lambda r: r.find(0, PAGE),
    "first": VMReservation.first,
    "last": VMReservation.last,
    "iteration": list,
    "enter": VMReservation.__enter__,
    "Config": lambda r: Config(reservation=r),
}


@pytest.mark.parametrize("name", CALLS)
def test_closed_reservation_raises(name: str) -> None:
    """Every use of a closed reservation raises ValueError that says so."""
    with VMReservation(SIZE) as reservation:
        pass
    assert reservation.closed is True
    with pytest.raises(ValueError, match="closed"):
        CALLS[name](reservation)


def test_neighbours_in_closed_reservation(reservation: VMReservation, map_page: Callable[[int], Map]) -> None:
    """next and prev of a closed reservation raise ValueError for any map."""
    map = map_page(0)
    with VMReservation(SIZE) as closed:
        pass
    with pytest.raises(ValueError, match="closed"):
        closed.next(map)
    with pytest.raises(ValueError, match="closed"):
        closed.prev(map)


def test_close_twice() -> None:
    """Closing a closed reservation has no effect, even if its addresses belong to another one."""
    reservation = VMReservation(ROOM)
    address = reservation.address
    reservation.close()
    with VMReservation(SIZE, address) as other:
        reservation.close()
        assert not other.closed
        assert other.size == SIZE


def test_addresses_are_released() -> None:
    """Closing a reservation releases its addresses for another one."""
    with VMReservation(ROOM) as reservation:
        address = reservation.address
    for _ in range(100):
        with VMReservation(SIZE, address) as reservation:
            assert reservation.address == address
