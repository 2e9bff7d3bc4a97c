# SPDX-License-Identifier: BSD-3-Clause
"""Reservations: rows 93 to 123 of PMDK's own suite."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from _pmem2 import lib
from support import libpmem2
from support.children import RunChild
from support.values import SIZE

import pmem2

PAGE = mmap.ALLOCATIONGRANULARITY
HALF = SIZE // 2
THREADS = 8
ROUNDS = 100

pytestmark = pytest.mark.usefixtures("granularity")


@contextmanager
def raw_map_at(source: int, reservation: int, offset: int, length: int = 0) -> Iterator[int]:
    """Yield a map in a reservation, made by libpmem2 itself."""
    place = libpmem2.config(reservation=reservation, reservation_offset=offset, length=length)
    with place as config, libpmem2.map(config, source) as pointer:
        yield pointer


def raw_refusal(source: int, reservation: int, offset: int, length: int = 0) -> tuple[int, int]:
    """Return how libpmem2 refuses to map into a reservation."""
    with libpmem2.config(reservation=reservation, reservation_offset=offset, length=length) as config:
        return libpmem2.map_new(config, source)


def map_at(source: pmem2.Source, reservation: pmem2.VMReservation, offset: int, length: int | None = None) -> pmem2.Map:
    """Return a Map in a reservation."""
    return source.map(pmem2.Config(reservation=reservation, reservation_offset=offset, length=length))


def test_row_093_unaligned_address() -> None:
    """An address inside a page is refused."""
    assert libpmem2.reservation_new(PAGE - 1, SIZE) == (lib.PMEM2_E_ADDRESS_UNALIGNED, 0)
    with pytest.raises(pmem2.AddressUnalignedError):
        pmem2.VMReservation(SIZE, PAGE - 1)


def test_row_094_unaligned_size() -> None:
    """A size that ends inside a page is refused."""
    assert libpmem2.reservation_new(0, SIZE - 1) == (lib.PMEM2_E_LENGTH_UNALIGNED, 0)
    with pytest.raises(pmem2.LengthUnalignedError):
        pmem2.VMReservation(SIZE - 1)


@pytest.mark.medium
def test_row_095_reservation_where_asked(raw_source: int) -> None:
    """A reservation is where it was asked for, and a map in it too."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as gone:
        address = libpmem2.map_address(gone)
    with libpmem2.reservation(HALF, address) as reservation:
        assert libpmem2.reservation_address(reservation) == address
        assert libpmem2.reservation_size(reservation) == HALF
        with raw_map_at(raw_source, reservation, 0, HALF) as pointer:
            assert libpmem2.map_address(pointer) == address
            assert libpmem2.map_size(pointer) == HALF


@pytest.mark.medium
def test_row_095_vmreservation_where_asked(source: pmem2.Source) -> None:
    """A VMReservation is where it was asked for, and a Map in it too."""
    with source.map() as gone:
        address = gone.address
    with pmem2.VMReservation(HALF, address) as reservation:
        assert reservation.address == address
        assert reservation.size == HALF
        with map_at(source, reservation, 0, HALF) as map:
            assert map.address == address
            assert map.size == HALF
    assert reservation.closed


def test_row_096_the_same_address_twice() -> None:
    """What is reserved cannot be reserved once more."""
    with libpmem2.reservation(SIZE) as first:
        again = libpmem2.reservation_new(libpmem2.reservation_address(first), SIZE)
        assert again == (lib.PMEM2_E_MAPPING_EXISTS, 0)
    with pmem2.VMReservation(SIZE) as reservation, pytest.raises(pmem2.MappingExistsError):
        pmem2.VMReservation(SIZE, reservation.address)


