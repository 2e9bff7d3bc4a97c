# SPDX-License-Identifier: BSD-3-Clause
"""Handles: the rows of PMDK's suite that need Windows, and what else a Source and a Map do with them."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import libpmem2
from support.values import CONTENT, PAGE, SIZE

import pmem2
from pmem2 import ErrorCode, Protection, Source

msvcrt = pytest.importorskip("msvcrt", reason="needs Windows: nox -s windows")
assert sys.platform == "win32"  # elsewhere mypy leaves out what follows

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
def handle_of(path: Path, access: int = GENERIC_READ | GENERIC_WRITE, flags: int = 0) -> Iterator[int]:
    """Yield a handle of a file."""
    opened = kernel32.CreateFileW(str(path), ctypes.c_uint(access), SHARE_ALL, None, OPEN_EXISTING, flags, None)
    assert opened not in (None, INVALID_HANDLE_VALUE), ctypes.get_last_error()
    try:
        yield opened
    finally:
        close(opened)


def close(handle: int) -> None:
    """Close a handle."""
    assert kernel32.CloseHandle(ctypes.c_void_p(handle))


def flags_of(handle: int) -> int | None:
    """Return the flags of a handle, `None` if it is closed."""
    flags = ctypes.c_ulong()
    known = kernel32.GetHandleInformation(ctypes.c_void_p(handle), ctypes.byref(flags))
    return flags.value if known else None


def name_of(handle: int) -> str:
    """Return the path of the file behind a handle."""
    text = ctypes.create_unicode_buffer(1024)
    assert kernel32.GetFinalPathNameByHandleW(ctypes.c_void_p(handle), text, 1024, 0)
    return text.value


def handles() -> set[int]:
    """Return the handles that this process has; they are small multiples of four."""
    gc.collect()
    return {number for number in range(4, 4096, 4) if flags_of(number) is not None}


def check_refused(handle: int, code: ErrorCode) -> None:
    """Check that neither libpmem2 nor the façade makes a source of a handle, and that nothing is left of it."""
    assert libpmem2.source_from_handle(handle) == (code, 0)
    check_refused_by_facade(handle, code)


def check_refused_by_facade(handle: int, code: ErrorCode) -> None:
    """Check that the façade makes no source of a handle, and that nothing is left of it."""
    before = handles()
    with pytest.raises(pmem2.Pmem2Error, match="handle") as caught:
        Source.from_handle(handle)
    assert caught.value.code is code
    assert caught.value.function == "pmem2_source_from_handle"
    assert handles() == before


def invalid(handle: int) -> None:
    """Check that a handle is refused as one of no file."""
    check_refused(handle, ErrorCode.INVALID_FILE_HANDLE)


# ---- the rows


def test_row_007_handle(file: Path) -> None:
    """A handle that is open for reading and writing makes a source."""
    with handle_of(file) as handle:
        rc, pointer = libpmem2.source_from_handle(handle)
        assert rc == 0
        assert libpmem2.source_delete(pointer) == (0, 0)
        with Source.from_handle(handle) as source, source.map() as map:
            assert source.size == len(map) == SIZE
            assert map.protection is Protection.READ | Protection.WRITE
            assert map.granularity is pmem2.Granularity.PAGE


def test_row_008_no_handle() -> None:
    """INVALID_HANDLE_VALUE, with or without its sign, is refused."""
    invalid(INVALID_HANDLE_VALUE)
    invalid(-1)


def test_row_009_closed_handle(file: Path) -> None:
    """A closed handle is refused."""
    with handle_of(file) as handle:
        pass
    invalid(handle)


def test_row_010_directory(tmp_path: Path) -> None:
    """A handle of a directory is refused."""
    with handle_of(tmp_path, GENERIC_READ, FILE_FLAG_BACKUP_SEMANTICS) as handle:
        check_refused(handle, ErrorCode.INVALID_FILE_TYPE)


def test_row_011_mutex() -> None:
    """A handle of what is no file at all is refused."""
    mutex = kernel32.CreateMutexW(None, False, None)
    try:
        invalid(mutex)
    finally:
        close(mutex)


def test_row_013_the_handle_of_a_source(file: Path) -> None:
    """libpmem2 tells the handle that it was given; a Source tells its own duplicate."""
    with handle_of(file) as handle:
        rc, pointer = libpmem2.source_from_handle(handle)
        assert rc == 0
        assert libpmem2.source_file(pointer) == (0, handle)
        assert libpmem2.source_delete(pointer) == (0, 0)
        with Source.from_handle(handle) as source:
            assert source.handle != handle
            assert name_of(source.handle) == name_of(handle)


def test_row_015_anonymous_memory_has_no_handle() -> None:
    """A source of anonymous memory, even of no size, has no handle to tell."""
    rc, pointer = libpmem2.source_from_anon(0)
    assert rc == 0
    assert libpmem2.source_file(pointer)[0] == ErrorCode.FILE_HANDLE_NOT_SET
    assert libpmem2.source_delete(pointer) == (0, 0)
    with Source.from_anon(0) as source, pytest.raises(pmem2.FileHandleNotSetError):
        _ = source.handle


@pytest.mark.parametrize("size", [0, SIZE])
def test_row_025_size(file: Path, size: int) -> None:
    """The size of a source is that of the file behind the handle, even none."""
    os.truncate(file, size)
    with handle_of(file) as handle, Source.from_handle(handle) as source:
        rc, pointer = libpmem2.source_from_handle(handle)
        assert rc == 0
        assert libpmem2.source_size(pointer) == (0, size)
        assert libpmem2.source_delete(pointer) == (0, 0)
        assert source.size == size


def test_row_028_size_of_a_temporary_file(tmp_path: Path) -> None:
    """The size of a file that goes away with its last handle is that of any file."""
    fd = os.open(tmp_path / "temporary", os.O_RDWR | os.O_CREAT | os.O_BINARY | os.O_TEMPORARY)
    os.write(fd, CONTENT)
    with Source.from_handle(msvcrt.get_osfhandle(fd)) as source:
        os.close(fd)
        assert source.size == len(CONTENT)
        assert source.pread_mcsafe(len(CONTENT)) == CONTENT
    assert list(tmp_path.iterdir()) == []


def test_row_063_closed_twice(file: Path) -> None:
    """A Map that is closed once more stays closed; libpmem2 would look for the mapping in memory that it has freed."""
    with Source.from_path(file) as source:
        map = source.map()
        map.close()
        map.close()
        assert map.closed
        with pytest.raises(ValueError, match="closed"):
            map.persist()


@pytest.mark.skipif(WINE, reason="wine 8 lets a file be executed through a handle without GENERIC_EXECUTE")
@pytest.mark.parametrize("more", [Protection.NONE, Protection.WRITE], ids=["read", "write"])
def test_row_077_no_execution(file: Path, more: Protection) -> None:
    """Through a handle that does not allow it, nothing is mapped for execution."""
    with handle_of(file) as handle, Source.from_handle(handle) as source:
        with pytest.raises(pmem2.NoAccessError):
            source.map(pmem2.Config(protection=Protection.READ | Protection.EXEC | more))


# ---- a Source and its handle


def test_row_004_write_only(file: Path) -> None:
    """libpmem2 takes a handle that cannot be read; the façade refuses it here as it does elsewhere."""
    with handle_of(file, GENERIC_WRITE) as handle:
        rc, pointer = libpmem2.source_from_handle(handle)
        assert rc == 0
        assert libpmem2.source_delete(pointer) == (0, 0)
        check_refused_by_facade(handle, ErrorCode.INVALID_FILE_HANDLE)
    fd = os.open(file, os.O_WRONLY)
    try:
        with pytest.raises(pmem2.InvalidFileHandleError):
            Source.from_fd(fd)
    finally:
        os.close(fd)


def test_pseudo_handles() -> None:
    """The handles that every process and every thread has without opening them are none of a file."""
    check_refused_by_facade(kernel32.GetCurrentProcess(), ErrorCode.INVALID_FILE_HANDLE)
    check_refused_by_facade(kernel32.GetCurrentThread(), ErrorCode.INVALID_FILE_HANDLE)


@pytest.mark.parametrize("number", [0, 1, 2**64, -(2**63) - 1, 2**70])
def test_numbers_that_are_no_handle(number: int) -> None:
    """No number whatsoever does any harm."""
    check_refused_by_facade(number, ErrorCode.INVALID_FILE_HANDLE)


@pytest.mark.parametrize("value", [True, 1.5, "4", None, b"4"])
def test_what_is_no_number(value: int) -> None:
    """What is no integer is a TypeError."""
    with pytest.raises(TypeError, match="handle"):
        Source.from_handle(value)


def test_pipes_and_the_null_device(tmp_path: Path) -> None:
    """A pipe and a device are files of the wrong type."""
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


def test_a_source_owns_its_handle(path: Path) -> None:
    """The caller's handle may be closed; the Source closes its own, which children do not inherit."""
    before = handles()
    with handle_of(path) as handle:
        assert kernel32.SetHandleInformation(ctypes.c_void_p(handle), HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT)
        source = Source.from_handle(handle)
    own = source.handle
    assert flags_of(own) == 0
    assert source.pread_mcsafe(len(CONTENT)) == CONTENT
    source.close()
    assert flags_of(own) is None
    with pytest.raises(ValueError, match="closed"):
        _ = source.handle
    assert handles() == before


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dropped_source_closes_its_handle(path: Path) -> None:
    """Nothing is left of a Source, and of a Map, that nobody has closed."""
    before = handles()
    source = Source.from_path(path)
    map = source.map()
    assert handles() > before
    del source, map
    assert handles() == before


