# SPDX-License-Identifier: BSD-3-Clause
"""Hints: madvise, prefault, and memory that is not reserved for copy-on-write maps."""

from __future__ import annotations

import errno
import mmap
import os
import resource
from pathlib import Path

import pytest
from support.children import RunChild
from support.compiled import preloadable
from support.values import CONTENT, PAGE, SIZE, not_emulated

import pmem2
from pmem2 import Config, Map, Protection, Sharing, Source

LENGTH = len(CONTENT)
PAGES = SIZE // PAGE
advice_has_effect = not_emulated("ignores most advice of madvise(2), MADV_POPULATE_WRITE too")
REFUSED = (9, 10, 18, 100, 101, 102)  # REMOVE, DONTFORK, WIPEONFORK, HWPOISON, SOFT_OFFLINE, GUARD_INSTALL
VOLATILE = (4, 8, 24)  # DONTNEED, FREE, DONTNEED_LOCKED
RUSAGE_THREAD = 1  # PyPy lacks the name
OPTIONS = {name: value for name, value in vars(mmap).items() if name.startswith("MADV_")}


def faults() -> int:
    """Return how many page faults this thread had that needed no disk."""
    return resource.getrusage(RUSAGE_THREAD).ru_minflt


# ---- madvise


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_constants_of_mmap(path: Path, name: str) -> None:
    """Each constant of the module mmap is a hint that changes nothing, an error of the kernel, or refused."""
    number = OPTIONS[name]
    for mode in ("r+", "c"):
        with pmem2.open(path, mode) as map:
            if number in REFUSED or (mode == "c" and number in VOLATILE):
                with pytest.raises(ValueError, match=name):
                    map.madvise(number)
            else:
                try:
                    map.madvise(number)
                except OSError as error:
                    assert error.errno in (errno.EINVAL, errno.EPERM, errno.ENOMEM)  # noqa: PT017
            assert map[:] == CONTENT


@pytest.mark.parametrize("number", REFUSED)
def test_harmful_option(small_map: Map, number: int) -> None:
    """An option that can lose data or end the process is a ValueError, as a plain number too."""
    with pytest.raises(ValueError, match=r"option must not lose data or end the process, got MADV_\w+"):
        small_map.madvise(number)


@pytest.mark.parametrize("number", VOLATILE)
def test_volatile_memory_is_kept(path: Path, number: int) -> None:
    """An option that discards data of no file is a ValueError on a PRIVATE map, and on existing memory."""
    memory = bytearray(CONTENT)
    with Source.from_path(path) as source:
        private = source.map(Config(sharing=Sharing.PRIVATE))
        existing = Map.from_existing(source, memory, pmem2.Granularity.PAGE)
        for map in (private, existing):
            with map, pytest.raises(ValueError, match="must not lose stored data"):
                map.madvise(number)
    assert memory == CONTENT


def test_discarded_pages_come_back(file: Path) -> None:
    """MADV_DONTNEED on a SHARED map of a file or of anonymous memory frees pages, and their contents stay."""
    with pmem2.open(file) as map, Source.from_anon(SIZE) as source, source.map() as anonymous:
        for shared in (map, anonymous):
            shared[::PAGE] = b"x" * PAGES
            shared.madvise(mmap.MADV_DONTNEED)
            assert shared[::PAGE] == b"x" * PAGES


def test_range_is_widened(small_map: Map) -> None:
    """Any offset and length will do, which mmap.madvise refuses; a range outside is a ValueError."""
    small_map.madvise(mmap.MADV_WILLNEED, PAGE + 5, 10)
    small_map.madvise(mmap.MADV_WILLNEED, LENGTH)
    small_map.madvise(mmap.MADV_WILLNEED, 5, 0)
    with pytest.raises(ValueError, match="range 1\\+8192 ends beyond"):
        small_map.madvise(mmap.MADV_WILLNEED, 1, LENGTH)


@advice_has_effect
def test_unknown_option(small_map: Map) -> None:
    """The kernel decides on other numbers; one that is no C int is a ValueError."""
    with pytest.raises(OSError, match="advise") as unknown:
        small_map.madvise(9999)
    assert unknown.value.errno == errno.EINVAL
    with pytest.raises(ValueError, match="option"):
        small_map.madvise(2**31)


