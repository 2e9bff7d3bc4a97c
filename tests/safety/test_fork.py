# SPDX-License-Identifier: BSD-3-Clause
"""os.fork with live maps, and while other threads are inside operations."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from typing import TYPE_CHECKING, Callable

import pytest

import pmem2

if TYPE_CHECKING:
    from pathlib import Path

    from support.children import RunChild

PAGE = 4096

PRELUDE = '''
import faulthandler, os, signal, sys, threading, time, traceback, warnings
import pmem2
faulthandler.register(signal.SIGALRM, chain=True)  # what hangs says where
signal.alarm(150)
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of any fork with threads
warnings.simplefilter("ignore", ResourceWarning)
path = sys.argv[1]
forks = int(sys.argv[2])

def forked(act):
    "Run act in a forked child; return how that ended."
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

def hammered(acts, child):
    """Fork again and again while each act is repeated in a thread of its own; return how the children ended.

    On a slow machine less often: a child that hangs ends itself, so time spent here tells nothing.
    """
    stop = threading.Event()
    def repeat(act):
        while not stop.is_set():
            act()
    threads = [threading.Thread(target=repeat, args=(act,)) for act in acts]
    for thread in threads: thread.start()
    ends = set()
    late = time.monotonic() + 45
    for _ in range(forks):
        ends.add(forked(child))
        if time.monotonic() > late: break
    stop.set()
    for thread in threads: thread.join()
    return ends
'''


def in_child(act: Callable[[], None]) -> int:
    """Run a function in a forked child that has a minute; return how that ended."""
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
def test_map_works_on_both_sides_of_a_fork(source: pmem2.Source, granularity: pmem2.Granularity) -> None:
    """A live map works in parent and child, on the same memory, and each closes its own."""
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
def test_private_map_is_the_childs_own(source: pmem2.Source) -> None:
    """A PRIVATE map is copied: what the child writes the parent does not see."""
    with source.map(pmem2.Config(sharing=pmem2.Sharing.PRIVATE)) as map:

        def child() -> None:
            map[0] = 1
            assert map[0] == 1

        assert in_child(child) == 0
        assert map[0] == 0


def test_anonymous_memory_is_shared_with_a_child() -> None:
    """An anonymous SHARED map is common to parent and child, and their atomics add up."""
    with pmem2.Source.from_anon(PAGE) as source, source.map() as map:

        def child() -> None:
            for _ in range(1000):
                map.fetch_add_u64(0, 1)

        children = [in_child(child) for _ in range(3)]
        assert children == [0, 0, 0]
        assert map.load_u64(0) == 3000


def test_closing_in_the_parent_leaves_the_child_its_map(source: pmem2.Source) -> None:
    """A map that the parent has closed goes on working in the child."""
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


def test_views_block_closing_in_the_child_too(source: pmem2.Source) -> None:
    """A view that is alive when the process forks keeps the map open on both sides."""
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


def test_everything_works_in_the_child(source: pmem2.Source) -> None:
    """Sources, reservations and bad blocks from before the fork work in the child and close there."""
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


def test_generations_of_children(source: pmem2.Source) -> None:
    """A map works and closes in the child of a child of a child."""
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


HAMMERS = {
    "persist": "lambda: map.persist()",
    "memset": "lambda: map.memset(0, 1, 65536)",
    "memcpy": "lambda: map.memcpy(0, map)",
    # without the sleep PyPy's lock would stay with one thread for seconds: a loop that is compiled rarely gives way
    "index": "lambda: (map[0], map[0:65536], map[0:65536:3], time.sleep(1e-6))",
    "map and close": "lambda: source.map().close()",
    "reservations": "lambda: own_reservation()",
    "maps in a reservation": "lambda: reserved()",
    "mcsafe": "lambda: source.pread_mcsafe(65536)",
    "bad blocks": "lambda: source.bad_blocks().close()",
}

HAMMERED = """
import itertools
source = pmem2.Source.from_path(path)
map = source.map()
reservation = pmem2.VMReservation(1 << 20)
probe = pmem2.VMReservation(1 << 20)
slot = threading.local()
slots = itertools.count()

