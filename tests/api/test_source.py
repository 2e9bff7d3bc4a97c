# SPDX-License-Identifier: BSD-3-Clause
"""Sources: from what they can be made, what they tell, and reading and writing past bad blocks."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import sys
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Callable

import pytest
from support.children import RunChild
from support.values import (
    CONTENT,
    PAGE,
    SIZE,
    Index,
    OwnPath,
    descriptors,
    make_device,
    make_fifo,
    make_socket,
    no_integer,
    no_size,
    opened,
)

import pmem2
from pmem2 import Source

O_PATH = 0o10000000  # PyPy's os has no such name


@pytest.fixture
def writable(path: Path) -> Iterator[Source]:
    """A source of that file."""
    with Source.from_path(path) as source:
        yield source


@pytest.fixture
def read_only(path: Path) -> Iterator[Source]:
    """A source of that file, open for reading."""
    with Source.from_path(path, writable=False) as source:
        yield source


@pytest.fixture
def anonymous() -> Iterator[Source]:
    """A source of anonymous memory."""
    with Source.from_anon(2 * PAGE) as source:
        yield source


@pytest.fixture
def ordinary(source: Source, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A source of a file that no NVDIMM is behind."""
    monkeypatch.delenv("PMEM2_FORCE_GRANULARITY", raising=False)
    with source.map() as map:
        if map.granularity is not pmem2.Granularity.PAGE:
            pytest.skip("the file is on DAX")
    return source


# ---- from_fd


def test_from_an_int(path: Path) -> None:
    """A Source is made from a descriptor, and has its file."""
    with opened(path, os.O_RDWR) as fd, Source.from_fd(fd) as source:
        assert source.size == len(CONTENT)
        assert source.closed is False
        assert os.path.samestat(os.fstat(source.fd), os.stat(path))


def test_from_an_integer(path: Path) -> None:
    """A descriptor may be anything that is an integer."""
    with opened(path, os.O_RDWR) as fd, Source.from_fd(Index(fd)) as source:
        assert source.size == len(CONTENT)


@pytest.mark.parametrize("mode", ["rb", "r+b", "w+b"])
def test_from_a_file_object(path: Path, mode: str) -> None:
    """A Source is made from anything that has a fileno()."""
    with path.open(mode) as file, Source.from_fd(file) as source:
        assert os.path.samestat(os.fstat(source.fd), os.stat(path))


def test_from_a_read_only_descriptor(path: Path) -> None:
    """A descriptor that is open for reading is enough."""
    with opened(path, os.O_RDONLY) as fd, Source.from_fd(fd) as source:
        assert source.pread_mcsafe(4) == CONTENT[:4]


@pytest.mark.parametrize("wrong", [True, False, 1.0, "1", b"1", None, [1], object()])
def test_from_no_descriptor(wrong: int) -> None:
    """A bool, a float, or what is neither an integer nor has a fileno() is a TypeError."""
    with pytest.raises(TypeError):
        Source.from_fd(wrong)


class NoFile:
    """Something whose descriptor is none."""

    def fileno(self) -> int:
        """Return what is no integer."""
        return "0"  # type: ignore[return-value] # that is the question


def test_fileno_is_checked() -> None:
    """What fileno() returns is checked as a descriptor is."""
    with pytest.raises(TypeError):
        Source.from_fd(NoFile())


@pytest.mark.parametrize("fd", [-1, -2, -(2**31), -(2**31) - 1, -(2**70), 2**31 - 1, 2**31, 2**32, 2**64, 2**70])
def test_from_an_impossible_descriptor(fd: int) -> None:
    """A negative descriptor, or one too large, is an InvalidFileHandleError, and never another descriptor."""
    with pytest.raises(pmem2.InvalidFileHandleError) as caught:
        Source.from_fd(fd)
    assert caught.value.code is pmem2.ErrorCode.INVALID_FILE_HANDLE


@pytest.mark.parametrize("high", [2**32, 2**64])
def test_from_a_descriptor_that_wraps(fd: int, high: int) -> None:
    """A number whose low bits are an open descriptor is not taken for it."""
    with pytest.raises(pmem2.InvalidFileHandleError):
        Source.from_fd(fd + high)


