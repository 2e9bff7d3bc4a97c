# SPDX-License-Identifier: BSD-3-Clause
"""os.fork with live maps, and while other threads are inside operations."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Callable

import pytest
from support.values import forks_while_opening, rounds

import pmem2

if TYPE_CHECKING:
    from pathlib import Path

    from support.children import RunChild

pytestmark = pytest.mark.xdist_group("fork")

PAGE = 4096

PRELUDE = """
import faulthandler, os, signal, sys, threading, time, traceback, warnings
import pmem2
faulthandler.register(signal.SIGALRM, chain=True)  # a child that hangs prints where
signal.alarm(1500)  # emulation is slow; elsewhere children.TIMEOUT comes first
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of each fork with threads
warnings.simplefilter("ignore", ResourceWarning)
path = sys.argv[1]
forks = int(sys.argv[2])

def run_forked(act):
    "Run act in a forked child; return its wait status."
    pid = os.fork()
    if pid == 0:
        faulthandler.dump_traceback_later(60, exit=True)
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def fork_during(acts, child):
    "Fork repeatedly while threads repeat the acts; return the wait statuses. A slow machine forks less often."
    stop = threading.Event()
    def repeat(act):
        while not stop.is_set():
            act()
    threads = [threading.Thread(target=repeat, args=(act,)) for act in acts]
    for thread in threads: thread.start()
    statuses = set()
    deadline = time.monotonic() + 45
    for _ in range(forks):
        statuses.add(run_forked(child))
        if time.monotonic() > deadline: break
    stop.set()
    for thread in threads: thread.join()
    return statuses
"""


def in_child(act: Callable[[], None]) -> int:
    """Run a function in a forked child for at most a minute; return its wait status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(60)
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


@pytest.mark.medium
def test_map_after_fork(source: pmem2.Source, granularity: pmem2.Granularity) -> None:
    """A live map works in parent and child on the same memory, and each closes its own."""
    map = source.map()
    assert map.granularity is granularity
    map.memcpy(0, b"parent")

    def child() -> None:
        assert map[0:6] == b"parent"
        map.memcpy(6, b"+child")
        map.store_u64(16, 1, persist=True)
        map.close()
        assert map.closed

    assert in_child(child) == 0
    assert map[0:12] == b"parent+child"
    assert map.fetch_add_u64(16, 1) == 1
    map.persist()
    map.close()


@pytest.mark.medium
def test_private_map_after_fork(source: pmem2.Source) -> None:
    """A child's stores to a PRIVATE map do not reach the parent."""
    with source.map(pmem2.Config(sharing=pmem2.Sharing.PRIVATE)) as map:

        def child() -> None:
            map[0] = 1
            assert map[0] == 1

        assert in_child(child) == 0
        assert map[0] == 0


def test_anonymous_map_after_fork() -> None:
    """Parent and child share an anonymous SHARED map, and their atomic additions sum up."""
    with pmem2.Source.from_anon(PAGE) as source, source.map() as map:

        def child() -> None:
            for _ in range(1000):
                map.fetch_add_u64(0, 1)

        children = [in_child(child) for _ in range(3)]
        assert children == [0, 0, 0]
        assert map.load_u64(0) == 3000


def test_parent_closes_first(source: pmem2.Source) -> None:
    """A map works in the child after the parent has closed it."""
    map = source.map()
    begin, go = os.pipe()

    def child() -> None:
        os.close(go)
        assert os.read(begin, 1) == b""  # until the parent has closed
        map.memcpy(0, b"alone")
        map.close()

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    map.close()
    os.close(go)
    os.close(begin)
    assert os.waitpid(pid, 0)[1] == 0
    assert source.pread_mcsafe(5) == b"alone"


def test_views_after_fork(source: pmem2.Source) -> None:
    """A view that is alive at the fork keeps the map open in parent and child."""
    map = source.map()
    view = map.view(0, 8)

    def child() -> None:
        with pytest.raises(BufferError):
            map.close()
        view[0] = 7
        view.release()
        map.close()

    assert in_child(child) == 0
    with pytest.raises(BufferError):
        map.close()
    assert view[0] == 7
    view.release()
    map.close()


