# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of reservations: pmem2_vm_reservation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from _pmem2 import lib
from support import libpmem2
from support.children import RunChild
from support.values import PAGE, SIZE, needs_cache_line, not_emulated

import pmem2

HALF = SIZE // 2
BYTE, CACHE_LINE, PAGE_GRANULARITY = pmem2.Granularity
maps_where_asked = not_emulated("maps elsewhere than at the free address that a program asks for")
THREADS = 8
ROUNDS = 100

pytestmark = pytest.mark.usefixtures("granularity")


@contextmanager
def raw_map_at(source: int, reservation: int, offset: int, length: int = 0) -> Iterator[int]:
    """Yield a libpmem2 map in a reservation."""
    with libpmem2.config(reservation=reservation, reservation_offset=offset, length=length) as config:
        with libpmem2.map(config, source) as pointer:
            yield pointer


def raw_map_error(source: int, reservation: int, offset: int, length: int = 0) -> tuple[int, int]:
    """Return the code and the pointer of a map that libpmem2 refuses to make in a reservation."""
    with libpmem2.config(reservation=reservation, reservation_offset=offset, length=length) as config:
        return libpmem2.map_new(config, source)


def map_at(source: pmem2.Source, reservation: pmem2.VMReservation, offset: int, length: int | None = None) -> pmem2.Map:
    """Return a Map in a reservation."""
    return source.map(pmem2.Config(reservation=reservation, reservation_offset=offset, length=length))


@pytest.mark.upstream("pmem2_vm_reservation/TEST0")
def test_unaligned_address() -> None:
    """An address inside a page is refused."""
    assert libpmem2.reservation_new(PAGE - 1, SIZE) == (lib.PMEM2_E_ADDRESS_UNALIGNED, 0)
    with pytest.raises(pmem2.AddressUnalignedError):
        pmem2.VMReservation(SIZE, PAGE - 1)


@pytest.mark.upstream("pmem2_vm_reservation/TEST2")
def test_unaligned_size() -> None:
    """A size that ends inside a page is refused."""
    assert libpmem2.reservation_new(0, SIZE - 1) == (lib.PMEM2_E_LENGTH_UNALIGNED, 0)
    with pytest.raises(pmem2.LengthUnalignedError):
        pmem2.VMReservation(SIZE - 1)


@pytest.mark.upstream("pmem2_vm_reservation/TEST4")
@pytest.mark.libpmem2
@pytest.mark.medium
def test_library_fixed_address(raw_source: int) -> None:
    """libpmem2 reserves the requested address, and a map at offset 0 has the same one."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as closed:
        address = libpmem2.map_address(closed)
    with libpmem2.reservation(HALF, address) as reservation:
        assert libpmem2.reservation_address(reservation) == address
        assert libpmem2.reservation_size(reservation) == HALF
        with raw_map_at(raw_source, reservation, 0, HALF) as pointer:
            assert libpmem2.map_address(pointer) == address
            assert libpmem2.map_size(pointer) == HALF


@pytest.mark.upstream("pmem2_vm_reservation/TEST4")
@pytest.mark.medium
def test_fixed_address(source: pmem2.Source) -> None:
    """A VMReservation has the requested address, again after `close`, and so has a Map at offset 0."""
    with source.map() as closed:
        address = closed.address
    for _ in range(3):
        with pmem2.VMReservation(HALF, address) as reservation:
            assert reservation.address == address
            assert reservation.size == HALF
            with map_at(source, reservation, 0, HALF) as map:
                assert map.address == address
                assert map.size == HALF
        assert reservation.closed


@pytest.mark.upstream("pmem2_vm_reservation/TEST6")
def test_reserve_address_twice() -> None:
    """A reserved range cannot be reserved again."""
    with libpmem2.reservation(SIZE) as first:
        again = libpmem2.reservation_new(libpmem2.reservation_address(first), SIZE)
        assert again == (lib.PMEM2_E_MAPPING_EXISTS, 0)
    with pmem2.VMReservation(SIZE) as reservation, pytest.raises(pmem2.MappingExistsError):
        pmem2.VMReservation(SIZE, reservation.address)


def check_reserving_refused(source: pmem2.Source, raw_source: int, distance: int) -> None:
    """Check that a reservation at *distance* from the address of a map is refused."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as pointer:
        refused = libpmem2.reservation_new(libpmem2.map_address(pointer) + distance, SIZE)
        assert refused == (lib.PMEM2_E_MAPPING_EXISTS, 0)
    with source.map() as map, pytest.raises(pmem2.MappingExistsError):
        pmem2.VMReservation(SIZE, map.address + distance)