def test_descriptors_are_those_of_the_interpreter(path: Path) -> None:
    """A descriptor makes a Source of the file that Python has under that number, and a bad one does not abort."""
    fd = os.open(path, os.O_RDONLY | os.O_BINARY)
    with Source.from_fd(fd) as source, open(path, "rb") as file, Source.from_fd(file) as other:
        assert name_of(source.handle) == name_of(msvcrt.get_osfhandle(fd)) == name_of(other.handle)
        with pytest.raises(pmem2.FileDescriptorNotSetError, match="Windows"):
            _ = source.fd
    os.close(fd)
    for bad in (fd, -1, -2, 4000, 2**31 - 1, 2**31, 2**64):
        with pytest.raises(pmem2.InvalidFileHandleError):
            Source.from_fd(bad)


def test_read_only(path: Path) -> None:
    """Through a handle that only reads, a map is READ, can be made durable all the same, and nothing is written."""
    with handle_of(path, GENERIC_READ) as handle, Source.from_handle(handle) as source, source.map() as map:
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
    """Reading and writing happen at the offset, wherever the file pointer is, also for handles with none."""
    with handle_of(path, flags=flags) as handle, Source.from_handle(handle) as source:
        for offset in (PAGE, 3, 0, 2 * PAGE - 7):
            assert source.pread_mcsafe(7, offset) == CONTENT[offset : offset + 7]
        source.pwrite_mcsafe(b"new", 5)
        assert source.pread_mcsafe(4, 4) == CONTENT[4:5] + b"new"
        assert source.pread_mcsafe(0, len(CONTENT)) == b""
        with pytest.raises(pmem2.LengthOutOfRangeError):
            source.pwrite_mcsafe(b"new", len(CONTENT) - 2)
    assert path.read_bytes() == CONTENT[:5] + b"new" + CONTENT[8:]


