# SPDX-License-Identifier: BSD-3-Clause
"""The recording of a workload: methods, views, arrays and the address; refusals."""

from __future__ import annotations

import _thread
import gc
import sys
import threading
from array import array
from collections.abc import AsyncGenerator, Iterator
from typing import Callable

import pytest

import pmem2
from explorer.helpers import SIZE, check_published, discard, failure_of, images_of, line_of, values_of
from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import explore
from pmem2.testing._events import Drain, Flush, Store
from pmem2.testing._recorder import RecordingMap, new_recording_map


def test_every_store_is_recorded() -> None:
    """Stores through every method, with any step, and through views are recorded in order."""

    def workload(map: Map) -> None:
        map[0] = 1
        map.persist(0, 1)
        map[8:16:2] = b"\1" * 4
        map.persist_many([(8, 8)])
        map.memset(16, 1, 8)
        map.memmove(24, b"\1" * 8)
        map.compare_exchange_u64(32, 0, 1, persist=True)
        map.compare_exchange_u64(32, 0, 2, persist=True)
        map.fetch_add_u64(40, 1, persist=True)
        map.memcpy(48, b"")
        with map.view(0, SIZE) as view:
            view[48] = 1
        map.flush_many(array("Q", [48, 8]))
        map.drain()
        map.deep_flush()
        map.store_u64(56, 1)

    offsets = range(0, 64, 8)
    filled = [sum(map(bool, values)) for values in values_of(workload, *offsets)]
    assert sorted(filled) == list(range(9))


def test_map_is_copied_like_buffer() -> None:
    """Another map is accepted as the data of memcpy and memcpy_many."""
    with pmem2.Source.from_anon(8) as source, pmem2.Map(source) as other:
        other.memset(0, 1, 8)

        def workload(map: Map) -> None:
            map.memcpy(0, other)
            map.memcpy_many([(64, other)])

        assert len(images_of(workload)) == 3


def test_view_stores_by_statement() -> None:
    """Stores through a view are unordered within one statement, and ordered between two."""

    def workload(map: Map) -> None:
        view = map.view().cast("Q")
        view[0] = 1
        view[1] = 2
        view[2], view[3] = 3, 4

    expected = {(0, 0, 0, 0), (1, 0, 0, 0), (1, 2, 0, 0), (1, 2, 3, 0), (1, 2, 0, 4), (1, 2, 3, 4)}
    assert values_of(workload, 0, 8, 16, 24) == expected


def test_method_store_is_recorded_once() -> None:
    """A store by a method keeps its own units while a view is alive: bytes, not words."""

    def workload(map: Map) -> None:
        with map.view(0, 8):
            map[0:3] = b"\1\1\1"

    assert len(images_of(workload)) == 8


def test_store_in_called_function() -> None:
    """A store through a view has the location of the innermost function."""

    def inner(view: memoryview) -> None:
        view[0:8] = b"promise?"

    def workload(map: Map) -> None:
        with map.view(0, 8) as view:
            inner(view)
        map.store_u64(64, 1)

    error = failure_of(workload, check_published)
    assert error.lost == ()
    error = failure_of(workload, lambda map: map.load_u64(64) == 0 or map[0:8] == b"promise?" or pytest.fail("lost"))
    assert [(store.function, store.lineno) for store in error.lost] == [("inner", line_of(inner, "promise?"))]


def test_store_after_call_in_statement() -> None:
    """A store through a view has the location of its statement although a function was called in between."""

    def value() -> bytes:
        return b"promise?"

    def workload(map: Map) -> None:
        view = map.view(0, 8)
        view[0:8] = value()
        map.store_u64(64, 1)

    error = failure_of(workload, lambda map: map[64] == 0 or map[0] != 0 or pytest.fail("lost"))
    assert [(store.function, store.lineno) for store in error.lost] == [("workload", line_of(workload, "= value()"))]