def test_from_a_closed_descriptor(path: Path) -> None:
    """A descriptor that is closed is an InvalidFileHandleError."""
    fd = os.open(path, os.O_RDWR)
    os.close(fd)
    with pytest.raises(pmem2.InvalidFileHandleError):
        Source.from_fd(fd)


def test_from_a_write_only_descriptor(path: Path) -> None:
    """A descriptor that is open for writing only is an InvalidFileHandleError."""
    with opened(path, os.O_WRONLY) as fd, pytest.raises(pmem2.InvalidFileHandleError):
        Source.from_fd(fd)


def test_from_a_directory(tmp_path: Path) -> None:
    """A directory is an InvalidFileTypeError."""
    with opened(tmp_path, os.O_RDONLY) as fd, pytest.raises(pmem2.InvalidFileTypeError):
        Source.from_fd(fd)


def test_from_a_pipe() -> None:
    """A pipe is an InvalidFileTypeError."""
    ends = os.pipe()
    try:
        with pytest.raises(pmem2.InvalidFileTypeError):
            Source.from_fd(ends[0])
    finally:
        for end in ends:
            os.close(end)


def test_from_a_socket() -> None:
    """A socket is an InvalidFileTypeError."""
    with closing(socket.socket(socket.AF_UNIX)) as connection, pytest.raises(pmem2.InvalidFileTypeError):
        Source.from_fd(connection)


def test_from_a_character_device() -> None:
    """A character device that is no DAX device is an InvalidFileTypeError."""
    with opened(Path(os.devnull), os.O_RDWR) as fd, pytest.raises(pmem2.InvalidFileTypeError):
        Source.from_fd(fd)


def test_from_an_o_path_descriptor(path: Path) -> None:
    """A descriptor that can neither read nor write (O_PATH) gives a Source that cannot be mapped or read."""
    with opened(path, O_PATH) as fd, Source.from_fd(fd) as source:
        uses: list[Callable[[], object]] = [source.map, lambda: source.pread_mcsafe(1)]
        for use in uses:
            with pytest.raises(OSError, match="descriptor") as caught:
                use()
            assert caught.value.errno == errno.EBADF


def test_owns_a_duplicate(path: Path, tmp_path: Path) -> None:
    """Closing and reusing the caller's descriptor changes nothing."""
    other = tmp_path / "other"
    other.write_bytes(b"other" * PAGE)
    fd = os.open(path, os.O_RDWR)
    with Source.from_fd(fd) as source:
        assert source.fd != fd
        os.close(fd)
        with opened(other, os.O_RDWR) as again:
            assert again == fd
            assert source.size == len(CONTENT)
            assert source.pread_mcsafe(len(CONTENT)) == CONTENT
            with source.map() as map:
                assert map[:] == CONTENT


def test_the_callers_descriptor_stays_open(path: Path) -> None:
    """Closing a Source leaves the caller's descriptor open."""
    with opened(path, os.O_RDWR) as fd:
        with Source.from_fd(fd) as source:
            own = source.fd
        assert os.fstat(fd).st_size == len(CONTENT)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(own)


def test_children_do_not_inherit_it(path: Path) -> None:
    """The descriptor of a Source, from a path or from one that is inherited, is not inherited by children."""
    with opened(path, os.O_RDWR) as fd:
        os.set_inheritable(fd, True)
        with Source.from_fd(fd) as source:
            assert not os.get_inheritable(source.fd)
    with Source.from_path(path) as source:
        assert not os.get_inheritable(source.fd)


# ---- from_path


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, OwnPath])
def test_from_a_path(path: Path, kind: Callable[[Path], Path]) -> None:
    """A path may be a str, bytes, or anything that os.fspath takes."""
    with Source.from_path(kind(path)) as source:
        assert source.size == len(CONTENT)