def check_taken(source: pmem2.Source, raw_source: int, distance: int) -> None:
    """Check that nothing can be reserved at that *distance* from the address of a map."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as pointer:
        refused = libpmem2.reservation_new(libpmem2.map_address(pointer) + distance, SIZE)
        assert refused == (lib.PMEM2_E_MAPPING_EXISTS, 0)
    with source.map() as map, pytest.raises(pmem2.MappingExistsError):
        pmem2.VMReservation(SIZE, map.address + distance)


def test_row_097_reservation_over_a_map(source: pmem2.Source, raw_source: int) -> None:
    """Where a map is nothing can be reserved."""
    check_taken(source, raw_source, 0)


def test_row_098_reservation_that_overlaps_a_map_below(source: pmem2.Source, raw_source: int) -> None:
    """A reservation cannot reach into a map that begins in it."""
    check_taken(source, raw_source, -HALF)


def test_row_099_reservation_that_overlaps_a_map_above(source: pmem2.Source, raw_source: int) -> None:
    """A reservation cannot begin inside a map."""
    check_taken(source, raw_source, HALF)


@pytest.mark.medium
def test_row_101_map_at_the_beginning(source: pmem2.Source, raw_source: int) -> None:
    """A map at offset 0 is where the reservation is, and both can be deleted."""
    with libpmem2.reservation(SIZE) as pointer, raw_map_at(raw_source, pointer, 0) as mapped:
        assert libpmem2.map_address(mapped) == libpmem2.reservation_address(pointer)
    with pmem2.VMReservation(SIZE) as reservation, map_at(source, reservation, 0) as map:
        assert map.address == reservation.address
        map.memcpy(0, b"reserved")
        assert source.pread_mcsafe(8) == b"reserved"


@pytest.mark.medium
def test_row_103_deleting_what_is_not_empty(source: pmem2.Source, raw_source: int) -> None:
    """A reservation is not deleted while a map is in it."""
    with libpmem2.reservation(SIZE) as pointer, raw_map_at(raw_source, pointer, 0):
        assert libpmem2.reservation_delete(pointer) == (lib.PMEM2_E_VM_RESERVATION_NOT_EMPTY, pointer)
    with pmem2.VMReservation(SIZE) as reservation:
        with map_at(source, reservation, 0):
            with pytest.raises(pmem2.VmReservationNotEmptyError):
                reservation.close()
            assert not reservation.closed
        reservation.close()
        assert reservation.closed


def test_row_105_too_little_space(source: pmem2.Source, raw_source: int) -> None:
    """A map that is larger than the reservation is refused."""
    with libpmem2.reservation(HALF) as pointer:
        assert raw_refusal(raw_source, pointer, 0) == (lib.PMEM2_E_LENGTH_OUT_OF_RANGE, 0)
    with pmem2.VMReservation(HALF) as reservation:
        with pytest.raises(pmem2.LengthOutOfRangeError):
            map_at(source, reservation, 0)
        with map_at(source, reservation, 0, HALF) as map:
            assert map.size == HALF


def check_occupied(source: pmem2.Source, raw_source: int, size: int, first: int, second: int) -> None:
    """Check that a map at *first* in a reservation leaves no room for another at *second*."""
    with libpmem2.reservation(size) as pointer, raw_map_at(raw_source, pointer, first):
        assert raw_refusal(raw_source, pointer, second) == (lib.PMEM2_E_MAPPING_EXISTS, 0)
    with pmem2.VMReservation(size) as reservation, map_at(source, reservation, first) as map:
        with pytest.raises(pmem2.MappingExistsError):
            map_at(source, reservation, second)
        assert list(reservation) == [map]
        map.memset(0, 1, map.size)


@pytest.mark.medium
def test_row_106_map_over_a_map(source: pmem2.Source, raw_source: int) -> None:
    """Where a map is in a reservation there cannot be another."""
    check_occupied(source, raw_source, SIZE, 0, 0)


@pytest.mark.medium
def test_row_107_map_that_overlaps_one_above_it(source: pmem2.Source, raw_source: int) -> None:
    """A map in a reservation cannot reach into one that begins in it."""
    check_occupied(source, raw_source, SIZE + HALF, HALF, 0)


@pytest.mark.medium
def test_row_108_map_that_overlaps_one_below_it(source: pmem2.Source, raw_source: int) -> None:
    """A map in a reservation cannot begin inside another."""
    check_occupied(source, raw_source, SIZE + HALF, 0, HALF)


@pytest.fixture
def memory_fd() -> Iterator[int]:
    """A descriptor of a file in memory, as large as the other.

    On ext4 pmem2_map_new leaves a hole in the addresses between its attempt with MAP_SYNC and the one without, and
    then maps over whatever another thread has put there; the kernel refuses MAP_SYNC sooner for a file in memory.
    """
    fd = os.memfd_create("testfile")
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


def test_row_110_threads(memory_fd: int) -> None:
    """Threads map and unmap side by side in one reservation, each exactly in its own place."""

    def work(number: int) -> set[int]:
        with (
            libpmem2.source(memory_fd) as own,
            libpmem2.config(reservation=pointer, reservation_offset=number * SIZE) as config,
        ):
            addresses = set()
            for _ in range(ROUNDS):
                with libpmem2.map(config, own) as mapped:
                    addresses.add(libpmem2.map_address(mapped))
            return addresses

    with libpmem2.reservation(THREADS * SIZE) as pointer:
        with ThreadPoolExecutor(THREADS) as pool:
            places = list(pool.map(work, range(THREADS)))
        beginning = libpmem2.reservation_address(pointer)
        assert places == [{beginning + number * SIZE} for number in range(THREADS)]


THREADS_AND_MAPS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import pmem2
path, threads, rounds, size = sys.argv[1], *map(int, sys.argv[2:])
def work(number):
    config = pmem2.Config(reservation=reservation, reservation_offset=number * size)
    addresses = set()
    with open(path, "r+b") as file, pmem2.Source.from_fd(file) as own:
        for _ in range(rounds):
            with own.map(config) as mapped:
                addresses.add(mapped.address)
    return addresses
with pmem2.VMReservation(threads * size) as reservation:
    with ThreadPoolExecutor(threads) as pool:
        places = list(pool.map(work, range(threads)))
    assert places == [{reservation.address + number * size} for number in range(threads)], places
    assert list(reservation) == []
print("done")
"""


