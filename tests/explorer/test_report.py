# SPDX-License-Identifier: BSD-3-Clause
"""The report of a failure: crash point, lost stores, reasons, the fix, and the image."""

from __future__ import annotations

import functools
import operator
import pickle
from collections.abc import Generator
from pathlib import Path
from typing import Callable, NoReturn

import attrs
import pytest

import pmem2
from explorer.helpers import NODRAIN, SIZE, check_published, discard, failure_of, line_of
from pmem2 import Granularity, Map, MemFlag
from pmem2._buffers import merge_ranges
from pmem2.testing import CrashConsistencyError, LostStore, explore
from pmem2.testing._callables import adapt_check
from pmem2.testing._checker import Checker
from pmem2.testing._closure import Closure, Failure
from pmem2.testing._diagnosis import explain, shrink
from pmem2.testing._memory_model import stored_cells
from pmem2.testing._pruning import CheckedImages
from pmem2.testing._recorder import new_recording_map
from pmem2.testing._runner import CheckFailed, CheckRunner


def test_never_flushed() -> None:
    """The error names location, range, reason and the missing persist of a store that was never flushed."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.store_u64(64, 1, persist=True)

    error = failure_of(workload, check_published)
    store = LostStore(0, 8, __file__, line_of(workload, "promised"), "workload", "never flushed")
    assert error.lost == (store,)
    assert error.crash_point == (__file__, line_of(workload, "store_u64"))
    assert f"persist(0, 8) before line {error.crash_point[1]} of " in str(error)
    assert error.image[0:8] == bytes(8)
    assert error.image[64] == 1
    assert len(error.image) == SIZE
    assert isinstance(error, AssertionError)
    assert isinstance(error.__cause__, AssertionError)


def test_flushed_not_drained() -> None:
    """The error asks for a drain if the lost store was flushed but not drained."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"promised", NODRAIN)
        map.store_u64(64, 1, persist=True)

    error = failure_of(workload, check_published)
    assert [store.reason for store in error.lost] == ["flushed, not drained"]
    assert "drain() before" in str(error)


def test_later_value_is_lost() -> None:
    """The error names the later of two unordered stores to one byte if only the earlier one survives."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"\5", NODRAIN)
        map.memcpy(0, b"\3", NODRAIN)  # later
        map.store_u64(64, 1)

    def check(map: Map) -> None:
        assert map[0] != 5 or not map.load_u64(64)

    error = failure_of(workload, check)
    assert [store.lineno for store in error.lost] == [line_of(workload, "later")]


def test_restored_value_is_not_lost() -> None:
    """The error names no store of a value that was stored back if the image has the restored value."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(0, 0)
        map.store_u64(64, 1)
        map.store_u64(128, 1)

    def check(map: Map) -> None:
        assert map.load_u64(0) or map.load_u64(64) or not map.load_u64(128)

    assert [store.offset for store in failure_of(workload, check).lost] == [64]


def test_innermost_yield_is_reported() -> None:
    """The crash point is the innermost yield if generators delegate to generators."""

    def inner() -> Generator[None, None, None]:
        yield None

    def outer() -> Generator[None, None, None]:
        yield from inner()

    def workload(map: Map) -> Generator[None, None, None]:
        map.store_u64(0, 1)
        yield from outer()

    def check(map: Map, acknowledged: list[None]) -> None:
        assert map.load_u64(0) or not acknowledged

    with pytest.raises(CrashConsistencyError) as raised:
        explore(workload, check, size=SIZE)
    assert raised.value.crash_point == (__file__, line_of(inner, "yield None"))


