# SPDX-License-Identifier: BSD-3-Clause
"""Sources: from descriptors, paths and anonymous memory; their properties; closing them."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import Callable

import pytest
from support.children import RunChild
from support.special_files import make_device, make_fifo, make_socket
from support.values import CONTENT, PAGE, Index, OwnPath, descriptors, invalid_sizes, non_integers, open_fd

import pmem2
from pmem2 import Source

O_PATH = 0o10000000  # PyPy's os has no such name


@pytest.fixture
def source_without_dax(source: Source, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A source of a file that is not on an NVDIMM."""
    monkeypatch.delenv("PMEM2_FORCE_GRANULARITY", raising=False)
    with source.map() as map:
        if map.granularity is not pmem2.Granularity.PAGE:
            pytest.skip("the file is on DAX")
    return source


# ---- from_fd


@pytest.mark.parametrize("kind", [int, Index])
def test_from_descriptor(path: Path, kind: Callable[[int], int]) -> None:
    """from_fd makes an open source of the file of an int or an object with `__index__`."""
    with open_fd(path, os.O_RDWR) as fd, Source.from_fd(kind(fd)) as source:
        assert source.size == len(CONTENT)
        assert source.closed is False
        assert os.path.samestat(os.fstat(source.fd), os.stat(path))


@pytest.mark.parametrize("mode", ["rb", "r+b", "w+b"])
def test_from_file_object(path: Path, mode: str) -> None:
    """from_fd accepts any object with fileno()."""
    with path.open(mode) as file, Source.from_fd(file) as source:
        assert os.path.samestat(os.fstat(source.fd), os.stat(path))


def test_from_read_only_descriptor(path: Path) -> None:
    """from_fd accepts a read-only descriptor."""
    with open_fd(path, os.O_RDONLY) as fd, Source.from_fd(fd) as source:
        assert source.pread_mcsafe(4) == CONTENT[:4]


@pytest.mark.parametrize("wrong", [True, False, 1.0, "1", b"1", None, [1], object()])
def test_descriptor_of_wrong_type(wrong: int) -> None:
    """An object that is a bool or neither an integer nor has fileno() raises TypeError."""
    with pytest.raises(TypeError):
        Source.from_fd(wrong)


class FileWithWrongDescriptor:
    """An object whose fileno() returns a str."""

    def fileno(self) -> int:
        """Return a str."""
        return "0"  # type: ignore[return-value] # wrong on purpose


def test_fileno_of_wrong_type() -> None:
    """A fileno() that does not return an integer raises TypeError."""
    with pytest.raises(TypeError):
        Source.from_fd(FileWithWrongDescriptor())


@pytest.mark.parametrize("fd", [-1, -2, -(2**31), -(2**31) - 1, -(2**70), 2**31 - 1, 2**31, 2**32, 2**64, 2**70])
def test_descriptor_out_of_range(fd: int) -> None:
    """A negative or too large descriptor raises InvalidFileHandleError."""
    with pytest.raises(pmem2.InvalidFileHandleError) as caught:
        Source.from_fd(fd)
    assert caught.value.code is pmem2.ErrorCode.INVALID_FILE_HANDLE


@pytest.mark.parametrize("high", [2**32, 2**64])
def test_descriptor_wraps(fd: int, high: int) -> None:
    """A number whose low 32 bits are an open descriptor raises InvalidFileHandleError."""
    with pytest.raises(pmem2.InvalidFileHandleError):
        Source.from_fd(fd + high)


def test_closed_descriptor(path: Path) -> None:
    """A closed descriptor raises InvalidFileHandleError."""
    fd = os.open(path, os.O_RDWR)
    os.close(fd)
    with pytest.raises(pmem2.InvalidFileHandleError):
        Source.from_fd(fd)


def test_write_only_descriptor(path: Path) -> None:
    """A write-only descriptor raises InvalidFileHandleError."""
    with open_fd(path, os.O_WRONLY) as fd, pytest.raises(pmem2.InvalidFileHandleError):
        Source.from_fd(fd)


