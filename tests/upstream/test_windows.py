# SPDX-License-Identifier: BSD-3-Clause
"""Handles on Windows: PMDK's own test cases, and further behaviour of Source and Map."""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import libpmem2
from support.values import CONTENT, PAGE, SIZE, open_fd

import pmem2
from pmem2 import ErrorCode, Protection, Source

msvcrt = pytest.importorskip("msvcrt", reason="needs Windows: nox -s windows")
assert sys.platform == "win32"  # mypy skips the rest of this file on other systems

INVALID_HANDLE_VALUE = 2**64 - 1
GENERIC_READ, GENERIC_WRITE = 1 << 31, 1 << 30
SHARE_ALL = 7
OPEN_EXISTING = 3
FILE_FLAG_BACKUP_SEMANTICS = 0x02000000
FILE_FLAG_OVERLAPPED = 0x40000000
HANDLE_FLAG_INHERIT = 1

kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
for function in (kernel32.CreateFileW, kernel32.CreateMutexW, kernel32.GetCurrentProcess, kernel32.GetCurrentThread):
    function.restype = ctypes.c_void_p
WINE = hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


@contextmanager
def open_handle(path: Path, access: int = GENERIC_READ | GENERIC_WRITE, flags: int = 0) -> Iterator[int]:
    """Yield a handle to a file."""
    handle = kernel32.CreateFileW(str(path), ctypes.c_uint(access), SHARE_ALL, None, OPEN_EXISTING, flags, None)
    assert handle not in (None, INVALID_HANDLE_VALUE), ctypes.get_last_error()
    try:
        yield handle
    finally:
        close(handle)


def close(handle: int) -> None:
    """Close a handle."""
    assert kernel32.CloseHandle(ctypes.c_void_p(handle))


def handle_flags(handle: int) -> int | None:
    """Return the flags of a handle, or `None` if it is closed."""
    flags = ctypes.c_ulong()
    known = kernel32.GetHandleInformation(ctypes.c_void_p(handle), ctypes.byref(flags))
    return flags.value if known else None


def path_of_handle(handle: int) -> str:
    """Return the path of the file behind a handle."""
    text = ctypes.create_unicode_buffer(1024)
    assert kernel32.GetFinalPathNameByHandleW(ctypes.c_void_p(handle), text, 1024, 0)
    return text.value


def open_handles() -> set[int]:
    """Return the open handles of this process, which are small multiples of four."""
    gc.collect()
    return {number for number in range(4, 4096, 4) if handle_flags(number) is not None}


def check_refused(handle: int, code: ErrorCode) -> None:
    """Check that libpmem2 and the façade refuse a handle, and that no new handle stays open."""
    assert libpmem2.source_from_handle(handle) == (code, 0)
    check_refused_by_facade(handle, code)


def check_refused_by_facade(handle: int, code: ErrorCode) -> None:
    """Check that the façade refuses a handle, and that no new handle stays open."""
    before = open_handles()
    with pytest.raises(pmem2.Pmem2Error, match="handle") as caught:
        Source.from_handle(handle)
    assert caught.value.code is code
    assert caught.value.function == "pmem2_source_from_handle"
    assert open_handles() == before


def check_invalid(handle: int) -> None:
    """Check that a handle is refused as INVALID_FILE_HANDLE."""
    check_refused(handle, ErrorCode.INVALID_FILE_HANDLE)


# ---- PMDK's test cases


@pytest.mark.upstream("pmem2_source/TEST6")
def test_read_write_handle(file: Path) -> None:
    """A read-write handle makes a source."""
    with open_handle(file) as handle:
        rc, pointer = libpmem2.source_from_handle(handle)
        assert rc == 0
        assert libpmem2.source_delete(pointer) == (0, 0)
        with Source.from_handle(handle) as source, source.map() as map:
            assert source.size == len(map) == SIZE
            assert map.protection is Protection.READ | Protection.WRITE
            assert map.granularity is pmem2.Granularity.PAGE


@pytest.mark.upstream("pmem2_source/TEST7")
def test_invalid_handle_value() -> None:
    """INVALID_HANDLE_VALUE, signed or unsigned, is refused."""
    check_invalid(INVALID_HANDLE_VALUE)
    check_invalid(-1)


@pytest.mark.upstream("pmem2_source/TEST8")
def test_closed_handle(file: Path) -> None:
    """A closed handle is refused."""
    with open_handle(file) as handle:
        pass
    check_invalid(handle)


@pytest.mark.upstream("pmem2_source/TEST9")
def test_directory_handle(tmp_path: Path) -> None:
    """A handle of a directory is refused."""
    with open_handle(tmp_path, GENERIC_READ, FILE_FLAG_BACKUP_SEMANTICS) as handle:
        check_refused(handle, ErrorCode.INVALID_FILE_TYPE)