def test_fewest_losses_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error reports the failing image that loses one store, or the first one where the diagnosis gives up."""

    def workload(map: Map) -> None:
        for line in range(9):
            map.store_u64(64 * line, 1)

    def check(map: Map) -> None:
        values = [map.load_u64(64 * line) for line in range(9)]
        assert values not in ([0, 0, 0, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0, 1])

    assert [store.offset for store in failure_of(workload, check).lost] == [448]
    monkeypatch.setattr("pmem2.testing._diagnosis.MAX_CELLS_VISITED", 10)
    assert [store.offset for store in failure_of(workload, check).lost] == [0, 64, 128]


def test_overtaken() -> None:
    """A store that is flushed only after the crash point is reported as overtaken."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.store_u64(64, 1)
        map.persist()

    error = failure_of(workload, check_published)
    assert [store.reason for store in error.lost] == ["overtaken"]


def test_lost_acknowledged_store() -> None:
    """The crash point is the yield if the check misses an acknowledged store."""

    def workload(map: Map) -> Generator[None, None, None]:
        map.store_u64(0, 1)
        yield

    def check(map: Map, acknowledged: list[None]) -> None:
        assert map.load_u64(0) or not acknowledged

    with pytest.raises(CrashConsistencyError) as raised:
        explore(workload, check, size=SIZE)
    assert raised.value.crash_point == (__file__, line_of(workload, "yield"))
    assert [store.lineno for store in raised.value.lost] == [line_of(workload, "store_u64")]