def test_what_a_volume_that_is_not_dax_cannot_tell(path: Path) -> None:
    """An ordinary file has no NVDIMM, no bad blocks and no NUMA node, to the library and to the façade."""
    with handle_of(path) as handle, Source.from_handle(handle) as source:
        rc, pointer = libpmem2.source_from_handle(handle)
        assert rc == 0
        assert libpmem2.source_device_id(pointer) == ErrorCode.NOSUPP
        assert libpmem2.source_delete(pointer) == (0, 0)
        for ask in (lambda: source.device_id, lambda: source.device_usc, lambda: source.numa_node, source.bad_blocks):
            with pytest.raises(pmem2.NosuppError):
                ask()


# ---- a Map and the handle that it keeps


def test_a_map_outlives_its_source(path: Path) -> None:
    """Pages are written back through a handle, which the map keeps: persist works when the Source is gone."""
    before = handles()
    source = Source.from_path(path)
    name = name_of(source.handle)
    map = source.map()
    source.close()
    del source
    (kept,) = handles() - before
    assert name_of(kept) == name
    map[0:3] = b"new"
    map.persist(0, 3)
    map.flush()
    map.deep_flush()
    map.persist_many([(0, 1), (PAGE, 1)])
    map.memcpy(PAGE, b"more")
    map.memcpy_many([(8, b"a"), (PAGE + 8, b"b")])
    map.close()
    assert handles() == before
    expected = bytearray(CONTENT)
    expected[0:3], expected[PAGE : PAGE + 4], expected[8], expected[PAGE + 8] = b"new", b"more", ord("a"), ord("b")
    assert path.read_bytes() == expected


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_map_of_a_source_that_was_dropped(path: Path) -> None:
    """It is the same when nobody has closed the Source, and its handle number is another file's now."""
    map = Source.from_path(path).map()
    gc.collect()
    with handle_of(path, GENERIC_READ):
        map.memset(0, 7, PAGE)
    map.close()
    assert path.read_bytes() == bytes([7]) * PAGE + CONTENT[PAGE:]


