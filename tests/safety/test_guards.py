# SPDX-License-Identifier: BSD-3-Clause
"""What kills, hangs or corrupts a process that calls libpmem2 itself, and what pmem2 makes of it: P1 to P45.

The unguarded call runs in a child, because it takes the process with it. Where versions of libpmem2 differ, the test
says so; the rest was the same from 1.12 to 2.1.3 when this was written.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

import pmem2
from pmem2 import _files, _source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.children import RunChild

PYPY = sys.implementation.name == "pypy"
MIB = 1024 * 1024
HUGE = 2**64 - 8192

NOTHING_TO_RUN = {
    11: "needs a bad block on a real medium; Source.pread_mcsafe and bad_blocks are the way to live with one",
    25: "needs two threads in a mcsafe call on a DAX device; sigbus_lock in native/source.c takes them in turn",
    30: "needs an NVDIMM: libpmem2 returns NOSUPP elsewhere before it touches the buffer, which pmem2 zeroes",
    34: "the function is in no shared library (see P33), and pmem2.errors maps a code by itself",
    40: "out of scope: pmem2 exposes the protection EXEC and runs nothing",
    45: "typing only: mypy reads these tests, which pass ndarrays, mmaps and memoryviews as buffers",
}

PRELUDE = """
import ctypes, gc, json, mmap, os, signal, sys, threading, warnings
from _pmem2 import ffi, lib
import pmem2
from support import libpmem2
signal.alarm(60)
path = sys.argv[1]
fd = os.open(path, os.O_RDWR)
BYTE, CACHE_LINE, PAGE = pmem2.Granularity
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