@pytest.mark.upstream("pmem2_vm_reservation/TEST8")
def test_reservation_over_map(source: pmem2.Source, raw_source: int) -> None:
    """The addresses of a map cannot be reserved."""
    check_reserving_refused(source, raw_source, 0)


@pytest.mark.upstream("pmem2_vm_reservation/TEST10")
def test_reservation_overlaps_map_below(source: pmem2.Source, raw_source: int) -> None:
    """A reservation that ends inside a map is refused."""
    check_reserving_refused(source, raw_source, -HALF)


@pytest.mark.upstream("pmem2_vm_reservation/TEST12")
def test_reservation_overlaps_map_above(source: pmem2.Source, raw_source: int) -> None:
    """A reservation that begins inside a map is refused."""
    check_reserving_refused(source, raw_source, HALF)


@pytest.mark.upstream("pmem2_vm_reservation/TEST16")
@pytest.mark.medium
def test_map_file(source: pmem2.Source, raw_source: int) -> None:
    """A map at offset 0 has the address of its reservation, and both can be deleted."""
    with libpmem2.reservation(SIZE) as pointer, raw_map_at(raw_source, pointer, 0) as mapped:
        assert libpmem2.map_address(mapped) == libpmem2.reservation_address(pointer)
    with pmem2.VMReservation(SIZE) as reservation, map_at(source, reservation, 0) as map:
        assert map.address == reservation.address
        map.memcpy(0, b"reserved")
        assert source.pread_mcsafe(8) == b"reserved"


@pytest.mark.upstream("pmem2_vm_reservation/TEST18")
def test_map_part_of_file(source: pmem2.Source, raw_source: int) -> None:
    """A reservation smaller than the file takes a map of its second half."""
    with libpmem2.reservation(HALF) as pointer:
        with libpmem2.config(offset=HALF, reservation=pointer) as config, libpmem2.map(config, raw_source) as mapped:
            assert libpmem2.map_address(mapped) == libpmem2.reservation_address(pointer)
            assert libpmem2.map_size(mapped) == HALF
    with pmem2.VMReservation(HALF) as reservation:
        with source.map(pmem2.Config(offset=HALF, reservation=reservation)) as map:
            assert (map.address, map.size) == (reservation.address, HALF)


@pytest.mark.upstream("pmem2_vm_reservation/TEST20")
@pytest.mark.medium
def test_delete_with_map_inside(source: pmem2.Source, raw_source: int) -> None:
    """A reservation with a map in it cannot be deleted."""
    with libpmem2.reservation(SIZE) as pointer, raw_map_at(raw_source, pointer, 0):
        assert libpmem2.reservation_delete(pointer) == (lib.PMEM2_E_VM_RESERVATION_NOT_EMPTY, pointer)
    with pmem2.VMReservation(SIZE) as reservation:
        with map_at(source, reservation, 0):
            with pytest.raises(pmem2.VmReservationNotEmptyError):
                reservation.close()
            assert not reservation.closed
        reservation.close()
        assert reservation.closed


@pytest.mark.upstream("pmem2_vm_reservation/TEST21")
def test_map_again_after_unmap(source: pmem2.Source, raw_source: int) -> None:
    """The places of closed maps in a reservation can be mapped again at the same addresses."""
    offsets = range(0, 10 * SIZE, SIZE)
    with libpmem2.reservation(10 * SIZE) as pointer, ExitStack() as stack:
        start = libpmem2.reservation_address(pointer)
        for offset in offsets[1::2]:
            stack.enter_context(raw_map_at(raw_source, pointer, offset))
        for _ in range(2):
            with ExitStack() as even:
                pointers = [even.enter_context(raw_map_at(raw_source, pointer, offset)) for offset in offsets[::2]]
                assert [libpmem2.map_address(each) - start for each in pointers] == list(offsets[::2])
    with pmem2.VMReservation(10 * SIZE) as reservation, ExitStack() as stack:
        for offset in offsets[1::2]:
            stack.enter_context(map_at(source, reservation, offset))
        for _ in range(2):
            with ExitStack() as even:
                maps = [even.enter_context(map_at(source, reservation, offset)) for offset in offsets[::2]]
                assert [map.address - reservation.address for map in maps] == list(offsets[::2])