def test_torn_copy_is_listed() -> None:
    """A copy that survives in part is listed as a whole, and the hint says that it can be torn."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"\1" * 64)

    error = failure_of(workload, lambda map: len(set(map[0:64])) == 1 or pytest.fail("torn"))
    assert [(store.offset, store.length) for store in error.lost] == [(0, 64)]
    assert error.crash_point == (__file__, line_of(workload, "memcpy"))
    assert "can be torn" in str(error)


def test_workload_passes_through_failure() -> None:
    """No store is lost if the workload itself passes through the bad state."""

    def workload(map: Map) -> None:
        map.store_u64(64, 1, persist=True)
        map.memcpy(0, b"promised")

    error = failure_of(workload, check_published)
    assert error.lost == ()
    assert "\nno store is lost: the workload itself passes through this state\n" in str(error)
    assert error.crash_point == (__file__, line_of(workload, "store_u64"))


def test_failure_after_setup() -> None:
    """A check that rejects the state after setup fails at the definition of the workload."""

    def workload(map: Map) -> None:
        """Do nothing."""

    error = failure_of(workload, lambda map: pytest.fail("never"))
    assert error.crash_point == (__file__, line_of(workload, "def workload"))
    assert error.lost == ()


class Structure:
    """A workload that is a class."""

    def __init__(self, map: Map) -> None:
        """Do nothing."""


@attrs.define
class NoOp:
    """A workload that is not a function."""

    def __call__(self, map: Map) -> None:
        """Do nothing."""


def test_workload_names_own_place() -> None:
    """A failure before the first store is where the workload is defined: function, partial, object, class or method."""

    def function(map: Map, _number: int = 0) -> None:
        """Do nothing."""

    workloads: list[tuple[Callable[[Map], object], tuple[str, int]]] = [
        (function, (__file__, line_of(function, "def "))),
        (functools.partial(function, _number=1), (__file__, line_of(function, "def "))),
        (functools.lru_cache(function), (__file__, line_of(function, "def "))),
        (NoOp(), (__file__, line_of(NoOp.__call__, "def "))),
        (NoOp().__call__, (__file__, line_of(NoOp.__call__, "def "))),
        (Structure, (__file__, line_of(Structure.__init__, "def "))),
    ]
    for workload, place in workloads:
        with pytest.raises(CrashConsistencyError) as raised:
            explore(workload, discard(lambda map: pytest.fail("never")), size=SIZE)
        assert raised.value.crash_point == place
    with pytest.raises(CrashConsistencyError, match=r"operator.*can leave"):  # built-in code has no line
        explore(operator.methodcaller("drain"), discard(lambda map: pytest.fail("never")), size=SIZE)


def test_fewest_stores_are_named() -> None:
    """The error names only the one store of many pending ones that makes the check fail."""

    def workload(map: Map) -> None:
        for line in range(128, 1280, 64):
            map.store_u64(line, 1)
        map[0:8] = b"promised"
        map.store_u64(64, 1)
        map.persist()

    error = failure_of(workload, check_published)
    assert [(store.offset, store.length) for store in error.lost] == [(0, 8)]


def test_two_stores_lost_together() -> None:
    """The error names both stores, and one persist_many, if the check fails only without both."""

    def workload(map: Map) -> None:
        map.store_u64(128, 1)
        map.store_u64(192, 1)
        map.store_u64(64, 1, persist=True)

    def check(map: Map) -> None:
        assert not map.load_u64(64) or map.load_u64(128) or map.load_u64(192)

    error = failure_of(workload, check)
    assert [store.offset for store in error.lost] == [128, 192]
    assert "persist_many([(128, 8), (192, 8)])" in str(error)


def test_many_stores_lost_together() -> None:
    """The error lists no store that need not be lost for the failure."""

    def workload(map: Map) -> None:
        for line in range(128, 1024, 64):
            map.store_u64(line, 1)
        map.store_u64(64, 1, persist=True)

    def check(map: Map) -> None:
        assert not map.load_u64(64) or any(map.load_u64(line) for line in range(128, 448, 64))

    error = failure_of(workload, check)
    assert [store.offset for store in error.lost] == list(range(128, 448, 64))
    assert len(str(error).splitlines()) == 8


def test_crash_point_with_fewer_stores() -> None:
    """The error reports the crash point that needs the fewest lost stores, not the one found first."""

    def workload(map: Map) -> None:
        map.store_u64(128, 1)
        map.store_u64(192, 1)
        map.store_u64(64, 1, persist=True)
        map.store_u64(256, 1)
        map.store_u64(320, 1, persist=True)

    def check(map: Map) -> None:
        assert not map.load_u64(64) or map.load_u64(128) or map.load_u64(192)
        assert not map.load_u64(320) or map.load_u64(256)

    assert [store.offset for store in failure_of(workload, check).lost] == [256]


def test_diagnosis_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error still names the necessary stores when the limits of the diagnosis are reached."""

    def workload(map: Map) -> None:
        for line in range(128, 1280, 64):
            map.store_u64(line, 1)
        map.store_u64(64, 1)
        map.persist()

    def check(map: Map) -> None:
        assert not map.load_u64(64) or any(map.load_u64(line) for line in range(128, 320, 64))

    assert [store.offset for store in failure_of(workload, check).lost] == [128, 192, 256]
    monkeypatch.setattr("pmem2.testing._diagnosis.MAX_STORES_FOR_PAIRS", 1)
    assert [store.offset for store in failure_of(workload, check).lost] == [128, 192, 256]
    monkeypatch.setattr("pmem2.testing._diagnosis.MAX_CELLS_VISITED", 10)
    assert {128, 192, 256} <= {store.offset for store in failure_of(workload, check).lost}


