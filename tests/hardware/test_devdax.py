# SPDX-License-Identifier: BSD-3-Clause
"""A device DAX: PMDK's test cases for one, and the façade on persistent and CXL memory."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pmem2 import ffi, lib
from support import libpmem2
from support.children import RunChild
from support.values import MEDIUM_GRANULARITY, open_fd

import pmem2
from hardware import inject
from pmem2 import Config, ErrorCode, Granularity, Protection, Sharing, VMReservation

pytestmark = pytest.mark.medium

ALIGNMENT = 2 * 1024 * 1024
TEXT = b"Some text for a device."
TWO_PLUS_TWO = bytes.fromhex("b802000000 83c002 c3")  # mov $2, %eax; add $2, %eax; ret
# each test that writes to the device has its own area
AREAS = {name: number * ALIGNMENT for number, name in enumerate(("start", "header", "copies", "code", "existing"))}


@pytest.fixture
def device(devdax: Path) -> Iterator[pmem2.Source]:
    """A writable source of the device."""
    with pmem2.Source.from_path(devdax) as source:
        yield source


@pytest.fixture
def raw_device(devdax: Path) -> Iterator[int]:
    """A libpmem2 source of the device."""
    with open_fd(devdax, os.O_RDWR) as fd, libpmem2.source(fd) as pointer:
        yield pointer


def check_refused(device: pmem2.Source, raw_device: int, code: ErrorCode, offset: int, length: int) -> pmem2.Pmem2Error:
    """Check that libpmem2 and the façade refuse to map a range; return the façade's error."""
    with libpmem2.config(offset=offset, length=length) as config:
        assert libpmem2.map_new(config, raw_device) == (code, 0)
    with pytest.raises(pmem2.Pmem2Error) as caught:
        device.map(Config(offset=offset, length=length))
    assert caught.value.code is code
    return caught.value