@pytest.mark.upstream("pmem2_source/TEST10")
def test_mutex_handle() -> None:
    """A handle of a mutex is refused."""
    mutex = kernel32.CreateMutexW(None, False, None)
    try:
        check_invalid(mutex)
    finally:
        close(mutex)


@pytest.mark.upstream("pmem2_source/TEST12")
def test_get_handle(file: Path) -> None:
    """libpmem2 returns the caller's handle, a Source its own duplicate."""
    with open_handle(file) as handle:
        rc, pointer = libpmem2.source_from_handle(handle)
        assert rc == 0
        assert libpmem2.source_file(pointer) == (0, handle)
        assert libpmem2.source_delete(pointer) == (0, 0)
        with Source.from_handle(handle) as source:
            assert source.handle != handle
            assert path_of_handle(source.handle) == path_of_handle(handle)


@pytest.mark.upstream("pmem2_source/TEST14")
def test_anonymous_has_no_handle() -> None:
    """A source of anonymous memory has no handle."""
    rc, pointer = libpmem2.source_from_anon(0)
    assert rc == 0
    assert libpmem2.source_file(pointer)[0] == ErrorCode.FILE_HANDLE_NOT_SET
    assert libpmem2.source_delete(pointer) == (0, 0)
    with Source.from_anon(0) as source, pytest.raises(pmem2.FileHandleNotSetError):
        _ = source.handle


@pytest.mark.upstream("pmem2_source_size/TEST1", "pmem2_source_size/TEST3")
@pytest.mark.parametrize("size", [0, SIZE])
def test_size_by_handle(file: Path, size: int) -> None:
    """The size of a source is the size of the file behind the handle."""
    os.truncate(file, size)
    with open_handle(file) as handle, Source.from_handle(handle) as source:
        rc, pointer = libpmem2.source_from_handle(handle)
        assert rc == 0
        assert libpmem2.source_size(pointer) == (0, size)
        assert libpmem2.source_delete(pointer) == (0, 0)
        assert source.size == size


def test_size_of_temporary_file(tmp_path: Path) -> None:
    """A temporary file, which its last handle deletes, has the size of any file."""
    fd = os.open(tmp_path / "temporary", os.O_RDWR | os.O_CREAT | os.O_BINARY | os.O_TEMPORARY)
    os.write(fd, CONTENT)
    with Source.from_handle(msvcrt.get_osfhandle(fd)) as source:
        os.close(fd)
        assert source.size == len(CONTENT)
        assert source.pread_mcsafe(len(CONTENT)) == CONTENT
    assert list(tmp_path.iterdir()) == []


@pytest.mark.upstream("pmem2_map/TEST17")
def test_close_twice(file: Path) -> None:
    """Closing a Map twice does nothing; libpmem2 would use freed memory."""
    with Source.from_path(file) as source:
        map = source.map()
        map.close()
        map.close()
        assert map.closed
        with pytest.raises(ValueError, match="closed"):
            map.persist()


@pytest.mark.upstream("pmem2_map_prot/TEST2", "pmem2_map_prot/TEST3")
@pytest.mark.skipif(WINE, reason="wine 8 lets a file be executed through a handle without GENERIC_EXECUTE")
@pytest.mark.parametrize("more", [Protection.NONE, Protection.WRITE], ids=["read", "write"])
def test_execution_refused(file: Path, more: Protection) -> None:
    """A handle without GENERIC_EXECUTE cannot be mapped for execution."""
    with open_handle(file) as handle, Source.from_handle(handle) as source:
        with pytest.raises(pmem2.NoAccessError):
            source.map(pmem2.Config(protection=Protection.READ | Protection.EXEC | more))


# ---- a Source and its handle


@pytest.mark.upstream("pmem2_source/TEST3")
def test_write_only_handle(file: Path) -> None:
    """libpmem2 accepts a write-only handle; the façade refuses it as on other systems."""
    with open_handle(file, GENERIC_WRITE) as handle:
        rc, pointer = libpmem2.source_from_handle(handle)
        assert rc == 0
        assert libpmem2.source_delete(pointer) == (0, 0)
        check_refused_by_facade(handle, ErrorCode.INVALID_FILE_HANDLE)
    with open_fd(file, os.O_WRONLY) as fd, pytest.raises(pmem2.InvalidFileHandleError):
        Source.from_fd(fd)


def test_pseudo_handles() -> None:
    """The pseudo handles of process and thread are refused."""
    check_refused_by_facade(kernel32.GetCurrentProcess(), ErrorCode.INVALID_FILE_HANDLE)
    check_refused_by_facade(kernel32.GetCurrentThread(), ErrorCode.INVALID_FILE_HANDLE)