def test_similar_package_is_external() -> None:
    """A store in a module whose name only begins with pmem2 has its location there."""
    namespace: dict[str, Callable[[Map], None]] = {}
    code = "def append(map):\n    map.store_u64(0, 1)\n"
    exec(compile(code, "structures.py", "exec"), {"__name__": "pmem2_structures"}, namespace)

    def workload(map: Map) -> None:
        namespace["append"](map)
        map.store_u64(64, 1)

    error = failure_of(workload, lambda map: map[64] == 0 or map[0] != 0 or pytest.fail("lost"))
    assert [(store.filename, store.lineno, store.function) for store in error.lost] == [("structures.py", 2, "append")]


def test_large_view_is_compared() -> None:
    """Stores anywhere in a view of several pages are recorded."""

    def workload(map: Map) -> None:
        with map.view() as view:
            view[5000] = view[12000] = 1
            map.persist(*(view.__setitem__(5001, 1), 0, 3 * SIZE)[1:])

    assert explore(workload, discard(lambda map: map[:]), size=3 * SIZE).images == 6


def test_views_are_watched_while_alive() -> None:
    """A slice of a released view, a PEP 688 buffer and the address are watched."""

    def workload(map: Map) -> None:
        part = map.view(0, 64)[0:8]
        part[0] = 1
        part.release()
        map.persist()
        assert map.address
        if sys.version_info >= (3, 12):
            memoryview(map)[8] = 1
        else:
            map[8] = 1

    assert len(images_of(workload)) == 3


def test_address_is_watched_once() -> None:
    """The address makes the recorder watch the whole memory once, whatever follows."""

    def workload(map: Map) -> None:
        for _ in range(10):
            assert map.address
            map.view()[0] = 1
        assert isinstance(map, RecordingMap)
        assert len(map._watched) == 1

    assert explore(workload, discard(lambda map: map[0]), size=SIZE).images == 2


def test_maps_report_explored_granularity() -> None:
    """The maps of the workload and of the check are Maps with the size and the granularity under test."""

    def workload(map: Map) -> None:
        assert isinstance(map, Map)
        assert map.granularity is Granularity.PAGE
        assert map.size == len(map) == 100
        assert "PAGE" in repr(map)
        map.deep_flush()

    def check(map: Map) -> None:
        assert isinstance(map, Map)
        assert map.granularity is Granularity.PAGE
        map.deep_flush(0, 1)
        with pytest.raises(ValueError, match="ends beyond"):
            map.deep_flush(0, 101)

    explore(workload, check, size=100, granularity=Granularity.PAGE)


def test_workload_exception_propagates() -> None:
    """An exception of the workload or of setup propagates unchanged."""

    def workload(map: Map) -> None:
        map[0] = 1 // 0

    for setup in (None, workload):
        with pytest.raises(ZeroDivisionError):
            explore(workload, lambda map: None, size=SIZE, setup=setup)


def test_refused_operation_is_not_recorded() -> None:
    """An operation that Map refuses raises the same error here, and records nothing."""

    def workload(map: Map) -> None:
        refused: list[Callable[[], None]] = [
            lambda: map.store_u64(1, 1),
            lambda: map.memcpy(SIZE, b"x"),
            lambda: map.persist(0, SIZE + 1),
            lambda: map.__setitem__(slice(0, 2), b"x"),
            lambda: map.memset(0, 256, 1),
            lambda: map.memcpy_many([(0, b"x"), (SIZE, b"x")]),
            lambda: map.store_u64(0, 2**64),
            lambda: map.memmove(SIZE, b"x"),
            lambda: map.flush(0, SIZE + 1),
            lambda: map.deep_flush(0, SIZE + 1),
            lambda: map.persist_many([(0, 1), (SIZE, 1)]),
            lambda: map.flush_many([(0, 1), (SIZE, 1)]),
        ]
        for call in refused:
            with pytest.raises(ValueError, match=r"."):
                call()

    assert images_of(workload) == {bytes(SIZE)}