def test_from_a_relative_path_and_a_link(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may be relative, and a symbolic link."""
    monkeypatch.chdir(path.parent)
    os.symlink("small", "link")
    with Source.from_path("link") as source:
        assert source.size == len(CONTENT)


@pytest.mark.parametrize("wrong", [0, True, 1.0, None, object()])
def test_from_no_path(wrong: Path) -> None:
    """What is no path is a TypeError; a descriptor is none."""
    with pytest.raises(TypeError):
        Source.from_path(wrong)


def test_from_a_path_with_a_null() -> None:
    """A path that no file can have is a ValueError."""
    with pytest.raises(ValueError, match="null"):
        Source.from_path("a\0b")


def test_from_a_missing_path(tmp_path: Path) -> None:
    """A file that is not there is a FileNotFoundError with its name, and is not created."""
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError) as caught:
        Source.from_path(missing)
    assert os.fspath(caught.value.filename) == str(missing)
    assert not missing.exists()


@pytest.mark.parametrize("make", [os.mkdir, make_fifo, make_socket, make_device])
@pytest.mark.parametrize("writable", [True, False])
def test_from_the_path_of_no_file(tmp_path: Path, make: Callable[[Path], None], writable: bool) -> None:
    """A directory, a FIFO that nobody has open, a socket, /dev/null: InvalidFileTypeError, at once, nothing leaked."""
    path = tmp_path / "no file"
    make(path)
    before = descriptors()
    with pytest.raises(pmem2.InvalidFileTypeError) as caught:
        Source.from_path(path, writable=writable)
    assert caught.value.code is pmem2.ErrorCode.INVALID_FILE_TYPE
    assert descriptors() == before


def test_without_permission(locked: Path, run_child: RunChild) -> None:
    """A file that may only be read raises PermissionError, unless it is only to be read."""
    child = run_child(
        """
        import os, sys, pmem2
        if os.geteuid() == 0:
            os.seteuid(65534)
        with pmem2.Source.from_path(sys.argv[1], writable=False) as source:
            print(source.size)
        try:
            pmem2.Source.from_path(sys.argv[1])
        except PermissionError:
            print("refused")
        """,
        str(locked),
    )
    assert (child.stdout.split(), child.stderr) == ([str(len(CONTENT)), "refused"], "")


def test_writable_is_a_keyword(path: Path) -> None:
    """`writable` is not given by position."""
    with pytest.raises(TypeError):
        Source.from_path(path, False)  # type: ignore[call-arg] # that is the question


def test_no_descriptor_is_leaked(path: Path) -> None:
    """Making, failing to make, and closing Sources leaves no descriptor open."""
    before = descriptors()
    for writable in (True, False):
        with Source.from_path(path, writable=writable) as source:
            assert len(descriptors()) == len(before) + 1
            with source.map(), pytest.raises(pmem2.OffsetUnalignedError):
                source.map(pmem2.Config(offset=1))
    with opened(path, os.O_WRONLY) as fd, pytest.raises(pmem2.InvalidFileHandleError):
        Source.from_fd(fd)
    assert descriptors() == before


# ---- from_anon, from_handle, and neither


@pytest.mark.parametrize("size", [1, PAGE, 3 * PAGE, 2**64 - 1])
def test_from_anon(size: int) -> None:
    """Anonymous memory has the size that it was given."""
    with Source.from_anon(Index(size)) as source:
        assert source.size == size


@no_integer
def test_from_anon_of_no_size(wrong: int) -> None:
    """A size that is no integer is a TypeError."""
    with pytest.raises(TypeError, match="size"):
        Source.from_anon(wrong)


@no_size
def test_from_anon_of_an_impossible_size(outside: int) -> None:
    """A negative size, or one that C cannot express, is a ValueError."""
    with pytest.raises(ValueError, match="size"):
        Source.from_anon(outside)


def test_from_anon_of_nothing() -> None:
    """Anonymous memory of no bytes cannot be mapped."""
    with Source.from_anon(0) as source, pytest.raises(pmem2.SourceEmptyError):
        source.map()


def test_anonymous_maps_are_zeros(anonymous: Source) -> None:
    """Every map of anonymous memory is one of its own, of zeros, to be written, of BYTE granularity."""
    with anonymous.map() as one, anonymous.map() as two:
        one.memcpy(0, b"one")
        assert one[:4] == b"one\0"
        assert two[:] == bytes(2 * PAGE)
        assert one.granularity is pmem2.Granularity.BYTE


def test_anonymous_has_no_file(anonymous: Source) -> None:
    """Anonymous memory has no descriptor, no NVDIMM, no bad blocks, and cannot be read or written as a source."""
    with pytest.raises(pmem2.FileDescriptorNotSetError):
        _ = anonymous.fd
    with pytest.raises(pmem2.NosuppError):
        _ = anonymous.device_id
    with pytest.raises(pmem2.NosuppError):
        _ = anonymous.device_usc
    with pytest.raises(pmem2.NosuppError):
        _ = anonymous.numa_node
    with pytest.raises(pmem2.NosuppError):
        anonymous.bad_blocks()
    with pytest.raises(pmem2.SourceTypeNotSupportedError):
        anonymous.pread_mcsafe(1)
    with pytest.raises(pmem2.SourceTypeNotSupportedError):
        anonymous.pread_mcsafe_into(bytearray(1))
    with pytest.raises(pmem2.SourceTypeNotSupportedError):
        anonymous.pwrite_mcsafe(b"1")
    assert anonymous.alignment == PAGE


def test_from_a_windows_handle(path: Path) -> None:
    """Where there are no Windows handles, one raises NosuppError that says what to use, and no source has one."""
    with pytest.raises(pmem2.NosuppError, match=r"handle.*use Source\.from_fd") as caught:
        Source.from_handle(1)
    assert caught.value.errno == errno.ENOTSUP
    with Source.from_path(path) as source, pytest.raises(pmem2.FileHandleNotSetError, match=sys.platform) as missing:
        _ = source.handle
    assert missing.value.function == "pmem2_source_get_handle"


def test_made_by_three_methods_only() -> None:
    """`Source()` is a TypeError that says how to make one."""
    with pytest.raises(TypeError, match="from_path"):
        Source()


# ---- properties


def test_size_is_that_of_now(path: Path, writable: Source) -> None:
    """The size of a file is what it is now, not what it was."""
    os.truncate(path, 3)
    assert writable.size == 3
    os.truncate(path, 2**40)
    assert writable.size == 2**40


def test_alignment(writable: Source) -> None:
    """Maps of a file begin at whole pages."""
    assert writable.alignment == PAGE


def test_ordinary_file(ordinary: Source) -> None:
    """An ordinary file has no NVDIMM, hence no id, no count of unsafe shutdowns and no NUMA node; nor bad blocks."""
    with pytest.raises(pmem2.NosuppError):
        _ = ordinary.device_id
    with pytest.raises(pmem2.NosuppError):
        _ = ordinary.device_usc
    with pytest.raises(pmem2.DaxRegionNotFoundError):
        _ = ordinary.numa_node


def test_attributes_cannot_be_set(writable: Source) -> None:
    """The properties cannot be set, and no attribute be added."""
    for name in ("fd", "handle", "size", "alignment", "device_id", "device_usc", "numa_node", "closed", "color"):
        with pytest.raises(AttributeError):
            setattr(writable, name, 0)


def test_repr(path: Path) -> None:
    """What is printed says what it is a source of, and whether it is closed."""
    with Source.from_path(path) as source:
        assert repr(str(path)) in repr(source)
        assert "closed" not in repr(source)
    assert "closed" in repr(source)


# ---- closed sources


USES: dict[str, Callable[[Source], object]] = {
    "fd": lambda source: source.fd,
    "handle": lambda source: source.handle,
    "size": lambda source: source.size,
    "alignment": lambda source: source.alignment,
    "device_id": lambda source: source.device_id,
    "device_usc": lambda source: source.device_usc,
    "numa_node": lambda source: source.numa_node,
    "pread_mcsafe": lambda source: source.pread_mcsafe(1),
    "pread_mcsafe_into": lambda source: source.pread_mcsafe_into(bytearray(1)),
    "pwrite_mcsafe": lambda source: source.pwrite_mcsafe(b"1"),
    "bad_blocks": Source.bad_blocks,
    "map": Source.map,
    "Map": pmem2.Map,
    "from_existing": lambda source: pmem2.Map.from_existing(source, bytearray(PAGE), pmem2.Granularity.PAGE),
    "enter": Source.__enter__,
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("anonymous", [True, False])
def test_closed(path: Path, name: str, anonymous: bool) -> None:
    """Everything but `closed` and `close` is a ValueError on a closed Source."""
    source = Source.from_anon(PAGE) if anonymous else Source.from_path(path)
    source.close()
    assert source.closed is True
    with pytest.raises(ValueError, match="closed"):
        USES[name](source)


def test_closed_twice(path: Path) -> None:
    """Closing a closed Source does nothing, even where its descriptor is somebody else's by now."""
    source = Source.from_path(path)
    fd = source.fd
    source.close()
    with opened(path, os.O_RDONLY) as again:
        assert again <= fd
        source.close()
        assert os.fstat(again).st_size == len(CONTENT)


def test_closed_by_with(path: Path) -> None:
    """`with` closes a Source, whether or not the block fails."""
    with pytest.raises(KeyError), Source.from_path(path) as source:
        raise KeyError
    assert source.closed


def test_map_takes_its_config_by_position(writable: Source) -> None:
    """`source.map` takes a Config, by position; the default one if there is none."""
    with writable.map() as map:
        assert map.config == pmem2.Config()
    with writable.map(pmem2.Config(length=PAGE)) as map:
        assert map.size == PAGE
    with pytest.raises(TypeError):
        writable.map(config=pmem2.Config())  # type: ignore[call-arg] # that is the question


@pytest.mark.parametrize("wrong", [None, 0, {}, "PAGE", pmem2.Config, pmem2.Granularity.PAGE])
def test_map_with_no_config(writable: Source, wrong: pmem2.Config) -> None:
    """Anything but a Config is a TypeError."""
    with pytest.raises(TypeError, match="Config"):
        writable.map(wrong).close()


# ---- mcsafe: ranges


INSIDE = [(0, 0), (0, 1), (1, 1), (PAGE - 1, 2), (0, 2 * PAGE), (2 * PAGE - 1, 1), (2 * PAGE, 0)]
OUTSIDE = [
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
HUGE = [(0, 2**40), (0, 2**63), (1, 2**64 - 1), (2**64 - 1, 2**64 - 1), (PAGE, 2**64 - PAGE)]


@pytest.mark.parametrize(("offset", "length"), INSIDE)
def test_read(writable: Source, offset: int, length: int) -> None:
    """A range inside the source is read, into bytes or into a buffer."""
    assert writable.pread_mcsafe(length, offset) == CONTENT[offset : offset + length]
    buffer = bytearray(b"\xff" * length)
    writable.pread_mcsafe_into(buffer, offset)
    assert buffer == CONTENT[offset : offset + length]


def test_read_from_the_beginning(writable: Source) -> None:
    """Reading begins at 0 unless told otherwise, and takes keywords and any integer."""
    assert writable.pread_mcsafe(5) == CONTENT[:5]
    assert writable.pread_mcsafe(size=Index(5), offset=Index(3)) == CONTENT[3:8]
    buffer = bytearray(5)
    writable.pread_mcsafe_into(buffer)
    assert buffer == CONTENT[:5]
    writable.pread_mcsafe_into(buffer=buffer, offset=Index(3))
    assert buffer == CONTENT[3:8]


@pytest.mark.parametrize(("offset", "length"), INSIDE)
def test_write(path: Path, writable: Source, offset: int, length: int) -> None:
    """A range inside the source is written, and nothing else."""
    data = b"\xa5" * length
    writable.pwrite_mcsafe(data, offset)
    assert path.read_bytes() == CONTENT[:offset] + data + CONTENT[offset + length :]


def test_write_to_the_beginning(path: Path, writable: Source) -> None:
    """Writing begins at 0 unless told otherwise, and takes keywords and any integer."""
    writable.pwrite_mcsafe(b"one")
    writable.pwrite_mcsafe(data=b"two", offset=Index(8))
    assert path.read_bytes()[:12] == b"one" + CONTENT[3:8] + b"two" + CONTENT[11:12]


@pytest.mark.parametrize(("offset", "length"), OUTSIDE + HUGE)
def test_read_outside(writable: Source, offset: int, length: int) -> None:
    """A range that does not lie inside the source is a LengthOutOfRangeError, however large."""
    with pytest.raises(pmem2.LengthOutOfRangeError) as caught:
        writable.pread_mcsafe(length, offset)
    assert caught.value.code is pmem2.ErrorCode.LENGTH_OUT_OF_RANGE


@pytest.mark.parametrize(("offset", "length"), OUTSIDE)
def test_read_into_outside(writable: Source, offset: int, length: int) -> None:
    """The same into a buffer, which keeps what it had."""
    buffer = bytearray(b"\xff" * length)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable.pread_mcsafe_into(buffer, offset)
    assert buffer == b"\xff" * length


@pytest.mark.parametrize(("offset", "length"), OUTSIDE)
def test_write_outside(path: Path, writable: Source, offset: int, length: int) -> None:
    """A range that does not lie inside the source is a LengthOutOfRangeError: nothing written, nothing grown."""
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable.pwrite_mcsafe(bytes(length), offset)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("length", [0, 1, PAGE])
def test_empty_source(tmp_path: Path, length: int) -> None:
    """Of an empty file nothing but nothing can be read or written, and it stays empty."""
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


def test_truncated_meanwhile(path: Path, writable: Source) -> None:
    """What was inside before the file was truncated is outside now, and writing there does not grow it."""
    os.truncate(path, PAGE)
    assert writable.pread_mcsafe(PAGE) == CONTENT[:PAGE]
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable.pread_mcsafe(1, PAGE)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable.pread_mcsafe(2, PAGE - 1)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable.pwrite_mcsafe(b"12", PAGE - 1)
    assert path.read_bytes() == CONTENT[:PAGE]


def test_appending_descriptor(path: Path) -> None:
    """A descriptor that appends (O_APPEND) writes where it is told all the same, or refuses, and never grows."""
    with opened(path, os.O_RDWR | os.O_APPEND) as fd, Source.from_fd(fd) as source:
        try:
            source.pwrite_mcsafe(b"here", 8)
        except OSError:
            assert path.read_bytes() == CONTENT
        else:
            assert path.read_bytes() == CONTENT[:8] + b"here" + CONTENT[12:]


# ---- mcsafe: arguments


@no_integer
def test_no_number(writable: Source, wrong: int) -> None:
    """A size or an offset that is no integer is a TypeError."""
    with pytest.raises(TypeError, match="size"):
        writable.pread_mcsafe(wrong)
    with pytest.raises(TypeError, match="offset"):
        writable.pread_mcsafe(1, wrong)
    with pytest.raises(TypeError, match="offset"):
        writable.pread_mcsafe_into(bytearray(1), wrong)
    with pytest.raises(TypeError, match="offset"):
        writable.pwrite_mcsafe(b"1", wrong)


@no_size
def test_impossible_number(writable: Source, outside: int) -> None:
    """A size or an offset that is negative, or that C cannot express, is a ValueError."""
    with pytest.raises(ValueError, match="size"):
        writable.pread_mcsafe(outside)
    with pytest.raises(ValueError, match="offset"):
        writable.pread_mcsafe(1, outside)
    with pytest.raises(ValueError, match="offset"):
        writable.pread_mcsafe_into(bytearray(1), outside)
    with pytest.raises(ValueError, match="offset"):
        writable.pwrite_mcsafe(b"1", outside)


def test_none_is_no_number(writable: Source) -> None:
    """`None` is a TypeError too."""
    with pytest.raises(TypeError):
        writable.pread_mcsafe(None)  # type: ignore[arg-type] # that is the question
    with pytest.raises(TypeError):
        writable.pread_mcsafe(1, None)  # type: ignore[arg-type] # that is the question


def test_read_into_any_buffer(writable: Source) -> None:
    """Any writable buffer is filled, whole, whatever its items are."""
    numbers = array("I", [0] * 4)
    writable.pread_mcsafe_into(numbers, 16)
    assert numbers.tobytes() == CONTENT[16:32]
    part = bytearray(16)
    with memoryview(part)[4:8] as view:
        writable.pread_mcsafe_into(view, 16)
    assert part == bytes(4) + CONTENT[16:20] + bytes(8)
    with closing(mmap.mmap(-1, PAGE)) as memory:
        writable.pread_mcsafe_into(memory, PAGE)
        assert memory[:] == CONTENT[PAGE:]


def test_read_into_a_map(writable: Source) -> None:
    """A view of a map is a buffer to read into as well."""
    with Source.from_anon(PAGE) as other, other.map() as map:
        with map.view(8, 8) as view:
            writable.pread_mcsafe_into(view, 100)
        assert map[:17] == bytes(8) + CONTENT[100:108] + b"\0"


@pytest.mark.parametrize("target", [b"1234", memoryview(b"1234"), memoryview(bytearray(4)).toreadonly()])
def test_read_into_a_read_only_buffer(writable: Source, target: bytes) -> None:
    """A read-only buffer is a TypeError."""
    before = bytes(target)
    with pytest.raises(TypeError):
        writable.pread_mcsafe_into(target)
    assert bytes(target) == before


@pytest.mark.parametrize("wrong", ["1234", 4, None, [1, 2, 3, 4], object()])
def test_no_buffer(writable: Source, wrong: bytearray) -> None:
    """What is no buffer is a TypeError."""
    with pytest.raises(TypeError):
        writable.pread_mcsafe_into(wrong)
    with pytest.raises(TypeError):
        writable.pwrite_mcsafe(wrong)


def test_buffer_with_gaps(path: Path, writable: Source) -> None:
    """A buffer that is not contiguous is a BufferError, and nothing is transferred."""
    memory = bytearray(b"\xff" * 16)
    with memoryview(memory)[::2] as gaps:
        with pytest.raises(BufferError):
            writable.pread_mcsafe_into(gaps)
        with pytest.raises(BufferError):
            writable.pwrite_mcsafe(gaps)
    assert memory == b"\xff" * 16
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "data", [b"\1\2\3\4", bytearray(b"\1\2\3\4"), memoryview(b"\1\2\3\4"), array("H", [0x0201, 0x0403])]
)
def test_write_any_buffer(path: Path, writable: Source, data: bytes) -> None:
    """Any contiguous buffer is written, byte by byte."""
    writable.pwrite_mcsafe(data, 100)
    assert path.read_bytes()[99:105] == CONTENT[99:100] + memoryview(data).tobytes() + CONTENT[104:105]


def test_buffer_is_given_back(writable: Source) -> None:
    """A buffer is free again afterwards, also when the call has failed."""
    memory = bytearray(4)
    writable.pread_mcsafe_into(memory)
    writable.pwrite_mcsafe(memory)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable.pread_mcsafe_into(memory, 2 * PAGE)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        writable.pwrite_mcsafe(memory, 2 * PAGE)
    memory.append(5)
    assert memory == CONTENT[:4] + b"\5"


@pytest.mark.parametrize("data", [b"", b"1"])
def test_write_through_a_read_only_source(path: Path, read_only: Source, data: bytes) -> None:
    """Writing through a source that is open for reading is OSError(EBADF), and nothing is written."""
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        read_only.pwrite_mcsafe(data)
    assert caught.value.errno == errno.EBADF
    assert not isinstance(caught.value, pmem2.Pmem2Error)
    assert path.read_bytes() == CONTENT
    assert read_only.pread_mcsafe(len(CONTENT)) == CONTENT


def test_full_disk(small_disk: Path) -> None:
    """A write that a full disk cuts short is OSError(ENOSPC), not a success."""
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
    """What is larger than a page arrives whole."""
    data = os.urandom(SIZE - 3)
    source.pwrite_mcsafe(data, 3)
    assert source.pread_mcsafe(SIZE) == bytes(3) + data
    assert file.read_bytes() == bytes(3) + data