def make_pipe() -> int:
    """Return the read end of a pipe."""
    read_end, write_end = os.pipe()
    os.close(write_end)
    return read_end


NOT_MAPPABLE: dict[str, Callable[[], int]] = {
    "directory": lambda: os.open(os.curdir, os.O_RDONLY),
    "pipe": make_pipe,
    "socket": lambda: socket.socket(socket.AF_UNIX).detach(),
    "character device": lambda: os.open(os.devnull, os.O_RDWR),
}


@pytest.mark.parametrize("kind", NOT_MAPPABLE)
def test_descriptor_of_other_type(kind: str) -> None:
    """A directory, a pipe, a socket and a character device that is not a DAX device raise InvalidFileTypeError."""
    fd = NOT_MAPPABLE[kind]()
    try:
        with pytest.raises(pmem2.InvalidFileTypeError):
            Source.from_fd(fd)
    finally:
        os.close(fd)


def test_o_path_descriptor(path: Path) -> None:
    """An O_PATH descriptor makes a source that cannot be mapped or read."""
    with open_fd(path, O_PATH) as fd, Source.from_fd(fd) as source:
        calls: list[Callable[[], object]] = [source.map, lambda: source.pread_mcsafe(1)]
        for call in calls:
            with pytest.raises(OSError, match="descriptor") as caught:
                call()
            assert caught.value.errno == errno.EBADF


def test_source_owns_duplicate(path: Path, tmp_path: Path) -> None:
    """A source is unaffected when the caller closes or reuses the descriptor."""
    other = tmp_path / "other"
    other.write_bytes(b"other" * PAGE)
    fd = os.open(path, os.O_RDWR)
    with Source.from_fd(fd) as source:
        assert source.fd != fd
        os.close(fd)
        with open_fd(other, os.O_RDWR) as reused:
            assert reused == fd
            assert source.size == len(CONTENT)
            assert source.pread_mcsafe(len(CONTENT)) == CONTENT
            with source.map() as map:
                assert map[:] == CONTENT


def test_close_keeps_callers_descriptor(path: Path) -> None:
    """Closing a source leaves the caller's descriptor open."""
    with open_fd(path, os.O_RDWR) as fd:
        with Source.from_fd(fd) as source:
            duplicate = source.fd
        assert os.fstat(fd).st_size == len(CONTENT)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(duplicate)


def test_descriptor_is_not_inheritable(path: Path) -> None:
    """Child processes do not inherit the descriptor of a source."""
    with open_fd(path, os.O_RDWR) as fd:
        os.set_inheritable(fd, True)
        with Source.from_fd(fd) as source:
            assert not os.get_inheritable(source.fd)
    with Source.from_path(path) as source:
        assert not os.get_inheritable(source.fd)


# ---- from_path


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, OwnPath])
def test_path_types(path: Path, kind: Callable[[Path], Path]) -> None:
    """A path may be a str, bytes or any os.PathLike."""
    with Source.from_path(kind(path)) as source:
        assert source.size == len(CONTENT)