def memory(size):
    "Anonymous memory at a multiple of 2 MiB, of which nobody knows."
    address = libc.mmap(None, size + (2 << 20), 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    return (address + (2 << 20) - 1) & -(2 << 20)

def a_source(number=fd):
    rc, pointer = libpmem2.source_from_fd(number)
    assert rc == 0
    return pointer

def a_map(**options):
    with libpmem2.config(**options) as config:
        rc, pointer = libpmem2.map_new(config, a_source())
    assert rc == 0, (rc, libpmem2.errormsg())
    return pointer
"""


class Dies(Protocol):
    """Run code that prepares, then code that is expected to end the process."""

    def __call__(self, prepare: str, fatal: str, **environment: str) -> int:
        """Return the signal that ended the child inside *fatal*, 0 if it survived."""


class Survives(Protocol):
    """Run code in a child."""

    def __call__(self, code: str, **environment: str) -> list[str]:
        """Return the lines that the child printed; it must end well."""


@pytest.fixture
def dies(run_child: RunChild, file: Path) -> Dies:
    """Run a call that is not guarded."""

    def run(prepare: str, fatal: str, **environment: str) -> int:
        parts = (PRELUDE, textwrap.dedent(prepare), "print('now', flush=True)", textwrap.dedent(fatal))
        child = run_child("\n".join(parts), str(file), **environment)
        assert child.stdout.startswith("now"), child.stderr
        assert child.returncode <= 0, child.stderr
        return -child.returncode

    return run


@pytest.fixture
def survives(run_child: RunChild, file: Path) -> Survives:
    """Run what must not end the process."""

    def run(code: str, **environment: str) -> list[str]:
        child = run_child(PRELUDE + textwrap.dedent(code), str(file), **environment)
        assert child.returncode == 0, (child.returncode, child.stderr)
        return child.stdout.splitlines()

    return run


@pytest.fixture
def reservation() -> Iterator[pmem2.VMReservation]:
    """A reservation of 4 MiB."""
    with pmem2.VMReservation(4 * MIB) as reserved:
        yield reserved


def test_every_pitfall_is_here() -> None:
    """Each of P1 to P45 has a test named after it, or a reason why there is nothing to run."""
    tested = {int(number) for name in globals() for number in re.findall(r"^test_p(\d\d)_", name)}
    assert tested | set(NOTHING_TO_RUN) == set(range(1, 46))
    assert not tested & set(NOTHING_TO_RUN)


NULLS = {
    "source_from_fd": "lib.pmem2_source_from_fd(ffi.NULL, fd)",
    "source_size": "libpmem2.source_size(0)",
    "source_alignment": "libpmem2.source_alignment(0)",
    "source_get_fd": "libpmem2.source_file(0)",
    "config_new": "lib.pmem2_config_new(ffi.NULL)",
    "config_set_granularity": "libpmem2.set_granularity(0, PAGE)",
    "config_set_offset": "libpmem2.set_offset(0, 0)",
    "config_set_length": "libpmem2.set_length(0, 0)",
    "config_set_sharing": "libpmem2.set_sharing(0, lib.PMEM2_SHARED)",
    "config_set_protection": "libpmem2.set_protection(0, lib.PMEM2_PROT_READ)",
    "map_new without a config": "libpmem2.map_new(0, a_source())",
    "map_new without a source": "libpmem2.map_new(libpmem2.config().__enter__(), 0)",
    "map_get_address": "libpmem2.map_address(0)",
    "map_get_size": "libpmem2.map_size(0)",
    "map_get_store_granularity": "libpmem2.map_granularity(0)",
    "get_persist_fn": "lib.pmem2_get_persist_fn(ffi.NULL)",
    "get_flush_fn": "lib.pmem2_get_flush_fn(ffi.NULL)",
    "get_drain_fn": "lib.pmem2_get_drain_fn(ffi.NULL)",
    "get_memcpy_fn": "lib.pmem2_get_memcpy_fn(ffi.NULL)",
    "deep_flush": "lib.pmem2_deep_flush(ffi.NULL, ffi.NULL, 8)",
    "vm_reservation_get_address": "libpmem2.reservation_address(0)",
    "vm_reservation_get_size": "libpmem2.reservation_size(0)",
    "vm_reservation_extend": "libpmem2.extend(0, 4096)",
    "vm_reservation_shrink": "libpmem2.shrink(0, 0, 4096)",
    "vm_reservation_map_find": "libpmem2.find(0, 0, 1)",
    "badblock_context_new": "libpmem2.badblock_context_new(0)",
    "badblock_next": "libpmem2.badblock_next(0)",
    "badblock_clear": "libpmem2.badblock_clear(0, 0, 4096)",
    "map_delete": "libpmem2.map_delete(0)",
    "vm_reservation_delete": "libpmem2.reservation_delete(0)",
    "source_delete": "libpmem2.source_delete(0)",
    "config_delete": "libpmem2.config_delete(0)",
}
TOLERANT = {"source_delete", "config_delete"}

STATUSES = """
calls = json.loads(sys.argv[2])
for name, code in calls.items():
    pid = os.fork()
    if pid == 0:
        eval(code)
        os._exit(0)
    print(name, os.waitpid(pid, 0)[1], sep="=")
"""


@pytest.fixture
def null_statuses(run_child: RunChild, file: Path) -> dict[str, int]:
    """What becomes of a process that hands libpmem2 a null pointer, for each function."""
    pairs = ", ".join(f"{name!r}: {code!r}" for name, code in NULLS.items())
    code = PRELUDE + STATUSES.replace("json.loads(sys.argv[2])", "{" + pairs + "}")
    child = run_child(code, str(file))
    assert child.returncode == 0, child.stderr
    lines = (line.rsplit("=", 1) for line in child.stdout.splitlines())
    return {name: int(status) for name, status in lines}


def test_p01_null_handles(null_statuses: dict[str, int]) -> None:
    """libpmem2 dies of a null handle; pmem2 raises ValueError for a closed object."""
    deadly = NULLS.keys() - TOLERANT
    asserts = "pmdk_dbg" in os.environ.get("LD_LIBRARY_PATH", "")  # the debug build aborts where it has an assert
    deaths = {signal.SIGSEGV, signal.SIGABRT} if asserts else {signal.SIGSEGV}
    assert {name: null_statuses[name] for name in deadly if null_statuses[name] not in deaths} == {}
    source = pmem2.Source.from_anon(4096)
    map, bad, reserved = source.map(), pmem2.VMReservation(4096), pmem2.VMReservation(4096)
    for handle in (source, map, bad, reserved):
        handle.close()
    with pytest.raises(ValueError, match="closed"):
        source.map()
    with pytest.raises(ValueError, match="closed"):
        map.persist()
    with pytest.raises(ValueError, match="closed"):
        reserved.find(0, 1)


def test_p02_deleting_null(null_statuses: dict[str, int]) -> None:
    """libpmem2 dies of deleting no map or no reservation, not of no source or config; pmem2 closes twice."""
    assert null_statuses["map_delete"] == null_statuses["vm_reservation_delete"] == signal.SIGSEGV
    assert null_statuses["source_delete"] == null_statuses["config_delete"] == 0
    source = pmem2.Source.from_anon(4096)
    for handle in (source.map(), pmem2.VMReservation(4096), source):
        handle.close()
        handle.close()
        assert handle.closed


def test_p03_two_owners_of_one_map(
    dies: Dies, survives: Survives, source: pmem2.Source, reservation: pmem2.VMReservation
) -> None:
    """A second owner deletes freed memory (at best not found again); pmem2 finds the very Map that is there."""
    prepare = "m = a_map(); assert libpmem2.map_delete(m)[0] == 0"
    fatal = "assert libpmem2.map_delete(m)[0] != 0"  # when it is still alive, it must at least say so
    assert dies(prepare, fatal) in (0, signal.SIGSEGV, signal.SIGABRT, signal.SIGALRM)
    with source.map(pmem2.Config(reservation=reservation, length=4096)) as map:
        assert reservation.find(0, 1) is reservation.first() is reservation.last() is map


@pytest.mark.memcheck
def test_p04_memory_of_a_closed_map_by_pmem2(map: pmem2.Map) -> None:
    """While a view is alive the map stays open."""
    view = map.view()
    with pytest.raises(BufferError, match="views"):
        map.close()
    view[0] = 1
    assert map[0] == 1
    del view
    map.close()


def test_p04_memory_of_a_closed_map(dies: Dies) -> None:
    """Memory that is touched after pmem2_map_delete kills."""
    prepare = """
    m = a_map()
    buffer = ffi.buffer(ffi.cast("char *", libpmem2.map_address(m)), 4096)
    assert buffer[0] == b"\\0" and libpmem2.map_delete(m)[0] == 0
    """
    assert dies(prepare, "buffer[0]") == signal.SIGSEGV


@pytest.mark.parametrize(("granularity", "status"), [("PAGE", 0), ("CACHE_LINE", signal.SIGSEGV)])
def test_p05_persisting_a_closed_map(dies: Dies, granularity: str, status: int) -> None:
    """A function pointer of a deleted map does nothing on PAGE, and kills on CACHE_LINE; pmem2 raises ValueError."""
    prepare = """
    m = a_map()
    pointer = ffi.cast("struct pmem2_map *", m)
    persist, address = lib.pmem2_get_persist_fn(pointer), lib.pmem2_map_get_address(pointer)
    assert libpmem2.map_delete(m)[0] == 0
    """
    assert dies(prepare, "persist(address, 4096)", PMEM2_FORCE_GRANULARITY=granularity) == status


@pytest.mark.memcheck
def test_p05_persisting_a_closed_map_by_pmem2(granularity: pmem2.Granularity, source: pmem2.Source) -> None:
    """pmem2 checks that the map is open, whatever its granularity."""
    map = source.map()
    assert map.granularity is granularity
    map.close()
    for operation in (map.persist, map.flush, map.drain, map.deep_flush):
        with pytest.raises(ValueError, match="closed"):
            operation()


def test_p06_copying_past_the_end(dies: Dies) -> None:
    """libpmem2 copies as many bytes as it is told."""
    prepare = """
    r = libpmem2.reservation_new(0, 1 << 20)[1]
    m = a_map(length=4096, reservation=r)
    """
    assert dies(prepare, "libpmem2.memcpy(m, bytes(8192))") == signal.SIGSEGV


@pytest.mark.memcheck
def test_p06_copying_past_the_end_by_pmem2(source: pmem2.Source) -> None:
    """pmem2 copies nothing that does not fit as a whole."""
    with source.map(pmem2.Config(length=4096)) as map:
        for copy in (map.memcpy, map.memmove):
            with pytest.raises(ValueError, match="outside"):
                copy(4000, b"\xff" * 97)
        with pytest.raises(ValueError, match="outside"):
            map.memset(4096, 255, 1)
        with pytest.raises(ValueError, match="outside"):
            map.memcpy_many([(0, b"\xff"), (4096, b"\xff")])
        assert map[:] == bytes(4096)


@pytest.mark.parametrize(
    ("protection", "fatal"),
    [
        ("lib.PMEM2_PROT_READ", "libpmem2.store(libpmem2.map_address(m), b'x')"),
        ("lib.PMEM2_PROT_READ", "libpmem2.memcpy(m, b'x')"),
        ("lib.PMEM2_PROT_NONE", "libpmem2.load(libpmem2.map_address(m), 1)"),
    ],
    ids=["store", "memcpy", "load"],
)
def test_p07_what_the_protection_forbids(dies: Dies, protection: str, fatal: str) -> None:
    """Memory used against its protection kills."""
    assert dies(f"m = a_map(protection={protection})", fatal) == signal.SIGSEGV


@pytest.mark.memcheck
def test_p07_what_the_protection_forbids_by_pmem2(source: pmem2.Source) -> None:
    """pmem2 knows the protection: TypeError, and views that are read-only."""
    with source.map(pmem2.Config(protection=pmem2.Protection.READ)) as map:
        assert map.view(0, 8).readonly
        with pytest.raises(TypeError, match="WRITE"):
            map[0] = 1
        with pytest.raises(TypeError, match="WRITE"):
            map.memset(0, 1, 8)
        with pytest.raises(TypeError, match="WRITE"):
            map.store_u64(0, 1)
    with source.map(pmem2.Config(protection=pmem2.Protection.NONE)) as map:
        with pytest.raises(TypeError, match="READ"):
            map.view()
        with pytest.raises(TypeError, match="READ"):
            map[0]
        with pytest.raises(TypeError, match="READ"):
            map.load_u64(0)


def test_p08_addresses_that_nothing_is_mapped_to(dies: Dies, reservation: pmem2.VMReservation) -> None:
    """A free part of a reservation kills who touches it; pmem2 gives only numbers, no memory."""
    prepare = "r = libpmem2.reservation_new(0, 1 << 20)[1]"
    assert dies(prepare, "libpmem2.load(libpmem2.reservation_address(r), 1)") == signal.SIGSEGV
    with pytest.raises(TypeError):
        memoryview(reservation)  # type: ignore[arg-type] # that is the point
    assert type(reservation.address) is int


def test_p09_truncated_file(dies: Dies, survives: Survives, file: Path) -> None:
    """Touching a map whose file was truncated kills (documented); mcsafe and persist do not."""
    assert dies("m = a_map(); os.truncate(path, 0)", "libpmem2.load(libpmem2.map_address(m), 1)") == signal.SIGBUS
    os.truncate(file, 16 * MIB)
    lines = survives("""
    source = pmem2.Source.from_path(path)
    m = source.map()
    os.truncate(path, 0)
    m.persist()
    try:
        source.pread_mcsafe(1)
    except pmem2.LengthOutOfRangeError:
        print("refused")
    """)
    assert lines == ["refused"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_p10_hole_on_a_full_disk(dies: Dies, small_disk: Path) -> None:
    """Storing into a hole that finds no room kills; pmem2.open allocates, or fails and leaves nothing behind."""
    prepare = f"""
    fd = os.open({str(small_disk / "sparse")!r}, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 20)
    with libpmem2.config() as config:
        m = libpmem2.map_new(config, a_source(fd))[1]
    """
    fatal = "for page in range(256): libpmem2.store(libpmem2.map_address(m) + 4096 * page, b'x')"
    assert dies(prepare, fatal) == signal.SIGBUS
    (small_disk / "sparse").unlink()
    with pytest.raises(OSError, match=r"[Nn]o space") as caught:
        pmem2.open(small_disk / "new", "w+", size=MIB)
    assert caught.value.errno == errno.ENOSPC
    assert list(small_disk.iterdir()) == []
    with pmem2.open(small_disk / "new", "w+", size=32768) as map:
        map.memset(0, 1, 32768)


def test_p12_write_back_that_fails(dies: Dies, survives: Survives) -> None:
    """libpmem2 aborts when msync fails, here for memory that is gone; pmem2 raises OSError and goes on."""
    prepare = "m = a_map(); libc.munmap(libpmem2.map_address(m), 8192)"
    for operation in ("persist", "flush"):
        assert dies(prepare, f"libpmem2.{operation}(m, 0, 4096)") == signal.SIGABRT
    lines = survives("""
    m = pmem2.open(path)
    assert libc.munmap(m.address, 4096) == 0
    calls = [
        m.persist, m.flush, m.deep_flush, lambda: m.persist_many([(0, 1)]), lambda: m.flush_many([(0, 1)]),
        lambda: m.persist(100, 10),
    ]
    for call in calls:
        try:
            call()
        except OSError as error:
            print(type(error).__name__, error.errno, str(hex(m.address)) in str(error))
    m.memcpy(4096, b"still")
    m.close()
    """)
    assert lines == [f"OSError {errno.ENOMEM} True"] * 6


def test_p13_granularity_that_there_is_not(dies: Dies, source: pmem2.Source) -> None:
    """libpmem2 aborts on an unknown granularity of existing memory; pmem2 raises ValueError."""
    assert dies("m = memory(4096)", "libpmem2.map_from_existing(a_source(), m, 4096, 3)") == signal.SIGABRT
    for unknown in (3, -1, 2**40):
        with pytest.raises(ValueError, match="Granularity"):
            pmem2.Map.from_existing(source, bytearray(64), unknown)


def test_p14_page_granularity_of_existing_memory(dies: Dies) -> None:
    """libpmem2 never returns from persisting the first page of existing memory."""
    prepare = "a = memory(8192); m = libpmem2.map_from_existing(a_source(), a, 8192, PAGE)[1]; signal.alarm(1)"
    for hang in ("libpmem2.persist(m, 0, 8)", "libpmem2.flush(m, 0, 8)", "libpmem2.memcpy(m, b'x')"):
        assert dies(prepare, hang) == signal.SIGALRM


@pytest.mark.memcheck
def test_p14_page_granularity_of_existing_memory_by_pmem2(source: pmem2.Source, file: Path) -> None:
    """pmem2 writes existing memory back by itself."""
    memory = mmap.mmap(source.fd, 8192)
    with pmem2.Map.from_existing(source, memory, pmem2.Granularity.PAGE) as map:
        map.memcpy(0, b"copied")
        map[6:8] = b"!!"
        map.persist(0, 8)
        map.flush(4096, 4096)
        map.persist_many([(0, 1), (4096, 1)])
        map.memset(4096, 7, 1)
        map.store_u64(8, 1, persist=True)
        assert map.granularity is pmem2.Granularity.PAGE
    memory.close()
    assert file.read_bytes()[:9] == b"copied!!\x01"


def test_p15_existing_memory_of_no_bytes(survives: Survives, source: pmem2.Source) -> None:
    """An empty map of existing memory breaks libpmem2's registry of maps; pmem2 raises ValueError."""
    lines = survives("""
    a = memory(8192)
    empty = libpmem2.map_from_existing(a_source(), a, 0, CACHE_LINE)[1]
    other = libpmem2.map_from_existing(a_source(), a, 4096, CACHE_LINE)[1]
    print(libpmem2.map_delete(other)[0], libpmem2.map_delete(empty)[0] == lib.PMEM2_E_MAPPING_NOT_FOUND)
    """)
    assert lines == ["0 True"]
    for empty in (b"", bytearray(), memoryview(b"")):
        with pytest.raises(ValueError, match="empty"):
            pmem2.Map.from_existing(source, empty, pmem2.Granularity.CACHE_LINE)


def test_p16_existing_memory_that_goes_first(survives: Survives) -> None:
    """libpmem2 refuses a new map where one of existing memory was, when the memory went before the map."""
    lines = survives("""
    a = memory(8 << 20)
    libpmem2.map_from_existing(a_source(), a, 4096, CACHE_LINE)
    libc.munmap(a, 8 << 20)
    with libpmem2.config(length=4096, reservation=libpmem2.reservation_new(a, 4096)[1]) as config:
        print(libpmem2.map_new(config, a_source())[0])
    """)
    assert lines == [str(-errno.EEXIST)]


@pytest.mark.skipif(PYPY, reason="PyPy closes an mmap that is exported, as the documentation says")
def test_p16_existing_memory_that_goes_first_by_pmem2(source: pmem2.Source) -> None:
    """Under a Map the memory stays, whatever its owner tries."""
    memory = mmap.mmap(-1, 4096)
    map = pmem2.Map.from_existing(source, memory, pmem2.Granularity.BYTE)
    with pytest.raises(BufferError):
        memory.close()
    map[0] = 1
    map.close()
    memory.close()


def test_p17_reservation_offset_cannot_wrap(
    survives: Survives, source: pmem2.Source, reservation: pmem2.VMReservation
) -> None:
    """libpmem2 maps over what lies below a reservation when the offset wraps; pmem2 raises ValueError."""
    lines = survives("""
    a = memory(16 << 20) + (2 << 20)
    libc.munmap(a, 8 << 20)
    ctypes.memset(a - 8192, 0xAA, 8192)
    r = libpmem2.reservation_new(a, 1 << 20)[1]
    m = a_map(length=8192, reservation=r, reservation_offset=2**64 - 8192)
    print(libpmem2.map_address(m) == a - 8192, ctypes.string_at(a - 8192, 2))
    """)
    assert lines == ["True b'\\x00\\x00'"]
    for offset in (HUGE, 2**63, 4 * MIB + 1, -4096):
        with pytest.raises(ValueError, match="reservation_offset"):
            pmem2.Config(reservation=reservation, reservation_offset=offset)
    config = pmem2.Config(reservation=reservation, reservation_offset=4 * MIB, length=4096)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.map(config)
    reservation.shrink(2 * MIB, 2 * MIB)
    with pytest.raises(ValueError, match="outside"):
        source.map(config)


def test_p18_config_of_a_deleted_reservation(dies: Dies, source: pmem2.Source) -> None:
    """libpmem2 reads a deleted reservation that a config names; in pmem2 it is a closed object."""
    prepare = """
    r = libpmem2.reservation_new(0, 1 << 20)[1]
    config = libpmem2.config(length=4096, reservation=r).__enter__()
    assert libpmem2.reservation_delete(r)[0] == 0
    signal.alarm(2)
    """
    # what it finds in the freed memory is anything: a bad address, a lock that nobody gives back
    fatal = "assert libpmem2.map_new(config, a_source())[0] == lib.PMEM2_E_OFFSET_UNALIGNED"
    assert dies(prepare, fatal, MALLOC_PERTURB_="165") in (0, signal.SIGALRM, signal.SIGSEGV, signal.SIGABRT)
    reservation = pmem2.VMReservation(MIB)
    config = pmem2.Config(reservation=reservation, length=4096)
    reservation.close()
    with pytest.raises(ValueError, match="closed"):
        source.map(config)
    with pytest.raises(ValueError, match="closed"):
        pmem2.Config(reservation=reservation)


@pytest.mark.memcheck
def test_p18_map_in_a_forgotten_reservation(source: pmem2.Source) -> None:
    """A Map keeps its reservation alive, and one with maps in it does not close."""
    reservation = pmem2.VMReservation(MIB)
    map = source.map(pmem2.Config(reservation=reservation, length=4096))
    address = reservation.address
    with pytest.raises(pmem2.VmReservationNotEmptyError):
        reservation.close()
    again = map.config.reservation
    assert again is reservation
    del reservation, again
    gc.collect()
    map[0] = 1
    assert map.address == address
    map.close()
    assert map.config.reservation is not None
    map.config.reservation.close()


def test_p19_reservation_of_no_bytes(survives: Survives) -> None:
    """libpmem2 makes an empty reservation that cannot be deleted; pmem2 raises ValueError."""
    lines = survives("rc, r = libpmem2.reservation_new(0, 0); print(rc, libpmem2.reservation_delete(r)[0])")
    assert lines == [f"0 {-errno.EINVAL}"]
    with pytest.raises(ValueError, match="size"):
        pmem2.VMReservation(0)


def test_p20_extension_that_wraps(survives: Survives, reservation: pmem2.VMReservation) -> None:
    """libpmem2 takes a huge extension for a success that makes the reservation smaller; pmem2 raises ValueError."""
    lines = survives("""
    r = libpmem2.reservation_new(0, 1 << 20)[1]
    print(libpmem2.extend(r, 2**64 - 4096), libpmem2.reservation_size(r))
    """)
    assert lines == [f"0 {MIB - 4096}"]
    for much in (2**64 - 4096, 2**63, 0):
        with pytest.raises(ValueError, match=r"outside|must"):
            reservation.extend(much)
    assert reservation.size == 4 * MIB


VIRTUAL_SIZE = """
def virtual():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * 4096
"""


def test_p21_addresses_that_never_come_back(survives: Survives) -> None:
    """libpmem2 keeps padding behind a deleted reservation; pmem2 gives it back where the caller chose the address."""
    lines = survives(f"""
    {VIRTUAL_SIZE.strip().replace(chr(10), chr(10) + "    ")}
    a = memory(16 << 20) - (64 << 30)
    assert libpmem2.reservation_delete(libpmem2.reservation_new(a, 1 << 20)[1])[0] == 0
    print(libpmem2.reservation_new(a, 1 << 20)[0] == lib.PMEM2_E_MAPPING_EXISTS)
    a -= 64 << 30
    pmem2.VMReservation(1 << 20, a).close()
    before = virtual()
    for _ in range(50):
        r = pmem2.VMReservation(1 << 20, a)
        assert r.address == a
        r.close()
    print(virtual() - before < 1 << 20)
    """)
    assert lines == ["True", "True"]


KEYS = """
def spare_keys():
    "How many pthread keys are left, up to 100."
    keys = []
    while len(keys) < 100:
        key = ctypes.c_uint()
        if libc.pthread_key_create(ctypes.byref(key), None):
            break
        keys.append(key)
    for key in keys:
        libc.pthread_key_delete(key)
    return len(keys)

def raised(act):
    try:
        act()
    except OSError as error:
        return error.errno == 11
    return False
"""


def library_uses_keys(survives: Survives) -> bool:
    """Return whether a map of this libpmem2 owns a pthread key, as in 1.12 and 1.13."""
    lines = survives(KEYS + "\nfor _ in range(1100): a_map(length=4096)\nprint(spare_keys())\nos._exit(0)")
    return lines == ["0"]


def test_p22_too_many_maps_for_the_keys(survives: Survives) -> None:
    """libpmem2 1.12 and 1.13 take every pthread key and say nothing; pmem2 raises OSError(EAGAIN) with keys left."""
    keys = library_uses_keys(survives)
    lines = survives(f"""{KEYS}
source = pmem2.Source.from_path(path)
config = pmem2.Config(length=4096)
maps = []
def fill():
    while len(maps) < 1100:
        maps.append(source.map(config))
print(raised(fill), raised(lambda: source.map(config)), len(maps) > 900, spare_keys() >= 10)
with open(path, "rb") as file:
    print(raised(lambda: pmem2.Map.from_existing(source, bytearray(64), BYTE)))
threads = [threading.Thread(target=maps[0].persist) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for map in maps: map.close()
source.map(config).close()
""")
    filled, again, many, spare = lines[0].split()
    assert filled == again == lines[1]
    assert filled == "True" or not keys
    assert (many, spare) == ("True", "True")


def test_p23_mcsafe_past_the_end(survives: Survives, source: pmem2.Source, file: Path) -> None:
    """libpmem2 reads nothing and grows files past the end; pmem2 raises LengthOutOfRangeError."""
    lines = survives("""
    s, end = a_source(), os.stat(path).st_size
    read, written = libpmem2.pread_mcsafe(s, 4, end + 100), libpmem2.pwrite_mcsafe(s, b"data", end + 100)
    print(read, written, os.stat(path).st_size - end)
    """)
    assert lines == ["(0, b'\\x00\\x00\\x00\\x00') 0 104"]
    size = source.size
    for offset, length in ((size + 1, 0), (size + 100, 4), (size, 1), (size - 1, 2), (2**64 - 1, 2)):
        with pytest.raises(pmem2.LengthOutOfRangeError):
            source.pread_mcsafe(length, offset)
        with pytest.raises(pmem2.LengthOutOfRangeError):
            source.pwrite_mcsafe(bytes(length), offset)
    assert file.stat().st_size == size


SHORT = """
import resource
os.truncate(path, 8192)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
"""


def test_p24_short_transfer(survives: Survives) -> None:
    """libpmem2 calls a write that stopped half way a success; pmem2 raises what stopped it."""
    raw = "print(libpmem2.pwrite_mcsafe(a_source(), b'x' * 8192, 0), open(path, 'rb').read().count(b'x'))"
    assert survives(SHORT + raw) == ["0 5000"]
    facade = """
try:
    pmem2.Source.from_path(path).pwrite_mcsafe(b'x' * 8192)
except OSError as error:
    print(error.errno)
"""
    assert survives(SHORT + facade) == [str(errno.EFBIG)]


def test_p26_clearing_good_data(survives: Survives, source: pmem2.Source, file: Path) -> None:
    """libpmem2 zeroes whatever it is told is bad; pmem2 clears only what the context has found."""
    lines = survives("""
    os.pwrite(fd, b"precious", 0)
    with libpmem2.badblocks(a_source()) as context:
        print(libpmem2.badblock_clear(context, 0, 4096), os.pread(fd, 8, 0))
    """)
    assert lines == ["0 b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'"]
    file.write_bytes(b"precious".ljust(4096))
    with source.bad_blocks() as context:
        with pytest.raises(ValueError, match="produced"):
            context.clear(pmem2.BadBlock(0, 4096))
        with pytest.raises(TypeError):
            context.clear((0, 4096))  # type: ignore[arg-type] # that is the point
    assert file.read_bytes()[:8] == b"precious"


def test_p27_descriptor_that_means_another_file(survives: Survives, tmp_path: Path, file: Path) -> None:
    """libpmem2 follows the number of a descriptor to another file; a Source has a descriptor of its own."""
    lines = survives("""
    s = a_source()
    before = libpmem2.source_size(s)
    with open(path + ".other", "wb") as other:
        other.write(b"other")
    os.dup2(os.open(path + ".other", os.O_RDWR), fd)
    print(before[1] // 5, libpmem2.source_size(s))
    """)
    assert lines == [f"{16 * MIB // 5} (0, 5)"]
    fd = os.open(file, os.O_RDWR)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with pmem2.Source.from_fd(fd) as source:
        replacement = os.open(other, os.O_RDWR)
        os.dup2(replacement, fd)
        assert source.size == 16 * MIB
        source.pwrite_mcsafe(b"mine")
        os.close(fd)
        os.close(replacement)
        assert source.pread_mcsafe(4) == b"mine"
    assert other.read_bytes() == b"other"


@pytest.mark.parametrize(
    ("protection", "offset"), [("None", 4096), ("lib.PMEM2_PROT_NONE", 0)], ids=["outside", "NONE map"]
)
def test_p28_flushing_what_is_not_there(dies: Dies, protection: str, offset: int) -> None:
    """Cache lines of memory that is not mapped, or not accessible, cannot be flushed: it kills."""
    prepare = f"""
    r = libpmem2.reservation_new(0, 1 << 20)[1]
    m = a_map(length=4096, protection={protection}, reservation=r)
    """
    status = dies(prepare, f"libpmem2.persist(m, {offset}, 64)", PMEM2_FORCE_GRANULARITY="CACHE_LINE")
    assert status == signal.SIGSEGV


@pytest.mark.memcheck
def test_p28_flushing_what_is_not_there_by_pmem2(granularity: pmem2.Granularity, source: pmem2.Source) -> None:
    """pmem2 checks range and protection first, the same for every granularity."""
    with source.map(pmem2.Config(length=4096)) as map:
        for offset, length in ((4096, 1), (0, 4097), (HUGE, 16384), (2**64 - 1, 2)):
            for operation in (map.persist, map.flush, map.deep_flush):
                with pytest.raises(ValueError, match="outside"):
                    operation(offset, length)
            for many in (map.persist_many, map.flush_many):
                with pytest.raises(ValueError, match="outside"):
                    many([(0, 8), (offset, length)])
    with source.map(pmem2.Config(protection=pmem2.Protection.NONE)) as map:
        for operation in (map.persist, map.flush, map.deep_flush):
            with pytest.raises(TypeError, match="neither READ nor WRITE"):
                operation(0, 8)
        with pytest.raises(TypeError, match="neither READ nor WRITE"):
            map.drain()


def test_p29_deep_flush_that_wraps(survives: Survives, map: pmem2.Map) -> None:
    """libpmem2 deep-flushes a range that wraps around; pmem2 raises ValueError."""
    assert survives("print(libpmem2.deep_flush(a_map(), 4096, 2**64 - 2048))") == ["0"]
    with pytest.raises(ValueError, match="outside"):
        map.deep_flush(4096, 2**64 - 2048)


def fake_device(monkeypatch: pytest.MonkeyPatch, sysfs: Path, bus: str, **attributes: str) -> None:
    """Let `/dev/null` look like a DAX device on that bus, to which sysfs gives those attributes."""
    device = sysfs / "devices" / bus / "dax0.0"
    device.mkdir(parents=True)
    for name, text in attributes.items():
        (device / name).write_text(text)
    (sysfs / "bus" / "dax").mkdir(parents=True)
    (device / "subsystem").symlink_to(sysfs / "bus" / "dax")
    (sysfs / "dev" / "char").mkdir(parents=True)
    number = os.stat("/dev/null").st_rdev
    (sysfs / "dev" / "char" / f"{os.major(number)}:{os.minor(number)}").symlink_to(device)
    monkeypatch.setattr(_files, "SYSFS", sysfs)


@pytest.fixture
def null() -> Iterator[int]:
    """A descriptor of a character device."""
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


def test_p31_dax_device_outside_the_nvdimm_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, null: int) -> None:
    """A DAX device that hangs on no NVDIMM bus, on which libndctl would crash, is described by sysfs alone."""
    fake_device(monkeypatch, tmp_path, "platform/hmem.0", size="1073741824\n", align="2097152\n", numa_node="-1\n")
    assert _files.dax_device_without_nvdimm(null) == (1 << 30, 2 * MIB, -1)


