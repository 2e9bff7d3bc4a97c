# SPDX-License-Identifier: BSD-3-Clause
"""The known pitfalls of libpmem2, numbered 1 to 45: calls that kill, hang or corrupt the process that makes them.

A docstring begins with the number of the pitfall that the test covers. Tests marked `libpmem2` make the unguarded call,
in a child, because it may end the process. The other tests show that pmem2 refuses the call or makes it safe; where
tests/api proves that, it is not repeated here. libpmem2 1.12 to 2.1.3 behave alike unless a test names versions.
"""

from __future__ import annotations

import ast
import ctypes
import errno
import mmap
import os
import re
import signal
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from support import libpmem2
from support.compiled import border_library, preloadable
from support.values import ON_PYPY, forks_while_opening, needs_cache_line, not_emulated, rounds, without_map_sync

import pmem2

if TYPE_CHECKING:
    from support.children import RunChild

MIB = 1024 * 1024
HUGE = 2**64 - 8192

WITHOUT_TEST = {
    11: "needs a bad block on a real medium, where Source.pread_mcsafe and bad_blocks are the safe ways",
    25: "needs two threads in a mcsafe call on a DAX device; sigbus_lock in native/source.c serializes them",
    30: "needs an NVDIMM: elsewhere libpmem2 returns NOSUPP before it touches the buffer, which pmem2 zeroes",
    34: "no shared library has the function (see pitfall 33), and pmem2.errors maps codes itself",
    40: "out of scope: pmem2 exposes the protection EXEC and executes nothing",
    45: "typing only: mypy reads these tests, which pass ndarrays, mmaps and memoryviews as buffers",
}

PRELUDE = """
import ctypes, gc, mmap, os, signal, sys, threading, warnings
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

def map_memory(size):
    "Map anonymous memory, unknown to libpmem2, at a multiple of 2 MiB."
    address = libc.mmap(None, size + (2 << 20), 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    return (address + (2 << 20) - 1) & -(2 << 20)

def new_source(number=fd):
    rc, pointer = libpmem2.source_from_fd(number)
    assert rc == 0
    return pointer

def new_map(**options):
    with libpmem2.config(**options) as config:
        rc, pointer = libpmem2.map_new(config, new_source())
    assert rc == 0, (rc, libpmem2.errormsg())
    return pointer
"""


class DeathSignal(Protocol):
    """Run code that prepares, then code that is expected to end the process."""

    def __call__(self, prepare: str, fatal: str, **environment: str) -> int:
        """Return the signal that ended the child inside *fatal*, 0 if it survived."""


class OutputOf(Protocol):
    """Run code in a child that must end well."""

    def __call__(self, code: str, **environment: str) -> list[str]:
        """Return the lines that the child printed."""


@pytest.fixture
def death_signal(run_child: RunChild, file: Path) -> DeathSignal:
    """Run an unguarded call in a child."""

    def run(prepare: str, fatal: str, **environment: str) -> int:
        parts = (PRELUDE, textwrap.dedent(prepare), "print('now', flush=True)", textwrap.dedent(fatal))
        child = run_child("\n".join(parts), str(file), **environment)
        assert child.stdout.startswith("now"), child.stderr
        assert child.returncode <= 0, child.stderr
        return -child.returncode

    return run


@pytest.fixture
def output_of(run_child: RunChild, file: Path) -> OutputOf:
    """Run code that must not end the process."""

    def run(code: str, **environment: str) -> list[str]:
        child = run_child(PRELUDE + textwrap.dedent(code), str(file), **environment)
        assert child.returncode == 0, (child.returncode, child.stderr)
        return child.stdout.splitlines()

    return run


def test_pitfalls_are_complete() -> None:
    """Each of the 45 pitfalls has a test here, or a reason in WITHOUT_TEST."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(__file__).parent.glob("test_*.py")]
    tests = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    docstrings = [ast.get_docstring(test) or "" for test in tests if test.name.startswith("test_")]
    numbers = {int(match[1]) for text in docstrings if (match := re.match(r"Pitfall (\d+): ", text))}
    assert numbers | set(WITHOUT_TEST) == set(range(1, 46))
    assert not numbers & set(WITHOUT_TEST)


# ---- handles


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
    "map_new without a config": "libpmem2.map_new(0, new_source())",
    "map_new without a source": "libpmem2.map_new(config, 0)",
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
context = libpmem2.config()
config = context.__enter__()
for name, code in calls.items():
    pid = os.fork()
    if pid == 0:
        eval(code)
        os._exit(0)
    print(name, os.waitpid(pid, 0)[1], sep="=")
"""


@pytest.fixture
def null_statuses(output_of: OutputOf) -> dict[str, int]:
    """The wait status of a process that passes a null pointer to libpmem2, for each function."""
    lines = (line.rsplit("=", 1) for line in output_of(f"calls = {NULLS!r}\n{STATUSES}"))
    return {name: int(status) for name, status in lines}


@pytest.mark.libpmem2
def test_null_handle_kills(null_statuses: dict[str, int]) -> None:
    """Pitfall 1: a null handle kills the process."""
    deadly = NULLS.keys() - TOLERANT
    # the debug build aborts where it has an assert
    deaths = {signal.SIGSEGV, signal.SIGABRT} if libpmem2.is_debug_build() else {signal.SIGSEGV}
    assert {name: null_statuses[name] for name in deadly if null_statuses[name] not in deaths} == {}