def test_partly_lost_store_is_alone() -> None:
    """A store lost in part is reported alone although the failing image loses others too."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"".join(bytes([n]) * 8 for n in range(1, 9)), MemFlag.NOFLUSH)
        for line in range(64, 832, 64):
            map.store_u64(line, 7)

    def check(map: Map) -> None:
        assert map[0:64:8] != bytes([0, 2, 0, 4, 5, 0, 7, 8]) or not map[64:832:64][-1]

    assert [store.offset for store in failure_of(workload, check).lost] == [0]


def test_smaller_set_is_found() -> None:
    """The error names four stores although the image found first needs five."""

    def workload(map: Map) -> None:
        for line in range(0, 704, 64):
            map.store_u64(line, 1)

    def check(map: Map) -> None:
        lost = {n for n in range(10) if not map.load_u64(n * 64)}
        assert not map.load_u64(640) or not (lost >= set(range(5)) or lost == {6, 7, 8, 9})

    assert [store.offset for store in failure_of(workload, check, budget=100).lost] == [384, 448, 512, 576]


def test_partly_lost_nodrain_copy() -> None:
    """The error names only the NODRAIN copy if a later store to its line survives without a word of it."""

    def check(map: Map) -> None:
        assert not map[24] or map[0] == map[8]

    for granularity in (Granularity.CACHE_LINE, Granularity.BYTE):
        flags = NODRAIN if granularity is Granularity.CACHE_LINE else NODRAIN | MemFlag.NONTEMPORAL

        def flagged(map: Map, flags: MemFlag = flags) -> None:
            map.memcpy(128, b"\1" * 8, flags)
            map.memcpy(0, b"\1" * 16, flags)
            map.memcpy(32, b"\1" * 8, flags)
            map.store_u64(16, 1)
            map.store_u64(48, 1)
            map.store_u64(24, 1)

        with pytest.raises(CrashConsistencyError) as raised:
            explore(flagged, check, size=SIZE, granularity=granularity)
        assert [(store.offset, store.length, store.reason) for store in raised.value.lost] == [
            (0, 16, "flushed, not drained")
        ]


def test_copy_over_two_lines_tears() -> None:
    """A copy over two lines is reported as one store if one line, or one word of a line, is lost."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"\1" * 128)

    def lines(map: Map) -> None:
        assert map[0] == map[64]

    def word(map: Map) -> None:
        assert map[8] or not (map[0] and map[16] and map[64] and map[120])

    for check in (lines, word):
        assert [(store.offset, store.length) for store in failure_of(workload, check).lost] == [(0, 128)]


def test_statement_is_reported_by_range() -> None:
    """The error names only the lost range of a statement that stores two through a view."""

    def workload(map: Map) -> None:
        with map.view(0, 128) as view:
            view[0:8], view[64:72] = b"promised", b"\1" * 8

    error = failure_of(workload, check_published)
    assert [(store.offset, store.length, store.lineno) for store in error.lost] == [
        (0, 8, line_of(workload, "promised"))
    ]


def test_adjacent_stores_need_one_call() -> None:
    """The hint merges adjacent ranges into one persist."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map[8:16] = b"promised"
        map.store_u64(64, 1, persist=True)

    def check(map: Map) -> None:
        assert not map.load_u64(64) or map[0:8] == b"promised" or map[8:16] == b"promised"

    assert "persist(0, 16) before" in str(failure_of(workload, check))


def test_image_can_be_checked_alone(tmp_path: Path) -> None:
    """The image of the error fails the check when it is mapped from a file."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.store_u64(64, 1, persist=True)

    path = tmp_path / "image"
    path.write_bytes(failure_of(workload, check_published).image)
    with pmem2.open(path, "c") as map, pytest.raises(AssertionError):
        check_published(map)


def test_error_can_be_pickled() -> None:
    """The error keeps its text and its attributes when it is pickled."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.store_u64(64, 1, persist=True)

    error = failure_of(workload, check_published)
    again: object = pickle.loads(pickle.dumps(error))
    assert isinstance(again, CrashConsistencyError)
    assert str(again) == str(error)
    assert (again.crash_point, again.image, again.lost) == (error.crash_point, error.image, error.lost)
    assert isinstance(again.reason, AssertionError)


def test_exceptions_that_fail_a_check() -> None:
    """Every exception of the check is a failure, pytest.fail and xfail too, except a skip and KeyboardInterrupt."""

    def raising(error: BaseException) -> Callable[[Map], NoReturn]:
        def check(map: Map) -> NoReturn:
            raise error

        return check

    def nothing(map: Map) -> None:
        """Do nothing."""

    for error in (KeyError("k"), SystemExit(1), pytest.fail.Exception("f"), pytest.xfail.Exception("x")):
        assert failure_of(nothing, raising(error)).reason is error
    for other in (KeyboardInterrupt(), pytest.skip.Exception("s")):
        with pytest.raises(type(other)):
            explore(nothing, raising(other), size=SIZE)


def test_lost_store_takes_copy_along() -> None:
    """A lost store is reported together with the later NODRAIN copy to its line, which cannot survive without it."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.memcpy(8, b"\1" * 16, NODRAIN)
        map.store_u64(64, 1, persist=True)

    error = failure_of(workload, lambda map: not map[64] or map[0] or pytest.fail("lost"))
    assert [(store.offset, store.length) for store in error.lost] == [(0, 8), (8, 16)]