def test_p31_dax_device_of_an_nvdimm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, null: int) -> None:
    """A DAX device on an NVDIMM bus is left to libpmem2."""
    fake_device(monkeypatch, tmp_path, "LNXSYSTM:00/ndbus0/region0", size="1073741824\n")
    assert _files.dax_device_without_nvdimm(null) is None


def test_p31_what_is_no_dax_device(null: int, fd: int) -> None:
    """Another character device and an ordinary file are no DAX devices."""
    assert stat.S_ISCHR(os.fstat(null).st_mode)
    assert _files.dax_device_without_nvdimm(null) is None
    assert _files.dax_device_without_nvdimm(fd) is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, pmem2.InvalidSizeFormatError),
        ({"size": "big"}, pmem2.InvalidSizeFormatError),
        ({"size": "4096"}, pmem2.InvalidAlignmentFormatError),
        ({"size": "4096", "align": ""}, pmem2.InvalidAlignmentFormatError),
        ({"size": "4096", "align": "4096"}, pmem2.DaxRegionNotFoundError),
    ],
)
def test_p31_sysfs_that_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    null: int,
    attributes: dict[str, str],
    expected: type[pmem2.Pmem2Error],
) -> None:
    """What sysfs does not tell, or not as a number, raises the code that libpmem2 has for it."""
    fake_device(monkeypatch, tmp_path, "platform/hmem.0", **attributes)
    with pytest.raises(expected, match="cannot read"):
        _files.dax_device_without_nvdimm(null)


