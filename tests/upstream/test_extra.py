# SPDX-License-Identifier: BSD-3-Clause
"""Cases that PMDK's own tests leave out: rows 220 to 237. Most of libpmem2's answers are why the façade has guards."""

from __future__ import annotations

import errno
import mmap
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from _pmem2 import ffi
from support import libpmem2
from support.children import RunChild
from support.values import SIZE

import pmem2
from pmem2 import ErrorCode, Granularity

PAGE = mmap.ALLOCATIONGRANULARITY
WORD = 2**64

# the beginning of what a child does to libpmem2 itself
RAW = f"""
    import os, sys
    sys.path.insert(0, {os.path.dirname(os.path.dirname(os.path.abspath(__file__)))!r})
    from support import libpmem2
    from _pmem2 import ffi, lib

    fd = os.open(sys.argv[1], os.O_RDWR)
    with libpmem2.source(fd) as source:
"""


def raw_child(code: str) -> str:
    """Return the program of a child that has a raw `source` of the file that is its argument, and `os` and `sys`."""
    return RAW + "\n".join(" " * 8 + line for line in code.strip("\n").splitlines())


# ---- 220: kinds of descriptors


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is to be closed at the end."""
    with ExitStack() as opened:
        yield opened


def opened(stack: ExitStack, path: str | Path, flags: int) -> int:
    """Return a descriptor that is closed at the end."""
    fd = os.open(path, flags)
    stack.callback(os.close, fd)
    return fd


def test_row_220_memfd(stack: ExitStack) -> None:
    """A file that lives in memory is as good as any other."""
    if not hasattr(os, "memfd_create"):
        pytest.skip("this interpreter has no os.memfd_create")
    fd = os.memfd_create("pmem2")
    stack.callback(os.close, fd)
    os.truncate(fd, PAGE)
    with pmem2.Source.from_fd(fd) as source, source.map() as map:
        map.memcpy(0, b"memfd")
        assert (map.size, map.granularity) == (PAGE, Granularity.PAGE)
    assert os.pread(fd, 5, 0) == b"memfd"
    with libpmem2.source(fd) as raw_source, libpmem2.config() as config, libpmem2.map(config, raw_source) as raw_map:
        assert libpmem2.read(raw_map, 5) == b"memfd"


def test_row_220_path_only(stack: ExitStack, file: Path) -> None:
    """A descriptor opened with O_PATH makes a source, but cannot be mapped."""
    fd = opened(stack, file, getattr(os, "O_PATH", 0o10000000))  # PyPy's os has no such name
    with pmem2.Source.from_fd(fd) as source, pytest.raises(OSError, match="cannot map") as caught:
        source.map()
    assert caught.value.errno == errno.EBADF
    assert not isinstance(caught.value, pmem2.Pmem2Error)
    with libpmem2.source(fd) as raw_source, libpmem2.config() as config:
        assert libpmem2.map_new(config, raw_source) == (-errno.EBADF, 0)


def check_file_type_refused(fd: int) -> None:
    """Check that a descriptor is neither a regular file nor a DAX device."""
    with pytest.raises(pmem2.InvalidFileTypeError):
        pmem2.Source.from_fd(fd)
    assert libpmem2.source_from_fd(fd) == (ErrorCode.INVALID_FILE_TYPE, 0)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_row_220_character_device(stack: ExitStack, device: str) -> None:
    """A character device that is no DAX device is INVALID_FILE_TYPE."""
    check_file_type_refused(opened(stack, device, os.O_RDWR))
    with pytest.raises(pmem2.InvalidFileTypeError):
        pmem2.Source.from_path(device)


def test_row_220_pipe(stack: ExitStack, tmp_path: Path) -> None:
    """A pipe is INVALID_FILE_TYPE, and the path of one is so without blocking."""
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    check_file_type_refused(reader)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(pmem2.InvalidFileTypeError):
        pmem2.Source.from_path(tmp_path / "fifo")


def test_row_220_socket(stack: ExitStack) -> None:
    """A socket is INVALID_FILE_TYPE."""
    check_file_type_refused(stack.enter_context(closing(socket.socket())).fileno())


def test_row_220_proc(stack: ExitStack) -> None:
    """A file of /proc is a regular one, of no size: SOURCE_EMPTY."""
    fd = opened(stack, "/proc/self/status", os.O_RDONLY)
    with pmem2.Source.from_fd(fd) as source, pytest.raises(pmem2.SourceEmptyError):
        source.map()
    with libpmem2.source(fd) as raw_source, libpmem2.config() as config:
        assert libpmem2.map_new(config, raw_source) == (ErrorCode.SOURCE_EMPTY, 0)


# ---- 221, 222: what must outlive what


def test_row_221_reused_number(stack: ExitStack, file: Path, tmp_path: Path) -> None:
    """A Source stays with its file where libpmem2's follows the number of the descriptor to another file."""
    file.write_bytes(b"mine" + bytes(PAGE - 4))
    (tmp_path / "other").write_bytes(b"other" + bytes(2 * PAGE - 5))
    number = opened(stack, file, os.O_RDWR)
    other = opened(stack, tmp_path / "other", os.O_RDWR)
    with libpmem2.source(number) as raw_source, pmem2.Source.from_fd(number) as source:
        os.dup2(other, number)
        assert libpmem2.source_size(raw_source) == (0, 2 * PAGE)
        assert source.size == PAGE
        assert source.pread_mcsafe(4) == b"mine"
        with source.map() as map:
            assert map[0:4] == b"mine"