def reserved():
    if not hasattr(slot, "offset"):
        slot.offset = next(slots) * 4096
    with source.map(pmem2.Config(reservation=reservation, reservation_offset=slot.offset, length=4096)) as mine:
        assert reservation.find(slot.offset, 1) is mine

def own_reservation():
    if not hasattr(slot, "place"):
        slot.place = probe.address + (next(slots) + 1 << 32)
    pmem2.VMReservation(1 << 20, slot.place).close()

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


@pytest.mark.parametrize("name", HAMMERS)
def test_fork_while_threads_are_inside(run_child: RunChild, file: Path, name: str) -> None:
    """A child forked while four threads are inside operations maps, persists and closes, and does not hang."""
    code = PRELUDE + HAMMERED + f"print(hammered([{HAMMERS[name]}] * 4, child))"
    child = run_child(code, str(file), "20")
    assert (child.returncode, child.stdout, child.stderr) == (0, "{0}\n", "")


def test_fork_while_threads_do_everything(run_child: RunChild, file: Path) -> None:
    """The same with a mixture of operations."""
    acts = ", ".join(HAMMERS[name] for name in ("persist", "map and close", "maps in a reservation", "index"))
    code = PRELUDE + HAMMERED + f"print(hammered([{acts}], child))"
    child = run_child(code, str(file), "25")
    assert (child.returncode, child.stdout, child.stderr) == (0, "{0}\n", "")


VIEWING = """
def views():
    bytes(map.view(0, 65536))
    time.sleep(1e-6)  # gives way, as above

def viewing():
    try:
        map.close()
    except BufferError:  # the other thread had a view, which nobody is there to release
        map.persist()
"""


def test_fork_while_threads_have_views(run_child: RunChild, file: Path) -> None:
    """A child forked while other threads make and drop views does not hang; their views may stay."""
    code = PRELUDE + HAMMERED + VIEWING + "print(hammered([views] * 4, viewing))"
    child = run_child(code, str(file), "20")
    assert (child.returncode, child.stdout, child.stderr) == (0, "{0}\n", "")


FORK_IN_PIECES = """
a, b = pmem2.open(path), pmem2.open(path)
pids = []
def pieces():
    yield 0, b
    pids.append(os.fork())
    if pids[0] == 0:
        try:
            b.close()
        except BufferError:
            pass
try:
    a.memcpy_many(pieces())
except ValueError:
    pass
if pids[0] == 0:
    os._exit(0)
print(os.waitpid(pids[0], 0)[1])
"""


def test_fork_inside_an_operation(run_child: RunChild, file: Path) -> None:
    """The thread that forks may itself be inside an operation: the child goes on with it, and cannot pull it away."""
    child = run_child(PRELUDE + FORK_IN_PIECES, str(file), "1")
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
    """A finalizer may fork, and its child close what the parent uses."""
    child = run_child(PRELUDE + FORK_IN_FINALIZER, str(file), "5")
    assert (child.returncode, child.stdout, child.stderr) == (0, "True {0}\n", "")


def test_children_that_are_started_do_not_disturb(source: pmem2.Source, run_child: RunChild) -> None:
    """A program that is started while maps are live ends well, and the maps stay."""
    with source.map() as map:
        assert run_child("print('ran')").stdout == "ran\n"
        map.persist()


def add(path: str, times: int) -> None:
    """Count up in a file: runs in a process of its own."""
    with pmem2.open(path) as map:
        for _ in range(times):
            map.fetch_add_u64(0, 1, persist=True)


def test_spawned_processes_open_the_path_again(tmp_path: Path) -> None:
    """Processes that are given the path map the same file, and their atomics add up."""
    path = tmp_path / "counter"
    pmem2.open(path, "w+", size=PAGE).close()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add, args=(str(path), 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    with pmem2.open(path, "r") as map:
        assert map.load_u64(0) == 600


def test_a_map_is_not_sent_to_another_process(map: pmem2.Map) -> None:
    """Handing a Map itself to another process is refused with advice."""
    process = multiprocessing.get_context("spawn").Process(target=add, args=(map, 1))
    with pytest.raises(TypeError, match="open it again"):
        process.start()