@pytest.fixture
def dax(monkeypatch: pytest.MonkeyPatch, file: Path) -> Iterator[pmem2.Source]:
    """An ordinary file that pmem2 takes for a DAX device of 8 MiB with an alignment of 2 MiB."""
    monkeypatch.setattr(_source, "dax_device_without_nvdimm", lambda fd: _files.DaxDevice(8 * MIB, 2 * MIB, 3))
    with pmem2.Source.from_path(file) as source:
        yield source


@pytest.mark.memcheck
def test_p31_such_a_device_can_be_mapped(dax: pmem2.Source, file: Path) -> None:
    """Size, alignment and NUMA node come from sysfs; the map has CACHE_LINE granularity and can be made durable."""
    assert (dax.size, dax.alignment, dax.numa_node) == (8 * MIB, 2 * MIB, 3)
    with dax.map(pmem2.Config(required_granularity=pmem2.Granularity.CACHE_LINE)) as map:
        assert (map.size, map.granularity) == (8 * MIB, pmem2.Granularity.CACHE_LINE)
        map.memcpy(0, b"copied")
        map[6] = 33
        map.persist(0, 7)
        map.flush_many([(0, 1), (4096, 1)])
        map.drain()
    assert file.read_bytes()[:7] == b"copied!"
    with dax.map(pmem2.Config(offset=2 * MIB, length=4 * MIB)) as map:
        map[0] = 77
        assert map.size == 4 * MIB
    assert file.read_bytes()[2 * MIB] == 77