def test_closing_map_is_refused() -> None:
    """A workload can close its map neither by close() nor by `with`."""

    def closing(map: Map) -> None:
        map.close()

    def leaving(map: Map) -> None:
        with map:
            map[0] = 1

    for workload in (closing, leaving):
        with pytest.raises(BufferError, match="must not close"):
            explore(workload, lambda map: None, size=SIZE)


def test_bypassing_recorder_is_refused() -> None:
    """Calls of methods of the class Map are refused: they would close the map, or store without a record."""

    def closing(map: Map) -> None:
        assert map.address
        Map.close(map)

    def storing(map: Map) -> None:
        Map.store_u64(map, 8, 1)

    with pytest.raises(BufferError):
        explore(closing, lambda map: None, size=SIZE)
    with pytest.raises(BufferError):
        explore(lambda map: None, lambda map: None, size=SIZE, setup=Map.close)
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        explore(storing, lambda map: None, size=SIZE)


def test_map_is_closed_at_end() -> None:
    """The map of the workload is closed when explore returns, unless a view of it is alive."""
    kept: list[Map] = []
    views: list[memoryview] = []
    # closed, not dropped: thousands of explorations must not wait for the garbage collector
    for workload in (kept.append, lambda map: views.append(map.view())):
        explore(workload, kept.append, size=SIZE)
        assert kept[0].closed
    assert views[0][0] == 0


def test_threads_are_refused() -> None:
    """A workload can neither start a thread nor use its map in a running one."""

    def starting(map: Map) -> None:
        threading.Thread(target=map.drain).start()

    with pytest.raises(RuntimeError, match="threads"):
        explore(starting, lambda map: None, size=SIZE)

    errors: list[RuntimeError] = []
    maps: list[Map] = []
    given, used = threading.Event(), threading.Event()

    def using() -> None:
        given.wait()
        try:
            maps[0].store_u64(0, 1)
        except RuntimeError as error:
            errors.append(error)
        used.set()

    thread = threading.Thread(target=using)
    thread.start()

    def workload(map: Map) -> None:
        maps.append(map)
        given.set()
        used.wait()

    with pytest.raises(RuntimeError, match="other threads"):
        explore(workload, lambda map: None, size=SIZE)
    thread.join()
    assert "other threads" in str(errors[0])


def test_check_may_start_threads() -> None:
    """A check may start threads, and a workload may not, also after it has explored something itself."""
    before = threading.Thread.start
    values: list[int] = []

    def check(map: Map) -> None:
        thread = threading.Thread(target=values.append, args=(map[0],))
        thread.start()
        thread.join()

    def workload(map: Map) -> None:
        map.store_u64(0, 1)

    def exploring(map: Map) -> None:
        explore(workload, lambda map: None, size=SIZE)
        threading.Thread(target=map.drain).start()

    explore(workload, check, size=SIZE)
    assert values == [0, 1]
    with pytest.raises(RuntimeError, match="threads"):
        explore(exploring, check, size=SIZE)
    assert threading.Thread.start is before


def test_low_level_thread_is_refused() -> None:
    """A store in a thread of the module _thread fails the workload although the error is swallowed there."""
    done = threading.Event()

    def storing(map: Map) -> None:
        try:
            with pytest.raises(RuntimeError):
                map.store_u64(0, 1)
        finally:
            done.set()

    def workload(map: Map) -> None:
        _thread.start_new_thread(storing, (map,))
        done.wait()

    with pytest.raises(RuntimeError, match="other threads"):
        explore(workload, lambda map: None, size=SIZE)