def test_forced_losses_are_counted() -> None:
    """The error names two stores instead of one whose loss forces the loss of two later stores to its line."""

    def workload(map: Map) -> None:
        for offset in (0, 8, 16, 128, 192):
            map.store_u64(offset, 1)
        map.store_u64(256, 1, persist=True)

    def check(map: Map) -> None:
        assert not map[256] or (map[0] and (map[128] or map[192]))

    assert [store.offset for store in failure_of(workload, check).lost] == [128, 192]


def test_diagnosis_keeps_guaranteed_stores() -> None:
    """The diagnosis on BYTE tries no image without a store that survives behind a NODRAIN copy to its line."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"\1" * 8, NODRAIN | MemFlag.NONTEMPORAL)
        map[8:24] = b"\1" * 16
        map.memcpy(128, b"\1" * 8, NODRAIN | MemFlag.NONTEMPORAL)
        map.store_u64(256, 1)

    def check(map: Map) -> None:
        assert not map[256] or (map[8] and map[16] and (map[0] or map[128]))

    error = failure_of(workload, check, granularity=Granularity.BYTE)
    assert [store.offset for store in error.lost] == [0, 128]


@pytest.mark.parametrize("words", [b"\1\1\0\1\1\1", b"\0\0\0\1\0\0", b"\1\1\1\0\0\0"], ids=["lost", "kept", "prefix"])
@pytest.mark.parametrize("flags", [MemFlag.NOFLUSH, NODRAIN])
def test_partial_loss_is_tried(flags: MemFlag, words: bytes) -> None:
    """The error names one copy without a word, with only one word or without its end, instead of two stores."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"\1" * 8, flags)
        map.memcpy(8, b"\1" * 48, flags)
        if flags == NODRAIN:
            map.memcpy(56, b"\1" * 8, flags)
        map.store_u64(128, 1)
        map.store_u64(192, 1)
        map.store_u64(256, 1, persist=True)

    def check(map: Map) -> None:
        assert not map[256] or (map[8:56:8] != words and (map[128] or map[192]))

    assert [store.offset for store in failure_of(workload, check, budget=30).lost] == [8]


def test_same_content_loses_nothing() -> None:
    """No store is lost if the image is the content of the memory, although losing stores gives the same content."""

    def ordered(map: Map) -> None:
        map.store_u64(8, 5)
        map.memcpy(8, bytes(8), NODRAIN)
        map.store_u64(64, 1, persist=True)

    def overwritten(map: Map) -> None:
        map.memcpy(0, b"\1" * 8, NODRAIN)
        map.memcpy(0, b"\2" * 8, NODRAIN)
        map.store_u64(64, 1, persist=True)

    for workload, content in ((ordered, 0), (overwritten, 2)):

        def check(map: Map, content: int = content) -> None:
            assert not map[64] or map[8] or map[0] != content

        assert failure_of(workload, check).lost == ()


def test_crash_point_respects_guarantee() -> None:
    """The error on BYTE names no crash point after a store that survives there but is missing in the image."""
    flags = NODRAIN | MemFlag.NONTEMPORAL

    def workload(map: Map) -> None:
        for offset in (0, 128, 192):
            map.memcpy(offset, b"\1" * 8, flags)
        map.store_u64(256, 1)
        map.store_u64(8, 1)
        map.store_u64(128, 0)
        map.store_u64(192, 0)

    def check(map: Map) -> None:
        assert not map[256] or not map[0] or map[8] or map[128] or map[192]

    error = failure_of(workload, check, granularity=Granularity.BYTE)
    assert [store.offset for store in error.lost] == [128, 192]
    assert error.crash_point[1] == line_of(workload, "(256, 1)")