def test_all_objects_after_fork(source: pmem2.Source) -> None:
    """Sources, reservations and bad-block contexts from before the fork work and close in the child."""
    reservation = pmem2.VMReservation(16 * PAGE)
    map = source.map(pmem2.Config(reservation=reservation, length=PAGE))
    context = source.bad_blocks()

    def child() -> None:
        assert reservation.first() is map
        other = source.map(pmem2.Config(reservation=reservation, reservation_offset=PAGE, length=PAGE))
        assert list(reservation) == [map, other]
        assert reservation.next(map) is other
        source.pwrite_mcsafe(b"child")
        assert list(context) == []
        for handle in (context, other, map, reservation, source):
            handle.close()

    assert in_child(child) == 0
    assert reservation.first() is map
    assert list(reservation) == [map]
    assert map[0:5] == b"child"
    for handle in (context, map, reservation):
        handle.close()


def test_nested_forks(source: pmem2.Source) -> None:
    """A map works and closes in every one of six nested children."""
    map = source.map()

    def generation(depth: int) -> Callable[[], None]:
        def act() -> None:
            map.fetch_add_u64(0, 1, persist=True)
            if depth:
                assert in_child(generation(depth - 1)) == 0
            map.close()

        return act

    assert in_child(generation(5)) == 0
    assert map.load_u64(0) == 6
    map.close()


ACTS = {
    "persist": "lambda: map.persist()",
    "memset": "lambda: map.memset(0, 1, 65536)",
    "memcpy": "lambda: map.memcpy(0, map)",
    # sleeps because a compiled loop on PyPy may keep the interpreter's lock for seconds
    "index": "lambda: (map[0], map[0:65536], map[0:65536:3], time.sleep(1e-6))",
    "map and close": "lambda: source.map().close()",
    "reservations": "lambda: reserve()",
    "maps in a reservation": "lambda: map_in_reservation()",
    "mcsafe": "lambda: source.pread_mcsafe(65536)",
    "bad blocks": "lambda: source.bad_blocks().close()",
}
OPENING = ("map and close", "maps in a reservation", "bad blocks")  # these open files

SETUP = """
import itertools
source = pmem2.Source.from_path(path)
map = source.map()
reservation = pmem2.VMReservation(1 << 20)
probe = pmem2.VMReservation(1 << 20)
slot = threading.local()
slots = itertools.count()

def map_in_reservation():
    if not hasattr(slot, "offset"):
        slot.offset = next(slots) * 4096
    with source.map(pmem2.Config(reservation=reservation, reservation_offset=slot.offset, length=4096)) as mine:
        assert reservation.find(slot.offset, 1) is mine

def reserve():
    if not hasattr(slot, "address"):
        slot.address = probe.address + (next(slots) + 1 << 32)
    pmem2.VMReservation(1 << 20, slot.address).close()

def child():
    map.persist(0, 8)
    map.memcpy(1 << 20, b"child")
    map.close()
    assert map.closed
    with source.map(pmem2.Config(length=4096)) as other:
        other.persist()
    with pmem2.VMReservation(1 << 20) as fresh:
        source.map(pmem2.Config(reservation=fresh, length=4096)).close()
    offset = 255 << 12
    with source.map(pmem2.Config(reservation=reservation, reservation_offset=offset, length=4096)) as other:
        assert reservation.find(offset, 1) is other
    assert source.pread_mcsafe(5, 1 << 20) == b"child"
    source.bad_blocks().close()
    source.close()
"""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[forks_while_opening] if name in OPENING else []) for name in ACTS]
)
def test_fork_during_operations(run_child: RunChild, file: Path, name: str) -> None:
    """A child that is forked while four threads are inside operations uses pmem2 and does not hang."""
    code = PRELUDE + SETUP + f"print(fork_during([{ACTS[name]}] * 4, child))"
    child = run_child(code, str(file), str(rounds(6)))
    assert (child.returncode, child.stdout, child.stderr) == (0, "{0}\n", "")


@forks_while_opening
def test_fork_during_mixed_operations(run_child: RunChild, file: Path) -> None:
    """A child does not hang after a fork during a mixture of operations."""
    acts = ", ".join(ACTS[name] for name in ("persist", "map and close", "maps in a reservation", "index"))
    code = PRELUDE + SETUP + f"print(fork_during([{acts}], child))"
    child = run_child(code, str(file), str(rounds(6)))
    assert (child.returncode, child.stdout, child.stderr) == (0, "{0}\n", "")