@pytest.mark.libpmem2
def test_deleting_null(null_statuses: dict[str, int]) -> None:
    """Pitfall 2: deleting a null map or reservation kills; deleting a null source or config does nothing."""
    assert null_statuses["map_delete"] == null_statuses["vm_reservation_delete"] == signal.SIGSEGV
    assert null_statuses["source_delete"] == null_statuses["config_delete"] == 0


@pytest.mark.libpmem2
def test_deleting_a_map_twice(death_signal: DeathSignal) -> None:
    """Pitfall 3: a second owner deletes freed memory, and at best gets an error."""
    prepare = "m = new_map(); assert libpmem2.map_delete(m)[0] == 0"
    fatal = "assert libpmem2.map_delete(m)[0] != 0"  # a child that survives gets an error
    assert death_signal(prepare, fatal) in (0, signal.SIGSEGV, signal.SIGABRT, signal.SIGALRM)


# ---- memory of maps


@pytest.mark.libpmem2
def test_touching_a_deleted_map(death_signal: DeathSignal) -> None:
    """Pitfall 4: reading memory after pmem2_map_delete kills."""
    prepare = """
    m = new_map()
    buffer = ffi.buffer(ffi.cast("char *", libpmem2.map_address(m)), 4096)
    assert buffer[0] == b"\\0" and libpmem2.map_delete(m)[0] == 0
    """
    assert death_signal(prepare, "buffer[0]") == signal.SIGSEGV


@pytest.mark.memcheck
def test_view_keeps_memory_mapped(map: pmem2.Map) -> None:
    """Pitfall 4: a live view keeps its map open."""
    view = map.view()
    with pytest.raises(BufferError, match="views"):
        map.close()
    view[0] = 1
    assert map[0] == 1
    del view
    map.close()


@pytest.mark.libpmem2
@pytest.mark.parametrize(("granularity", "status"), [("PAGE", 0), ("CACHE_LINE", signal.SIGSEGV)])
@not_emulated("flushes nothing, so no flush can fail")
def test_persist_on_deleted_map(death_signal: DeathSignal, granularity: str, status: int) -> None:
    """Pitfall 5: the persist function of a deleted map does nothing on PAGE and kills on CACHE_LINE."""
    prepare = """
    m = new_map()
    pointer = ffi.cast("struct pmem2_map *", m)
    persist, address = lib.pmem2_get_persist_fn(pointer), lib.pmem2_map_get_address(pointer)
    assert libpmem2.map_delete(m)[0] == 0
    """
    assert death_signal(prepare, "persist(address, 4096)", PMEM2_FORCE_GRANULARITY=granularity) == status


@pytest.mark.memcheck
def test_persist_on_closed_map(granularity: pmem2.Granularity, source: pmem2.Source) -> None:
    """Pitfall 5: durability calls on a closed map raise ValueError on every granularity."""
    map = source.map()
    assert map.granularity is granularity
    map.close()
    for operation in (map.persist, map.flush, map.drain, map.deep_flush):
        with pytest.raises(ValueError, match="closed"):
            operation()


@pytest.mark.libpmem2
def test_memcpy_beyond_the_map(death_signal: DeathSignal) -> None:
    """Pitfall 6: pmem2_memcpy does not check the end of the map."""
    prepare = """
    r = libpmem2.reservation_new(0, 1 << 20)[1]
    m = new_map(length=4096, reservation=r)
    """
    assert death_signal(prepare, "libpmem2.memcpy(m, bytes(8192))") == signal.SIGSEGV


@pytest.mark.memcheck
def test_copies_stay_inside(source: pmem2.Source) -> None:
    """Pitfall 6: a copy that does not fit as a whole raises ValueError and stores nothing."""
    with source.map(pmem2.Config(length=4096)) as map:
        for copy in (map.memcpy, map.memmove):
            with pytest.raises(ValueError, match="ends beyond"):
                copy(4000, b"\xff" * 97)
        with pytest.raises(ValueError, match="ends beyond"):
            map.memset(4096, 255, 1)
        with pytest.raises(ValueError, match="ends beyond"):
            map.memcpy_many([(0, b"\xff"), (4096, b"\xff")])
        assert map[:] == bytes(4096)


@pytest.mark.libpmem2
@pytest.mark.parametrize(
    ("protection", "fatal"),
    [
        ("lib.PMEM2_PROT_READ", "libpmem2.store(libpmem2.map_address(m), b'x')"),
        ("lib.PMEM2_PROT_READ", "libpmem2.memcpy(m, b'x')"),
        ("lib.PMEM2_PROT_NONE", "libpmem2.load(libpmem2.map_address(m), 1)"),
    ],
    ids=["store", "memcpy", "load"],
)
def test_access_against_protection(death_signal: DeathSignal, protection: str, fatal: str) -> None:
    """Pitfall 7: an access that the protection forbids kills."""
    assert death_signal(f"m = new_map(protection={protection})", fatal) == signal.SIGSEGV


@pytest.mark.memcheck
def test_protection_is_checked(source: pmem2.Source) -> None:
    """Pitfall 7: an access that the protection forbids raises TypeError, and views are read-only."""
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