def test_a_map_from_existing_keeps_a_handle_too(path: Path) -> None:
    """So it is with a map of memory that is mapped already."""
    import mmap

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


@pytest.mark.usefixtures("reservations")
def test_a_map_in_a_reservation_keeps_a_handle_too(path: Path) -> None:
    """So it is with a map in a reservation, and what is closed leaves no handle behind."""
    before = handles()
    with pmem2.VMReservation(4 * PAGE) as reservation:
        source = Source.from_path(path)
        map = source.map(pmem2.Config(reservation=reservation, reservation_offset=PAGE))
        source.close()
        assert map.address == reservation.address + PAGE
        map[0:1] = b"!"
        map.persist()
        map.close()
    assert handles() == before
    assert path.read_bytes()[0:1] == b"!"


def test_failed_maps_leave_no_handle(path: Path) -> None:
    """A map that cannot be made keeps nothing."""
    with Source.from_path(path) as source:
        before = handles()
        for config in (
            pmem2.Config(offset=PAGE // 2),
            pmem2.Config(offset=2 * PAGE),
            pmem2.Config(required_granularity=pmem2.Granularity.BYTE),
            pmem2.Config(protection=Protection.NONE),
        ):
            with pytest.raises(pmem2.Pmem2Error):
                source.map(config)
        assert handles() == before


def test_combinations_of_protections_that_windows_lacks(path: Path) -> None:
    """Memory that can be written and not read, or that cannot be used at all, is a NosuppError that says so."""
    with Source.from_path(path) as source:
        for protection in (Protection.NONE, Protection.WRITE, Protection.EXEC, Protection.WRITE | Protection.EXEC):
            with pytest.raises(pmem2.NosuppError, match="READ"):
                source.map(pmem2.Config(protection=protection))


def test_granularity_is_not_forced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libpmem2 does not read PMEM2_FORCE_GRANULARITY here; what is said about a coarse map does not name it."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "nonsense")
    with Source.from_path(path) as source:
        with source.map() as map:
            assert map.granularity is pmem2.Granularity.PAGE
        monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "PAGE")
        with pytest.raises(pmem2.GranularityNotSupportedError, match="DAX volume") as caught:
            source.map(pmem2.Config(required_granularity=pmem2.Granularity.BYTE))
        assert "FORCE" not in str(caught.value)


def test_open_removes_what_it_created(tmp_path: Path) -> None:
    """What cannot be mapped is removed again, although Windows removes no file that is open."""
    path = tmp_path / "new"
    with pytest.raises(pmem2.GranularityNotSupportedError):
        pmem2.open(path, "x+", size=PAGE, config=pmem2.Config(required_granularity=pmem2.Granularity.BYTE))
    assert not path.exists()