def test_documentation_recipe(devdax: Path) -> None:
    """The device recipe in the documentation stores its data; only this machine can run it."""
    page = (Path(__file__).parents[2] / "docs/guide/recipes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (block,) = (text for text in blocks if "/dev/dax0.0" in text)
    exec(block.replace("/dev/dax0.0", str(devdax)), {"pmem2": pmem2})
    with pmem2.open(devdax, "r") as map:
        assert map[:5] == b"hello"


# ---- sources


@pytest.mark.upstream("pmem2_source/TEST18")
def test_mcsafe_read(device: pmem2.Source, raw_device: int) -> None:
    """mcsafe reads return the data that was copied through a map."""
    offset = AREAS["copies"] + 100
    with device.map() as map:
        map.memcpy(offset, TEXT)
    assert device.pread_mcsafe(len(TEXT), offset) == TEXT
    assert libpmem2.pread_mcsafe(raw_device, len(TEXT), offset) == (0, TEXT)


@pytest.mark.upstream("pmem2_source/TEST19")
def test_mcsafe_write(device: pmem2.Source) -> None:
    """A map contains the data of an mcsafe write."""
    offset = AREAS["copies"] + 300
    device.pwrite_mcsafe(TEXT, offset)
    with device.map() as map:
        assert map[offset : offset + len(TEXT)] == TEXT


@pytest.mark.upstream("pmem2_source/TEST21")
def test_mcsafe_past_end(device: pmem2.Source, raw_device: int) -> None:
    """Reads and writes past the end are refused."""
    end = device.size
    assert libpmem2.pread_mcsafe(raw_device, 1, end)[0] == ErrorCode.LENGTH_OUT_OF_RANGE
    assert libpmem2.pwrite_mcsafe(raw_device, b"x", end) == ErrorCode.LENGTH_OUT_OF_RANGE
    for offset in (end - 1, end, end + 1, 2**63):
        with pytest.raises(pmem2.LengthOutOfRangeError):
            device.pread_mcsafe(2, offset)
        with pytest.raises(pmem2.LengthOutOfRangeError):
            device.pwrite_mcsafe(b"xy", offset)
    assert len(device.pread_mcsafe(1, end - 1)) == 1


@pytest.mark.upstream("pmem2_source_size/TEST6")
def test_size(device: pmem2.Source, raw_device: int, devdax: Path) -> None:
    """The size of a device is the size in sysfs."""
    size = int(inject.attribute(devdax, "size"))
    assert device.size == size
    assert libpmem2.source_size(raw_device) == (0, size)


@pytest.mark.upstream("pmem2_source_alignment/TEST1")
def test_alignment(device: pmem2.Source, raw_device: int, devdax: Path) -> None:
    """The alignment of a device is the alignment in sysfs, here that of a huge page."""
    assert int(inject.attribute(devdax, "align")) == ALIGNMENT
    assert device.alignment == ALIGNMENT
    assert libpmem2.source_alignment(raw_device) == (0, ALIGNMENT)


@pytest.mark.upstream("pmem2_source_numa/TEST1")
def test_numa_node(device: pmem2.Source, raw_device: int, devdax: Path) -> None:
    """The NUMA node of a device is the node in sysfs."""
    assert device.numa_node == int(inject.attribute(devdax, "numa_node"))
    assert libpmem2.source_numa_node(raw_device) == 0


def test_device_id(device: pmem2.Source, raw_device: int, devdax: Path) -> None:
    """The id of a device is the id of its NVDIMM, without a NUL or a prefix."""
    region = next(folder for folder in inject.sysfs(devdax).parents if (folder / "mapping0").is_file())
    dimm = (region / "mapping0").read_text(encoding="ascii").split(",")[0]
    name = (Path("/sys/bus/nd/devices") / dimm / "nfit" / "id").read_text(encoding="ascii").strip()
    assert device.device_id == name
    assert libpmem2.source_device_id(raw_device) == 0


def test_unsafe_shutdown_count_unsupported(device: pmem2.Source, raw_device: int) -> None:
    """An NVDIMM without an unsafe shutdown count is NOSUPP."""
    assert libpmem2.source_device_usc(raw_device) == ErrorCode.NOSUPP
    with pytest.raises(pmem2.NosuppError, match="unsafe shutdown"):
        _ = device.device_usc


WALK_SYSFS = """
import sys, threading, pmem2

threading.Thread(target=threading.Event().wait, daemon=True).start()
for path in sys.argv[1:]:
    with pmem2.Source.from_path(path) as source, source.map(pmem2.Config(length=1 << 21)) as map:
        source.pwrite_mcsafe(source.pread_mcsafe(4096))
        map.deep_flush(0, 4096)
        source.device_id, source.numa_node
        try:
            source.device_usc
        except pmem2.NosuppError:
            pass
        with source.bad_blocks() as blocks:
            list(blocks)
print(*(thread.native_id for thread in threading.enumerate()))
"""


def test_working_directory_stays(devdax: Path, fsdax: Path) -> None:
    """No call on a device or a file on DAX changes the working directory of a thread."""
    file, trace = fsdax / "file", fsdax / "trace"
    pmem2.open(file, "w+", size=4 << 20).close()
    traced = ["strace", "-f", "-qq", "-e", "trace=chdir,fchdir", "-o", str(trace), sys.executable, "-c", WALK_SYSFS]
    done = subprocess.run([*traced, str(devdax), str(file)], capture_output=True, text=True, check=True)
    changing = {line.split()[0] for line in trace.read_text(encoding="utf-8").splitlines()}
    assert changing, "libpmem2 does not change it any more: workaround_chdir.c may go"
    assert changing.isdisjoint(done.stdout.split())


# ---- maps


@pytest.mark.upstream("pmem2_map/TEST1")
def test_map_device(device: pmem2.Source, raw_device: int, granularity: Granularity) -> None:
    """A device maps at the granularity of its platform and at a huge page boundary."""
    with libpmem2.config() as config, libpmem2.map(config, raw_device) as pointer:
        assert libpmem2.map_granularity(pointer) == granularity
        assert libpmem2.map_size(pointer) == device.size
    with device.map() as map:
        assert map.granularity is granularity
        assert map.size == device.size
        assert map.address % ALIGNMENT == 0


@pytest.mark.upstream("pmem2_map/TEST3")
def test_map_read_only_device(devdax: Path) -> None:
    """A read-only device cannot be mapped for writing."""
    with open_fd(devdax, os.O_RDONLY) as fd, libpmem2.source(fd) as pointer, libpmem2.config() as config:
        assert libpmem2.map_new(config, pointer) == (lib.PMEM2_E_NO_ACCESS, 0)
    with pmem2.Source.from_path(devdax, writable=False) as source:
        with pytest.raises(pmem2.NoAccessError):
            source.map(Config(protection=Protection.READ | Protection.WRITE))
        with source.map() as map:
            assert map.protection == Protection.READ
            assert len(map[:10]) == 10


@pytest.mark.upstream("pmem2_map/TEST5")
def test_valid_ranges(device: pmem2.Source) -> None:
    """A map has the requested length, or extends to the end of the device."""
    size = device.size
    half = size // 2 // ALIGNMENT * ALIGNMENT
    for length, offset, expected in (
        (None, 0, size),
        (size, 0, size),
        (half, 0, half),
        (half, ALIGNMENT, half),
        (None, size - ALIGNMENT, ALIGNMENT),
    ):
        with device.map(Config(length=length, offset=offset)) as map:
            assert map.size == expected


@pytest.mark.upstream("pmem2_map/TEST7")
def test_range_past_end(device: pmem2.Source, raw_device: int) -> None:
    """A range that exceeds the device is MAP_RANGE."""
    check_refused(device, raw_device, ErrorCode.MAP_RANGE, ALIGNMENT, device.size)
    with pytest.raises(pmem2.MapRangeError):
        device.map(Config(offset=device.size))


@pytest.mark.upstream("pmem2_map/TEST9")
def test_unaligned_offset(device: pmem2.Source, raw_device: int) -> None:
    """An offset aligned for a file but not for the device is refused, and the error names the alignment."""
    error = check_refused(device, raw_device, ErrorCode.OFFSET_UNALIGNED, mmap.PAGESIZE, ALIGNMENT)
    assert str(ALIGNMENT) in str(error)


@pytest.mark.upstream("pmem2_map/TEST12")
def test_unmap(device: pmem2.Source, raw_device: int) -> None:
    """A deleted or closed map is no longer in memory."""
    with libpmem2.config() as config, libpmem2.map(config, raw_device) as pointer:
        address = libpmem2.map_address(pointer)
        assert libpmem2.permissions(address) == "rw-s"
    assert libpmem2.permissions(address) != "rw-s"
    map = device.map()
    address = map.address
    assert libpmem2.permissions(address) == "rw-s"
    map.close()
    assert libpmem2.permissions(address) != "rw-s"


@pytest.mark.upstream("pmem2_map/TEST28")
def test_private_map_refused(device: pmem2.Source, raw_device: int, devdax: Path) -> None:
    """A device cannot be mapped privately, and the error suggests SHARED."""
    with libpmem2.config(sharing=lib.PMEM2_PRIVATE) as config:
        assert libpmem2.map_new(config, raw_device) == (lib.PMEM2_E_SRC_DEVDAX_PRIVATE, 0)
    with pytest.raises(pmem2.SrcDevdaxPrivateError, match="SHARED"):
        device.map(Config(sharing=Sharing.PRIVATE))
    with pytest.raises(pmem2.SrcDevdaxPrivateError):
        pmem2.open(devdax, "c")


@pytest.mark.upstream("pmem2_map_prot/TEST15")
def test_read_write_map(device: pmem2.Source) -> None:
    """A READ|WRITE map of a device can be written and read."""
    config = Config(protection=Protection.READ | Protection.WRITE, offset=AREAS["copies"], length=ALIGNMENT)
    with device.map(config) as map:
        map.memset(0, 0, len(TEXT))
        map.memcpy(0, TEXT)
        assert map[: len(TEXT)] == TEXT


@pytest.mark.upstream("pmem2_map_prot/TEST16")
def test_execute_stored_code(device: pmem2.Source) -> None:
    """Code stored on a device runs in a READ|EXEC map."""
    with device.map(Config(offset=AREAS["code"], length=ALIGNMENT)) as map:
        map.memcpy(0, TWO_PLUS_TWO)
    executable = Config(offset=AREAS["code"], length=ALIGNMENT, protection=Protection.READ | Protection.EXEC)
    with device.map(executable) as map:
        assert libpmem2.call(map.address) == 4


# ---- reservations


def map_at(
    device: pmem2.Source,
    reservation: VMReservation,
    reservation_offset: int,
    *,
    offset: int = 0,
    length: int = ALIGNMENT,
) -> pmem2.Map:
    """Return a map of a part of the device in a reservation."""
    return device.map(
        Config(offset=offset, length=length, reservation=reservation, reservation_offset=reservation_offset)
    )


@pytest.mark.upstream("pmem2_vm_reservation/TEST1")
def test_reservation_unaligned_address(device: pmem2.Source) -> None:
    """An address inside a page is refused."""
    with pytest.raises(pmem2.AddressUnalignedError):
        VMReservation(device.size, ALIGNMENT - 1)


@pytest.mark.upstream("pmem2_vm_reservation/TEST3")
def test_reservation_unaligned_size(device: pmem2.Source) -> None:
    """A size that ends inside a page is refused."""
    with pytest.raises(pmem2.LengthUnalignedError):
        VMReservation(device.size - 1)


@pytest.mark.upstream("pmem2_vm_reservation/TEST5")
def test_reservation_fixed_address(device: pmem2.Source) -> None:
    """A reservation has the requested address, and so has a map at offset 0."""
    half = device.size // 2 // ALIGNMENT * ALIGNMENT
    with device.map() as closed:
        address = closed.address
    with VMReservation(half, address) as reservation, map_at(device, reservation, 0, length=half) as map:
        assert (map.address, map.size) == (address, half)


@pytest.mark.upstream("pmem2_vm_reservation/TEST7")
def test_reserve_address_twice(device: pmem2.Source) -> None:
    """A reserved range cannot be reserved again."""
    with VMReservation(device.size) as reservation, pytest.raises(pmem2.MappingExistsError):
        VMReservation(device.size, reservation.address)


@pytest.mark.upstream("pmem2_vm_reservation/TEST9", "pmem2_vm_reservation/TEST11", "pmem2_vm_reservation/TEST13")
@pytest.mark.parametrize("halves", [0, -1, 1], ids=["over", "below", "above"])
def test_reservation_over_map(device: pmem2.Source, halves: int) -> None:
    """A reservation that overlaps a map of a device is refused."""
    half = device.size // 2 // ALIGNMENT * ALIGNMENT
    with device.map() as map, pytest.raises(pmem2.MappingExistsError):
        VMReservation(device.size, map.address + halves * half)


@pytest.mark.upstream("pmem2_vm_reservation/TEST17")
def test_map_whole_device_in_reservation(device: pmem2.Source) -> None:
    """A map of the whole device has the address of its reservation, which is device-aligned."""
    with VMReservation(device.size) as reservation, map_at(device, reservation, 0, length=device.size) as map:
        assert map.address == reservation.address
        assert map.address % ALIGNMENT == 0


def test_close_reservation_with_map(device: pmem2.Source) -> None:
    """A reservation with a map of a device in it cannot be closed."""
    with VMReservation(ALIGNMENT) as reservation:
        with map_at(device, reservation, 0), pytest.raises(pmem2.VmReservationNotEmptyError):
            reservation.close()
        assert not reservation.closed


def test_reservation_insufficient_space(device: pmem2.Source) -> None:
    """A map larger than the reservation is refused."""
    with VMReservation(ALIGNMENT) as reservation, pytest.raises(pmem2.LengthOutOfRangeError):
        map_at(device, reservation, 0, length=2 * ALIGNMENT)


@pytest.mark.upstream("pmem2_vm_reservation/TEST19")
def test_map_part_in_reservation(device: pmem2.Source) -> None:
    """A reservation smaller than the device takes a map of its second half."""
    half = device.size // 2 // ALIGNMENT * ALIGNMENT
    size = device.size - half
    with VMReservation(size) as reservation, map_at(device, reservation, 0, offset=half, length=size) as map:
        assert map.address == reservation.address


@pytest.mark.upstream("pmem2_vm_reservation/TEST25", "pmem2_vm_reservation/TEST27", "pmem2_vm_reservation/TEST29")
@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (0, 1)], ids=["over", "below", "above"])
def test_overlap_in_reservation(device: pmem2.Source, first: int, second: int) -> None:
    """Two maps of a device cannot overlap in a reservation, and the first one is unharmed."""
    with VMReservation(3 * ALIGNMENT) as reservation:
        with map_at(device, reservation, first * ALIGNMENT, offset=AREAS["copies"], length=2 * ALIGNMENT) as map:
            with pytest.raises(pmem2.MappingExistsError):
                map_at(device, reservation, second * ALIGNMENT, length=2 * ALIGNMENT)
            map.memcpy(0, TEXT)
            assert reservation.find(0, reservation.size) is map