@pytest.mark.parametrize("number", [0, 1, 2**64, -(2**63) - 1, 2**70])
def test_handle_out_of_range(number: int) -> None:
    """A number that is not a handle is refused."""
    check_refused_by_facade(number, ErrorCode.INVALID_FILE_HANDLE)


@pytest.mark.parametrize("value", [True, 1.5, "4", None, b"4"])
def test_handle_of_wrong_type(value: int) -> None:
    """A handle that is not an integer is a TypeError."""
    with pytest.raises(TypeError, match="handle"):
        Source.from_handle(value)


def test_wrong_file_types(tmp_path: Path) -> None:
    """A pipe, a device and a directory have the wrong file type."""
    ends = os.pipe()
    try:
        for end in ends:
            check_refused_by_facade(msvcrt.get_osfhandle(end), ErrorCode.INVALID_FILE_TYPE)
            with pytest.raises(pmem2.InvalidFileTypeError):
                Source.from_fd(end)
    finally:
        for end in ends:
            os.close(end)
    with pytest.raises(pmem2.InvalidFileTypeError):
        Source.from_path(os.devnull)
    with pytest.raises(pmem2.InvalidFileTypeError):
        Source.from_path(tmp_path)


def test_source_owns_its_handle(path: Path) -> None:
    """A Source survives the caller's handle and closes its own, which children do not inherit."""
    before = open_handles()
    with open_handle(path) as handle:
        assert kernel32.SetHandleInformation(ctypes.c_void_p(handle), HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT)
        source = Source.from_handle(handle)
    own = source.handle
    assert handle_flags(own) == 0
    assert source.pread_mcsafe(len(CONTENT)) == CONTENT
    source.close()
    assert handle_flags(own) is None
    with pytest.raises(ValueError, match="closed"):
        _ = source.handle
    assert open_handles() == before


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropped_source_closes_handle(path: Path) -> None:
    """A Source and a Map that are dropped without `close` leave no handle open."""
    before = open_handles()
    source = Source.from_path(path)
    map = source.map()
    assert open_handles() > before
    del source, map
    assert open_handles() == before


def test_interpreter_descriptors(path: Path) -> None:
    """A Source uses the interpreter's file of a descriptor, and a bad descriptor does not abort."""
    fd = os.open(path, os.O_RDONLY | os.O_BINARY)
    with Source.from_fd(fd) as source, open(path, "rb") as file, Source.from_fd(file) as other:
        assert path_of_handle(source.handle) == path_of_handle(msvcrt.get_osfhandle(fd)) == path_of_handle(other.handle)
        with pytest.raises(pmem2.FileDescriptorNotSetError, match="Windows"):
            _ = source.fd
    os.close(fd)
    for bad in (fd, -1, -2, 4000, 2**31 - 1, 2**31, 2**64):
        with pytest.raises(pmem2.InvalidFileHandleError):
            Source.from_fd(bad)


def test_read_only_handle(path: Path) -> None:
    """A read-only handle makes a READ map, which can be persisted but not written."""
    with open_handle(path, GENERIC_READ) as handle, Source.from_handle(handle) as source, source.map() as map:
        assert map.protection is Protection.READ
        assert map[:] == CONTENT
        map.persist()
        with pytest.raises(TypeError):
            map[0] = 1
        with pytest.raises(OSError, match="write") as caught:
            source.pwrite_mcsafe(b"x")
        assert caught.value.errno == errno.EBADF
        with pytest.raises(pmem2.NoAccessError):
            source.map(pmem2.Config(protection=Protection.READ | Protection.WRITE))


@pytest.mark.parametrize("flags", [0, FILE_FLAG_OVERLAPPED], ids=["synchronous", "overlapped"])
def test_mcsafe_offsets(path: Path, flags: int) -> None:
    """The mcsafe methods use their offset, not the file pointer, also on overlapped handles."""
    with open_handle(path, flags=flags) as handle, Source.from_handle(handle) as source:
        for offset in (PAGE, 3, 0, 2 * PAGE - 7):
            assert source.pread_mcsafe(7, offset) == CONTENT[offset : offset + 7]
        source.pwrite_mcsafe(b"new", 5)
        assert source.pread_mcsafe(4, 4) == CONTENT[4:5] + b"new"
        assert source.pread_mcsafe(0, len(CONTENT)) == b""
        with pytest.raises(pmem2.LengthOutOfRangeError):
            source.pwrite_mcsafe(b"new", len(CONTENT) - 2)
    assert path.read_bytes() == CONTENT[:5] + b"new" + CONTENT[8:]


