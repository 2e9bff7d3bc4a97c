# SPDX-License-Identifier: BSD-3-Clause
"""Reading and writing a source past bad blocks: pread_mcsafe, pread_mcsafe_into and pwrite_mcsafe."""

from __future__ import annotations

import errno
import mmap
import os
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.children import RunChild
from support.values import CONTENT, PAGE, SIZE, Index, invalid_sizes, non_integers, open_fd

import pmem2
from pmem2 import Source


@pytest.fixture
def read_only_source(path: Path) -> Iterator[Source]:
    """A read-only source of a file that contains CONTENT."""
    with Source.from_path(path, writable=False) as source:
        yield source


# ---- ranges


RANGES_INSIDE = [(0, 0), (0, 1), (1, 1), (PAGE - 1, 2), (0, 2 * PAGE), (2 * PAGE - 1, 1), (2 * PAGE, 0)]
RANGES_OUTSIDE = [
    (0, 2 * PAGE + 1),
    (1, 2 * PAGE),
    (2 * PAGE, 1),
    (2 * PAGE + 1, 0),
    (2 * PAGE + 1, 1),
    (2**63 - 1, 0),
    (2**63 - 1, 1),
    (2**63, 1),
    (2**64 - 1, 1),
    (2**64 - PAGE, PAGE),
]
HUGE_RANGES = [(0, 2**40), (0, 2**63), (1, 2**64 - 1), (2**64 - 1, 2**64 - 1), (PAGE, 2**64 - PAGE)]


@pytest.mark.parametrize(("offset", "length"), RANGES_INSIDE)
def test_read_inside(writable_source: Source, offset: int, length: int) -> None:
    """pread_mcsafe and pread_mcsafe_into read any range inside the source."""
    assert writable_source.pread_mcsafe(length, offset) == CONTENT[offset : offset + length]
    buffer = bytearray(b"\xff" * length)
    writable_source.pread_mcsafe_into(buffer, offset)
    assert buffer == CONTENT[offset : offset + length]


def test_read_arguments(writable_source: Source) -> None:
    """The offset of a read defaults to 0, and all arguments may be keywords and objects with `__index__`."""
    assert writable_source.pread_mcsafe(5) == CONTENT[:5]
    assert writable_source.pread_mcsafe(size=Index(5), offset=Index(3)) == CONTENT[3:8]
    buffer = bytearray(5)
    writable_source.pread_mcsafe_into(buffer)
    assert buffer == CONTENT[:5]
    writable_source.pread_mcsafe_into(buffer=buffer, offset=Index(3))
    assert buffer == CONTENT[3:8]


@pytest.mark.parametrize(("offset", "length"), RANGES_INSIDE)
def test_write_inside(path: Path, writable_source: Source, offset: int, length: int) -> None:
    """pwrite_mcsafe writes any range inside the source and nothing else."""
    data = b"\xa5" * length
    writable_source.pwrite_mcsafe(data, offset)
    assert path.read_bytes() == CONTENT[:offset] + data + CONTENT[offset + length :]


def test_write_arguments(path: Path, writable_source: Source) -> None:
    """The offset of a write defaults to 0, and all arguments may be keywords and objects with `__index__`."""
    writable_source.pwrite_mcsafe(b"one")
    writable_source.pwrite_mcsafe(data=b"two", offset=Index(8))
    assert path.read_bytes()[:12] == b"one" + CONTENT[3:8] + b"two" + CONTENT[11:12]


@pytest.mark.parametrize(("offset", "length"), RANGES_OUTSIDE + HUGE_RANGES)
def test_read_outside(writable_source: Source, offset: int, length: int) -> None:
    """A read that does not lie inside the source raises LengthOutOfRangeError, however large it is."""
    with pytest.raises(pmem2.LengthOutOfRangeError) as caught:
        writable_source.pread_mcsafe(length, offset)
    assert caught.value.code is pmem2.ErrorCode.LENGTH_OUT_OF_RANGE


@pytest.mark.parametrize(("offset", "length"), RANGES_OUTSIDE)
def test_read_into_outside(writable_source: Source, offset: int, length: int) -> None:
    """A read into a buffer from outside the source raises LengthOutOfRangeError and leaves the buffer unchanged."""
    buffer = bytearray(b"\xff" * length)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable_source.pread_mcsafe_into(buffer, offset)
    assert buffer == b"\xff" * length