def test_relative_path_and_link(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may be relative and may be a symbolic link."""
    monkeypatch.chdir(path.parent)
    os.symlink("small", "link")
    with Source.from_path("link") as source:
        assert source.size == len(CONTENT)


@pytest.mark.parametrize("wrong", [0, True, 1.0, None, object()])
def test_path_of_wrong_type(wrong: Path) -> None:
    """An object that is not a path, a descriptor included, raises TypeError."""
    with pytest.raises(TypeError):
        Source.from_path(wrong)


def test_path_with_null() -> None:
    """A path that contains a null character raises ValueError."""
    with pytest.raises(ValueError, match="null"):
        Source.from_path("a\0b")


def test_missing_file(tmp_path: Path) -> None:
    """A missing file raises FileNotFoundError with its name, and is not created."""
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError) as caught:
        Source.from_path(missing)
    assert os.fspath(caught.value.filename) == str(missing)
    assert not missing.exists()


@pytest.mark.parametrize("make", [os.mkdir, make_fifo, make_socket, make_device])
@pytest.mark.parametrize("writable", [True, False])
def test_path_of_other_type(tmp_path: Path, make: Callable[[Path], None], writable: bool) -> None:
    """A directory, a FIFO, a socket and a device raise InvalidFileTypeError at once and leak no descriptor."""
    path = tmp_path / "other"
    make(path)
    before = descriptors()
    with pytest.raises(pmem2.InvalidFileTypeError) as caught:
        Source.from_path(path, writable=writable)
    assert caught.value.code is pmem2.ErrorCode.INVALID_FILE_TYPE
    assert descriptors() == before


def test_read_only_file(read_only_file: Path, run_child: RunChild) -> None:
    """A file without write permission raises PermissionError unless writable=False."""
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
            print("PermissionError")
        """,
        str(read_only_file),
    )
    assert (child.stdout.split(), child.stderr) == ([str(len(CONTENT)), "PermissionError"], "")


def test_writable_is_keyword_only(path: Path) -> None:
    """Passing *writable* by position raises TypeError."""
    with pytest.raises(TypeError):
        Source.from_path(path, False)  # type: ignore[call-arg] # wrong on purpose


def test_no_descriptor_leaks(path: Path) -> None:
    """Making, failing to make and closing sources leaks no descriptor."""
    before = descriptors()
    for writable in (True, False):
        with Source.from_path(path, writable=writable) as source:
            assert len(descriptors()) == len(before) + 1
            with source.map(), pytest.raises(pmem2.OffsetUnalignedError):
                source.map(pmem2.Config(offset=1))
    with open_fd(path, os.O_WRONLY) as fd, pytest.raises(pmem2.InvalidFileHandleError):
        Source.from_fd(fd)
    assert descriptors() == before


# ---- from_anon, from_handle and the constructor


@pytest.mark.parametrize("size", [1, PAGE, 3 * PAGE, 2**64 - 1])
def test_from_anon(size: int) -> None:
    """Anonymous memory has the size that the caller passes."""
    with Source.from_anon(Index(size)) as source:
        assert source.size == size


@non_integers
def test_anon_size_of_wrong_type(wrong: int) -> None:
    """A size that is a bool or not an integer raises TypeError."""
    with pytest.raises(TypeError, match="size"):
        Source.from_anon(wrong)


@invalid_sizes
def test_anon_size_out_of_range(outside: int) -> None:
    """A size that is negative or exceeds 64 bits raises ValueError."""
    with pytest.raises(ValueError, match="size"):
        Source.from_anon(outside)


def test_anon_size_zero() -> None:
    """Mapping anonymous memory of 0 bytes raises SourceEmptyError."""
    with Source.from_anon(0) as source, pytest.raises(pmem2.SourceEmptyError):
        source.map()


def test_anon_maps_are_independent(anonymous_source: Source) -> None:
    """Each map of anonymous memory is private, zero-filled, writable and of BYTE granularity."""
    with anonymous_source.map() as one, anonymous_source.map() as two:
        one.memcpy(0, b"one")
        assert one[:4] == b"one\0"
        assert two[:] == bytes(2 * PAGE)
        assert one.granularity is pmem2.Granularity.BYTE


def test_anon_has_no_file(anonymous_source: Source) -> None:
    """Anonymous memory has no descriptor, NVDIMM, bad blocks or mcsafe access."""
    with pytest.raises(pmem2.FileDescriptorNotSetError):
        _ = anonymous_source.fd
    with pytest.raises(pmem2.NosuppError):
        _ = anonymous_source.device_id
    with pytest.raises(pmem2.NosuppError):
        _ = anonymous_source.device_usc
    with pytest.raises(pmem2.NosuppError):
        _ = anonymous_source.numa_node
    with pytest.raises(pmem2.NosuppError, match=r"cannot look for bad blocks in <pmem2\.Source of "):
        anonymous_source.bad_blocks()
    with pytest.raises(pmem2.SourceTypeNotSupportedError):
        anonymous_source.pread_mcsafe_into(bytearray(1))
    with pytest.raises(pmem2.SourceTypeNotSupportedError):
        anonymous_source.pwrite_mcsafe(b"1")
    assert anonymous_source.alignment == PAGE