def test_device_queries_of_ordinary_file(path: Path) -> None:
    """Device queries of an ordinary file are NOSUPP in libpmem2 and in the façade."""
    with open_handle(path) as handle, Source.from_handle(handle) as source:
        rc, pointer = libpmem2.source_from_handle(handle)
        assert rc == 0
        assert libpmem2.source_device_id(pointer) == ErrorCode.NOSUPP
        assert libpmem2.source_delete(pointer) == (0, 0)
        for query in (lambda: source.device_id, lambda: source.device_usc, lambda: source.numa_node, source.bad_blocks):
            with pytest.raises(pmem2.NosuppError):
                query()


# ---- a Map and its handle


def test_map_outlives_its_source(path: Path) -> None:
    """A Map keeps the handle that write-back needs, so persist works after the Source is gone."""
    before = open_handles()
    source = Source.from_path(path)
    name = path_of_handle(source.handle)
    map = source.map()
    source.close()
    del source
    (kept,) = open_handles() - before
    assert path_of_handle(kept) == name
    map[0:3] = b"new"
    map.persist(0, 3)
    map.flush()
    map.deep_flush()
    map.persist_many([(0, 1), (PAGE, 1)])
    map.memcpy(PAGE, b"more")
    map.memcpy_many([(8, b"a"), (PAGE + 8, b"b")])
    map.close()
    assert open_handles() == before
    expected = bytearray(CONTENT)
    expected[0:3], expected[PAGE : PAGE + 4], expected[8], expected[PAGE + 8] = b"new", b"more", ord("a"), ord("b")
    assert path.read_bytes() == expected


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_map_of_dropped_source(path: Path) -> None:
    """A Map writes back to its file when the Source was dropped and its handle number reused."""
    map = Source.from_path(path).map()
    gc.collect()
    with open_handle(path, GENERIC_READ):
        map.memset(0, 7, PAGE)
    map.close()
    assert path.read_bytes() == bytes([7]) * PAGE + CONTENT[PAGE:]


def test_from_existing_keeps_handle(path: Path) -> None:
    """A Map of existing memory keeps its own handle."""
    with open(path, "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
        source = Source.from_fd(file)
    map = pmem2.Map.from_existing(source, memory, pmem2.Granularity.PAGE)
    source.close()
    map[0] = 99
    map.persist()
    map.close()
    memory.close()
    assert path.read_bytes()[0] == 99


@pytest.mark.usefixtures("needs_reservations")
def test_map_in_reservation_keeps_handle(path: Path) -> None:
    """A Map in a reservation keeps its own handle until it is closed."""
    before = open_handles()
    with pmem2.VMReservation(4 * PAGE) as reservation:
        source = Source.from_path(path)
        map = source.map(pmem2.Config(reservation=reservation, reservation_offset=PAGE))
        source.close()
        assert map.address == reservation.address + PAGE
        map[0:1] = b"!"
        map.persist()
        map.close()
    assert open_handles() == before
    assert path.read_bytes()[0:1] == b"!"


def test_failed_map_leaves_no_handle(path: Path) -> None:
    """A Map that cannot be created leaves no handle open."""
    with Source.from_path(path) as source:
        before = open_handles()
        for config in (
            pmem2.Config(offset=PAGE // 2),
            pmem2.Config(offset=2 * PAGE),
            pmem2.Config(required_granularity=pmem2.Granularity.BYTE),
            pmem2.Config(protection=Protection.NONE),
        ):
            with pytest.raises(pmem2.Pmem2Error):
                source.map(config)
        assert open_handles() == before


def test_unsupported_protections(path: Path) -> None:
    """Protections without READ raise a NosuppError that says so."""
    with Source.from_path(path) as source:
        for protection in (Protection.NONE, Protection.WRITE, Protection.EXEC, Protection.WRITE | Protection.EXEC):
            with pytest.raises(pmem2.NosuppError, match="READ"):
                source.map(pmem2.Config(protection=protection))


def test_granularity_not_forced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PMEM2_FORCE_GRANULARITY has no effect on Windows, and messages do not mention it."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "nonsense")
    with Source.from_path(path) as source:
        with source.map() as map:
            assert map.granularity is pmem2.Granularity.PAGE
        monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "PAGE")
        with pytest.raises(pmem2.GranularityNotSupportedError, match="DAX volume") as caught:
            source.map(pmem2.Config(required_granularity=pmem2.Granularity.BYTE))
        assert "FORCE" not in str(caught.value)


def test_open_removes_new_file(tmp_path: Path) -> None:
    """`open` removes its new file when mapping fails, although Windows cannot remove open files."""
    path = tmp_path / "new"
    with pytest.raises(pmem2.GranularityNotSupportedError):
        pmem2.open(path, "x+", size=PAGE, config=pmem2.Config(required_granularity=pmem2.Granularity.BYTE))
    assert not path.exists()