@pytest.mark.parametrize(("offset", "length"), RANGES_OUTSIDE)
def test_write_outside(path: Path, writable_source: Source, offset: int, length: int) -> None:
    """A write that does not lie inside the source raises LengthOutOfRangeError, and nothing is written or grown."""
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable_source.pwrite_mcsafe(bytes(length), offset)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("length", [0, 1, PAGE])
def test_empty_source(tmp_path: Path, length: int) -> None:
    """An empty file accepts only transfers of 0 bytes and stays empty."""
    path = tmp_path / "empty"
    path.touch()
    with Source.from_path(path) as source:
        if length:
            with pytest.raises(pmem2.LengthOutOfRangeError):
                source.pread_mcsafe(length)
            with pytest.raises(pmem2.LengthOutOfRangeError):
                source.pwrite_mcsafe(bytes(length))
        else:
            assert source.pread_mcsafe(0) == b""
            source.pwrite_mcsafe(b"")
    assert path.stat().st_size == 0


def test_truncated_file(path: Path, writable_source: Source) -> None:
    """After a truncation, reads and writes past the new end raise LengthOutOfRangeError and nothing grows."""
    os.truncate(path, PAGE)
    assert writable_source.pread_mcsafe(PAGE) == CONTENT[:PAGE]
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable_source.pread_mcsafe(1, PAGE)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable_source.pread_mcsafe(2, PAGE - 1)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable_source.pwrite_mcsafe(b"12", PAGE - 1)
    assert path.read_bytes() == CONTENT[:PAGE]


def test_appending_descriptor(path: Path) -> None:
    """A write through an O_APPEND descriptor goes to its offset or raises OSError, and never grows the file."""
    with open_fd(path, os.O_RDWR | os.O_APPEND) as fd, Source.from_fd(fd) as source:
        try:
            source.pwrite_mcsafe(b"here", 8)
        except OSError:
            assert path.read_bytes() == CONTENT
        else:
            assert path.read_bytes() == CONTENT[:8] + b"here" + CONTENT[12:]


def test_appending_without_proc(path: Path, run_child: RunChild) -> None:
    """An O_APPEND descriptor makes a Source without /proc, too; only writing through it is refused."""
    if os.geteuid() != 0:
        pytest.skip("only root can change the root directory")
    code = """
        import os, sys, pmem2

        fd = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
        os.chroot(os.path.dirname(sys.argv[1]))
        with pmem2.Source.from_fd(fd) as source, source.map() as map:
            map[0:4] = b"here"
            print(source.pread_mcsafe(4))
            try:
                source.pwrite_mcsafe(b"more")
            except OSError as error:
                print(error.strerror)
    """
    done = run_child(code, str(path))
    assert done.stdout.startswith("b'here'\ncannot write 4 bytes at 0"), done.stderr
    assert "open with O_APPEND" in done.stdout
    assert path.read_bytes() == b"here" + CONTENT[4:]


# ---- arguments and buffers


@non_integers
def test_integer_of_wrong_type(writable_source: Source, wrong: int) -> None:
    """A size or offset that is a bool or not an integer raises TypeError."""
    with pytest.raises(TypeError, match="size"):
        writable_source.pread_mcsafe(wrong)
    with pytest.raises(TypeError, match="offset"):
        writable_source.pread_mcsafe(1, wrong)
    with pytest.raises(TypeError, match="offset"):
        writable_source.pread_mcsafe_into(bytearray(1), wrong)
    with pytest.raises(TypeError, match="offset"):
        writable_source.pwrite_mcsafe(b"1", wrong)


@invalid_sizes
def test_integer_out_of_range(writable_source: Source, outside: int) -> None:
    """A size or offset that is negative or exceeds 64 bits raises ValueError."""
    with pytest.raises(ValueError, match="size"):
        writable_source.pread_mcsafe(outside)
    with pytest.raises(ValueError, match="offset"):
        writable_source.pread_mcsafe(1, outside)
    with pytest.raises(ValueError, match="offset"):
        writable_source.pread_mcsafe_into(bytearray(1), outside)
    with pytest.raises(ValueError, match="offset"):
        writable_source.pwrite_mcsafe(b"1", outside)


def test_none_instead_of_integer(writable_source: Source) -> None:
    """None raises TypeError as a size and as an offset."""
    with pytest.raises(TypeError):
        writable_source.pread_mcsafe(None)  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(TypeError):
        writable_source.pread_mcsafe(1, None)  # type: ignore[arg-type] # wrong on purpose


def test_read_into_every_buffer(writable_source: Source) -> None:
    """pread_mcsafe_into fills any writable buffer, whatever its item type."""
    numbers = array("I", [0] * 4)
    writable_source.pread_mcsafe_into(numbers, 16)
    assert numbers.tobytes() == CONTENT[16:32]
    part = bytearray(16)
    with memoryview(part)[4:8] as view:
        writable_source.pread_mcsafe_into(view, 16)
    assert part == bytes(4) + CONTENT[16:20] + bytes(8)
    with closing(mmap.mmap(-1, PAGE)) as memory:
        writable_source.pread_mcsafe_into(memory, PAGE)
        assert memory[:] == CONTENT[PAGE:]