def test_windows_handle_elsewhere(path: Path) -> None:
    """Outside Windows from_handle raises NosuppError that names from_fd, and a source has no handle."""
    with pytest.raises(pmem2.NosuppError, match=r"handle.*use Source\.from_fd") as caught:
        Source.from_handle(1)
    assert caught.value.errno == errno.ENOTSUP
    with Source.from_path(path) as source, pytest.raises(pmem2.FileHandleNotSetError, match=sys.platform) as missing:
        _ = source.handle
    assert missing.value.function == "pmem2_source_get_handle"


def test_constructor_raises() -> None:
    """`Source()` raises TypeError that names from_path."""
    with pytest.raises(TypeError, match="from_path"):
        Source()


# ---- properties


def test_size_is_current(path: Path, writable_source: Source) -> None:
    """`size` is the present size of the file."""
    os.truncate(path, 3)
    assert writable_source.size == 3
    os.truncate(path, 2**40)
    assert writable_source.size == 2**40


def test_alignment(writable_source: Source) -> None:
    """The alignment of a file is the page size."""
    assert writable_source.alignment == PAGE


def test_file_without_nvdimm(source_without_dax: Source) -> None:
    """A file that is not on an NVDIMM has no device id, unsafe-shutdown count or NUMA node."""
    with pytest.raises(pmem2.NosuppError):
        _ = source_without_dax.device_id
    with pytest.raises(pmem2.NosuppError):
        _ = source_without_dax.device_usc
    with pytest.raises(pmem2.DaxRegionNotFoundError):
        _ = source_without_dax.numa_node


def test_attributes_are_read_only(writable_source: Source) -> None:
    """Setting a property or adding an attribute raises AttributeError."""
    for name in ("fd", "handle", "size", "alignment", "device_id", "device_usc", "numa_node", "closed", "color"):
        with pytest.raises(AttributeError):
            setattr(writable_source, name, 0)


def test_repr(path: Path) -> None:
    """The repr shows the path, and shows when the source is closed."""
    with Source.from_path(path) as source:
        assert repr(str(path)) in repr(source)
        assert "closed" not in repr(source)
    assert "closed" in repr(source)


# ---- closed sources


CALLS: dict[str, Callable[[Source], object]] = {
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


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("from_anon", [True, False])
def test_closed_source_raises(path: Path, name: str, from_anon: bool) -> None:
    """Every use of a closed source except `closed` and close() raises ValueError."""
    source = Source.from_anon(PAGE) if from_anon else Source.from_path(path)
    source.close()
    assert source.closed is True
    with pytest.raises(ValueError, match="closed"):
        CALLS[name](source)


def test_close_twice(path: Path) -> None:
    """Closing a closed source has no effect, even if its descriptor number is in use again."""
    source = Source.from_path(path)
    fd = source.fd
    source.close()
    with open_fd(path, os.O_RDONLY) as reused:
        assert reused <= fd  # the lowest free number
        source.close()
        assert os.fstat(reused).st_size == len(CONTENT)


def test_with_closes(path: Path) -> None:
    """`with` closes a source when its block raises."""
    with pytest.raises(KeyError), Source.from_path(path) as source:
        raise KeyError
    assert source.closed


def test_map_config_is_positional(writable_source: Source) -> None:
    """Source.map raises TypeError for a config that is passed by keyword."""
    with pytest.raises(TypeError):
        writable_source.map(config=pmem2.Config())  # type: ignore[call-arg] # wrong on purpose