def test_row_110_threads_and_maps(run_child: RunChild, file: Path) -> None:
    """Threads make and close Maps side by side in one VMReservation, each exactly in its own place."""
    child = run_child(THREADS_AND_MAPS, str(file), str(THREADS), str(ROUNDS), str(SIZE))
    assert (child.returncode, child.stdout) == (0, "done\n"), child.stderr


def test_row_111_extending_an_empty_one() -> None:
    """A reservation grows at its end and stays where it is, or says that there is something behind it."""
    with libpmem2.reservation(SIZE) as pointer:
        before = libpmem2.reservation_address(pointer)
        rc = libpmem2.extend(pointer, SIZE)
        sizes = {0: 2 * SIZE, lib.PMEM2_E_MAPPING_EXISTS: SIZE}
        assert libpmem2.reservation_size(pointer) == sizes[rc]
        assert libpmem2.reservation_address(pointer) == before
    with pmem2.VMReservation(SIZE) as reservation:
        before = reservation.address
        extended = try_to_extend(reservation)
        assert reservation.size == (2 * SIZE if extended else SIZE)
        assert reservation.address == before


def try_to_extend(reservation: pmem2.VMReservation) -> bool:
    """Extend a reservation by the size of the file, unless something is mapped behind it."""
    try:
        reservation.extend(SIZE)
    except pmem2.MappingExistsError:
        return False
    return True


@pytest.mark.medium
def test_row_112_extending_one_with_a_map(source: pmem2.Source, raw_source: int) -> None:
    """What was added to a reservation takes another map; what was not does not."""
    with libpmem2.reservation(SIZE) as pointer, raw_map_at(raw_source, pointer, 0):
        if libpmem2.extend(pointer, SIZE) == 0:
            with raw_map_at(raw_source, pointer, SIZE) as second:
                assert libpmem2.map_address(second) == libpmem2.reservation_address(pointer) + SIZE
        else:
            assert raw_refusal(raw_source, pointer, SIZE)[0] == lib.PMEM2_E_LENGTH_OUT_OF_RANGE
    with pmem2.VMReservation(SIZE) as reservation, map_at(source, reservation, 0):
        if try_to_extend(reservation):
            with map_at(source, reservation, SIZE) as another:
                assert another.address == reservation.address + SIZE
        else:
            with pytest.raises(pmem2.LengthOutOfRangeError):
                map_at(source, reservation, SIZE)


def test_row_113_unaligned_extension() -> None:
    """A reservation does not grow by a part of a page."""
    with libpmem2.reservation(SIZE) as pointer:
        assert libpmem2.extend(pointer, SIZE - 1) == lib.PMEM2_E_LENGTH_UNALIGNED
        assert libpmem2.reservation_size(pointer) == SIZE
    with pmem2.VMReservation(SIZE) as reservation:
        with pytest.raises(pmem2.LengthUnalignedError):
            reservation.extend(SIZE - 1)
        assert reservation.size == SIZE