VIEWING = """
import gc
def views():
    map.view(0, 65536)
    if sys.implementation.name == "pypy":
        time.sleep(1e-6)  # PyPy hands its lock over slowly

def close_viewed():
    try:
        map.close()
    except BufferError:  # another thread had a view, and no thread of the child can release it
        assert any(type(view) is memoryview for view in gc.get_objects())
        map.persist()
"""


def test_fork_during_views(run_child: RunChild, file: Path) -> None:
    """A child that is forked while other threads make views closes the map, unless one of them was complete."""
    code = PRELUDE + SETUP + VIEWING + "print(fork_during([views], close_viewed))"
    child = run_child(code, str(file), str(rounds(6)))
    assert (child.returncode, child.stdout, child.stderr) == (0, "{0}\n", "")


FORK_IN_ARGUMENT = """
a, b = pmem2.open(path), pmem2.open(path)
pids = []
def fork():
    pids.append(os.fork())
    if pids[0] == 0:
        try:
            b.close()
        except BufferError:
            pass

def pieces():
    yield 0, b
    fork()

class Offset:
    def __index__(self):
        fork()
        return 8

class Data:
    def __buffer__(self, flags):
        fork()
        return memoryview(b"12345678")

try:
    a.memcpy_many({argument})
except ValueError:
    pass
if pids[0] == 0:
    os._exit(0)
print(os.waitpid(pids[0], 0)[1])
"""


ARGUMENTS = {"iterator": "pieces()", "index": "[(0, b), (Offset(), b)]", "buffer": "[(0, b), (8, Data())]"}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_fork_inside_an_operation(run_child: RunChild, file: Path, kind: str) -> None:
    """A child that an argument forks inside an operation cannot unmap what the operation uses."""
    if kind == "buffer" and sys.version_info < (3, 12):
        pytest.skip("needs classes with __buffer__")
    child = run_child(PRELUDE + FORK_IN_ARGUMENT.format(argument=ARGUMENTS[kind]), str(file), "1")
    assert (child.returncode, child.stdout, child.stderr) == (0, "0\n", "")


FORK_IN_FINALIZER = """
import gc
source = pmem2.Source.from_path(path)
map = source.map()
ends = []

class Forks:
    def __del__(self):
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(60, exit=True)
            try:
                map.close()
            except BufferError:
                pass
            os._exit(0)
        ends.append(os.waitpid(pid, 0)[1])

for _ in range(forks):
    garbage = Forks()
    garbage.me = garbage
    view = map.view(0, 8)
    del garbage, view
    gc.collect()
print(len(ends) > 0, set(ends))
"""


def test_fork_in_a_finalizer(run_child: RunChild, file: Path) -> None:
    """A finalizer may fork, and its child may close the parent's map."""
    child = run_child(PRELUDE + FORK_IN_FINALIZER, str(file), "5")
    assert (child.returncode, child.stdout, child.stderr) == (0, "True {0}\n", "")


def test_started_program_leaves_maps(source: pmem2.Source, run_child: RunChild) -> None:
    """A program that starts while a map is open ends well, and the map works on."""
    with source.map() as map:
        assert run_child("print('ran')").stdout == "ran\n"
        map.persist()


def count_up(path: str, times: int) -> None:
    """Add to a counter in a file; runs in its own process."""
    with pmem2.open(path) as map:
        for _ in range(times):
            map.fetch_add_u64(0, 1, persist=True)


def test_spawned_processes_share_file(tmp_path: Path) -> None:
    """Spawned processes map the same file by its path, and their atomic additions sum up."""
    path = tmp_path / "counter"
    pmem2.open(path, "w+", size=PAGE).close()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count_up, args=(str(path), 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    with pmem2.open(path, "r") as map:
        assert map.load_u64(0) == 600


def test_map_cannot_be_sent(map: pmem2.Map) -> None:
    """Sending a Map to another process raises TypeError with advice."""
    process = multiprocessing.get_context("spawn").Process(target=count_up, args=(map, 1))
    with pytest.raises(TypeError, match="open it there"):
        process.start()