@pytest.mark.upstream("pmem2_vm_reservation/TEST22")
def test_map_unmap_in_turn(device: pmem2.Source) -> None:
    """The places of closed maps in a reservation can be mapped again at the same addresses."""
    with VMReservation(4 * ALIGNMENT) as reservation:
        for _ in range(5):
            for slot in range(4):
                with map_at(device, reservation, slot * ALIGNMENT) as map:
                    assert map.address == reservation.address + slot * ALIGNMENT


def test_unaligned_place_in_reservation(device: pmem2.Source) -> None:
    """An address that is not device-aligned is refused with an explanation, and the next aligned one works."""
    with VMReservation(3 * ALIGNMENT) as reservation:
        with pytest.raises(pmem2.AddressUnalignedError, match="device's alignment"):
            map_at(device, reservation, mmap.PAGESIZE)
        reservation.shrink(0, mmap.PAGESIZE)  # so that offset 0 is unaligned, too
        assert reservation.address % ALIGNMENT == mmap.PAGESIZE
        aligned = -reservation.address % ALIGNMENT
        with map_at(device, reservation, aligned) as map:
            assert map.address % ALIGNMENT == 0
            assert map.address == reservation.address + aligned


# ---- flushing


@pytest.mark.upstream("pmem2_integration/TEST33", "pmem2_integration/TEST36")
def test_deep_flush_valid_range(device: pmem2.Source, raw_device: int) -> None:
    """Persisted data on a device can be deep-flushed."""
    with device.map(Config(offset=AREAS["copies"], length=ALIGNMENT)) as map:
        map.memset(0, 7, 4096)
        map.persist(0, 4096)
        map.deep_flush()
        map.deep_flush(map.size, 0)
    with libpmem2.config() as config, libpmem2.map(config, raw_device) as pointer:
        assert libpmem2.deep_flush(pointer, 0, ALIGNMENT) == 0
        assert libpmem2.deep_flush(pointer, ALIGNMENT, ALIGNMENT) == 0