def test_read_into_map(writable_source: Source) -> None:
    """pread_mcsafe_into fills a view of a map."""
    with Source.from_anon(PAGE) as other, other.map() as map:
        with map.view(8, 8) as view:
            writable_source.pread_mcsafe_into(view, 100)
        assert map[:17] == bytes(8) + CONTENT[100:108] + b"\0"


@pytest.mark.parametrize("target", [b"1234", memoryview(b"1234"), memoryview(bytearray(4)).toreadonly()])
def test_read_into_read_only_buffer(writable_source: Source, target: bytes) -> None:
    """A read-only buffer raises TypeError and stays unchanged."""
    before = bytes(target)
    with pytest.raises(TypeError):
        writable_source.pread_mcsafe_into(target)
    assert bytes(target) == before


@pytest.mark.parametrize("wrong", ["1234", 4, None, [1, 2, 3, 4], object()])
def test_buffer_of_wrong_type(writable_source: Source, wrong: bytearray) -> None:
    """An object without a buffer raises TypeError."""
    with pytest.raises(TypeError):
        writable_source.pread_mcsafe_into(wrong)
    with pytest.raises(TypeError):
        writable_source.pwrite_mcsafe(wrong)


def test_buffer_not_contiguous(path: Path, writable_source: Source) -> None:
    """A buffer that is not contiguous raises BufferError and nothing is transferred."""
    memory = bytearray(b"\xff" * 16)
    with memoryview(memory)[::2] as gaps:
        with pytest.raises(BufferError):
            writable_source.pread_mcsafe_into(gaps)
        with pytest.raises(BufferError):
            writable_source.pwrite_mcsafe(gaps)
    assert memory == b"\xff" * 16
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "data", [b"\1\2\3\4", bytearray(b"\1\2\3\4"), memoryview(b"\1\2\3\4"), array("H", [0x0201, 0x0403])]
)
def test_write_every_buffer(path: Path, writable_source: Source, data: bytes) -> None:
    """pwrite_mcsafe writes the bytes of any contiguous buffer."""
    writable_source.pwrite_mcsafe(data, 100)
    assert path.read_bytes()[99:105] == CONTENT[99:100] + memoryview(data).tobytes() + CONTENT[104:105]


def test_buffer_is_released(writable_source: Source) -> None:
    """A transfer releases its buffer, also when it fails."""
    memory = bytearray(4)
    writable_source.pread_mcsafe_into(memory)
    writable_source.pwrite_mcsafe(memory)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable_source.pread_mcsafe_into(memory, 2 * PAGE)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable_source.pwrite_mcsafe(memory, 2 * PAGE)
    memory.append(5)
    assert memory == CONTENT[:4] + b"\5"


@pytest.mark.parametrize("data", [b"", b"1"])
def test_write_to_read_only_source(path: Path, read_only_source: Source, data: bytes) -> None:
    """A write to a read-only source raises OSError(EBADF) and nothing is written."""
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        read_only_source.pwrite_mcsafe(data)
    assert caught.value.errno == errno.EBADF
    assert not isinstance(caught.value, pmem2.Pmem2Error)
    assert path.read_bytes() == CONTENT
    assert read_only_source.pread_mcsafe(len(CONTENT)) == CONTENT


def test_full_disk(small_disk: Path) -> None:
    """A write that a full disk cuts short raises OSError(ENOSPC)."""
    path = small_disk / "file"
    path.touch()
    os.truncate(path, 64 * PAGE)
    with Source.from_path(path) as source:
        source.pwrite_mcsafe(b"\1" * 4 * PAGE)
        for length in (60 * PAGE, 13 * PAGE, 12 * PAGE + 1):
            with pytest.raises(OSError, match="space") as caught:
                source.pwrite_mcsafe(b"\2" * length, 4 * PAGE)
            assert caught.value.errno == errno.ENOSPC
        assert source.size == 64 * PAGE
        assert source.pread_mcsafe(4 * PAGE) == b"\1" * 4 * PAGE


def test_large_transfer(file: Path, source: Source) -> None:
    """A transfer of many pages is complete."""
    data = os.urandom(SIZE - 3)
    source.pwrite_mcsafe(data, 3)
    assert source.pread_mcsafe(SIZE) == bytes(3) + data
    assert file.read_bytes() == bytes(3) + data


@pytest.mark.parametrize("length", [0, 1, 2**40, 2**62, 2**64 - 1])
def test_read_from_anonymous_memory(length: int) -> None:
    """Anonymous memory raises SourceTypeNotSupportedError before a buffer of the size is allocated."""
    with pmem2.Source.from_anon(2**64 - 1) as source, pytest.raises(pmem2.SourceTypeNotSupportedError):
        source.pread_mcsafe(length)