@pytest.mark.upstream("pmem2_vm_reservation/TEST23")
def test_insufficient_space(source: pmem2.Source, raw_source: int) -> None:
    """A map larger than the reservation is refused."""
    with libpmem2.reservation(HALF) as pointer:
        assert raw_map_error(raw_source, pointer, 0) == (lib.PMEM2_E_LENGTH_OUT_OF_RANGE, 0)
    with pmem2.VMReservation(HALF) as reservation:
        with pytest.raises(pmem2.LengthOutOfRangeError):
            map_at(source, reservation, 0)
        with map_at(source, reservation, 0, HALF) as map:
            assert map.size == HALF


def check_second_map_refused(source: pmem2.Source, raw_source: int, size: int, first: int, second: int) -> None:
    """Check that a map at offset *first* in a reservation prevents another at offset *second*."""
    with libpmem2.reservation(size) as pointer, raw_map_at(raw_source, pointer, first):
        assert raw_map_error(raw_source, pointer, second) == (lib.PMEM2_E_MAPPING_EXISTS, 0)
    with pmem2.VMReservation(size) as reservation, map_at(source, reservation, first) as map:
        with pytest.raises(pmem2.MappingExistsError):
            map_at(source, reservation, second)
        assert list(reservation) == [map]
        map.memset(0, 1, map.size)


@pytest.mark.upstream("pmem2_vm_reservation/TEST24")
@pytest.mark.medium
def test_full_overlap(source: pmem2.Source, raw_source: int) -> None:
    """An occupied place in a reservation refuses a second map."""
    check_second_map_refused(source, raw_source, SIZE, 0, 0)


@pytest.mark.upstream("pmem2_vm_reservation/TEST26")
@pytest.mark.medium
def test_partial_overlap_below(source: pmem2.Source, raw_source: int) -> None:
    """A map that would end inside another one is refused."""
    check_second_map_refused(source, raw_source, SIZE + HALF, HALF, 0)


@pytest.mark.upstream("pmem2_vm_reservation/TEST28")
@pytest.mark.medium
def test_partial_overlap_above(source: pmem2.Source, raw_source: int) -> None:
    """A map that would begin inside another one is refused."""
    check_second_map_refused(source, raw_source, SIZE + HALF, 0, HALF)