def test_ranges_are_merged() -> None:
    """Ranges that touch, overlap or contain others are merged in any order; the larger end counts."""
    assert merge_ranges([(100, 4), (8, 8), (0, 64)]) == [(0, 64), (100, 4)]
    assert merge_ranges([(0, 64), (8, 8), (60, 8), (68, 1), (70, 2)]) == [(0, 69), (70, 2)]


def test_contained_range_needs_one_call() -> None:
    """The hint covers all bytes of a lost store that contains a later one, and of adjacent stores in any order."""

    def contained(map: Map) -> None:
        map.memset(0, 1, 64, MemFlag.NOFLUSH)
        map.store_u64(8, 5)
        map.store_u64(64, 1, persist=True)

    def reversed_order(map: Map) -> None:
        map.store_u64(56, 1)
        map[0:56] = b"\1" * 56
        map.store_u64(64, 1, persist=True)

    def check(map: Map) -> None:
        assert not map[64] or any(map[0:64])

    for workload in (contained, reversed_order):
        assert "persist(0, 64) before" in str(failure_of(workload, check))


def test_passing_through_comes_first() -> None:
    """The error names no lost store if the workload also passes through a bad state later."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.store_u64(64, 1, persist=True)
        map.store_u64(192, 1)

    def check(map: Map) -> None:
        check_published(map)
        assert not map[192]

    error = failure_of(workload, check)
    assert error.lost == ()
    assert error.crash_point[1] == line_of(workload, "192")


def test_single_store_ends_search() -> None:
    """The error names the single store, not it and another, although three others fail together too."""

    def workload(map: Map) -> None:
        for line in (0, 128, 192, 256):
            map.store_u64(line, 1)
        map.store_u64(512, 1, persist=True)

    def check(map: Map) -> None:
        assert not map[512] or (map[0] and (map[128] or map[192] or map[256]))

    assert [store.offset for store in failure_of(workload, check, budget=20).lost] == [0]


def test_earliest_crash_point_is_named() -> None:
    """The error names the first of two crash points at which the same image requires the same lost stores."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.store_u64(64, 1, persist=True)
        map.store_u64(128, 5, persist=True)
        map.store_u64(128, 0, persist=True)

    assert failure_of(workload, check_published).crash_point[1] == line_of(workload, "(64, 1")


def shrunk(workload: Callable[[Map], object], check: Callable[[Map], object], lines: dict[int, bytes]) -> list[int]:
    """Return the offsets of the lost stores after `shrink`, for the image with this content."""
    map = new_recording_map(SIZE, Granularity.CACHE_LINE)
    workload(map)
    image = bytearray(SIZE)
    for offset, content in lines.items():
        image[offset : offset + len(content)] = content
    runner = CheckRunner(SIZE, Granularity.CACHE_LINE, adapt_check(discard(check), None))
    checker = Checker(runner, CheckedImages(stored_cells(map.events, 64), 64), 10)
    closure = Closure(bytes(SIZE), Granularity.CACHE_LINE, map.events, checker, 0)
    _, search = closure.failing_search(Failure(closure.workload, CheckFailed(bytes(image), 0, AssertionError())))
    cause = shrink(search, explain(search, CheckFailed(bytes(image), 0, AssertionError())))
    runner.dispose()
    map.dispose()
    return [store.offset for store in cause.lost]