def test_row_222_nothing_else_is_needed(file: Path, granularity: Granularity) -> None:
    """A map works without its descriptor, its source and its config."""
    fd = os.open(file, os.O_RDWR)
    source = pmem2.Source.from_fd(fd)
    os.close(fd)
    map = source.map(pmem2.Config())
    source.close()
    with map:
        map.memcpy(0, b"alone")
        map[5:9] = b" now"
        map.persist()
        map.deep_flush()
        assert map.granularity is granularity
    assert file.read_bytes()[:9] == b"alone now"


def test_row_222_nothing_else_is_needed_by_the_library(file: Path, granularity: Granularity) -> None:
    """The same of libpmem2 itself."""
    fd = os.open(file, os.O_RDWR)
    with libpmem2.source(fd) as source, libpmem2.config() as config:
        rc, map = libpmem2.map_new(config, source)
    os.close(fd)
    assert rc == 0
    libpmem2.memcpy(map, b"alone")
    libpmem2.persist(map, 0, SIZE)
    assert libpmem2.map_granularity(map) == granularity
    assert libpmem2.deep_flush(map, 0, SIZE) == 0
    assert libpmem2.map_delete(map) == (0, 0)
    assert file.read_bytes()[:5] == b"alone"


# ---- 223: mcsafe ranges


def test_row_223_mcsafe_past_the_end(source: pmem2.Source, file: Path) -> None:
    """A range that begins past the end is LENGTH_OUT_OF_RANGE: nothing is read, and the file does not grow."""
    target = bytearray(b"untouched")
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.pread_mcsafe(9, SIZE + 1)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.pread_mcsafe_into(target, SIZE + 1)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.pwrite_mcsafe(b"grow", SIZE + 1)
    assert target == b"untouched"
    assert file.stat().st_size == SIZE


def test_row_223_mcsafe_past_the_end_of_the_library(raw_source: int, file: Path) -> None:
    """libpmem2 reports success, without reading anything, and lets a write make the file longer."""
    assert libpmem2.pread_mcsafe(raw_source, 4, SIZE + 1) == (0, bytes(4))
    assert libpmem2.pwrite_mcsafe(raw_source, b"grow", SIZE + 1) == 0
    assert file.stat().st_size == SIZE + 5


# ---- 224, 225: existing memory