@pytest.mark.upstream("pmem2_integration/TEST34", "pmem2_integration/TEST37")
def test_deep_flush_behind_map(device: pmem2.Source, raw_device: int) -> None:
    """A range that ends behind the map is refused."""
    size = device.size
    for offset, length in ((size + 1, 64), (1024, size)):
        with device.map() as map, pytest.raises(ValueError, match="ends beyond the map"):
            map.deep_flush(offset, length)
        with libpmem2.config() as config, libpmem2.map(config, raw_device) as pointer:
            assert libpmem2.deep_flush(pointer, offset, length) == ErrorCode.DEEP_FLUSH_RANGE


@pytest.mark.upstream("pmem2_integration/TEST35")
def test_deep_flush_before_map(device: pmem2.Source, raw_device: int) -> None:
    """A range before the map is refused."""
    with device.map() as map, pytest.raises(ValueError, match="offset must be >= 0"):
        map.deep_flush(-64, 64)
    with libpmem2.config() as config, libpmem2.map(config, raw_device) as pointer:
        assert libpmem2.deep_flush(pointer, -64, 64) == ErrorCode.DEEP_FLUSH_RANGE


@pytest.mark.skipif(not MEDIUM_GRANULARITY, reason="needs a device DAX: nox -s nvdimm")
def test_granularity(device: pmem2.Source, granularity: Granularity) -> None:
    """A device satisfies its own granularity and coarser ones, and explains the refusal of finer ones."""
    for required in Granularity:
        config = Config(required_granularity=required, length=ALIGNMENT)
        if required >= granularity:
            with device.map(config) as map:
                assert map.granularity is granularity
        else:
            with pytest.raises(pmem2.GranularityNotSupportedError, match="eADR"):
                device.map(config)