def test_p31_the_mapping_of_such_a_device_goes_with_its_map(dax: pmem2.Source, file: Path) -> None:
    """Closing the map of such a device unmaps it, although libpmem2 thinks that it is existing memory."""
    with dax.map():
        assert str(file) in Path("/proc/self/maps").read_text()
    assert str(file) not in Path("/proc/self/maps").read_text()


@pytest.mark.memcheck
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (pmem2.Config(required_granularity=None), pmem2.GranularityNotSetError),
        (pmem2.Config(offset=4096), pmem2.OffsetUnalignedError),
        (pmem2.Config(sharing=pmem2.Sharing.PRIVATE), pmem2.SrcDevdaxPrivateError),
        (pmem2.Config(length=4096), pmem2.LengthUnalignedError),
        (pmem2.Config(offset=8 * MIB), pmem2.MapRangeError),
        (pmem2.Config(offset=2 * MIB, length=8 * MIB), pmem2.MapRangeError),
        (pmem2.Config(length=2**64 - 2 * MIB), pmem2.MapRangeError),
        (pmem2.Config(required_granularity=pmem2.Granularity.BYTE), pmem2.GranularityNotSupportedError),
    ],
)
def test_p31_such_a_device_is_checked_as_libpmem2_checks(
    dax: pmem2.Source, config: pmem2.Config, expected: type[pmem2.Pmem2Error]
) -> None:
    """What libpmem2 refuses for a DAX device is refused with its code."""
    with pytest.raises(expected):
        dax.map(config)