def test_swallowed_refusal_is_raised_again() -> None:
    """explore raises at the end when the workload has swallowed a refusal or stopped the tracing."""

    def swallowing(map: Map) -> None:
        with pytest.raises(RuntimeError, match="threads"):
            threading.Thread(target=map.drain).start()

    def untracing(map: Map) -> None:
        sys.settrace(None)

    def swallowing_at_the_end(map: Map) -> Iterator[int]:
        yield 1
        swallowing(map)

    def untracing_at_the_end(map: Map) -> Iterator[int]:
        yield 1
        sys.settrace(None)

    workloads: list[tuple[Callable[[Map], object], str]] = [
        (swallowing, "threads"),
        (untracing, "tracing"),
        (swallowing_at_the_end, "threads"),
        (untracing_at_the_end, "tracing"),
    ]
    for workload, text in workloads:
        with pytest.raises(RuntimeError, match=text):
            explore(workload, lambda map: None, size=SIZE)


def test_unsupported_workloads_are_refused() -> None:
    """Coroutines, asynchronous generators and iterators other than generators are refused as workloads."""

    async def coroutine(map: Map) -> None:
        """Do nothing."""

    async def generator(map: Map) -> AsyncGenerator[None, None]:
        yield

    def iterator(map: Map) -> Iterator[int]:
        return iter([1])

    for workload in (coroutine, generator, iterator):
        with pytest.raises(TypeError, match="function or a generator"):
            explore(workload, lambda map: None, size=SIZE)


def events_of(call: Callable[[Map], object], granularity: Granularity = Granularity.CACHE_LINE) -> list[object]:
    """Return the kinds of the recorded events, and the ranges of flushes; upper case if they are explicit."""
    map = new_recording_map(SIZE, granularity)
    result: list[object] = []
    call(map)
    for event in map.events:
        if isinstance(event, Store):
            result.append("unordered" if event.unordered else "store")
        elif isinstance(event, Flush):
            result += ["FLUSH" if event.explicit else "flush", *event.ranges]
        elif isinstance(event, Drain):
            result.append("DRAIN" if event.explicit else "drain")
    map.dispose()
    return result


def test_methods_record_their_events() -> None:
    """Each method records its stores, the ranges that it flushes, and a drain if it contains one, in this order."""
    assert events_of(lambda map: map.persist(8, 9)) == ["FLUSH", (8, 9), "drain"]
    assert events_of(lambda map: map.deep_flush(8, 9)) == ["FLUSH", (8, 9), "drain"]
    assert events_of(lambda map: map.flush(8, 9)) == ["FLUSH", (8, 9)]
    assert events_of(lambda map: map.persist_many([(8, 9), (64, 1)])) == ["FLUSH", (8, 9), (64, 1), "drain"]
    assert events_of(lambda map: map.persist_many([])) == ["FLUSH", "drain"]
    assert events_of(lambda map: map.flush_many([(8, 9), (64, 1)])) == ["FLUSH", (8, 9), (64, 1)]
    assert events_of(lambda map: map.drain()) == ["DRAIN"]
    assert events_of(lambda map: map.store_u64(8, 1)) == ["store"]
    assert events_of(lambda map: map.store_u64(8, 1, persist=True)) == ["store", "flush", (8, 8), "drain"]
    assert events_of(lambda map: map.fetch_add_u64(8, 1)) == ["store"]
    assert events_of(lambda map: map.fetch_add_u64(8, 1, persist=True)) == ["store", "flush", (8, 8), "drain"]
    assert events_of(lambda map: map.compare_exchange_u64(8, 0, 1)) == ["store"]
    assert events_of(lambda map: map.compare_exchange_u64(8, 1, 2)) == []
    assert events_of(lambda map: map.compare_exchange_u64(8, 1, 2, persist=True)) == ["flush", (8, 8), "drain"]
    pieces = [(0, b"x"), (9, b"yz"), (64, b"")]
    expected = ["unordered", "unordered", "flush", (0, 1), (9, 2), (64, 0), "drain"]
    assert events_of(lambda map: map.memcpy_many(pieces)) == expected