# ---- integration


@pytest.mark.upstream("pmem2_integration/TEST15")
def test_unaligned_length(device: pmem2.Source, raw_device: int) -> None:
    """A length aligned for a file but not for the device is refused, and the error names the alignment."""
    check_refused(device, raw_device, ErrorCode.LENGTH_UNALIGNED, 0, device.size - 1)
    error = check_refused(device, raw_device, ErrorCode.LENGTH_UNALIGNED, 0, mmap.PAGESIZE)
    assert str(ALIGNMENT) in str(error)


@pytest.mark.upstream("pmem2_integration/TEST17")
def test_aligned_length(device: pmem2.Source, raw_device: int) -> None:
    """An aligned length is the size of the map."""
    length = device.size - ALIGNMENT
    with libpmem2.config(length=length) as config, libpmem2.map(config, raw_device) as pointer:
        assert libpmem2.map_size(pointer) == length
    with device.map(Config(length=length)) as map:
        assert map.size == length


@pytest.mark.upstream("pmem2_integration/TEST19")
def test_unaligned_offset_aligned_length(device: pmem2.Source, raw_device: int) -> None:
    """An unaligned offset is refused."""
    check_refused(device, raw_device, ErrorCode.OFFSET_UNALIGNED, ALIGNMENT - 1, device.size - ALIGNMENT)