def test_row_114_shrinking_an_empty_one(source: pmem2.Source, raw_source: int) -> None:
    """A reservation shrinks from both ends, and takes a map in what is left."""
    with libpmem2.reservation(3 * SIZE) as pointer:
        before = libpmem2.reservation_address(pointer)
        assert libpmem2.shrink(pointer, 0, SIZE) == 0
        assert libpmem2.reservation_size(pointer) == 2 * SIZE
        assert libpmem2.shrink(pointer, SIZE, SIZE) == 0
        assert libpmem2.reservation_size(pointer) == SIZE
        with raw_map_at(raw_source, pointer, 0) as mapped:
            assert libpmem2.map_address(mapped) == libpmem2.reservation_address(pointer) == before + SIZE
    with pmem2.VMReservation(3 * SIZE) as reservation:
        before = reservation.address
        reservation.shrink(0, SIZE)
        assert (reservation.address, reservation.size) == (before + SIZE, 2 * SIZE)
        reservation.shrink(SIZE, SIZE)
        assert (reservation.address, reservation.size) == (before + SIZE, SIZE)
        with map_at(source, reservation, 0) as map:
            assert map.address == before + SIZE


@pytest.mark.medium
def test_row_115_shrinking_around_a_map(source: pmem2.Source, raw_source: int) -> None:
    """A reservation shrinks from both ends around a map, which stays what it was."""
    with libpmem2.reservation(3 * SIZE) as pointer, raw_map_at(raw_source, pointer, SIZE) as mapped:
        assert libpmem2.shrink(pointer, 0, SIZE) == 0
        assert libpmem2.reservation_size(pointer) == 2 * SIZE
        assert libpmem2.shrink(pointer, SIZE, SIZE) == 0
        assert libpmem2.reservation_size(pointer) == SIZE
        libpmem2.memcpy(mapped, b"still there")
        assert libpmem2.read(mapped, 11) == b"still there"
    with pmem2.VMReservation(3 * SIZE) as reservation, map_at(source, reservation, SIZE) as map:
        address = map.address
        map.memset(0, 0, 11)
        reservation.shrink(0, SIZE)
        assert reservation.size == 2 * SIZE
        reservation.shrink(SIZE, SIZE)
        assert reservation.size == SIZE
        assert map.address == address == reservation.address
        assert reservation.find(0, SIZE) is map
        map.memcpy(0, b"still there")
        assert source.pread_mcsafe(11) == b"still there"


def test_row_117_shrinking_by_what_is_not_there() -> None:
    """A reservation does not shrink by a range that does not lie inside it, or by nothing."""
    with libpmem2.reservation(2 * SIZE) as pointer:
        assert libpmem2.shrink(pointer, 3 * SIZE, SIZE) == lib.PMEM2_E_OFFSET_OUT_OF_RANGE
        assert libpmem2.shrink(pointer, 0, 3 * SIZE) == lib.PMEM2_E_LENGTH_OUT_OF_RANGE
        assert libpmem2.shrink(pointer, 0, 0) == lib.PMEM2_E_LENGTH_OUT_OF_RANGE
        assert libpmem2.reservation_size(pointer) == 2 * SIZE
    with pmem2.VMReservation(2 * SIZE) as reservation:
        with pytest.raises(ValueError, match="outside"):
            reservation.shrink(3 * SIZE, SIZE)
        with pytest.raises(pmem2.OffsetOutOfRangeError):
            reservation.shrink(2 * SIZE, SIZE)
        with pytest.raises(pmem2.LengthOutOfRangeError):
            reservation.shrink(0, 3 * SIZE)
        with pytest.raises(ValueError, match="0"):
            reservation.shrink(0, 0)
        assert reservation.size == 2 * SIZE


def test_row_118_shrinking_in_the_middle_or_by_everything() -> None:
    """A reservation does not shrink in its middle, nor by all that it has."""
    with libpmem2.reservation(3 * SIZE) as pointer:
        assert libpmem2.shrink(pointer, SIZE, SIZE) == lib.PMEM2_E_NOSUPP
        assert libpmem2.shrink(pointer, 0, 3 * SIZE) == lib.PMEM2_E_NOSUPP
        assert libpmem2.reservation_size(pointer) == 3 * SIZE
    with pmem2.VMReservation(3 * SIZE) as reservation:
        with pytest.raises(pmem2.NosuppError):
            reservation.shrink(SIZE, SIZE)
        with pytest.raises(pmem2.NosuppError):
            reservation.shrink(0, 3 * SIZE)
        assert reservation.size == 3 * SIZE