@pytest.mark.upstream("pmem2_vm_reservation/TEST30")
@pytest.mark.parametrize(
    "granularity", [PAGE_GRANULARITY, pytest.param(CACHE_LINE, marks=needs_cache_line)], indirect=True, ids=str
)
def test_refused_granularity_keeps_place_free(
    source: pmem2.Source, raw_source: int, granularity: pmem2.Granularity
) -> None:
    """A map that is refused for its granularity leaves its place in the reservation free."""
    with libpmem2.reservation(SIZE) as pointer:
        with libpmem2.config(BYTE, offset=HALF, reservation=pointer, reservation_offset=SIZE // 4) as config:
            assert libpmem2.map_new(config, raw_source) == (lib.PMEM2_E_GRANULARITY_NOT_SUPPORTED, 0)
        with raw_map_at(raw_source, pointer, 0) as mapped:
            assert libpmem2.map_address(mapped) == libpmem2.reservation_address(pointer)
    with pmem2.VMReservation(SIZE) as reservation:
        with pytest.raises(pmem2.GranularityNotSupportedError):
            source.map(
                pmem2.Config(
                    required_granularity=BYTE, offset=HALF, reservation=reservation, reservation_offset=SIZE // 4
                )
            )
        with map_at(source, reservation, 0) as map:
            assert map.address == reservation.address


@pytest.fixture
def memory_fd() -> Iterator[int]:
    """A descriptor of a memory file with the size of `file`.

    On ext4 pmem2_map_new tries MAP_SYNC first. Before its second attempt the addresses are free for a moment, so it can
    map over the map of another thread. For a memory file the kernel refuses MAP_SYNC before it unmaps anything.
    """
    fd = os.memfd_create("testfile")
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


@pytest.mark.upstream("pmem2_vm_reservation/TEST31")
@pytest.mark.libpmem2
def test_library_threads(memory_fd: int) -> None:
    """Threads map and unmap side by side in one reservation, each at its own address."""

    def map_repeatedly(number: int) -> set[int]:
        with (
            libpmem2.source(memory_fd) as source,
            libpmem2.config(reservation=pointer, reservation_offset=number * SIZE) as config,
        ):
            addresses = set()
            for _ in range(ROUNDS):
                with libpmem2.map(config, source) as mapped:
                    addresses.add(libpmem2.map_address(mapped))
            return addresses

    with libpmem2.reservation(THREADS * SIZE) as pointer:
        with ThreadPoolExecutor(THREADS) as pool:
            addresses = list(pool.map(map_repeatedly, range(THREADS)))
        start = libpmem2.reservation_address(pointer)
        assert addresses == [{start + number * SIZE} for number in range(THREADS)]


THREADS_AND_MAPS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import pmem2
path, threads, rounds, size = sys.argv[1], *map(int, sys.argv[2:])
def map_repeatedly(number):
    config = pmem2.Config(reservation=reservation, reservation_offset=number * size)
    addresses = set()
    with open(path, "r+b") as file, pmem2.Source.from_fd(file) as source:
        for _ in range(rounds):
            with source.map(config) as mapped:
                addresses.add(mapped.address)
    return addresses
with pmem2.VMReservation(threads * size) as reservation:
    with ThreadPoolExecutor(threads) as pool:
        addresses = list(pool.map(map_repeatedly, range(threads)))
    assert addresses == [{reservation.address + number * size} for number in range(threads)], addresses
    assert list(reservation) == []
print("done")
"""


@pytest.mark.upstream("pmem2_vm_reservation/TEST31")
def test_threads(run_child: RunChild, file: Path) -> None:
    """Threads create and close Maps side by side in one VMReservation, each at its own address."""
    child = run_child(THREADS_AND_MAPS, str(file), str(THREADS), str(ROUNDS), str(SIZE))
    assert (child.returncode, child.stdout) == (0, "done\n"), child.stderr


@pytest.mark.upstream("pmem2_vm_reservation/TEST33")
@maps_where_asked
def test_extend_empty() -> None:
    """A reservation grows at its end into free addresses, and stays as it is when they are taken."""
    with libpmem2.reservation(2 * SIZE) as pointer:
        before = libpmem2.reservation_address(pointer)
        assert libpmem2.shrink(pointer, SIZE, SIZE) == 0  # frees the addresses behind it
        assert libpmem2.extend(pointer, SIZE) == 0
        assert (libpmem2.reservation_address(pointer), libpmem2.reservation_size(pointer)) == (before, 2 * SIZE)
        assert libpmem2.shrink(pointer, SIZE, SIZE) == 0
        with libpmem2.reservation(SIZE, before + SIZE):
            assert libpmem2.extend(pointer, SIZE) == lib.PMEM2_E_MAPPING_EXISTS
        assert (libpmem2.reservation_address(pointer), libpmem2.reservation_size(pointer)) == (before, SIZE)
    with pmem2.VMReservation(2 * SIZE) as reservation:
        before = reservation.address
        reservation.shrink(SIZE, SIZE)
        reservation.extend(SIZE)
        assert (reservation.address, reservation.size) == (before, 2 * SIZE)
        reservation.shrink(SIZE, SIZE)
        with pmem2.VMReservation(SIZE, before + SIZE), pytest.raises(pmem2.MappingExistsError):
            reservation.extend(SIZE)
        assert (reservation.address, reservation.size) == (before, SIZE)


@pytest.mark.upstream("pmem2_vm_reservation/TEST34")
@pytest.mark.medium
@maps_where_asked
def test_extend_with_map(source: pmem2.Source, raw_source: int) -> None:
    """The extension of a reservation takes another map."""
    with libpmem2.reservation(2 * SIZE) as pointer:
        assert libpmem2.shrink(pointer, SIZE, SIZE) == 0  # frees the addresses behind it
        with raw_map_at(raw_source, pointer, 0):
            assert raw_map_error(raw_source, pointer, SIZE) == (lib.PMEM2_E_LENGTH_OUT_OF_RANGE, 0)
            assert libpmem2.extend(pointer, SIZE) == 0
            with raw_map_at(raw_source, pointer, SIZE) as second:
                assert libpmem2.map_address(second) == libpmem2.reservation_address(pointer) + SIZE
    with pmem2.VMReservation(2 * SIZE) as reservation:
        reservation.shrink(SIZE, SIZE)
        with map_at(source, reservation, 0):
            with pytest.raises(pmem2.LengthOutOfRangeError):
                map_at(source, reservation, SIZE)
            reservation.extend(SIZE)
            with map_at(source, reservation, SIZE) as map:
                assert map.address == reservation.address + SIZE


@pytest.mark.upstream("pmem2_vm_reservation/TEST35")
def test_unaligned_extension() -> None:
    """A reservation refuses to grow by part of a page."""
    with libpmem2.reservation(SIZE) as pointer:
        assert libpmem2.extend(pointer, SIZE - 1) == lib.PMEM2_E_LENGTH_UNALIGNED
        assert libpmem2.reservation_size(pointer) == SIZE
    with pmem2.VMReservation(SIZE) as reservation:
        with pytest.raises(pmem2.LengthUnalignedError):
            reservation.extend(SIZE - 1)
        assert reservation.size == SIZE


@pytest.mark.upstream("pmem2_vm_reservation/TEST36")
def test_shrink_empty(source: pmem2.Source, raw_source: int) -> None:
    """A reservation shrinks from both ends, and the rest takes a map."""
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


@pytest.mark.upstream("pmem2_vm_reservation/TEST37")
@pytest.mark.medium
def test_shrink_around_map(source: pmem2.Source, raw_source: int) -> None:
    """A reservation shrinks from both ends around a map, which stays usable."""
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


@pytest.mark.upstream("pmem2_vm_reservation/TEST38")
def test_unaligned_shrink() -> None:
    """Shrinking at an unaligned offset or by an unaligned size is refused."""
    with libpmem2.reservation(2 * SIZE) as pointer:
        assert libpmem2.shrink(pointer, SIZE - 1, SIZE) == lib.PMEM2_E_OFFSET_UNALIGNED
        assert libpmem2.shrink(pointer, SIZE, SIZE - 1) == lib.PMEM2_E_LENGTH_UNALIGNED
        assert libpmem2.reservation_size(pointer) == 2 * SIZE
    with pmem2.VMReservation(2 * SIZE) as reservation:
        with pytest.raises(pmem2.OffsetUnalignedError):
            reservation.shrink(SIZE - 1, SIZE)
        with pytest.raises(pmem2.LengthUnalignedError):
            reservation.shrink(SIZE, SIZE - 1)
        assert reservation.size == 2 * SIZE


@pytest.mark.upstream("pmem2_vm_reservation/TEST39")
def test_shrink_out_of_range() -> None:
    """Shrinking by an empty range or by one outside the reservation is refused."""
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


@pytest.mark.upstream("pmem2_vm_reservation/TEST40")
def test_unsupported_shrink() -> None:
    """Shrinking in the middle, or by the whole reservation, is refused."""
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


@pytest.mark.upstream("pmem2_vm_reservation/TEST41")
def test_shrink_occupied_range(source: pmem2.Source, raw_source: int) -> None:
    """Shrinking by a range that contains a map is refused."""
    with libpmem2.reservation(2 * SIZE) as pointer, raw_map_at(raw_source, pointer, SIZE):
        assert libpmem2.shrink(pointer, SIZE, SIZE) == lib.PMEM2_E_VM_RESERVATION_NOT_EMPTY
        assert libpmem2.reservation_size(pointer) == 2 * SIZE
    with pmem2.VMReservation(2 * SIZE) as reservation, map_at(source, reservation, SIZE):
        with pytest.raises(pmem2.VmReservationNotEmptyError):
            reservation.shrink(SIZE, SIZE)
        assert reservation.size == 2 * SIZE


@pytest.mark.upstream("pmem2_vm_reservation/TEST42", "pmem2_vm_reservation/TEST47")
def test_find_only_map(source: pmem2.Source, raw_source: int) -> None:
    """Every range in a full reservation finds its only map, which is both first and last."""
    ranges = ((0, HALF), (HALF, HALF), (0, SIZE))
    with libpmem2.reservation(SIZE) as pointer, raw_map_at(raw_source, pointer, 0) as mapped:
        assert [libpmem2.find(pointer, *each) for each in ranges] == [(0, mapped)] * 3
        assert libpmem2.find_first(pointer) == libpmem2.find_last(pointer) == (0, mapped)
    with pmem2.VMReservation(SIZE) as reservation, map_at(source, reservation, 0) as map:
        for offset, length in ranges:
            assert reservation.find(offset, length) is map
        assert reservation.first() is reservation.last() is map


@pytest.mark.upstream("pmem2_vm_reservation/TEST43")
@pytest.mark.medium
def test_find_first_overlapping_map(source: pmem2.Source, raw_source: int) -> None:
    """A range finds the first map that overlaps it."""
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
    """A libpmem2 reservation with five maps and gaps between them."""
    with libpmem2.reservation(10 * SIZE) as pointer, ExitStack() as stack:
        yield pointer, [stack.enter_context(raw_map_at(raw_source, pointer, 2 * i * SIZE)) for i in range(5)]


@pytest.fixture
def maps(source: pmem2.Source) -> Iterator[tuple[pmem2.VMReservation, list[pmem2.Map]]]:
    """A VMReservation with five Maps and gaps between them."""
    with pmem2.VMReservation(10 * SIZE) as reservation, ExitStack() as stack:
        yield reservation, [stack.enter_context(map_at(source, reservation, 2 * i * SIZE)) for i in range(5)]


@pytest.mark.upstream("pmem2_vm_reservation/TEST44")
def test_find_previous_map(raw_maps: tuple[int, list[int]], maps: tuple[pmem2.VMReservation, list[pmem2.Map]]) -> None:
    """Each map finds the previous one, and the first map finds none."""
    pointer, pointers = raw_maps
    before = [libpmem2.find_prev(pointer, mapped) for mapped in pointers]
    assert before == [(lib.PMEM2_E_MAPPING_NOT_FOUND, 0), *((0, mapped) for mapped in pointers[:-1])]
    reservation, made = maps
    assert reservation.last() is made[4]
    for i in range(4, 0, -1):
        assert reservation.prev(made[i]) is made[i - 1]
    with pytest.raises(pmem2.MappingNotFoundError):
        reservation.prev(made[0])


@pytest.mark.upstream("pmem2_vm_reservation/TEST45")
def test_find_next_map(raw_maps: tuple[int, list[int]], maps: tuple[pmem2.VMReservation, list[pmem2.Map]]) -> None:
    """Each map finds the next one, and the last map finds none."""
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


@pytest.mark.upstream("pmem2_vm_reservation/TEST46")
def test_only_map_has_no_neighbours(source: pmem2.Source, raw_source: int) -> None:
    """The only map in the middle of a reservation has neither a previous nor a next map."""
    with libpmem2.reservation(3 * SIZE) as pointer, raw_map_at(raw_source, pointer, SIZE) as mapped:
        assert libpmem2.find_prev(pointer, mapped) == (lib.PMEM2_E_MAPPING_NOT_FOUND, 0)
        assert libpmem2.find_next(pointer, mapped) == (lib.PMEM2_E_MAPPING_NOT_FOUND, 0)
    with pmem2.VMReservation(3 * SIZE) as reservation, map_at(source, reservation, SIZE) as map:
        with pytest.raises(pmem2.MappingNotFoundError):
            reservation.prev(map)
        with pytest.raises(pmem2.MappingNotFoundError):
            reservation.next(map)


@pytest.mark.upstream("pmem2_vm_reservation/TEST48")
def test_find_first_and_last(source: pmem2.Source, raw_source: int) -> None:
    """As maps are closed from both ends, the next ones become the first and the last."""
    with libpmem2.reservation(4 * SIZE) as pointer, ExitStack() as stack:
        pointers = [stack.enter_context(raw_map_at(raw_source, pointer, i * SIZE)) for i in (1, 2)]
        with raw_map_at(raw_source, pointer, 0) as first, raw_map_at(raw_source, pointer, 3 * SIZE) as last:
            assert (libpmem2.find_first(pointer), libpmem2.find_last(pointer)) == ((0, first), (0, last))
        assert (libpmem2.find_first(pointer), libpmem2.find_last(pointer)) == ((0, pointers[0]), (0, pointers[1]))
    with pmem2.VMReservation(4 * SIZE) as reservation:
        maps = [map_at(source, reservation, i * SIZE) for i in range(4)]
        while maps:
            assert reservation.first() is maps[0]
            assert reservation.last() is maps[-1]
            maps.pop(0).close()
            maps.pop().close()