def test_p31_read_only_descriptor_of_such_a_device(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """A protection that the descriptor does not allow is NO_ACCESS."""
    monkeypatch.setattr(_source, "dax_device_without_nvdimm", lambda fd: _files.DaxDevice(8 * MIB, 2 * MIB, 3))
    with pmem2.Source.from_path(file, writable=False) as source:
        with pytest.raises(pmem2.NoAccessError):
            source.map(pmem2.Config(protection=pmem2.Protection.READ | pmem2.Protection.WRITE))
        with source.map() as map:
            assert map.protection == pmem2.Protection.READ


def test_p31_what_such_a_device_does_not_have(dax: pmem2.Source, reservation: pmem2.VMReservation) -> None:
    """mcsafe, bad blocks, ids and reservations need an NVDIMM: NOSUPP."""
    with pytest.raises(pmem2.NosuppError):
        dax.pread_mcsafe(8)
    with pytest.raises(pmem2.NosuppError):
        dax.pwrite_mcsafe(b"data")
    with pytest.raises(pmem2.NosuppError):
        dax.bad_blocks()
    with pytest.raises(pmem2.NosuppError):
        _ = dax.device_id
    with pytest.raises(pmem2.NosuppError):
        _ = dax.device_usc
    with pytest.raises(pmem2.NosuppError):
        dax.map(pmem2.Config(reservation=reservation))


def test_p31_source_that_fails_half_way(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """When sysfs does not tell, the descriptor is closed again and nothing is left to warn of."""

    def silent(fd: int) -> None:
        raise pmem2.InvalidSizeFormatError(pmem2.ErrorCode.INVALID_SIZE_FORMAT, "no size", "pmem2_source_from_fd")

    monkeypatch.setattr(_source, "dax_device_without_nvdimm", silent)
    before = sorted(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(pmem2.InvalidSizeFormatError):
            pmem2.Source.from_path(file)
        for _ in range(3):
            gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_p32_text_that_looks_like_a_format(dies: Dies, tmp_path: Path) -> None:
    """pmem2_perror takes text for a format and dies of it; pmem2 has no such function and repeats text as it is."""
    fatal = "lib.pmem2_perror(b'%s%s%s%s%s%s%s%s%n')"
    assert dies("", fatal) in (signal.SIGSEGV, signal.SIGABRT)
    strange = tmp_path / "%s%s%n"
    strange.mkdir()
    with pytest.raises(pmem2.InvalidFileTypeError, match="%s%s%n"):
        pmem2.Source.from_path(strange)
    strange_file = tmp_path / "%n%s"
    strange_file.touch()
    with pmem2.Source.from_path(strange_file) as source, pytest.raises(pmem2.SourceEmptyError, match="%n%s"):
        source.map()


def test_p33_function_that_no_library_exports(survives: Survives) -> None:
    """pmem2_err_to_errno is declared and not exported; pmem2 maps codes to errno itself."""
    lines = survives("""
    library = next(line.split()[-1] for line in open("/proc/self/maps") if "libpmem2.so" in line)
    print(hasattr(ctypes.CDLL(library), "pmem2_map_new"), hasattr(ctypes.CDLL(library), "pmem2_err_to_errno"))
    """)
    assert lines == ["True False"]
    with pmem2.Source.from_anon(4096) as anonymous:
        with pytest.raises(pmem2.NosuppError) as unsupported:
            _ = anonymous.numa_node
        with pytest.raises(pmem2.SourceTypeNotSupportedError) as other:
            anonymous.pread_mcsafe(1)
    assert (unsupported.value.errno, other.value.errno) == (errno.ENOTSUP, errno.EINVAL)


FORK = """
warnings.simplefilter("ignore", DeprecationWarning)
stop = threading.Event()

def hammer():
    while not stop.is_set():
        work()

def hung():
    "Whether a forked child, which works once, hangs."
    pid = os.fork()
    if pid == 0:
        signal.alarm(2)
        work()
        os._exit(0)
    return os.waitpid(pid, 0)[1] == signal.SIGALRM

threads = [threading.Thread(target=hammer) for _ in range(4)]
for thread in threads: thread.start()
"""


def test_p35_fork_while_a_lock_is_held(survives: Survives) -> None:
    """A child forked while another thread is inside libpmem2 hangs in it; with pmem2 it does not."""
    lines = survives(f"""
with libpmem2.config(length=4096) as config, libpmem2.source(fd) as source:
    def work():
        rc, m = libpmem2.map_new(config, source)
        if rc == 0:  # two threads may also be in each other's way
            libpmem2.map_delete(m)
    {FORK.replace(chr(10), chr(10) + "    ")}
    print(any(hung() for _ in range(20_000)))  # the first that hangs is enough
    stop.set()
    for thread in threads: thread.join()
""")
    assert lines == ["True"]
    lines = survives(f"""
with pmem2.Source.from_path(path) as source:
    config = pmem2.Config(length=4096)
    def work():
        source.map(config).close()
    {FORK.replace(chr(10), chr(10) + "    ")}
    print(any(hung() for _ in range(50)))
    stop.set()
    for thread in threads: thread.join()
""")
    assert lines == ["False"]


EXIT = """
def use():
    while True:
        work()

def exited():
    "How a forked child ended that leaves while its threads are still at work: the C library runs its destructors."
    pid = os.fork()
    if pid == 0:
        for _ in range(4): threading.Thread(target=use, daemon=True).start()
        libc.usleep(3000)
        libc.exit(0)
    return os.waitpid(pid, 0)[1]
"""


def test_p36_exit_while_threads_are_at_work(survives: Survives) -> None:
    """Threads that outlive libpmem2's destructor die of its freed registry; those inside pmem2 do not."""
    lines = survives(f"""{EXIT}
source = a_source()
config = libpmem2.config(length=4096).__enter__()
def work():
    rc, m = libpmem2.map_new(config, source)
    if rc == 0:  # two threads may also be in each other's way
        libpmem2.map_delete(m)
print(any(exited() for _ in range(1000)))
""")
    assert lines == ["True"]
    lines = survives(f"""{EXIT}
source = pmem2.Source.from_path(path)
config = pmem2.Config(length=4096)
def work():
    source.map(config).close()
print(any(exited() for _ in range(200)))
source.close()
""")
    assert lines == ["False"]


def test_p37_text_of_another_failure(survives: Survives, source: pmem2.Source) -> None:
    """libpmem2's text is that of the last failure, whichever it was; pmem2 reads it in the call that failed."""
    lines = survives("""
    config = libpmem2.config_new()[1]
    libpmem2.set_sharing(config, 77)
    first = libpmem2.errormsg()
    libpmem2.set_granularity(config, 99)
    print("77" in first, "77" in libpmem2.errormsg())
    """)
    assert lines == ["True False"]

    class Meddler:
        def __index__(self) -> int:
            with pytest.raises(pmem2.OffsetUnalignedError):
                source.map(pmem2.Config(offset=1))
            return 4097

    with pytest.raises(pmem2.LengthUnalignedError, match=r"4097 bytes.*length"):
        source.map(pmem2.Config(length=Meddler()))


SLOW_MSYNC = """
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
static int count;
int msyncs(void) { return __atomic_load_n(&count, __ATOMIC_SEQ_CST); }
int msync(void *address, size_t length, int flags)
{
    __atomic_fetch_add(&count, 1, __ATOMIC_SEQ_CST);
    usleep(300000);
    return (int)syscall(SYS_msync, address, length, flags);
}
"""


@pytest.fixture
def slow_msync(tmp_path: Path) -> Path:
    """A library that makes msync take its time, to be preloaded."""
    source, library = tmp_path / "msync.c", tmp_path / "msync.so"
    source.write_text(SLOW_MSYNC, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


def test_p38_deleting_under_a_persist(dies: Dies, survives: Survives, slow_msync: Path) -> None:
    """A map deleted while another thread persists it ends the process; pmem2 refuses to close it."""
    prepare = """
    m = a_map()
    thread = threading.Thread(target=libpmem2.persist, args=(m, 0, 4096))
    thread.start()
    while not libc.msyncs(): pass
    """
    assert dies(prepare, "libpmem2.map_delete(m); thread.join()", LD_PRELOAD=str(slow_msync)) == signal.SIGABRT
    lines = survives(
        """
        m = pmem2.open(path)
        thread = threading.Thread(target=m.persist, args=(0, 4096))
        thread.start()
        while not libc.msyncs(): pass
        try:
            m.close()
        except BufferError as error:
            print(error)
        thread.join()
        m.close()
        print(m.closed)
        """,
        LD_PRELOAD=str(slow_msync),
    )
    assert "another thread is inside" in lines[0]
    assert lines[1:] == ["True"]


@pytest.mark.parametrize("typo", ["", "0", "CACHELINES", "byte ", "PAGE_GRANULARITY"])
def test_p39_variable_with_a_typo(
    survives: Survives, source: pmem2.Source, monkeypatch: pytest.MonkeyPatch, typo: str
) -> None:
    """libpmem2 ignores a PMEM2_FORCE_GRANULARITY that it does not know; pmem2 warns of it."""
    code = "print(libpmem2.map_granularity(a_map()))"
    assert survives(code, PMEM2_FORCE_GRANULARITY=typo) == [str(int(pmem2.Granularity.PAGE))]
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", typo)
    with pytest.warns(RuntimeWarning, match="PMEM2_FORCE_GRANULARITY"), source.map() as map:
        assert map.granularity is pmem2.Granularity.PAGE


def test_p41_a_map_without_a_key(survives: Survives) -> None:
    """Deleting maps that got no pthread key deletes somebody else's; pmem2 makes no such map."""
    if not PYPY and library_uses_keys(survives):
        # whose key it is depends on what lay in memory: zeros name the first, which is not the library's
        deleted = survives(
            """
maps = [a_map(length=4096) for _ in range(1200)]
before = libc.pthread_setspecific(0, None)
for m in maps: libpmem2.map_delete(m)
print(before, os.strerror(libc.pthread_setspecific(0, None)))
os._exit(0)  # the interpreter may not live without it
""",
            MALLOC_PERTURB_="255",
        )
        assert deleted == [f"0 {os.strerror(errno.EINVAL)}"]
    lines = survives(f"""{KEYS}
source = pmem2.Source.from_anon(4096)
def cycles():
    for _ in range(1500):
        pmem2.Map.from_existing(source, bytearray(64), BYTE).close()
failed = raised(cycles)  # 1.12 forgets the key of every such map
print(failed in (True, False), spare_keys() >= 10)
thread = threading.Thread(target=print, args=("threads work",))
thread.start()
thread.join()
""")
    assert lines == ["True True", "threads work"]


BORROWED = """
def borrowed():
    view = memoryview(bytearray(100))
    garbage = [view]
    garbage.append(ffi.from_buffer(view))
    garbage.append(garbage)
"""


def test_p42_borrowed_buffer_in_garbage(dies: Dies, survives: Survives) -> None:
    """A buffer that cffi has borrowed can kill CPython as garbage; what pmem2 borrows it gives back, or keeps."""
    status = dies(BORROWED, "for _ in range(100): borrowed(); gc.collect()")
    assert status in ((0,) if PYPY else (0, signal.SIGSEGV))  # newer versions of CPython or cffi survive it
    survives("""
    warnings.simplefilter("ignore", ResourceWarning)
    source = pmem2.Source.from_path(path)

    def kept():
        view = memoryview(bytearray(4096))
        garbage = [view]
        garbage.append(pmem2.Map.from_existing(source, view, CACHE_LINE))
        garbage.append(garbage)

    def raised():
        try:
            with pmem2.Source.from_path(path) as other:
                other.map(pmem2.Config(length=4096)).memcpy(0, memoryview(bytes(5000)))
        except ValueError as error:
            kept = [error]
            kept.append(kept)

    for _ in range(100):
        kept()
        raised()
        gc.collect()
    """)


def test_p43_reservation_of_all_addresses(survives: Survives) -> None:
    """libpmem2 claims to have reserved nearly all addresses; pmem2 raises ValueError."""
    lines = survives("""
    for size in (2**64 - 4096, 2**64 - (2 << 20)):
        rc, r = libpmem2.reservation_new(0, size)
        print(rc, libpmem2.reservation_size(r) == size)
    """)
    assert lines == ["0 True", "0 True"]
    for size, address in ((2**64 - 4096, None), (2**64 - 2 * MIB, None), (2**63, None), (4096, 2**64 - 4096)):
        with pytest.raises(ValueError, match="size"):
            pmem2.VMReservation(size, address)
    with pytest.raises(OSError, match="annot reserve") as caught:
        pmem2.VMReservation(2**62)
    assert caught.value.errno == errno.ENOMEM


def test_p44_what_pypy_lacks(survives: Survives, source: pmem2.Source) -> None:
    """PyPy closes an mmap that is exported; pmem2 counts exports itself, the same everywhere."""
    lines = survives("""
    m = mmap.mmap(-1, 4096)
    view = memoryview(m)
    try:
        m.close()
        print("closed", flush=True)
    except BufferError:
        print("exported", flush=True)
    os._exit(0)
    """)
    assert lines == ["closed" if PYPY else "exported"]
    assert not os.get_inheritable(source.fd)
    map = source.map()
    numbers = (ctypes.c_uint8 * 16).from_buffer(map.view())
    with pytest.raises(BufferError):
        map.close()
    numbers[3] = 7
    assert map[3] == 7
    del numbers
    map.close()