def test_row_224_existing_page_memory_is_persisted(source: pmem2.Source, fd: int, file: Path) -> None:
    """A PAGE map of existing memory persists by msync, from its first page on."""
    with mmap.mmap(fd, SIZE) as memory, pmem2.Map.from_existing(source, memory, Granularity.PAGE) as map:
        map[0:5] = b"first"
        map.persist(0, 5)
        map.flush()
        map.persist_many([(0, 5), (PAGE, 5)])
        map.memcpy(PAGE, b"second")
        map.memset(2 * PAGE, 7, PAGE)
        map.deep_flush()
        assert map.granularity is Granularity.PAGE
    assert file.read_bytes()[: 2 * PAGE + 1] == b"first" + bytes(PAGE - 5) + b"second" + bytes(PAGE - 6) + b"\7"


def test_row_224_the_library_never_returns(run_child: RunChild, file: Path) -> None:
    """libpmem2 itself loops for ever: it uses up any processor time."""
    child = run_child(
        raw_child(
            """
            import mmap, signal
            memory = mmap.mmap(fd, 4096)
            with ffi.from_buffer("char[]", memory) as borrowed:
                address = int(ffi.cast("uintptr_t", borrowed))
                rc, map = libpmem2.map_from_existing(source, address, 4096, lib.PMEM2_GRANULARITY_PAGE)
            print("made", rc, flush=True)
            signal.setitimer(signal.ITIMER_PROF, 1)
            libpmem2.persist(map, 0, 1)
            print("returned")
            """
        ),
        str(file),
    )
    assert (child.returncode, child.stdout) == (-signal.SIGPROF, "made 0\n"), child.stderr


@pytest.mark.parametrize("granularity", [-1, 3, 2**40])
def test_row_225_existing_granularity(source: pmem2.Source, granularity: int) -> None:
    """An unknown granularity is a ValueError."""
    with mmap.mmap(-1, PAGE) as memory, pytest.raises(ValueError, match=str(granularity)):
        pmem2.Map.from_existing(source, memory, granularity)


def test_row_225_existing_granularity_kills_the_library(run_child: RunChild, file: Path) -> None:
    """libpmem2 itself aborts the process."""
    child = run_child(
        raw_child('print("asked", flush=True); libpmem2.map_from_existing(source, 0xFFFF000, 4096, 3)'), str(file)
    )
    assert (child.returncode, child.stdout) == (-signal.SIGABRT, "asked\n")


def test_row_225_existing_empty(source: pmem2.Source) -> None:
    """Existing memory of no length is a ValueError."""
    with pytest.raises(ValueError, match="empty"):
        pmem2.Map.from_existing(source, bytearray(), Granularity.BYTE)


def test_row_225_existing_empty_of_the_library(run_child: RunChild, file: Path) -> None:
    """libpmem2 makes such a map, and then does not find it to delete it."""
    child = run_child(
        raw_child(
            """
            rc, empty = libpmem2.map_from_existing(source, 0xFFFF000, 0, lib.PMEM2_GRANULARITY_BYTE)
            print(rc, libpmem2.map_delete(empty)[0], flush=True)
            os._exit(0)
            """
        ),
        str(file),
    )
    assert (child.returncode, child.stdout) == (0, f"0 {int(ErrorCode.MAPPING_NOT_FOUND)}\n"), child.stderr


# ---- 226, 227: reservations


def test_row_226_reservation_numbers(source: pmem2.Source) -> None:
    """Numbers that make libpmem2 lose count of a reservation are a ValueError."""
    for size in (0, -PAGE, WORD - PAGE, WORD):
        with pytest.raises(ValueError, match="size"):
            pmem2.VMReservation(size)
    with pmem2.VMReservation(SIZE) as reservation:
        address = reservation.address
        for more in (0, WORD - PAGE, WORD - SIZE):
            with pytest.raises(ValueError, match=r"extend|size|n must"):
                reservation.extend(more)
        for offset in (SIZE + PAGE, WORD - 2 * PAGE, WORD):
            with pytest.raises(ValueError, match="reservation_offset"):
                source.map(pmem2.Config(reservation=reservation, reservation_offset=offset))
        assert (reservation.address, reservation.size) == (address, SIZE)
        assert list(reservation) == []