@pytest.mark.upstream("pmem2_integration/TEST21")
def test_aligned_offset(device: pmem2.Source) -> None:
    """A map of part of a device accesses that part."""
    with device.map(Config(offset=AREAS["copies"], length=ALIGNMENT)) as part, device.map() as whole:
        part.memcpy(500, TEXT)
        begin = AREAS["copies"] + 500
        assert whole[begin : begin + len(TEXT)] == TEXT


@pytest.mark.upstream("pmem2_integration/TEST41")
def test_from_existing(device: pmem2.Source, granularity: Granularity) -> None:
    """Device memory from `mmap` becomes a Map."""
    offset = AREAS["existing"]
    with mmap.mmap(device.fd, ALIGNMENT, offset=offset) as memory:
        with pmem2.Map.from_existing(device, memory, granularity) as map:
            assert (map.size, map.granularity) == (ALIGNMENT, granularity)
            map.memcpy(0, TEXT)
            assert memory[: len(TEXT)] == TEXT
        memory[100:101] = b"!"
    assert device.pread_mcsafe(len(TEXT), offset) == TEXT
    assert device.pread_mcsafe(1, offset + 100) == b"!"


@pytest.mark.upstream("pmem2_integration/TEST41")
def test_from_existing_has_same_functions(device: pmem2.Source, raw_device: int, granularity: Granularity) -> None:
    """A map of existing device memory has the same functions as one that libpmem2 mapped itself."""
    with libpmem2.config() as config, libpmem2.map(config, raw_device) as made:
        functions = libpmem2.functions(made)
    with mmap.mmap(device.fd, ALIGNMENT) as memory, ffi.from_buffer("char[]", memory) as borrowed:
        address = int(ffi.cast("uintptr_t", borrowed))
        with libpmem2.existing(raw_device, address, ALIGNMENT, granularity) as map:
            assert libpmem2.functions(map) == functions


def test_from_existing_over_live_map(device: pmem2.Source, granularity: Granularity) -> None:
    """The memory of a live map cannot become a second Map."""
    with device.map() as map, map.view() as memory, pytest.raises(pmem2.MapExistsError):
        pmem2.Map.from_existing(device, memory, granularity)


# ---- open, and all operations


def test_open_device(devdax: Path, device: pmem2.Source, granularity: Granularity) -> None:
    """`pmem2.open` takes the size from the device, and persisted data is there when it is opened again."""
    offset = AREAS["header"]
    with pmem2.open(devdax) as map:
        assert (map.size, map.granularity) == (device.size, granularity)
        map[offset : offset + 8] = b"SIGNED\0\0"
        map.persist(offset, 8)
        map.store_u64(offset + 64, 42, persist=True)
    with pmem2.open(devdax, "r") as map:
        assert map[offset : offset + 8] == b"SIGNED\0\0"
        assert map.load_u64(offset + 64) == 42
        with pytest.raises(TypeError):
            map[offset] = 0
    assert device.pread_mcsafe(6, offset) == b"SIGNED"