@pytest.mark.libpmem2
def test_reading_unmapped_addresses(death_signal: DeathSignal) -> None:
    """Pitfall 8: reading a part of a reservation without a map kills."""
    prepare = "r = libpmem2.reservation_new(0, 1 << 20)[1]"
    assert death_signal(prepare, "libpmem2.load(libpmem2.reservation_address(r), 1)") == signal.SIGSEGV


def test_reservation_is_no_buffer(reservation: pmem2.VMReservation) -> None:
    """Pitfall 8: a reservation gives numbers and no memory."""
    with pytest.raises(TypeError):
        memoryview(reservation)  # type: ignore[arg-type] # the argument under test
    assert type(reservation.address) is int


@pytest.mark.libpmem2
def test_touching_a_truncated_file(death_signal: DeathSignal) -> None:
    """Pitfall 9: touching a map whose file was truncated kills, as the documentation says."""
    prepare = "m = new_map(); os.truncate(path, 0)"
    assert death_signal(prepare, "libpmem2.load(libpmem2.map_address(m), 1)") == signal.SIGBUS


def test_mcsafe_on_truncated_file(output_of: OutputOf) -> None:
    """Pitfall 9: pread_mcsafe and persist survive when the file was truncated."""
    lines = output_of("""
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


@pytest.mark.libpmem2
def test_hole_on_full_disk(death_signal: DeathSignal, small_disk: Path) -> None:
    """Pitfall 10: storing into a hole kills when the disk is full; `pmem2.open` allocates all space."""
    prepare = f"""
    fd = os.open({str(small_disk / "sparse")!r}, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 20)
    with libpmem2.config() as config:
        m = libpmem2.map_new(config, new_source(fd))[1]
    """
    fatal = "for page in range(256): libpmem2.store(libpmem2.map_address(m) + 4096 * page, b'x')"
    assert death_signal(prepare, fatal) == signal.SIGBUS


@pytest.mark.libpmem2
@pytest.mark.parametrize("operation", ["persist", "flush"])
@without_map_sync
def test_failed_msync_aborts(death_signal: DeathSignal, operation: str) -> None:
    """Pitfall 12: libpmem2 aborts when msync fails, here because the memory was unmapped."""
    prepare = "m = new_map(); libc.munmap(libpmem2.map_address(m), 8192)"
    assert death_signal(prepare, f"libpmem2.{operation}(m, 0, 4096)") == signal.SIGABRT


def test_failed_msync_raises(output_of: OutputOf) -> None:
    """Pitfall 12: a failed msync raises OSError, and the map can be used and closed."""
    lines = output_of("""
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
    m[4096:4101] = b"still"
    m.close()
    """)
    assert lines == [f"OSError {errno.ENOMEM} True"] * 6


# ---- existing memory


@pytest.mark.libpmem2
def test_unknown_granularity_aborts(death_signal: DeathSignal) -> None:
    """Pitfall 13: an unknown granularity for existing memory aborts."""
    fatal = "libpmem2.map_from_existing(new_source(), m, 4096, 3)"
    assert death_signal("m = map_memory(4096)", fatal) == signal.SIGABRT


@pytest.mark.libpmem2
@pytest.mark.parametrize("operation", ["persist(m, 0, 8)", "flush(m, 0, 8)", "memcpy(m, b'x')"])
def test_page_granularity_hangs(death_signal: DeathSignal, operation: str) -> None:
    """Pitfall 14: making the first page of existing memory durable never returns on PAGE."""
    prepare = """
    m = libpmem2.map_from_existing(new_source(), map_memory(8192), 8192, PAGE)[1]
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    """
    assert death_signal(prepare, f"libpmem2.{operation}") == signal.SIGALRM


@pytest.mark.memcheck
def test_page_granularity_works(source: pmem2.Source, file: Path) -> None:
    """Pitfall 14: pmem2 itself writes existing memory back on PAGE."""
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


@pytest.mark.libpmem2
def test_empty_map_breaks_registry(output_of: OutputOf) -> None:
    """Pitfall 15: libpmem2 cannot find an empty map of existing memory once another map has its address."""
    lines = output_of("""
    a = map_memory(8192)
    empty = libpmem2.map_from_existing(new_source(), a, 0, CACHE_LINE)[1]
    other = libpmem2.map_from_existing(new_source(), a, 4096, CACHE_LINE)[1]
    print(libpmem2.map_delete(other)[0], libpmem2.map_delete(empty)[0] == lib.PMEM2_E_MAPPING_NOT_FOUND)
    """)
    assert lines == ["0 True"]


@pytest.mark.libpmem2
def test_unmapped_memory_stays_registered(output_of: OutputOf) -> None:
    """Pitfall 16: libpmem2 refuses new maps at the address of existing memory that was unmapped before its map."""
    lines = output_of("""
    a = map_memory(8 << 20)
    libpmem2.map_from_existing(new_source(), a, 4096, CACHE_LINE)
    libc.munmap(a, 8 << 20)
    with libpmem2.config(length=4096, reservation=libpmem2.reservation_new(a, 4096)[1]) as config:
        print(libpmem2.map_new(config, new_source())[0])
    """)
    assert lines == [str(-errno.EEXIST)]


# ---- reservations


@pytest.mark.libpmem2
def test_reservation_offset_wraps(output_of: OutputOf) -> None:
    """Pitfall 17: a reservation offset that wraps maps over memory below the reservation."""
    lines = output_of("""
    a = map_memory(16 << 20) + (2 << 20)
    libc.munmap(a, 8 << 20)
    ctypes.memset(a - 8192, 0xAA, 8192)
    r = libpmem2.reservation_new(a, 1 << 20)[1]
    m = new_map(length=8192, reservation=r, reservation_offset=2**64 - 8192)
    print(libpmem2.map_address(m) == a - 8192, ctypes.string_at(a - 8192, 2))
    """)
    assert lines == ["True b'\\x00\\x00'"]


def test_reservation_offset_is_checked(source: pmem2.Source, reservation: pmem2.VMReservation) -> None:
    """Pitfall 17: a reservation offset that wraps or lies past the end raises an exception."""
    for offset in (HUGE, 2**63, 4 * MIB + 1, -4096):
        with pytest.raises(ValueError, match="reservation_offset"):
            pmem2.Config(reservation=reservation, reservation_offset=offset)
    config = pmem2.Config(reservation=reservation, reservation_offset=4 * MIB, length=4096)
    with pytest.raises(pmem2.LengthOutOfRangeError):
        source.map(config)


@pytest.mark.libpmem2
def test_config_names_deleted_reservation(death_signal: DeathSignal) -> None:
    """Pitfall 18: libpmem2 reads a deleted reservation that a config names."""
    prepare = """
    r = libpmem2.reservation_new(0, 1 << 20)[1]
    context = libpmem2.config(length=4096, reservation=r)
    config = context.__enter__()
    assert libpmem2.reservation_delete(r)[0] == 0
    signal.alarm(1)
    """
    # the freed memory may hold anything: a bad address, a lock that is never released
    fatal = "assert libpmem2.map_new(config, new_source())[0] != 0"
    assert death_signal(prepare, fatal, MALLOC_PERTURB_="165") in (0, signal.SIGALRM, signal.SIGSEGV, signal.SIGABRT)


@pytest.mark.libpmem2
def test_empty_reservation_stays(output_of: OutputOf) -> None:
    """Pitfall 19: libpmem2 makes a reservation of 0 bytes and cannot delete it."""
    lines = output_of("rc, r = libpmem2.reservation_new(0, 0); print(rc, libpmem2.reservation_delete(r)[0])")
    assert lines == [f"0 {-errno.EINVAL}"]


@pytest.mark.libpmem2
def test_extension_wraps(output_of: OutputOf) -> None:
    """Pitfall 20: a huge extension wraps, and libpmem2 reports success for a smaller reservation."""
    lines = output_of("""
    r = libpmem2.reservation_new(0, 1 << 20)[1]
    print(libpmem2.extend(r, 2**64 - 4096), libpmem2.reservation_size(r))
    """)
    assert lines == [f"0 {MIB - 4096}"]


@pytest.mark.libpmem2
def test_deleted_reservation_keeps_padding(output_of: OutputOf) -> None:
    """Pitfall 21: libpmem2 keeps padding behind a deleted reservation."""
    lines = output_of("""
    a = map_memory(16 << 20) - (64 << 30)
    assert libpmem2.reservation_delete(libpmem2.reservation_new(a, 1 << 20)[1])[0] == 0
    print(libpmem2.reservation_new(a, 1 << 20)[0] == lib.PMEM2_E_MAPPING_EXISTS)
    """)
    assert lines == ["True"]


def test_closed_reservation_frees_addresses(output_of: OutputOf) -> None:
    """Pitfall 21: a closed reservation gives all addresses back where the caller chose the address."""
    lines = output_of("""
    def virtual_size():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * 4096
    a = map_memory(16 << 20) - (64 << 30)
    pmem2.VMReservation(1 << 20, a).close()
    before = virtual_size()
    for _ in range(50):
        r = pmem2.VMReservation(1 << 20, a)
        assert r.address == a
        r.close()
    print(virtual_size() - before < 1 << 20)
    """)
    assert lines == ["True"]


def test_shrunk_reservation_spares_neighbours(output_of: OutputOf) -> None:
    """Pitfall 21: closing a shrunk reservation leaves later mappings behind it alone."""
    lines = output_of("""
    a = map_memory(16 << 20) - (64 << 30)
    r = pmem2.VMReservation(1 << 20, a)
    r.shrink((1 << 20) - 4096, 4096)  # libpmem2 1.x also gives back a part of its padding
    page, fixed_noreplace = a + (3 << 20), 0x100000
    if libc.mmap(page, 4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | fixed_noreplace, -1, 0) == page:
        r.close()
        print(ctypes.string_at(page, 1))
    """)
    if not lines:
        pytest.skip("this libpmem2 keeps its padding")
    assert lines == [r"b'\x00'"]


@pytest.mark.libpmem2
def test_reserving_all_addresses(output_of: OutputOf) -> None:
    """Pitfall 43: libpmem2 reports a reservation of nearly all addresses as made."""
    lines = output_of("""
    for size in (2**64 - 4096, 2**64 - (2 << 20)):
        rc, r = libpmem2.reservation_new(0, size)
        print(rc, libpmem2.reservation_size(r) == size)
    """)
    assert lines == ["0 True", "0 True"]


def test_last_page_is_refused() -> None:
    """Pitfall 43: a reservation that ends at 2**64 raises ValueError."""
    with pytest.raises(ValueError, match="size"):
        pmem2.VMReservation(4096, 2**64 - 4096)


# ---- pthread keys


KEYS = """
def count_spare_keys():
    "Return how many pthread keys are left, at most 100."
    keys = []
    while len(keys) < 100:
        key = ctypes.c_uint()
        if libc.pthread_key_create(ctypes.byref(key), None):
            break
        keys.append(key)
    for key in keys:
        libc.pthread_key_delete(key)
    return len(keys)

def raises_eagain(act):
    try:
        act()
    except OSError as error:
        return error.errno == 11
    return False
"""


@pytest.fixture
def uses_keys(output_of: OutputOf) -> bool:
    """Whether each map of this libpmem2 owns a pthread key, as in 1.12 and 1.13."""
    code = "\nfor _ in range(1100): new_map(length=4096)\nprint(count_spare_keys())\nos._exit(0)"
    return output_of(KEYS + code) == ["0"]


@pytest.mark.xdist_group("keys")
def test_maps_leave_keys(output_of: OutputOf, uses_keys: bool) -> None:
    """Pitfall 22: libpmem2 1.12 and 1.13 take every pthread key; pmem2 raises OSError(EAGAIN) with some keys left."""
    lines = output_of(f"""{KEYS}
source = pmem2.Source.from_path(path)
config = pmem2.Config(length=4096)
maps = []
def fill():
    while len(maps) < 1100:
        maps.append(source.map(config))
print(raises_eagain(fill), raises_eagain(lambda: source.map(config)), len(maps) > 900, count_spare_keys() >= 10)
with open(path, "rb") as file:
    print(raises_eagain(lambda: pmem2.Map.from_existing(source, bytearray(64), BYTE)))
threads = [threading.Thread(target=maps[0].persist) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for map in maps: map.close()
source.map(config).close()
""")
    filled, again, many, spare = lines[0].split()
    assert filled == again == lines[1]
    assert filled == "True" or not uses_keys
    assert (many, spare) == ("True", "True")


@pytest.mark.libpmem2
@pytest.mark.xdist_group("keys")
@pytest.mark.skipif(ON_PYPY, reason="the pthread key that the test reads belongs to CPython")
def test_map_without_key(output_of: OutputOf, uses_keys: bool) -> None:
    """Pitfall 41: deleting maps that got no pthread key deletes a key of another library."""
    if not uses_keys:
        pytest.skip("maps of this libpmem2 own no pthread keys")
    # the deleted key is whatever the memory held: zeros name the first key, which is not libpmem2's
    code = """
maps = [new_map(length=4096) for _ in range(1200)]
before = libc.pthread_setspecific(0, None)
for m in maps: libpmem2.map_delete(m)
print(before, os.strerror(libc.pthread_setspecific(0, None)))
os._exit(0)  # without that key the interpreter may crash
"""
    assert output_of(code, MALLOC_PERTURB_="255") == [f"0 {os.strerror(errno.EINVAL)}"]


@pytest.mark.xdist_group("keys")
def test_existing_memory_leaves_keys(output_of: OutputOf) -> None:
    """Pitfall 41: pmem2 makes no map without a pthread key, and threads still start after 1,500 maps."""
    lines = output_of(f"""{KEYS}
source = pmem2.Source.from_anon(4096)
def make_and_close():
    for _ in range(1500):
        pmem2.Map.from_existing(source, bytearray(64), BYTE).close()
failed = raises_eagain(make_and_close)  # 1.12 leaks the key of each such map
print(failed in (True, False), count_spare_keys() >= 10)
thread = threading.Thread(target=print, args=("threads work",))
thread.start()
thread.join()
""")
    assert lines == ["True True", "threads work"]


@pytest.mark.xdist_group("keys")
def test_garbage_gives_keys_back(output_of: OutputOf, uses_keys: bool) -> None:
    """Maps in garbage cycles give their pthread keys back when a new map needs one."""
    if not uses_keys:
        pytest.skip("maps of this libpmem2 own no pthread keys")
    lines = output_of("""
    warnings.simplefilter("ignore")
    source, config = pmem2.Source.from_path(path), pmem2.Config(length=4096)
    gc.disable()
    for _ in range(1100):
        garbage = [source.map(config)]
        garbage.append(garbage)
    print("mapped")
    """)
    assert lines == ["mapped"]


# ---- sources and bad blocks


@pytest.mark.libpmem2
def test_mcsafe_beyond_the_end(output_of: OutputOf) -> None:
    """Pitfall 23: past the end of a file, libpmem2's mcsafe functions read nothing and grow the file."""
    lines = output_of("""
    s, end = new_source(), os.stat(path).st_size
    read, written = libpmem2.pread_mcsafe(s, 4, end + 100), libpmem2.pwrite_mcsafe(s, b"data", end + 100)
    print(read, written, os.stat(path).st_size - end)
    """)
    assert lines == ["(0, b'\\x00\\x00\\x00\\x00') 0 104"]


LIMIT_FILE_SIZE = """
import resource
os.truncate(path, 8192)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
"""


@pytest.mark.libpmem2
def test_short_write_succeeds(output_of: OutputOf) -> None:
    """Pitfall 24: libpmem2 reports success for a write that stopped half way."""
    code = "print(libpmem2.pwrite_mcsafe(new_source(), b'x' * 8192, 0), open(path, 'rb').read().count(b'x'))"
    assert output_of(LIMIT_FILE_SIZE + code) == ["0 5000"]


def test_short_write_raises(output_of: OutputOf) -> None:
    """Pitfall 24: a write that stopped half way raises the reason."""
    code = """
try:
    pmem2.Source.from_path(path).pwrite_mcsafe(b'x' * 8192)
except OSError as error:
    print(error.errno)
"""
    assert output_of(LIMIT_FILE_SIZE + code) == [str(errno.EFBIG)]


@pytest.mark.libpmem2
def test_clear_zeroes_good_data(output_of: OutputOf) -> None:
    """Pitfall 26: libpmem2 zeroes any range that a caller passes as a bad block."""
    lines = output_of("""
    os.pwrite(fd, b"precious", 0)
    with libpmem2.badblocks(new_source()) as context:
        print(libpmem2.badblock_clear(context, 0, 4096), os.pread(fd, 8, 0))
    """)
    assert lines == ["0 b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'"]


def test_clear_refuses_good_data(source: pmem2.Source, file: Path) -> None:
    """Pitfall 26: a context clears only the bad blocks that it has produced."""
    file.write_bytes(b"precious".ljust(4096))
    with source.bad_blocks() as context:
        with pytest.raises(ValueError, match="must come from this context"):
            context.clear(pmem2.BadBlock(0, 4096))
        with pytest.raises(TypeError):
            context.clear((0, 4096))  # type: ignore[arg-type] # the argument under test
    assert file.read_bytes()[:8] == b"precious"


@pytest.mark.libpmem2
def test_reused_descriptor(output_of: OutputOf) -> None:
    """Pitfall 27: a libpmem2 source follows the number of its descriptor to another file."""
    lines = output_of("""
    s = new_source()
    before = libpmem2.source_size(s)
    with open(path + ".other", "wb") as other:
        other.write(b"other")
    os.dup2(os.open(path + ".other", os.O_RDWR), fd)
    print(before[1] // 5, libpmem2.source_size(s))
    """)
    assert lines == [f"{16 * MIB // 5} (0, 5)"]


# ---- flushing


@pytest.mark.libpmem2
@pytest.mark.parametrize(
    ("protection", "offset"), [("None", 4096), ("lib.PMEM2_PROT_NONE", 0)], ids=["outside", "NONE map"]
)
@not_emulated("flushes nothing, so no flush can fail")
def test_flushing_inaccessible_memory(death_signal: DeathSignal, protection: str, offset: int) -> None:
    """Pitfall 28: flushing cache lines of unmapped or inaccessible memory kills."""
    prepare = f"""
    r = libpmem2.reservation_new(0, 1 << 20)[1]
    m = new_map(length=4096, protection={protection}, reservation=r)
    """
    status = death_signal(prepare, f"libpmem2.persist(m, {offset}, 64)", PMEM2_FORCE_GRANULARITY="CACHE_LINE")
    assert status == signal.SIGSEGV


@pytest.mark.memcheck
def test_flushes_stay_inside(granularity: pmem2.Granularity, source: pmem2.Source) -> None:
    """Pitfall 28: pmem2 checks the range and the protection first, on every granularity."""
    with source.map(pmem2.Config(length=4096)) as map:
        assert map.granularity is granularity
        for offset, length in ((4096, 1), (0, 4097), (HUGE, 16384), (2**64 - 1, 2)):
            for operation in (map.persist, map.flush, map.deep_flush):
                with pytest.raises(ValueError, match="ends beyond"):
                    operation(offset, length)
            for many in (map.persist_many, map.flush_many):
                with pytest.raises(ValueError, match="ends beyond"):
                    many([(0, 8), (offset, length)])
    with source.map(pmem2.Config(protection=pmem2.Protection.NONE)) as map:
        for operation in (map.persist, map.flush, map.deep_flush):
            with pytest.raises(TypeError, match="neither READ nor WRITE"):
                operation(0, 8)
        with pytest.raises(TypeError, match="neither READ nor WRITE"):
            map.drain()


@pytest.mark.libpmem2
def test_deep_flush_wraps(output_of: OutputOf) -> None:
    """Pitfall 29: pmem2_deep_flush accepts a range that wraps around."""
    assert output_of("print(libpmem2.deep_flush(new_map(), 4096, 2**64 - 2048))") == ["0"]


# ---- errors and settings


@pytest.mark.libpmem2
def test_perror_formats_its_argument(death_signal: DeathSignal) -> None:
    """Pitfall 32: pmem2_perror interprets its argument as a format."""
    fatal = "lib.pmem2_perror(b'%s%s%s%s%s%s%s%s%n')"
    assert death_signal("", fatal) in (signal.SIGSEGV, signal.SIGABRT)


def test_percent_signs_in_paths(tmp_path: Path) -> None:
    """Pitfall 32: error texts repeat a path as it is."""
    strange = tmp_path / "%s%s%n"
    strange.mkdir()
    with pytest.raises(pmem2.InvalidFileTypeError, match="%s%s%n"):
        pmem2.Source.from_path(strange)
    strange_file = tmp_path / "%n%s"
    strange_file.touch()
    with pmem2.Source.from_path(strange_file) as source, pytest.raises(pmem2.SourceEmptyError, match="%n%s"):
        source.map()


@pytest.mark.libpmem2
def test_err_to_errno_is_missing(output_of: OutputOf) -> None:
    """Pitfall 33: the header declares pmem2_err_to_errno, and the library does not export it."""
    lines = output_of("""
    library = next(line.split()[-1] for line in open("/proc/self/maps") if "libpmem2.so" in line)
    print(hasattr(ctypes.CDLL(library), "pmem2_map_new"), hasattr(ctypes.CDLL(library), "pmem2_err_to_errno"))
    """)
    assert lines == ["True False"]


@pytest.mark.libpmem2
def test_errormsg_keeps_last_failure(output_of: OutputOf) -> None:
    """Pitfall 37: pmem2_errormsg returns the text of the last failure, from whatever call."""
    lines = output_of("""
    config = libpmem2.config_new()[1]
    libpmem2.set_sharing(config, 77)
    first = libpmem2.errormsg()
    libpmem2.set_granularity(config, 99)
    print("77" in first, "77" in libpmem2.errormsg())
    """)
    assert lines == ["True False"]


def test_nested_failure_keeps_texts(source: pmem2.Source) -> None:
    """Pitfall 37: an error carries the text of its own call when another call fails in between."""

    class FailsInIndex:
        def __index__(self) -> int:
            with pytest.raises(pmem2.OffsetUnalignedError):
                source.map(pmem2.Config(offset=1))
            return 4097

    with pytest.raises(pmem2.LengthUnalignedError, match=r"4097 bytes.*length"):
        source.map(pmem2.Config(length=FailsInIndex()))


TYPOS = ["", "0", "CACHELINES", "byte ", "PAGE_GRANULARITY"]


@pytest.mark.libpmem2
@pytest.mark.parametrize("typo", TYPOS)
@without_map_sync
def test_typo_in_variable_ignored(output_of: OutputOf, typo: str) -> None:
    """Pitfall 39: libpmem2 ignores an unknown value of PMEM2_FORCE_GRANULARITY."""
    code = "print(libpmem2.map_granularity(new_map()))"
    assert output_of(code, PMEM2_FORCE_GRANULARITY=typo) == [str(int(pmem2.Granularity.PAGE))]


@pytest.mark.parametrize("typo", TYPOS)
def test_typo_in_variable_warns(source: pmem2.Source, monkeypatch: pytest.MonkeyPatch, typo: str) -> None:
    """Pitfall 39: pmem2 warns of an unknown value of PMEM2_FORCE_GRANULARITY."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", typo)
    with pytest.warns(RuntimeWarning, match="PMEM2_FORCE_GRANULARITY"), source.map() as map:
        assert map.granularity is pmem2.Granularity.PAGE


# ---- forks, exits and threads

# libpmem2 keeps each lock for 20 ms longer once slow_down was called. border.c cannot do that: it makes a call fail or
# stop, whereas these threads go on, so that a fork meets a lock at an arbitrary moment.
SLOW_UNLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
static int slow;
void slow_down(void) { slow = 1; }
int pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
    static int (*next)(pthread_rwlock_t *);
    Dl_info info;
    if (!next)
        next = (int (*)(pthread_rwlock_t *))dlsym(RTLD_NEXT, "pthread_rwlock_unlock");
    if (slow && dladdr(__builtin_return_address(0), &info) && info.dli_fname && strstr(info.dli_fname, "libpmem2"))
        usleep(20000);
    return next(lock);
}
"""

FORK = """
warnings.simplefilter("ignore", DeprecationWarning)
libc.slow_down()
stop = threading.Event()

def repeat_work():
    while not stop.is_set():
        work()

def hangs(seconds):
    "Return whether a forked child that works once hangs."
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        work()
        os._exit(0)
    return os.waitpid(pid, 0)[1] == signal.SIGALRM

threads = [threading.Thread(target=repeat_work) for _ in range(4)]
for thread in threads: thread.start()
"""
STOP = """
stop.set()
for thread in threads: thread.join()
"""

RAW_WORK = """
context = libpmem2.config(length=4096)
source, config = new_source(), context.__enter__()
def work():
    rc, m = libpmem2.map_new(config, source)
    if rc == 0:  # two threads may also choose the same address
        libpmem2.map_delete(m)
"""
GUARDED_WORK = """
source, config = pmem2.Source.from_path(path), pmem2.Config(length=4096)
def work():
    source.map(config).close()
"""


@pytest.mark.libpmem2
@pytest.mark.xdist_group("fork")
def test_fork_inherits_locked_lock(output_of: OutputOf) -> None:
    """Pitfall 35: a child hangs in libpmem2 when it was forked while another thread held libpmem2's lock."""
    code = "print(any(hangs(1) for _ in range(1000)))"  # stops at the first child that hangs
    assert output_of(RAW_WORK + FORK + code + STOP, LD_PRELOAD=str(preloadable(SLOW_UNLOCK, "-ldl"))) == ["True"]


@forks_while_opening
@pytest.mark.xdist_group("fork")
def test_fork_waits_for_lock(output_of: OutputOf) -> None:
    """Pitfall 35: a child never hangs when it was forked while other threads were inside pmem2."""
    code = f"print(any(hangs(30) for _ in range({rounds(10)})))"
    output = output_of(
        GUARDED_WORK + FORK + code + STOP + "source.close()", LD_PRELOAD=str(preloadable(SLOW_UNLOCK, "-ldl"))
    )
    assert output == ["False"]


# libpmem2's destructor takes 50 ms longer after it has freed the registry, whose memory malloc overwrites. Nothing
# fails or stops here either, so border.c has no part in it.
SLOW_EXIT = """
#include <pthread.h>
#include <unistd.h>
int pthread_rwlock_destroy(pthread_rwlock_t *lock)
{
    usleep(50000);
    return 0;
}
"""
EXIT = """
def repeat_work():
    while True:
        work()

def exit_status():
    "Return the wait status of a forked child that runs the C library's destructors while its threads work."
    pid = os.fork()
    if pid == 0:
        for _ in range(4): threading.Thread(target=repeat_work, daemon=True).start()
        libc.usleep(3000)
        libc.exit(0)
    return os.waitpid(pid, 0)[1]
"""


@pytest.mark.libpmem2
@pytest.mark.xdist_group("fork")
def test_exit_frees_used_registry(output_of: OutputOf) -> None:
    """Pitfall 36: threads that outlive libpmem2's destructor die of its freed registry."""
    code = "print(any(exit_status() for _ in range(1000)))"  # stops at the first child that dies
    assert output_of(RAW_WORK + EXIT + code, LD_PRELOAD=str(preloadable(SLOW_EXIT)), MALLOC_PERTURB_="165") == ["True"]


@pytest.mark.xdist_group("fork")
def test_exit_with_working_threads(output_of: OutputOf) -> None:
    """Pitfall 36: threads inside pmem2 do not die when the process exits."""
    code = f"{GUARDED_WORK}{EXIT}print(any(exit_status() for _ in range({rounds(8)})))\nsource.close()"
    assert output_of(code, LD_PRELOAD=str(preloadable(SLOW_EXIT)), MALLOC_PERTURB_="165") == ["False"]


@pytest.mark.libpmem2
@pytest.mark.xdist_group("threads")
@without_map_sync
def test_delete_during_persist(death_signal: DeathSignal) -> None:
    """Pitfall 38: deleting a map while another thread persists it aborts."""
    prepare = """
    from support.border import Border, Call, Fault
    border, m = Border(), new_map()
    border.inject(Call.MSYNC, how=Fault.BLOCK)
    thread = threading.Thread(target=libpmem2.persist, args=(m, 0, 4096))
    thread.start()
    border.wait_until_blocked(Call.MSYNC)
    """
    fatal = "libpmem2.map_delete(m); border.release(Call.MSYNC); thread.join()"
    assert death_signal(prepare, fatal, LD_PRELOAD=border_library()) == signal.SIGABRT


# ---- interpreters


@pytest.mark.libpmem2
def test_borrowed_buffer_in_garbage(death_signal: DeathSignal) -> None:
    """Pitfall 42: a buffer that cffi has borrowed can kill CPython when it is garbage."""
    prepare = """
    def make_garbage():
        view = memoryview(bytearray(100))
        garbage = [view]
        garbage.append(ffi.from_buffer(view))
        garbage.append(garbage)
    """
    status = death_signal(prepare, "for _ in range(100): make_garbage(); gc.collect()")
    assert status in ((0,) if ON_PYPY else (0, signal.SIGSEGV))  # newer versions of CPython or cffi survive it


@needs_cache_line
def test_pmem2_buffers_in_garbage(output_of: OutputOf) -> None:
    """Pitfall 42: pmem2 keeps or gives back the buffers that it borrows, in garbage too."""
    output_of("""
    warnings.simplefilter("ignore", ResourceWarning)
    source = pmem2.Source.from_path(path)

    def drop_existing():
        view = memoryview(bytearray(4096))
        garbage = [view]
        garbage.append(pmem2.Map.from_existing(source, view, CACHE_LINE))
        garbage.append(garbage)

    def drop_error():
        try:
            with pmem2.Source.from_path(path) as other:
                other.map(pmem2.Config(length=4096)).memcpy(0, memoryview(bytes(5000)))
        except ValueError as error:
            garbage = [error]
            garbage.append(garbage)

    for _ in range(30):
        drop_existing()
        drop_error()
        gc.collect()
    """)


def test_closing_an_exported_mmap(output_of: OutputOf) -> None:
    """Pitfall 44: PyPy closes an mmap that is exported, CPython refuses."""
    lines = output_of("""
    m = mmap.mmap(-1, 4096)
    view = memoryview(m)
    try:
        m.close()
        print("closed", flush=True)
    except BufferError:
        print("exported", flush=True)
    os._exit(0)
    """)
    assert lines == ["closed" if ON_PYPY else "exported"]


def test_exports_are_counted(source: pmem2.Source) -> None:
    """Pitfall 44: pmem2 itself counts exports, so that a map behaves alike on every interpreter."""
    map = source.map()
    numbers = (ctypes.c_uint8 * 16).from_buffer(map.view())
    with pytest.raises(BufferError):
        map.close()
    numbers[3] = 7
    assert map[3] == 7
    del numbers
    map.close()