@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("hint", [MemFlag(0), MemFlag.NONTEMPORAL, MemFlag.TEMPORAL])
def test_flags_decide_recorded_events(granularity: Granularity, hint: MemFlag) -> None:
    """NOFLUSH records a store alone; NODRAIN no drain, and an unordered store where a drain is needed."""
    unordered = granularity is Granularity.CACHE_LINE or (
        granularity is Granularity.BYTE and hint == MemFlag.NONTEMPORAL
    )
    kind = "unordered" if unordered else "store"

    def copies(flags: MemFlag) -> list[Callable[[Map], None]]:
        return [
            lambda map: map.memcpy(8, b"\1" * 16, flags),
            lambda map: map.memmove(8, b"\1" * 16, flags),
            lambda map: map.memset(8, 1, 16, flags),
        ]

    for copy in copies(hint):
        assert events_of(copy, granularity) == ["store", "flush", (8, 16), "drain"]
    for copy in copies(hint | MemFlag.NODRAIN):
        assert events_of(copy, granularity) == [kind, "flush", (8, 16)]
    if hint != MemFlag.NONTEMPORAL:  # which needs a flush
        for copy in copies(hint | MemFlag.NOFLUSH):
            assert events_of(copy, granularity) == ["store"]


def test_overlapping_pieces_keep_content() -> None:
    """Each of two pieces of memcpy_many for the same place may survive with its own content."""
    assert values_of(lambda map: map.memcpy_many([(0, b"\1" + bytes(7)), (0, b"\2" + bytes(7))]), 0) == {
        (0,),
        (1,),
        (2,),
    }


def test_last_store_is_recorded() -> None:
    """A store through a view after the last statement that was traced is recorded, as a store of built-in code is."""
    map = new_recording_map(SIZE, Granularity.BYTE)
    view = map.view(0, 8)
    map.begin()
    view[0] = 1
    map.end()
    assert [event.length for event in map.events if isinstance(event, Store)] == [8]
    view.release()
    map.dispose()


def test_dead_view_is_not_watched() -> None:
    """The recorder stops watching a range when no view of it is alive."""
    map = new_recording_map(SIZE, Granularity.BYTE)
    view = map.view(0, 8)
    map.drain()
    assert len(map._watched) == 1
    del view
    gc.collect()
    map.drain()
    assert map._watched == []
    map.dispose()


def test_statements_are_watched_after_methods() -> None:
    """Stores through a view are ordered by statement after a method call too."""

    def workload(map: Map) -> None:
        view = map.view()
        map.drain()
        view[0] = 1
        view[8] = 1

    assert values_of(workload, 0, 8) == {(0, 0), (1, 0), (1, 1)}


def test_views_are_compared_by_word() -> None:
    """Stores through misaligned and overlapping views, and strided ones, survive in whole aligned words."""

    def misaligned(map: Map) -> None:
        map.view(4, 8)[0:8] = b"\1" * 8

    def strided(map: Map) -> None:
        map[4:12:7] = b"\1\1"

    def overlapping(map: Map) -> None:
        part, whole = map.view(0, 4), map.view()
        whole.cast("Q")[0] = 2**64 - 1
        part.release()

    words = [b"\1" * 4, bytes(4)]
    assert {image[4:12] for image in images_of(misaligned)} == {a + b for a in words for b in words}
    assert {(image[4], image[11]) for image in images_of(strided)} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert len(images_of(overlapping)) == 2


def test_end_of_odd_size() -> None:
    """Stores to the last bytes of a map whose size is no multiple of 8 are recorded up to the end only."""

    def viewing(map: Map) -> None:
        map.view(97)[1] = 1

    def striding(map: Map) -> None:
        map[96:100:2] = b"\1\1"

    for workload in (viewing, striding):
        seen: list[bytes] = []

        def check(map: Map, seen: list[bytes] = seen) -> None:
            seen.append(map[:])
            assert map[98] or len(seen) < 3

        report = explore(workload, check, size=100, lint=True)
        assert [(finding.offset, finding.length) for finding in report.findings] == [(96, 4)]
        assert [len(image) for image in seen] == [100, 100]
        assert len({image[98] for image in seen}) == 2