def test_shrinking_restores_one_store() -> None:
    """`shrink` restores a store and keeps what survives of a torn one, or else loses the torn one in whole."""
    torn = b"\0\2\0\4\5\0\7\x08"

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.memcpy(64, b"".join(bytes([n]) * 8 for n in range(1, 9)), MemFlag.NOFLUSH)
        map.store_u64(128, 1)
        map.store_u64(192, 1, persist=True)

    def words(map: Map) -> bytes:
        return bytes(map[64:128:8])

    def kept(map: Map) -> None:
        assert not map[192] or words(map) != torn

    def whole(map: Map) -> None:
        assert not map[192] or not ((words(map) == torn and not map[128]) or (words(map) == bytes(8) and map[0]))

    content = {64: b"".join(bytes([n]) * 8 for n in torn), 192: b"\1"}
    assert shrunk(workload, kept, content) == [64]
    assert shrunk(workload, whole, content) == [64]


def test_reason_respects_flushed_bytes() -> None:
    """A flush of nothing and a flush that ends before the store do not flush it."""

    def workload(map: Map) -> None:
        map.store_u64(64, 1)
        map.flush(72, 0)
        map.flush(0, 64)
        map.flush(128, 64)
        map.store_u64(256, 1, persist=True)

    error = failure_of(workload, lambda map: not map[256] or map[64] or pytest.fail("lost"))
    assert [store.reason for store in error.lost] == ["never flushed"]


@pytest.mark.parametrize(
    ("second", "reason"), [(False, "never flushed"), (True, "overtaken")], ids=["never", "overtaken"]
)
def test_reason_of_two_lines(second: bool, reason: str) -> None:
    """A copy that loses two lines has the reason of the line that is flushed later, or never."""

    def workload(map: Map) -> None:
        map.memset(0, 1, 128, MemFlag.NOFLUSH)
        map.flush(0, 64)
        map.store_u64(256, 1)
        map.flush(256, 8)
        map.drain()
        if second:
            map.persist(64, 64)

    error = failure_of(workload, lambda map: not map[256] or any(map[0:128]) or pytest.fail("lost"))
    assert [(store.offset, store.reason) for store in error.lost] == [(0, reason)]


def test_hint_fits_all_stores() -> None:
    """The hint is a drain only if every lost store was flushed, and a torn copy only if no other store is lost."""

    def flushed(map: Map) -> None:
        map.memcpy(0, b"\1" * 8, NODRAIN)
        map.store_u64(128, 1)
        map.store_u64(256, 1)

    def torn(map: Map) -> None:
        map.store_u64(128, 1)
        map.memcpy(256, b"\1" * 16)

    error = failure_of(flushed, lambda map: not map[256] or map[0] or map[128] or pytest.fail("lost"))
    assert "persist_many([(0, 8), (128, 8)]) before" in str(error)
    error = failure_of(torn, lambda map: map[256] == map[264] or map[128] or pytest.fail("torn"))
    assert [store.offset for store in error.lost] == [128, 256]
    assert "persist_many([(128, 8), (256, 16)]) before" in str(error)


def test_statement_lists_all_ranges() -> None:
    """A statement that loses adjacent words and another line is listed with one range for each."""

    def workload(map: Map) -> None:
        with map.view(0, 128) as view:
            view[0:16], view[64:72] = b"\1" * 16, b"\1" * 8
            map.store_u64(256, 1)

    error = failure_of(workload, lambda map: not map[256] or any(map[0:128]) or pytest.fail("lost"))
    assert [(store.offset, store.length) for store in error.lost] == [(0, 16), (64, 8)]


def test_raise_site_is_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error shows the line of the check, not of pmem2, with a path that does not climb; so does the traceback."""
    monkeypatch.chdir(tmp_path)

    def check(map: Map) -> None:
        map.load_u64(1)

    with pytest.raises(CrashConsistencyError) as raised:
        explore(lambda map: None, check, size=SIZE)
    error = raised.value
    assert f" ({__file__}:{line_of(check, 'load_u64')})" in str(error).splitlines()[0]
    assert error.reason.__traceback__ is not None
    assert error.reason.__traceback__.tb_frame.f_code is check.__code__