# ---- prefault


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@advice_has_effect
def test_no_fault_later(file: Path, mode: str) -> None:
    """After prefault, the first use of a page needs no page fault: a store, or a load where none is allowed."""
    content = bytes(range(256)) * (SIZE // 256)
    file.write_bytes(content)
    with pmem2.open(file, mode) as map:  # type: ignore[arg-type]
        map.prefault()
        before = faults()
        if mode == "r":
            assert map[::PAGE] == bytes(PAGES)
        else:
            map[::PAGE] = b"x" * PAGES
        assert faults() - before < PAGES // 8
        assert map[1:PAGE] == content[1:PAGE]
        assert map[-255:] == content[-255:]


def test_part_is_faulted_in(file: Path) -> None:
    """Only the pages of the range are faulted in, whole ones; an empty range has none."""
    with pmem2.open(file) as map:
        map.prefault(5, 0)
        map.prefault(SIZE)
        map.prefault(SIZE - 5, 1)
        assert os.stat(file).st_blocks * 512 <= 2 * PAGE
        with pytest.raises(ValueError, match="ends beyond"):
            map.prefault(1, SIZE)


def test_existing_memory(anonymous_source: Source) -> None:
    """Memory that begins and ends within a page can be faulted in."""
    memory = bytearray(CONTENT)
    with Map.from_existing(anonymous_source, memoryview(memory)[3:-3], pmem2.Granularity.BYTE) as map:
        map.prefault()
    assert memory == CONTENT


@pytest.mark.parametrize("call", [Map.prefault, lambda m: m.madvise(0)], ids=["prefault", "madvise"])
def test_hints_need_access(path: Path, call: object) -> None:
    """A map with neither READ nor WRITE raises TypeError, a closed one ValueError."""
    assert callable(call)
    with Source.from_path(path) as source:
        with source.map(Config(protection=Protection.NONE)) as map, pytest.raises(TypeError, match="neither"):
            call(map)
    with pytest.raises(ValueError, match="closed"):
        call(map)


@advice_has_effect
def test_full_disk_is_an_error(small_disk: Path) -> None:
    """Where a store would end the process, because the disk is full, prefault raises an error."""
    path = small_disk / "file"
    path.touch()
    os.truncate(path, 64 * PAGE)
    with pmem2.open(path) as map, pytest.raises(OSError, match="the disk is full") as full:
        map.prefault()
    assert full.value.errno == errno.EFAULT


OLD_KERNEL = """
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
int madvise(void *address, size_t length, int advice)
{
    if (advice == 22 || advice == 23) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_madvise, address, length, advice);
}
"""
TOUCH = """
import resource, sys
import pmem2
path, page = sys.argv[1], int(sys.argv[2])
for mode in ("r", "c", "r+"):
    with pmem2.open(path, mode) as map:
        pages = map.size // page
        content = map[1:page]
        map.prefault(5)
        before = resource.getrusage(1).ru_minflt
        if mode == "r":
            map[::page]
        else:
            map[::page] = b"x" * pages
        print(mode, resource.getrusage(1).ru_minflt - before < pages // 8, map[1:page] == content)
"""


def test_older_kernel_touches_pages(run_child: RunChild, file: Path) -> None:
    """Before Linux 5.14, prefault touches each page; the contents stay."""
    child = run_child(TOUCH, str(file), str(PAGE), LD_PRELOAD=str(preloadable(OLD_KERNEL)))
    assert (child.stdout, child.stderr) == ("r True True\nc True True\nr+ True True\n", "")


# ---- memory that is not reserved


@pytest.mark.skipif(
    Path("/proc/sys/vm/overcommit_memory").read_text(encoding="ascii").strip() == "2",
    reason="the system reserves memory for everything",
)
def test_file_larger_than_memory(tmp_path: Path) -> None:
    """A file that is larger than the memory of the machine can be mapped copy-on-write, also in a reservation."""
    path = tmp_path / "large"
    path.touch()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = (2 * memory // PAGE + 1) * PAGE
    try:
        os.truncate(path, size)
    except OSError:
        pytest.skip("the file system has no files of that size")
    with pmem2.open(path, "c") as map:
        map[0] = map[-1] = 1
        assert (map.size, map[0], map[-1]) == (size, 1, 1)
        assert map.granularity is pmem2.Granularity.BYTE
    with pmem2.VMReservation(size) as reservation, Source.from_path(path, writable=False) as source:
        with source.map(Config(sharing=Sharing.PRIVATE, reservation=reservation)) as placed:
            assert placed.address == reservation.address
            placed[-1] = 1
    with pmem2.open(path, "r") as map:
        assert map[0] == map[-1] == 0


def test_private_part_of_file(path: Path) -> None:
    """A PRIVATE map of a part shows that part, and its stores do not reach the file."""
    with Source.from_path(path, writable=False) as source:
        with source.map(Config(sharing=Sharing.PRIVATE, offset=PAGE, length=PAGE)) as map:
            assert map[:] == CONTENT[PAGE : 2 * PAGE]
            map.memset(0, 7, PAGE)
            assert map[:] == b"\7" * PAGE
    assert path.read_bytes() == CONTENT