def test_row_226_offset_below_the_reservation(run_child: RunChild, file: Path) -> None:
    """libpmem2 maps below the reservation, over whatever is there."""
    child = run_child(
        raw_child(
            """
            rc, reservation = libpmem2.reservation_new(int(sys.argv[2]), 1 << 24)
            assert rc == 0
            offset = 2**64 - 8192
            with libpmem2.config(length=8192, reservation=reservation, reservation_offset=offset) as config:
                rc, map = libpmem2.map_new(config, source)
                assert rc == 0
            print(rc, libpmem2.map_address(map) - libpmem2.reservation_address(reservation), flush=True)
            os._exit(0)
            """
        ),
        str(file),
        str(4096 * libpmem2.MIB),  # where nothing is, so that nothing is lost
    )
    assert (child.returncode, child.stdout) == (0, "0 -8192\n"), child.stderr


def test_row_226_size_that_wraps(run_child: RunChild, file: Path) -> None:
    """libpmem2 makes a reservation of no size that cannot be deleted, and extends by a size that wraps, to less."""
    child = run_child(
        raw_child(
            """
            rc, empty = libpmem2.reservation_new(0, 0)
            print(rc, libpmem2.reservation_delete(empty)[0])
            rc, reservation = libpmem2.reservation_new(0, 1 << 24)
            extended = libpmem2.extend(reservation, 2**64 - 4096)
            print(rc, extended, libpmem2.reservation_size(reservation) - (1 << 24), flush=True)
            os._exit(0)
            """
        ),
        str(file),
    )
    assert (child.returncode, child.stdout) == (0, f"0 {-errno.EINVAL}\n0 0 -4096\n"), child.stderr


