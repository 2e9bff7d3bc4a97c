# SPDX-License-Identifier: BSD-3-Clause
"""Bad blocks on persistent memory: PMDK's pmem2_badblock tests, and the façade's handling."""

from __future__ import annotations

import errno
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import libpmem2
from support.children import RunChild
from support.values import open_fd

import pmem2
from hardware import inject
from pmem2 import BadBlock, ErrorCode

pytestmark = pytest.mark.medium

PAGE = 4096
PAGES = 16
BAD = 5 * PAGE


@pytest.fixture
def content() -> bytes:
    """Pages that each repeat a byte of their own."""
    return b"".join(bytes([65 + page]) * PAGE for page in range(PAGES))


@pytest.fixture
def fragile(fsdax: Path) -> Iterator[Path]:
    """A folder on fsdax for files to damage; afterwards the disk has no bad blocks."""
    yield fsdax
    gc.collect()  # on PyPy, objects that a failed test left open would keep the file system busy
    inject.forget_bad_blocks(Path(os.environ["PMEM2_TEST_FSDAX"]))


@pytest.fixture
def damaged(fragile: Path, content: bytes) -> Path:
    """A file of 16 pages, one of them bad."""
    path = fragile / "damaged"
    with open(path, "wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    inject.make_bad(path, BAD, PAGE)
    return path


LOAD = """
import sys
import pmem2
with pmem2.open(sys.argv[1], "r") as map:
    offset = int(sys.argv[2])
    print(map[offset - 1], flush=True)
    print(map[offset], flush=True)
"""


def test_load_from_bad_page(damaged: Path, run_child: RunChild) -> None:
    """A load from a bad page kills the process with SIGBUS; a load from the page before it works."""
    child = run_child(LOAD, str(damaged), str(BAD))
    assert child.returncode == -signal.SIGBUS, child.stderr
    assert child.stdout == f"{65 + BAD // PAGE - 1}\n"


@pytest.mark.upstream("pmem2_badblock/TEST2")
def test_read_bad_page(damaged: Path, content: bytes) -> None:
    """Reading a bad page raises an IoFailError with a hint; the pages around it can be read."""
    with pmem2.Source.from_path(damaged) as source:
        for size, offset in ((1, BAD), (PAGE, BAD), (PAGE + 1, BAD - 1), (len(content), 0)):
            with pytest.raises(pmem2.IoFailError, match="bad_blocks"):
                source.pread_mcsafe(size, offset)
        with pytest.raises(pmem2.IoFailError):
            source.pread_mcsafe_into(bytearray(PAGE), BAD)
        assert source.pread_mcsafe(BAD) == content[:BAD]
        assert source.pread_mcsafe(len(content) - BAD - PAGE, BAD + PAGE) == content[BAD + PAGE :]


@pytest.mark.upstream("pmem2_badblock/TEST2")
@pytest.mark.libpmem2
def test_library_reads_bad_page(damaged: Path) -> None:
    """libpmem2 reports IO_FAIL when it reads a bad page."""
    with open_fd(damaged, os.O_RDWR) as fd, libpmem2.source(fd) as pointer:
        assert libpmem2.pread_mcsafe(pointer, PAGE, BAD)[0] == ErrorCode.IO_FAIL


@pytest.mark.upstream("pmem2_badblock/TEST3")
@pytest.mark.parametrize("size", [PAGE, 8])
def test_write_bad_page(damaged: Path, content: bytes, size: int) -> None:
    """Writing a bad page raises an error that names the bad block, even if the kernel reports EFAULT."""
    with pmem2.Source.from_path(damaged) as source:
        with pytest.raises(OSError, match=r"bad block.*bad_blocks") as caught:
            source.pwrite_mcsafe(bytes(size), BAD)
        assert isinstance(caught.value, pmem2.IoFailError) or caught.value.errno == errno.EFAULT
        source.pwrite_mcsafe(b"good", BAD - 4)
        assert source.pread_mcsafe(4, BAD - 4) == b"good"
        assert source.pread_mcsafe(PAGE, BAD + PAGE) == content[BAD + PAGE : BAD + 2 * PAGE]


@pytest.mark.upstream("pmem2_badblock/TEST0")
def test_list_bad_page(damaged: Path) -> None:
    """The list contains only the bad page, with its offset in the file."""
    with pmem2.Source.from_path(damaged) as source, source.bad_blocks() as blocks:
        assert list(blocks) == [BadBlock(BAD, PAGE)]


def test_bad_sector_listed_as_page(fragile: Path, content: bytes) -> None:
    """A bad sector is listed as its whole page, since a file system repairs whole blocks."""
    path = fragile / "sector"
    path.write_bytes(content)
    inject.make_bad(path, 7 * PAGE + 1024, 512)
    with pmem2.Source.from_path(path) as source, source.bad_blocks() as blocks:
        assert list(blocks) == [BadBlock(7 * PAGE, PAGE)]


def test_clear_bad_page(damaged: Path, content: bytes) -> None:
    """A cleared page reads as zeros and can be written; the rest of the file is unchanged."""
    with pmem2.Source.from_path(damaged) as source:
        with source.bad_blocks() as blocks:
            for block in blocks:
                blocks.clear(block)
        cleared = content[:BAD] + bytes(PAGE) + content[BAD + PAGE :]
        assert source.pread_mcsafe(len(content)) == cleared
        assert damaged.stat().st_size == len(content)
    assert damaged.read_bytes() == cleared


def test_bad_blocks_outlive_source(damaged: Path) -> None:
    """A context lists and clears after its source was closed."""
    with pmem2.Source.from_path(damaged) as source:
        blocks = source.bad_blocks()
    with blocks:
        (block,) = blocks
        blocks.clear(block)
    with pmem2.Source.from_path(damaged) as source:
        assert source.pread_mcsafe(PAGE, BAD) == bytes(PAGE)


def test_clear_read_only_source(damaged: Path) -> None:
    """A context of a read-only source lists bad blocks but cannot clear them."""
    with pmem2.Source.from_path(damaged, writable=False) as source, source.bad_blocks() as blocks:
        block = next(blocks)
        assert block == BadBlock(BAD, PAGE)
        with pytest.raises(OSError, match="cannot clear") as caught:
            blocks.clear(block)
        assert caught.value.errno == errno.EBADF
    with pmem2.Source.from_path(damaged) as source, pytest.raises(pmem2.IoFailError):
        source.pread_mcsafe(PAGE, BAD)


def bad_blocks_at(path: Path, offset: int) -> list[BadBlock]:
    """Return the bad blocks that contain an offset."""
    with pmem2.Source.from_path(path) as source, source.bad_blocks() as blocks:
        return [block for block in blocks if block.offset <= offset < block.offset + block.length]


@pytest.fixture
def bad_page(devdax: Path) -> int:
    """The offset of a device page that the processor has reported as bad; it stays bad for all tests."""
    offset = int(inject.attribute(devdax, "size")) - 8 * PAGE
    if not bad_blocks_at(devdax, offset):
        inject.machine_check(devdax, offset)
    return offset


@pytest.mark.upstream("pmem2_badblock/TEST1")
def test_list_bad_device_page(devdax: Path, bad_page: int) -> None:
    """A device page that the processor reported as bad is listed with its offset on the device."""
    assert bad_blocks_at(devdax, bad_page) == [BadBlock(bad_page, PAGE)]
    assert not bad_blocks_at(devdax, bad_page - 1)
    assert not bad_blocks_at(devdax, bad_page + PAGE)


@pytest.mark.upstream("pmem2_badblock/TEST5")
def test_write_bad_device_page(devdax: Path, bad_page: int) -> None:
    """A write to a bad device page bypasses the kernel: it succeeds, and the list does not change."""
    with pmem2.Source.from_path(devdax) as source:
        source.pwrite_mcsafe(b"w" * PAGE, bad_page)
        assert source.pread_mcsafe(PAGE, bad_page) == b"w" * PAGE  # only the list was injected: the memory is good
    assert bad_blocks_at(devdax, bad_page)


def test_clear_unsupported_device(devdax: Path, bad_page: int) -> None:
    """Clearing fails with a clear error if the NVDIMM lacks the command, and the page stays listed."""
    (block,) = bad_blocks_at(devdax, bad_page)
    with pmem2.Source.from_path(devdax) as source, source.bad_blocks() as blocks:
        assert block in list(blocks)
        with pytest.raises(OSError, match="the platform cannot clear it") as caught:
            blocks.clear(block)
    assert caught.value.errno == errno.ENXIO
    assert bad_blocks_at(devdax, bad_page) == [block]
