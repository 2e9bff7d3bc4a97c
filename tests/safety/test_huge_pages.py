# SPDX-License-Identifier: BSD-3-Clause
"""Huge pages: the unit of a map on hugetlbfs is the huge page, and every operation works on whole ones."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.copying import without_tmpfs_warning
from support.filesystems import hugetlbfs
from support.values import EMULATED, HAS_CACHE_LINE, PAGE, not_emulated, without_map_sync

import pmem2
from pmem2 import Config
from pmem2.cli import main

refused_without_flush = pytest.mark.skipif(
    EMULATED and not HAS_CACHE_LINE,
    reason="QEMU's user emulation ignores MAP_SYNC, so these maps would be CACHE_LINE, which is refused here",
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The mount point of a hugetlbfs."""
    with hugetlbfs(tmp_path) as point:
        yield point


@pytest.fixture
def huge(folder: Path) -> int:
    """The size of a huge page."""
    return os.statvfs(folder).f_bsize


@pytest.fixture
def source(folder: Path, huge: int) -> Iterator[pmem2.Source]:
    """A Source of four huge pages."""
    path = folder / "file"
    path.touch()
    os.truncate(path, 4 * huge)
    with pmem2.Source.from_path(path) as source:
        yield source


def mapping_count() -> int:
    """Return how many mappings of the file this process has."""
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("/hugetlbfs/file")


def test_alignment(source: pmem2.Source, huge: int) -> None:
    """The alignment is the size of a huge page."""
    assert source.alignment == huge > PAGE


@without_map_sync
def test_unaligned_is_refused(source: pmem2.Source, huge: int) -> None:
    """A part of a huge page is refused in the order of libpmem2's checks, and nothing stays mapped."""
    with pytest.raises(pmem2.GranularityNotSetError):
        source.map(Config(required_granularity=None, offset=PAGE))
    with pytest.raises(pmem2.OffsetUnalignedError):
        source.map(Config(offset=PAGE, length=PAGE))
    with pytest.raises(pmem2.LengthUnalignedError):
        source.map(Config(length=huge + PAGE))
    with pytest.raises(pmem2.MapRangeError):
        source.map(Config(offset=4 * huge))
    with pytest.raises(pmem2.MapRangeError):
        source.map(Config(length=5 * huge))
    with pytest.raises(pmem2.GranularityNotSupportedError):
        source.map(Config(required_granularity=pmem2.Granularity.CACHE_LINE))
    assert mapping_count() == 0


@refused_without_flush
@pytest.mark.parametrize("sharing", list(pmem2.Sharing))
def test_operations(source: pmem2.Source, huge: int, sharing: pmem2.Sharing) -> None:
    """Every kind of operation works on a map of whole huge pages, which is given back."""
    with source.map(Config(offset=huge, length=2 * huge, sharing=sharing)) as map:
        assert (map.size, map.address % huge) == (2 * huge, 0)
        map[-1] = 1
        map.persist()
        map.memset(huge - 8, 2, 16)
        map.memcpy(PAGE + 1, b"data")
        map.memmove(0, map.view(PAGE, 8))
        assert map[1:5] == b"data"
        assert map.fetch_add_u64(0, 1, persist=True) == int.from_bytes(b"\0data\0\0\0", "little")
        map.flush_many([(0, 10), (huge + 5, PAGE)])
        map.drain()
    assert mapping_count() == 0
    shared = sharing is pmem2.Sharing.SHARED
    assert source.pread_mcsafe(1, 3 * huge - 1) == bytes([shared])
    with pytest.raises(OSError, match="store through a map"):
        source.pwrite_mcsafe(b"x")


@refused_without_flush
def test_other_memory_stays(source: pmem2.Source, huge: int) -> None:
    """Maps of one huge page each do not overlap, and closing one leaves the others."""
    maps = [source.map(Config(offset=number * huge, length=huge)) for number in range(4)]
    for number, map in enumerate(maps):
        map.memset(0, number + 1, huge)
    maps.pop(1).close()
    assert [map[huge - 1] for map in maps] == [1, 3, 4]
    for map in maps:
        map.close()


@refused_without_flush
def test_in_reservation(source: pmem2.Source, huge: int) -> None:
    """In a reservation, the address must be a multiple of the huge page; a refused map replaces nothing."""
    with pmem2.VMReservation(4 * huge) as reservation:
        first = -reservation.address % huge
        with source.map(Config(length=huge, reservation=reservation, reservation_offset=first)) as map:
            map[0] = 1
            with pytest.raises(pmem2.AddressUnalignedError):
                source.map(Config(length=huge, reservation=reservation, reservation_offset=first + huge + PAGE))
            assert list(reservation) == [map]


@not_emulated("ignores most advice of madvise(2)")
def test_hints_take_huge_pages(source: pmem2.Source, huge: int) -> None:
    """The range of a hint is widened to whole huge pages; the contents stay."""
    with source.map() as map:
        map.prefault(huge + 5, 10)
        assert os.fstat(source.fd).st_blocks * 512 == huge
        map[huge] = 7
        map.madvise(mmap.MADV_DONTNEED, huge + 5, 10)
        assert map[huge] == 7


@refused_without_flush
def test_open(folder: Path, huge: int) -> None:
    """`open` creates and grows nothing but whole huge pages, and leaves no file when it fails."""
    path = folder / "new"
    with pmem2.open(path, "x+", size=2 * huge) as map:
        map.memset(0, 1, huge)
    with pmem2.open(path, "w+", size=huge) as map:
        assert (map.size, map[:]) == (huge, bytes(huge))
    with pytest.raises(pmem2.LengthUnalignedError):
        pmem2.open(folder / "other", "x+", size=PAGE)
    assert os.listdir(folder) == ["new"]


@without_map_sync
def test_command_line(folder: Path, huge: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`info` and `copy` work on files of huge pages, in both directions."""
    path, image = folder / "file", tmp_path / "image"
    with pmem2.open(path, "w+", size=2 * huge) as map:
        map.memset(huge - 5, 7, 10)
    assert main(["info", str(folder), str(path)]) == 0
    output = capsys.readouterr().out
    for text in ("file system  hugetlbfs at ", "granularity  PAGE", "alignment    "):
        assert output.count(text) == 2
    assert main(["copy", "--verify", str(path), str(image)]) == 0
    assert image.stat().st_size == 2 * huge
    assert main(["copy", "--verify", str(image), str(folder / "back")]) == 0
    with pmem2.open(folder / "back", "r") as back, pmem2.open(path, "r") as map:
        assert back[huge - 6 : huge + 6] == map[huge - 6 : huge + 6] == b"\0" + b"\7" * 10 + b"\0"
    output, error = capsys.readouterr()
    warning = f"pmem2: {folder}/back is on hugetlbfs, in memory: a power failure or a restart loses it\n"
    assert (output, without_tmpfs_warning(error)) == ("", warning)