def test_open_device_w_plus(devdax: Path, device: pmem2.Source) -> None:
    """Mode w+ neither truncates nor clears a device."""
    offset = AREAS["header"] + 4096
    device.pwrite_mcsafe(TEXT, offset)
    with pmem2.open(devdax, "w+", size=ALIGNMENT) as map:
        assert map.size == device.size
        assert map[offset : offset + len(TEXT)] == TEXT
    with pytest.raises(pmem2.MapRangeError, match=f"the device has {device.size} bytes"):
        pmem2.open(devdax, "w+", size=device.size + ALIGNMENT)


def test_open_device_x_plus(devdax: Path) -> None:
    """Mode x+ refuses an existing device and leaves it in place."""
    with pytest.raises(FileExistsError):
        pmem2.open(devdax, "x+", size=ALIGNMENT)
    assert devdax.is_char_device()


def test_all_operations(devdax: Path) -> None:
    """Copies, memset, atomics, batches and views reach the device."""
    area = AREAS["copies"] + 64 * 1024
    with pmem2.open(devdax, config=Config(offset=area // ALIGNMENT * ALIGNMENT, length=ALIGNMENT)) as map:
        start = area % ALIGNMENT
        map.memset(start, 0, 4096)
        map.memcpy(start, TEXT)
        with map.view(start, len(TEXT)) as view:
            map.memmove(start + 4, view)
        map.memcpy_many([(start + 100, b"one"), (start + 200, b"two")])
        map.persist_many([(start, 8), (start + 2048, 8)])
        assert map.fetch_add_u64(start + 512, 5) == 0
        assert map.compare_exchange_u64(start + 512, 5, 6, persist=True) == (True, 5)
        with map.view(start + 1024, 4) as view:
            view[:] = b"view"
        map.flush(start + 1024, 4)
        map.drain()
    with pmem2.open(devdax, "r") as map:
        assert map[area : area + 4 + len(TEXT)] == TEXT[:4] + TEXT
        assert map[area + 100 : area + 103] + map[area + 200 : area + 203] == b"onetwo"
        assert map.load_u64(area + 512) == 6
        assert map[area + 1024 : area + 1028] == b"view"


def test_fork(devdax: Path) -> None:
    """The parent sees a store that a child makes through the inherited map."""
    offset = AREAS["copies"] + 128 * 1024
    with pmem2.open(devdax) as map:
        map.store_u64(offset, 1, persist=True)
        child = os.fork()
        if child == 0:
            map.store_u64(offset, 2, persist=True)
            os._exit(0 if map.load_u64(offset) == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert map.load_u64(offset) == 2


BAD_BLOCKS_AS_PLAIN_USER = """
import os, sys
import pmem2
with pmem2.Source.from_path(sys.argv[1]) as source:
    os.setuid(65534)
    print(source.size, source.alignment, source.device_id)
    try:
        source.bad_blocks()
    except pmem2.CannotReadBoundsError as error:
        print(error)
"""


def test_bad_blocks_need_root(devdax: Path, device: pmem2.Source, run_child: RunChild) -> None:
    """A user without root can query size, alignment and id of an open device, but not its bad blocks."""
    child = run_child(BAD_BLOCKS_AS_PLAIN_USER, str(devdax))
    assert child.returncode == 0, child.stderr
    properties, refused = child.stdout.splitlines()
    assert properties == f"{device.size} {device.alignment} {device.device_id}"
    assert "root" in refused


OPEN_AS_PLAIN_USER = """
import os, sys
import pmem2
os.setuid(65534)
for mode in ("r", "r+", "c"):
    try:
        pmem2.open(sys.argv[1], mode)
    except PermissionError as error:
        print(mode, error.filename)
"""


def test_permission_denied(devdax: Path, run_child: RunChild) -> None:
    """`open` without permission raises a PermissionError that names the device."""
    child = run_child(OPEN_AS_PLAIN_USER, str(devdax))
    assert child.returncode == 0, child.stderr
    assert child.stdout == "".join(f"{mode} {devdax}\n" for mode in ("r", "r+", "c"))