def free_address() -> int:
    """Return an address behind which much room was free a moment ago."""
    alignment = 2 * libpmem2.MIB
    with mmap.mmap(-1, 256 * libpmem2.MIB) as memory, ffi.from_buffer("char[]", memory) as borrowed:
        address = int(ffi.cast("uintptr_t", borrowed))
    return -(-address // alignment) * alignment + 16 * libpmem2.MIB


def test_row_227_same_address_again(source: pmem2.Source) -> None:
    """An address that was reserved, and mapped into, can be reserved again after close."""
    address = free_address()
    for _ in range(3):
        with pmem2.VMReservation(SIZE, address) as reservation:
            assert (reservation.address, reservation.size) == (address, SIZE)
            with source.map(pmem2.Config(reservation=reservation)) as map:
                assert map.address == address


def test_row_227_same_address_again_of_the_library() -> None:
    """libpmem2 keeps the room behind a deleted reservation: the same address is MAPPING_EXISTS."""
    address = free_address()
    with libpmem2.reservation(SIZE, address) as reservation:
        assert libpmem2.reservation_address(reservation) == address
    assert libpmem2.reservation_new(address, SIZE)[0] == ErrorCode.MAPPING_EXISTS


# ---- 231: texts


def test_row_231_a_new_thread_has_no_text() -> None:
    """Texts belong to threads, and one that never failed has none."""
    texts: list[str] = []

    def look() -> None:
        texts.append(libpmem2.errormsg())
        with libpmem2.config() as config:
            assert libpmem2.set_sharing(config, 777) == ErrorCode.INVALID_SHARING_VALUE
        texts.append(libpmem2.errormsg())

    with libpmem2.config() as config:
        assert libpmem2.set_offset(config, 2**63) == ErrorCode.OFFSET_OUT_OF_RANGE
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert libpmem2.errormsg() == "offset is greater than INT64_MAX"
    assert texts[0] == ""
    assert re.search("777|sharing", texts[1])


def test_row_231_stale_text(fd: int) -> None:
    """Success does not clear the text in the release build, nor does a failure that writes none."""
    with libpmem2.config() as config:
        assert libpmem2.set_offset(config, 2**63) == ErrorCode.OFFSET_OUT_OF_RANGE
        text = libpmem2.errormsg()
        assert text == "offset is greater than INT64_MAX"
        expected = "" if libpmem2.is_debug_build() else text
        with libpmem2.source(fd) as source:
            assert libpmem2.source_size(source) == (0, SIZE)
            assert libpmem2.errormsg() == expected
        assert libpmem2.source_from_fd(-1) == (ErrorCode.INVALID_FILE_HANDLE, 0)
        assert libpmem2.errormsg() == expected


def test_row_231_facade_has_no_stale_text() -> None:
    """The text of an exception is never that of an older failure."""
    with pmem2.Source.from_anon(PAGE) as source, pytest.raises(pmem2.LengthUnalignedError) as older:
        source.map(pmem2.Config(length=1))
    stale = libpmem2.errormsg()
    assert stale in str(older.value)
    for fd in (-1, 2**31, 2**31 - 1):
        with pytest.raises(pmem2.InvalidFileHandleError) as caught:
            pmem2.Source.from_fd(fd)
        assert stale not in str(caught.value)
        assert str(fd) in str(caught.value)


def test_row_231_threads_get_their_own_text(source: pmem2.Source) -> None:
    """Threads that fail at the same time each get the text of their own failure."""
    wrong: list[str] = []

    def fail(unaligned: int) -> None:
        for _ in range(200):
            try:
                source.map(pmem2.Config(length=unaligned))
            except pmem2.LengthUnalignedError as error:
                if str(unaligned) not in str(error):
                    wrong.append(str(error))
            else:
                wrong.append("mapped")

    threads = [threading.Thread(target=fail, args=(1001 + 2 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- 233: what only devices have


def test_row_233_ordinary_file(source: pmem2.Source, file: Path) -> None:
    """An ordinary file has no NVDIMM and no bad blocks; and a context clears only what it has produced."""
    with pytest.raises(pmem2.NosuppError):
        _ = source.device_usc
    with pytest.raises(pmem2.NosuppError):
        _ = source.device_id
    with pytest.raises(pmem2.DaxRegionNotFoundError):
        _ = source.numa_node
    source.pwrite_mcsafe(b"D" * PAGE)
    with source.bad_blocks() as context:
        assert next(context, None) is None
        with pytest.raises(ValueError, match="not produced"):
            context.clear(pmem2.BadBlock(0, PAGE))
    assert file.read_bytes()[:PAGE] == b"D" * PAGE


def test_row_233_ordinary_file_of_the_library(raw_source: int, file: Path) -> None:
    """libpmem2 says the same, but clears any range of any file: good data becomes zeros."""
    assert libpmem2.source_device_usc(raw_source) == ErrorCode.NOSUPP
    assert libpmem2.source_device_id(raw_source) == ErrorCode.NOSUPP
    assert libpmem2.source_numa_node(raw_source) == ErrorCode.DAX_REGION_NOT_FOUND
    assert libpmem2.pwrite_mcsafe(raw_source, b"D" * 2 * PAGE, 0) == 0
    with libpmem2.badblocks(raw_source) as context:
        assert libpmem2.badblock_next(context) == ErrorCode.NO_BAD_BLOCK_FOUND
        assert libpmem2.badblock_clear(context, 0, PAGE) == 0
        assert libpmem2.badblock_clear(context, 0, 0) == -errno.EINVAL
        assert libpmem2.badblock_clear(context, 2**63, PAGE) == ErrorCode.OFFSET_OUT_OF_RANGE
        assert libpmem2.badblock_clear(context, 0, 2**63) == ErrorCode.LENGTH_OUT_OF_RANGE
    assert file.read_bytes()[: 2 * PAGE] == bytes(PAGE) + b"D" * PAGE


# ---- 234: truncated files


def test_row_234_persist_after_truncate(map: pmem2.Map, raw_source: int, file: Path) -> None:
    """What is left of a truncated file is persisted, and persisting past its end is no error."""
    with libpmem2.config() as config, libpmem2.map(config, raw_source) as raw_map:
        map[0:4] = b"left"
        os.truncate(file, PAGE)
        map.persist()
        libpmem2.persist(raw_map, 0, SIZE)
        assert map[0:4] == b"left"
        assert map.size == SIZE
    assert file.read_bytes() == b"left" + bytes(PAGE - 4)


def test_row_234_touching_after_truncate(run_child: RunChild, file: Path) -> None:
    """Touching what was cut off is SIGBUS."""
    child = run_child(
        """
        import os, sys, pmem2
        with pmem2.Source.from_path(sys.argv[1]) as source:
            map = source.map()
        os.truncate(sys.argv[1], 4096)
        print(map[4095], flush=True)
        map[4096]
        """,
        str(file),
    )
    assert (child.returncode, child.stdout) == (-signal.SIGBUS, "0\n"), child.stderr


# ---- 235: pthread keys


KEYS = """
    import ctypes, errno, os, sys, threading
    import pmem2

    def new_key():
        key = ctypes.c_uint()
        return ctypes.CDLL(None).pthread_key_create(ctypes.byref(key), None)

    has_movers = hasattr(ctypes.CDLL("libpmem2.so.1"), "pmem2_memcpy_async")
"""


def test_row_235_many_maps(run_child: RunChild) -> None:
    """1,200 maps, or OSError(EAGAIN) while others still have pthread keys, and room again after closing one."""
    child = run_child(
        KEYS
        + """
    maps = []
    refused = None
    with pmem2.Source.from_anon(4096) as source:
        while len(maps) < 1200 and refused is None:
            try:
                maps.append(source.map())
            except OSError as error:
                refused = error.errno
        keys = [new_key() for _ in range(8)]
        thread = threading.Thread(target=print, args=("a thread",))
        thread.start()
        thread.join()
        for map in maps:
            map.memset(0, 1, 4096)
        for map in maps[:20]:
            map.close()
        again = source.map()
    print(refused == (errno.EAGAIN if has_movers else None), len(maps) > 500, keys, again[0])
    for map in [*maps, again]:
        map.close()
        """
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout == f"a thread\nTrue True {[0] * 8} 0\n"


def test_row_235_many_maps_of_the_library(run_child: RunChild, file: Path) -> None:
    """libpmem2 1.12 and 1.13 make 1,200 maps, and nobody in the process gets a pthread key any more; 2.0 mended it."""
    child = run_child(
        KEYS
        + raw_child(
            """
            with libpmem2.config() as config:
                codes = {libpmem2.map_new(config, source)[0] for _ in range(1200)}
            os.write(1, f"{codes} {new_key() == (errno.EAGAIN if has_movers else 0)}".encode())
            os._exit(0)
            """
        ),
        str(file),
    )
    assert (child.returncode, child.stdout) == (0, "{0} True"), child.stderr


# ---- 237: huge files


def test_row_237_huge_sparse_file(file: Path, granularity: Granularity) -> None:
    """8 TiB of holes can be mapped, and written at the very end."""
    size = 8 * 1024**4
    try:
        os.truncate(file, size)
    except OSError as error:
        pytest.skip(f"the file system has no files of 8 TiB: {error}")
    with pmem2.Source.from_path(file) as source, source.map() as map:
        assert map.size == len(map) == size
        assert map.granularity is granularity
        map.memcpy(size - 3, b"end")
        map.persist(size - PAGE, PAGE)
        assert map[-3:] == b"end"
    with (
        open(file, "r+b") as opened_file,
        libpmem2.source(opened_file.fileno()) as raw_source,
        libpmem2.config() as config,
    ):
        assert os.pread(opened_file.fileno(), 3, size - 3) == b"end"
        with libpmem2.map(config, raw_source) as raw_map:
            assert libpmem2.map_size(raw_map) == size
    os.truncate(file, 0)
