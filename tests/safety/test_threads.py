# SPDX-License-Identifier: BSD-3-Clause
"""Threads that close, map, copy and collect garbage at the same time."""

from __future__ import annotations

import os
import re
import sys
import textwrap
import threading
import time
from array import array
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Callable

import pytest
from support.values import ON_PYPY, needs_cache_line, rounds, weekly_on_pypy

import pmem2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.children import RunChild

pytestmark = pytest.mark.xdist_group("threads")

PAGE = 4096
CPYTHON = sys.implementation.name == "cpython"
ROUNDS = rounds(40)
SLOW_GC = 10 if ON_PYPY else 1  # a place that is taken, or a close that views refuse, makes pmem2 collect garbage
Act = Callable[[], object]

CHILD = """
import gc, itertools, mmap, os, signal, sys, threading, time, warnings
import pmem2
signal.alarm(1500)  # emulation is slow; elsewhere children.TIMEOUT comes first
warnings.simplefilter("ignore", ResourceWarning)
path = sys.argv[1]
"""


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Switch between threads as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_at_once(*acts: Act) -> Counter[str]:
    """Run each act in its own thread, all at once; count the exceptions that ended them."""
    barrier = threading.Barrier(len(acts))
    errors: list[str] = []

    def run(act: Act) -> None:
        barrier.wait()
        try:
            act()
        except Exception as error:
            closed = isinstance(error, ValueError) and "closed" in str(error)
            errors.append("closed" if closed else f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(errors)


def descriptors_of(file: Path) -> list[str]:
    """Return this process's descriptors of one file: the garbage of earlier tests may close others."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            if os.path.samefile(f"/proc/self/fd/{name}", file):
                found.append(name)
    return found


def until_error(act: Act) -> Act:
    """Return an act that repeats *act* until it raises."""

    def run() -> None:
        while True:
            act()

    return run


def close_during(map: pmem2.Map, *acts: Callable[[pmem2.Map], object]) -> Counter[str]:
    """Repeat each act in its own thread while another one closes the map; count the exceptions that ended them."""
    stop = threading.Event()
    refusals: list[str] = []

    def until_closed(act: Callable[[pmem2.Map], object]) -> Act:
        def run() -> None:
            while not stop.is_set():
                act(map)

        return run

    def close() -> None:
        for _ in range(10):
            try:
                return map.close()
            except BufferError as error:
                refusals.append(str(error))
        return stop.set()  # the others are inside nearly all the time

    errors = run_at_once(*[until_closed(act) for act in acts], close)
    map.close()
    assert map.closed
    assert all(re.search(r"another thread|views", text) for text in refusals)
    return errors


OPERATIONS: dict[str, Callable[[pmem2.Map], object]] = {
    "persist": lambda m: m.persist(0, 8),
    "flush": lambda m: m.flush(0, 8),
    "drain": lambda m: m.drain(),
    "deep_flush": lambda m: m.deep_flush(0, 8),
    "persist_many": lambda m: m.persist_many([(0, 8), (64, 8)]),
    "memcpy": lambda m: m.memcpy(0, b"12345678"),
    "memcpy of itself": lambda m: m.memcpy(0, m),
    "memcpy_many": lambda m: m.memcpy_many([(0, b"1"), (8, b"22")]),
    "memset": lambda m: m.memset(0, 1, PAGE),
    "index": lambda m: m[5],
    "assign": lambda m: m.__setitem__(5, 1),
    "slice": lambda m: m[0:PAGE],
    "stepped slice": lambda m: m[0:PAGE:3],
    "assign slice": lambda m: m.__setitem__(slice(0, 4), b"abcd"),
    "assign stepped slice": lambda m: m.__setitem__(slice(0, 8, 2), b"abcd"),
    "view": lambda m: bytes(m.view(0, 8)),
    "load_u64": lambda m: m.load_u64(0),
    "store_u64": lambda m: m.store_u64(0, 1, persist=True),
    "compare_exchange_u64": lambda m: m.compare_exchange_u64(0, 1, 1),
    "fetch_add_u64": lambda m: m.fetch_add_u64(0, 1),
    "address": lambda m: m.address,
    "repr": lambda m: repr(m) + str(m.size),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_closing_a_used_map(source: pmem2.Source, name: str) -> None:
    """While threads use a map, close succeeds or raises BufferError, and they get at most ValueError."""
    act = OPERATIONS[name]
    for _ in range(ROUNDS // (20 if ON_PYPY else 8)):  # PyPy hands its lock over slowly
        map = source.map(pmem2.Config(length=PAGE))
        errors = close_during(map, act, act)
        assert set(errors) <= {"closed"}


@needs_cache_line
def test_closing_cache_line_map(source: pmem2.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing is as safe on CACHE_LINE, where libpmem2 itself would flush unmapped memory."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE")
    for _ in range(ROUNDS):
        map = source.map()
        errors = close_during(
            map,
            lambda m: m.persist(0, 65536),
            lambda m: m.memset(0, 1, 65536),
            lambda m: m.flush_many([(0, 64), (65536, 64)]),
        )
        assert set(errors) <= {"closed"}


def test_many_threads_close(source: pmem2.Source) -> None:
    """Threads that close one map at once get no error."""
    for _ in range(ROUNDS):
        map = source.map(pmem2.Config(length=PAGE))
        assert run_at_once(*[map.close] * 6) == Counter()
        assert map.closed


def test_closing_used_existing_memory(source: pmem2.Source) -> None:
    """Closing a map of existing memory in use is as safe, and releases the memory."""
    memory = bytearray(PAGE)
    for _ in range(ROUNDS):
        map = pmem2.Map.from_existing(source, memory, pmem2.Granularity.BYTE)
        errors = close_during(map, lambda m: m.memset(0, 1, PAGE), lambda m: m.persist(0, 8))
        assert set(errors) <= {"closed"}
    memory.append(0)


def test_views_of_other_threads(source: pmem2.Source) -> None:
    """A map closes after another thread than the one that made its view has dropped it."""
    with ThreadPoolExecutor(1) as thread:
        for _ in range(ROUNDS // SLOW_GC):
            map = source.map(pmem2.Config(length=PAGE))
            views = thread.submit(lambda map: [map.view(), memoryview(map.view())[8:]], map).result()
            views.clear()
            map.close()


INITIALIZE_AT_ONCE = """
source = pmem2.Source.from_path(path)
reader = pmem2.Source.from_path(path, writable=False)
other = source.map()
sys.setswitchinterval(1e-6)

def run(act):
    for _ in range(20):
        try:
            act()
        except (AttributeError, TypeError, ValueError):  # not initialised yet, already initialised, or read-only
            pass

def store():
    with map.view(0, 8) as view:
        if not view.readonly:
            view[0] = 1

acts = [
    lambda: map.__init__(source), lambda: map.__init__(reader), lambda: map.__init__(source, pmem2.Config(length=4096)),
    store, lambda: map[-8:], lambda: other.memcpy(0, map), lambda: other.memcpy_many([(0, map)]),
]
deadline = time.monotonic() + int(sys.argv[2])
while time.monotonic() < deadline:
    map = pmem2.Map.__new__(pmem2.Map)
    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    map.close()
"""


def test_initializing_a_used_map(run_child: RunChild, path: Path) -> None:
    """Threads that initialise and use one Map at once get one complete map."""
    child = run_child(CHILD + INITIALIZE_AT_ONCE, str(path), str(rounds(1)))
    assert (child.returncode, child.stderr) == (0, "")


def test_closing_a_used_source(file: Path) -> None:
    """A Source closes at once: a running read finishes, and later calls raise ValueError."""
    file.write_bytes(b"x" * 65536)
    for _ in range(ROUNDS):
        source = pmem2.Source.from_path(file)

        def read(source: pmem2.Source = source) -> None:
            assert source.pread_mcsafe(65536) == b"x" * 65536

        def write(source: pmem2.Source = source) -> None:
            source.pwrite_mcsafe(b"x" * 100, 50)

        def use(source: pmem2.Source = source) -> None:
            assert source.size == 65536
            source.map().close()
            with source.bad_blocks() as context:
                assert list(context) == []

        errors = run_at_once(until_error(read), until_error(write), until_error(use), source.close)
        assert errors == Counter(closed=3)
    assert descriptors_of(file) == []


def test_reading_a_resized_file(run_child: RunChild, file: Path) -> None:
    """pread_mcsafe returns all bytes or raises while other threads resize the file."""
    code = """
    path, rounds, size, done = sys.argv[1], int(sys.argv[2]), 1 << 16, threading.Event()
    def resize():
        with open(path, "r+b") as file:
            while not done.is_set():
                os.ftruncate(file.fileno(), 0)
                os.ftruncate(file.fileno(), size)
    threads = [threading.Thread(target=resize) for _ in range(2)]
    for thread in threads: thread.start()
    read = refused = 0
    with pmem2.Source.from_path(path) as source:
        for _ in range(rounds):
            try:
                assert len(source.pread_mcsafe(size)) == size
                read += 1
            except pmem2.LengthOutOfRangeError:
                refused += 1
    done.set()
    for thread in threads: thread.join()
    assert read + refused == rounds
    """
    child = run_child(CHILD + textwrap.dedent(code), str(file), str(rounds(1000)))
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")


@weekly_on_pypy
def test_closing_a_used_reservation(file: Path) -> None:
    """Threads that map, find and close in a closing reservation get its errors and never crash."""
    with pmem2.Source.from_path(file) as source:
        for _ in range(ROUNDS // 4 // SLOW_GC):
            reservation = pmem2.VMReservation(64 * PAGE)

            def work(slot: int, reservation: pmem2.VMReservation = reservation) -> Act:
                def run() -> None:
                    config = pmem2.Config(reservation=reservation, reservation_offset=slot * PAGE, length=PAGE)
                    while True:
                        with source.map(config) as map:
                            assert reservation.find(slot * PAGE, 1) is map

                return run

            def search(reservation: pmem2.VMReservation = reservation) -> None:
                while not reservation.closed:
                    for act in (reservation.first, reservation.last, lambda: reservation.find(0, 64 * PAGE)):
                        try:
                            map = act()
                            reservation.next(map)
                            reservation.prev(map)
                        except pmem2.MappingNotFoundError:
                            pass
                        except ValueError as error:
                            if "closed" not in str(error):
                                raise

            def close(reservation: pmem2.VMReservation = reservation) -> None:
                while not reservation.closed:
                    with suppress(pmem2.VmReservationNotEmptyError):
                        reservation.close()

            errors = run_at_once(work(0), work(5), search, close)
            assert errors == Counter(closed=2)
            assert reservation.closed


def test_iterating_during_mapping(source: pmem2.Source) -> None:
    """Iteration returns the maps of one moment while other threads map and close."""
    with pmem2.VMReservation(64 * PAGE) as reservation:
        working = [True] * 3

        def work(me: int) -> Act:
            def run() -> None:
                try:
                    for n in range(rounds(200)):
                        offset = (16 * me + n % 16) * PAGE
                        config = pmem2.Config(reservation=reservation, reservation_offset=offset, length=PAGE)
                        source.map(config).close()
                finally:
                    working[me] = False

            return run

        def iterate() -> None:
            while any(working):
                assert all(isinstance(map, pmem2.Map) for map in reservation)

        assert run_at_once(work(0), work(1), work(2), iterate) == Counter()


def test_one_thread_gets_a_slot(source: pmem2.Source) -> None:
    """One of several threads that map the same place of a reservation gets it."""
    with pmem2.VMReservation(PAGE) as reservation:
        config = pmem2.Config(reservation=reservation, length=PAGE)
        for _ in range(ROUNDS // 4 // SLOW_GC):
            maps: list[pmem2.Map] = []

            def take(maps: list[pmem2.Map] = maps) -> None:
                maps.append(source.map(config))

            errors = run_at_once(*[take] * 4)
            assert [text.split(":")[0] for text in errors.elements()] == ["MappingExistsError"] * 3
            assert list(reservation) == maps
            maps.pop().close()


def test_threads_map_side_by_side(source: pmem2.Source) -> None:
    """Threads that map different places of one reservation do not interfere, as in PMDK's test."""
    with pmem2.VMReservation(16 * PAGE) as reservation:

        def work(slot: int) -> Act:
            def run() -> None:
                offset = slot * PAGE
                config = pmem2.Config(offset=offset, length=PAGE, reservation=reservation, reservation_offset=offset)
                for n in range(100):
                    with source.map(config) as map:
                        map.store_u64(0, n, persist=True)
                        assert map.address == reservation.address + offset

            return run

        assert run_at_once(*[work(slot) for slot in range(16)]) == Counter()
    assert [source.pread_mcsafe(1, slot * PAGE) for slot in range(16)] == [bytes([99])] * 16


def test_closing_used_bad_blocks(source: pmem2.Source) -> None:
    """Iteration over bad blocks ends or raises ValueError when another thread closes the context."""
    for _ in range(ROUNDS):
        context = source.bad_blocks()

        def iterate(context: pmem2.BadBlockContext = context) -> None:
            while True:
                assert list(context) == []

        def clear(context: pmem2.BadBlockContext = context) -> None:
            while not context.closed:
                with pytest.raises(ValueError, match=r"closed|must come from this context"):
                    context.clear(pmem2.BadBlock(0, PAGE))

        assert run_at_once(iterate, iterate, clear, context.close) == Counter(closed=2)


def test_atomics_lose_nothing(source: pmem2.Source, granularity: pmem2.Granularity) -> None:
    """Additions of many threads sum up exactly, and one of several equal exchanges succeeds."""
    with source.map() as map:
        assert map.granularity is granularity
        won: list[int] = []
        additions = rounds(1000)

        def add() -> None:
            for _ in range(additions):
                map.fetch_add_u64(0, 3)
                map.fetch_add_u64(8, -1)

        def take(me: int) -> Act:
            def run() -> None:
                for n in range(200):
                    if map.compare_exchange_u64(16, n, n + 1)[0]:
                        won.append(n)
                    while map.load_u64(16) <= n:
                        pass

            return run

        assert run_at_once(*[add] * 4, take(1), take(2)) == Counter()
        assert map.load_u64(0) == 4 * additions * 3
        assert map.load_u64(8) == 2**64 - 4 * additions
        assert sorted(won) == list(range(200))


def test_errors_stay_in_threads(source: pmem2.Source) -> None:
    """Each of many failing threads gets the text of its own failure."""
    with pmem2.VMReservation(8 * PAGE) as reservation:
        map = source.map(pmem2.Config(reservation=reservation, length=8 * PAGE))

        def fail(n: int) -> Act:
            def run() -> None:
                config = pmem2.Config(reservation=reservation, reservation_offset=n * PAGE, length=PAGE)
                for _ in range(max(rounds(4) // SLOW_GC, 1)):
                    with pytest.raises(pmem2.MappingExistsError, match=f"offset {n * PAGE} and length"):
                        source.map(config)

            return run

        assert run_at_once(*[fail(n) for n in range(8)]) == Counter()
        map.close()


COLLECTING = """
source = pmem2.Source.from_path(path)
reservation = pmem2.VMReservation(4096 << 12)
slots = itertools.count()

class Finalizer:
    "Garbage that closes and uses maps and reservations while other code uses them."
    def __init__(self):
        self.me = self
        self.slot = next(slots)
        self.map = source.map(pmem2.Config(reservation=reservation, reservation_offset=self.slot << 12, length=4096))
        self.other = pmem2.VMReservation(1 << 20)
        self.dropped = source.map(pmem2.Config(length=4096))
        self.context = source.bad_blocks()
    def __del__(self):
        self.map.close()
        reservation.address
        self.other.extend(4096)
        self.other.close()
        source.map(pmem2.Config(length=4096)).close()
        source.pread_mcsafe(8)
        try:
            reservation.find(self.slot << 12, 4096)
        except pmem2.MappingNotFoundError:
            pass
        finalized.append(self.slot)

finalized = []
def work():
    for n in range(60):
        Finalizer()
        slot = next(slots)
        config = pmem2.Config(reservation=reservation, reservation_offset=slot << 12, length=4096)
        map = source.map(config)
        reservation.find(slot << 12, 1)
        map.close()
        if n % 4 == 3:
            gc.collect()

if hasattr(gc, "set_threshold"):
    gc.set_threshold(5)
threads = [threading.Thread(target=work) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for _ in range(5): gc.collect()
print(len(finalized))
"""


def test_finalizers_do_not_deadlock(run_child: RunChild, file: Path) -> None:
    """Finalizers that close and drop maps and reservations do not deadlock, wherever the collector runs them."""
    child = run_child(CHILD + COLLECTING, str(file))
    assert (child.returncode, child.stdout, child.stderr) == (0, "240\n", "")


@pytest.mark.skipif(not CPYTHON, reason="PyPy's collector has no thresholds")
def test_collecting_at_every_allocation(run_child: RunChild, file: Path) -> None:
    """The collector may free views at any allocation while the same thread opens and closes their map."""
    code = """
gc.set_threshold(1)
with pmem2.Source.from_path(path) as source:
    map = source.map()
    for n in range(int(sys.argv[2])):
        cycle = [map.view(0, 8), map[0:64:2], map[::4096]]
        cycle.append(cycle)
        map[0:8:2] = b"abcd"
        map.memcpy_many([(0, map.view(8, 8)), (64, b"x")])
        if n % 50 == 0:
            del cycle
            map.close()
            map = source.map()
    del cycle
    map.close()
print("done")
"""
    child = run_child(CHILD + code, str(file), str(rounds(200)))
    assert (child.returncode, child.stdout, child.stderr) == (0, "done\n", "")


def test_iterators_that_close_map(source: pmem2.Source) -> None:
    """An iterator of pieces or ranges that closes their map gets ValueError, and nothing is stored."""
    map = source.map()

    def pieces() -> Iterator[tuple[int, bytes]]:
        yield 0, b"data"
        map.close()
        yield 8, b"data"

    with pytest.raises(ValueError, match="closed"):
        map.memcpy_many(pieces())
    for name in ("persist_many", "flush_many"):
        map = source.map()

        def ranges(map: pmem2.Map = map) -> Iterator[tuple[int, int]]:
            yield 0, 8
            map.close()
            yield 8, 8

        with pytest.raises(ValueError, match="closed"):
            (map.persist_many if name == "persist_many" else map.flush_many)(ranges())
    assert source.pread_mcsafe(4) == bytes(4)


def test_list_of_ranges_changes(source: pmem2.Source) -> None:
    """A list of ranges may grow and shrink in another thread while pmem2 reads it."""
    map = source.map()
    ranges = [(0, 8)] * 100
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            ranges.extend([(64, 8)] * 5000)
            del ranges[:]
            time.sleep(1e-6)  # a compiled loop on PyPy may keep the interpreter's lock for seconds

    def persist() -> None:
        try:
            for _ in range(ROUNDS * 5):
                map.persist_many(ranges)
        finally:
            done.set()

    with map:
        assert run_at_once(change, persist) == Counter()


def test_piece_closed_before_copy(source: pmem2.Source) -> None:
    """An iterator that closes a Map after yielding it as data gets BufferError or ValueError."""
    with source.map() as target, source.map() as data:

        def pieces() -> Iterator[tuple[int, pmem2.Map]]:
            yield 0, data
            data.close()

        with pytest.raises((BufferError, ValueError)):
            target.memcpy_many(pieces())


def test_borrowed_memory_is_closed(run_child: RunChild, file: Path) -> None:
    """An iterator that closes or shrinks a yielded buffer cannot make memcpy_many read freed memory."""
    code = """
m = pmem2.open(path)
def closing():
    borrowed = mmap.mmap(-1, 1 << 16)
    yield 0, borrowed
    try:
        borrowed.close()
    except BufferError:
        pass
def shrinking():
    borrowed = bytearray(1 << 24)
    yield 0, borrowed
    try:
        borrowed.clear()
    except BufferError:
        pass
for pieces in (closing, shrinking):
    try:
        m.memcpy_many(pieces())
    except ValueError:
        pass
print("done")
"""
    child = run_child(CHILD + code, str(file))
    assert (child.returncode, child.stdout, child.stderr) == (0, "done\n", "")


TEMPORARY = """
with pmem2.Source.from_path(path) as source:
    config = pmem2.Config(length=4096)
    def work():
        for n in range(int(sys.argv[2])):
            source.map(config).persist()
            pmem2.Source.from_path(path).map(config).memset(0, 1, 4096)
            source.map(config)[0:8]
            bytes(source.map(config).view(0, 8))
            pmem2.Source.from_anon(4096).map().view()[0]
            pmem2.VMReservation(4096).size
            next(source.bad_blocks(), None)
            if n % 10 == 0:
                gc.collect()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print("done")
"""


def test_temporary_objects_live(run_child: RunChild, file: Path) -> None:
    """An object that only the running call refers to is not collected during the call."""
    child = run_child(CHILD + TEMPORARY, str(file), str(rounds(100)))
    assert (child.returncode, child.stdout, child.stderr) == (0, "done\n", "")


def test_buffer_of_ranges_changes(path: Path, granularity: pmem2.Granularity) -> None:
    """Each range is checked before it is flushed, although another thread changes the buffer."""
    ranges = array("Q", [0, 8] * 5000)
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for value in (2**63, 0):
                ranges[9998] = value

    with pmem2.open(path) as m:
        assert m.granularity is granularity
        other = threading.Thread(target=change)
        other.start()
        try:
            for _ in range(rounds(100)):
                with suppress(ValueError):
                    m.flush_many(ranges)
        finally:
            done.set()
            other.join()
        ranges[9998] = 2**63
        with pytest.raises(ValueError, match="ends beyond"):
            m.flush_many(ranges)