def test_row_120_finding_the_only_map(source: pmem2.Source, raw_source: int) -> None:
    """Every range in a reservation full of one map finds that map."""
    ranges = ((0, HALF), (HALF, HALF), (0, SIZE))
    with libpmem2.reservation(SIZE) as pointer, raw_map_at(raw_source, pointer, 0) as mapped:
        assert [libpmem2.find(pointer, *place) for place in ranges] == [(0, mapped)] * 3
    with pmem2.VMReservation(SIZE) as reservation, map_at(source, reservation, 0) as map:
        for place in ranges:
            assert reservation.find(*place) is map
        assert reservation.first() is reservation.last() is map


@pytest.mark.medium
def test_row_121_finding_one_of_two_maps(source: pmem2.Source, raw_source: int) -> None:
    """A range finds the first map that it overlaps."""
    with libpmem2.reservation(2 * SIZE) as pointer, ExitStack() as stack:
        low, high = (stack.enter_context(raw_map_at(raw_source, pointer, offset)) for offset in (0, SIZE))
        assert libpmem2.find(pointer, 0, SIZE) == (0, low)
        assert libpmem2.find(pointer, SIZE, SIZE) == (0, high)
        assert libpmem2.find(pointer, 0, 2 * SIZE) == (0, low)
    with pmem2.VMReservation(2 * SIZE) as reservation, ExitStack() as stack:
        first, second = (stack.enter_context(map_at(source, reservation, offset)) for offset in (0, SIZE))
        assert reservation.find(0, SIZE) is first
        assert reservation.find(SIZE, SIZE) is second
        assert reservation.find(0, 2 * SIZE) is first


@pytest.fixture
def raw_maps(raw_source: int) -> Iterator[tuple[int, list[int]]]:
    """A reservation with five maps that do not touch, made by libpmem2 itself."""
    with libpmem2.reservation(10 * SIZE) as pointer, ExitStack() as stack:
        yield pointer, [stack.enter_context(raw_map_at(raw_source, pointer, 2 * i * SIZE)) for i in range(5)]


@pytest.fixture
def maps(source: pmem2.Source) -> Iterator[tuple[pmem2.VMReservation, list[pmem2.Map]]]:
    """A VMReservation with five Maps that do not touch."""
    with pmem2.VMReservation(10 * SIZE) as reservation, ExitStack() as stack:
        yield reservation, [stack.enter_context(map_at(source, reservation, 2 * i * SIZE)) for i in range(5)]


def test_row_122_the_map_before(
    raw_maps: tuple[int, list[int]], maps: tuple[pmem2.VMReservation, list[pmem2.Map]]
) -> None:
    """From the last map on, each leads to the one before it, and the first to none."""
    pointer, pointers = raw_maps
    before = [libpmem2.find_prev(pointer, mapped) for mapped in pointers]
    assert before == [(lib.PMEM2_E_MAPPING_NOT_FOUND, 0), *((0, mapped) for mapped in pointers[:-1])]
    reservation, made = maps
    assert reservation.last() is made[4]
    for i in range(4, 0, -1):
        assert reservation.prev(made[i]) is made[i - 1]
    with pytest.raises(pmem2.MappingNotFoundError):
        reservation.prev(made[0])


def test_row_123_the_map_after(
    raw_maps: tuple[int, list[int]], maps: tuple[pmem2.VMReservation, list[pmem2.Map]]
) -> None:
    """From the first map on, each leads to the one after it, and the last to none."""
    pointer, pointers = raw_maps
    after = [libpmem2.find_next(pointer, mapped) for mapped in pointers]
    assert after == [*((0, mapped) for mapped in pointers[1:]), (lib.PMEM2_E_MAPPING_NOT_FOUND, 0)]
    reservation, made = maps
    assert reservation.first() is made[0]
    for i in range(4):
        assert reservation.next(made[i]) is made[i + 1]
    with pytest.raises(pmem2.MappingNotFoundError):
        reservation.next(made[4])
    assert list(reservation) == made
