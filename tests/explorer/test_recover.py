# SPDX-License-Identifier: BSD-3-Clause
"""`explore` with `recover`: power failures during recovery too."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Callable

import pytest

import pmem2
from explorer.helpers import NODRAIN, SIZE, discard, line_of
from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import CrashConsistencyError, Report, explore

VALID, SAVED, DATA, OTHER = 0, 8, 64, 128
"""Offsets of an undo log of two values: whether it is valid, the old values, and the values."""


def update(map: Map) -> None:
    """Change both values, with their old ones in the log."""
    map.store_u64(SAVED, map.load_u64(DATA))
    map.store_u64(SAVED + 8, map.load_u64(OTHER))
    map.persist(SAVED, 16)
    map.store_u64(VALID, 1, persist=True)
    map.store_u64(DATA, 5)
    map.store_u64(OTHER, 5)
    map.persist_many([(DATA, 8), (OTHER, 8)])
    map.store_u64(VALID, 0, persist=True)


def roll_back(map: Map) -> None:
    """Correct: the old values are durable before the log is cleared."""
    if map.load_u64(VALID):
        map.store_u64(DATA, map.load_u64(SAVED))
        map.store_u64(OTHER, map.load_u64(SAVED + 8))
        map.persist_many([(DATA, 8), (OTHER, 8)])
        map.store_u64(VALID, 0, persist=True)


def roll_back_too_early(map: Map) -> None:
    """Bug: the log is cleared before the old values are durable."""
    if map.load_u64(VALID):
        map.store_u64(DATA, map.load_u64(SAVED))
        map.store_u64(OTHER, map.load_u64(SAVED + 8))
        map.store_u64(VALID, 0, persist=True)


def check_equal(map: Map) -> None:
    """Check that both values are old, or both are new."""
    assert map.load_u64(DATA) == map.load_u64(OTHER)


def failure_of(
    workload: Callable[[Map], object],
    check: Callable[..., None],
    recover: Callable[[Map], object],
    granularity: Granularity = Granularity.CACHE_LINE,
) -> CrashConsistencyError:
    """Return the error; assert that its image fails again."""

    def recover_and_check(map: Map) -> None:
        recover(map)
        check(map)

    with pytest.raises(CrashConsistencyError) as raised:
        explore(workload, check, size=SIZE, recover=recover, granularity=granularity)
    with pmem2.Source.from_anon(SIZE) as source, pmem2.Map(source) as map:
        map[:] = raised.value.image
        with pytest.raises(type(raised.value.reason)):
            recover_and_check(map)
    return raised.value


def test_second_cut_loses_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recovery that clears the log too early passes without `recover`, and fails with it; the correct one passes."""
    monkeypatch.chdir(tmp_path)

    def recover_and_check(map: Map) -> None:
        roll_back_too_early(map)
        check_equal(map)

    assert explore(update, recover_and_check, size=SIZE).exhaustive
    for granularity in Granularity:
        report = explore(update, check_equal, size=SIZE, recover=roll_back, granularity=granularity)
        assert report.exhaustive
    error = failure_of(update, check_equal, roll_back_too_early)
    first, second = error.crash_points
    assert first[0] == second[0] == __file__
    assert second[1] == line_of(roll_back_too_early, "(VALID, 0")
    assert error.crash_point == second
    assert [(store.function, store.reason) for store in error.lost] == [("roll_back_too_early", "never flushed")]
    text = str(error)
    assert f"(update), and another at {__file__}:{second[1]} (roll_back_too_early), can leave a state that" in text
    assert f"persist({error.lost[0].offset}, 8) before line {second[1]} of {__file__}" in text


def test_cuts_are_counted() -> None:
    """The report counts the power failures in a row after which a new image came."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1, persist=True)

    def recover(map: Map) -> None:
        """Do one step of the rest."""
        step = map.load_u64(0)
        if 0 < step < 4:
            map.store_u64(0, step + 1, persist=True)

    def report(recover: Callable[[Map], object] | None) -> Report:
        return explore(workload, discard(lambda map: map[:]), size=SIZE, recover=recover)

    assert (report(None).images, report(None).cuts) == (2, 1)
    assert (report(discard(lambda map: map[0])).images, report(discard(lambda map: map[0])).cuts) == (2, 1)
    assert (report(recover).images, report(recover).cuts, report(recover).exhaustive) == (5, 4, True)


def test_endless_recovery_ends() -> None:
    """A recovery that counts its runs never closes: the budget ends it, and the report is not exhaustive."""

    def recover(map: Map) -> None:
        map.fetch_add_u64(192, 1, persist=True)
        roll_back(map)

    report = explore(update, check_equal, size=SIZE, recover=recover, budget=300)
    assert (report.images, report.exhaustive) == (300, False)

    def bad(map: Map) -> None:
        map.fetch_add_u64(192, 1, persist=True)
        roll_back_too_early(map)

    assert len(failure_of(update, check_equal, bad).crash_points) == 2


def test_check_sees_recovery() -> None:
    """The check receives the Map object of the recovery, with its stores although they were not flushed."""
    maps: list[Map] = []

    def recover(map: Map) -> None:
        maps.append(map)
        map.store_u64(64, 7)

    def check(map: Map) -> None:
        assert map is maps[-1]
        assert map.load_u64(64) == 7
        assert map.address
        map.view().release()
        with map:
            map.store_u64(64, 8, persist=True)  # no part of the recovery: the power does not fail here

    report = explore(lambda map: map.store_u64(0, 1), check, size=SIZE, recover=recover)
    assert report.exhaustive
    assert report.images == 4
    assert all(map.closed for map in maps)


def test_acknowledgements_are_kept() -> None:
    """After each power failure the check receives what the workload had yielded, not more."""
    seen: set[tuple[int, int]] = set()

    def workload(map: Map) -> Generator[int, None, None]:
        for number in (1, 2):
            map.store_u64(0, number, persist=True)
            yield number

    def recover(map: Map) -> None:
        map.store_u64(64, map.load_u64(0), persist=True)

    def check(map: Map, acknowledged: list[int]) -> None:
        assert acknowledged == [1, 2][: len(acknowledged)]
        assert map.load_u64(64) - len(acknowledged) in (0, 1)
        seen.add((len(acknowledged), map.load_u64(0)))

    assert explore(workload, check, size=SIZE, recover=recover).exhaustive
    assert seen == {(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)}

    def forget(map: Map) -> None:
        """Lose what was acknowledged, in two steps."""
        if map.load_u64(128):
            map.store_u64(0, 0)
        map.store_u64(128, 1, persist=True)

    def check_forgotten(map: Map, acknowledged: list[int]) -> None:
        assert map.load_u64(0) >= len(acknowledged)

    with pytest.raises(CrashConsistencyError) as raised:
        explore(workload, check_forgotten, size=SIZE, recover=forget)
    assert len(raised.value.crash_points) == 2


def test_unread_line_decides_later() -> None:
    """A line that the first recovery does not read is distinguished if it decides after the second power failure."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1, persist=True)
        map.store_u64(128, 1)
        map.store_u64(192, 1)

    def recover(map: Map) -> None:
        """Read the line at 128 only if an earlier recovery came half way."""
        if map.load_u64(64):
            assert not (map.load_u64(128) and not map.load_u64(192)), "found"
        elif map.load_u64(0):
            map.store_u64(64, 1, persist=True)

    def nothing(map: Map) -> None:
        """Accept everything."""

    error = failure_of(workload, nothing, recover)
    assert len(error.crash_points) == 2
    assert "a state in which the recovery fails: AssertionError: found" in str(error)


def test_unread_lines_keep_all_states() -> None:
    """Lines that the first recovery does not read keep every combination of states for the second power failure."""
    lines = range(128, 448, 64)

    def early(map: Map) -> None:
        map.store_u64(0, 1, persist=True)
        for line in lines:
            map.store_u64(line, 1)

    def late(map: Map) -> None:
        """Ask for a recovery again, after the first time without any line."""
        map.store_u64(0, 1, persist=True)
        map.store_u64(0, 0, persist=True)
        for line in lines:
            map.store_u64(line, 1)
        map.store_u64(0, 1, persist=True)

    def recover(map: Map) -> None:
        """Read the lines only if an earlier recovery came half way."""
        if map.load_u64(64):
            assert [map.load_u64(line) for line in lines] != [1, 0, 1, 0, 1]
        elif map.load_u64(0):
            map.store_u64(64, 1, persist=True)

    for workload in (early, late):
        assert len(failure_of(workload, discard(lambda map: None), recover).crash_points) == 2


def test_stored_line_keeps_all_states() -> None:
    """A line that the first recovery stores to, but does not read, keeps every state for the second power failure."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1, persist=True)
        for number in range(1, 6):
            map.store_u64(128, number)
        map.store_u64(192, 1)

    def recover(map: Map) -> None:
        if map.load_u64(64):
            assert (map.load_u64(128), map.load_u64(136), map.load_u64(192)) != (3, 1, 1)
        elif map.load_u64(0):
            map.store_u64(136, 1, persist=True)
            map.store_u64(64, 1, persist=True)

    assert len(failure_of(workload, discard(lambda map: None), recover).crash_points) == 2


@pytest.mark.parametrize("granularity", list(Granularity))
def test_views_of_recovery_are_traced(granularity: Granularity) -> None:
    """Stores of a recovery through a view are recorded by statement."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1, persist=True)

    def recover(map: Map) -> None:
        with map.view(64, 16) as view:
            if map.load_u64(0):
                view[8] = 1
                view[0] = 1

    def check(map: Map) -> None:
        assert map.load_u64(64) <= map.load_u64(72)

    def recover_wrong(map: Map) -> None:
        view = map.view(0, 136)
        if view[0]:
            view[64] = 1
            view[128] = 1

    def check_wrong(map: Map) -> None:
        seen.add((map[64], map[128]))

    assert explore(workload, check, size=SIZE, recover=recover, granularity=granularity).exhaustive
    seen: set[tuple[int, int]] = set()
    explore(workload, check_wrong, size=SIZE, recover=recover_wrong, granularity=granularity)
    assert seen == {(0, 0), (1, 1)}


def test_recovery_exception_is_failure() -> None:
    """An exception of the recovery is a failure, with the recovery as the place; KeyboardInterrupt propagates."""

    def recover(map: Map) -> None:
        raise KeyError(map.load_u64(0))

    def interrupted(map: Map) -> None:
        raise KeyboardInterrupt

    error = failure_of(lambda map: None, discard(lambda map: None), recover)
    assert isinstance(error.reason, KeyError)
    assert len(error.crash_points) == 1
    with pytest.raises(KeyboardInterrupt):
        explore(lambda map: None, discard(lambda map: None), size=SIZE, recover=interrupted)
    with pytest.raises(pytest.skip.Exception):
        explore(lambda map: None, discard(lambda map: None), size=SIZE, recover=discard(lambda map: pytest.skip("s")))


def test_recovery_is_refused() -> None:
    """A recovery that closes its map, uses threads, stops the tracing, hides stores or is a generator is refused."""

    def closing(map: Map) -> None:
        map.close()

    def starting(map: Map) -> None:
        threading.Thread(target=map.drain).start()

    def untracing(map: Map) -> None:
        assert map.address
        sys.settrace(None)

    def hiding(map: Map) -> None:
        Map.store_u64(map, 8, 1)

    def lazy(map: Map) -> Iterator[int]:
        yield 1

    def swallowing(map: Map) -> None:
        with pytest.raises(RuntimeError, match="threads"):
            threading.Thread(target=map.drain).start()

    cases: list[tuple[Callable[[Map], object], type[Exception], str]] = [
        (closing, BufferError, "must not close"),
        (starting, RuntimeError, "threads"),
        (untracing, RuntimeError, "tracing"),
        (hiding, RuntimeError, "cannot be recorded"),
        (lazy, TypeError, "recover must be a function, but returned a generator"),
        (swallowing, RuntimeError, "threads"),
    ]
    for recover, kind, text in cases:
        with pytest.raises(kind, match=text):
            explore(lambda map: None, discard(lambda map: None), size=SIZE, recover=recover)


def test_chain_is_short() -> None:
    """A failure that one power failure can cause is reported with one, although two can cause it too."""

    def workload(map: Map) -> None:
        for line in range(128, 128 + 64 * 8, 64):
            map.store_u64(line, 1)
        map.store_u64(64, 1, persist=True)

    def recover(map: Map) -> None:
        if map.load_u64(64):
            map.memset(128, 0, 8, NODRAIN)
            map.store_u64(0, 1, persist=True)

    def check(map: Map) -> None:
        if map.load_u64(64):
            assert map[192]

    error = failure_of(workload, check, recover)
    assert len(error.crash_points) == 1
    assert [store.offset for store in error.lost] == [192]


def test_view_kept_by_recovery() -> None:
    """A recovery that keeps a view keeps the memory of its image; the next image has other memory."""
    views: list[memoryview] = []

    def recover(map: Map) -> None:
        views.append(map.view(0, 8))

    explore(lambda map: map.store_u64(0, 1), discard(lambda map: None), size=SIZE, recover=recover)
    assert [view[0] for view in views] == [1, 0] or [view[0] for view in views] == [0, 1]


def test_nondeterministic_recovery_is_followed() -> None:
    """A recovery that reads other lines in each run is still cut everywhere."""
    count = 0

    def recover(map: Map) -> None:
        nonlocal count
        count += 1
        map.load_u64(64 * (count % 3 + 3))
        roll_back_too_early(map)

    def workload(map: Map) -> None:
        for line in (192, 256, 320):
            map.store_u64(line, 1)
        update(map)

    with pytest.raises(CrashConsistencyError):
        explore(workload, check_equal, size=SIZE, recover=recover)


def test_bad_functions() -> None:
    """A check that returns something and functions that cannot be called with what they get are a TypeError."""

    def nothing(map: Map) -> None:
        """Do nothing."""

    def two(map: Map, other: object) -> None:
        """Do nothing."""

    def generator(map: Map) -> Generator[int, None, None]:
        yield 1

    def run(workload: object, check: object, **functions: object) -> Report:
        return explore(workload, check, size=SIZE, **functions)  # type: ignore[call-overload,no-any-return]

    wrong: list[tuple[str, Callable[[], Report]]] = [
        ("check returned False; use assert", lambda: run(nothing, lambda map: False)),
        ("check returned <generator", lambda: run(nothing, generator)),
        (r"check must be callable with \(map\): missing.*'other'", lambda: run(nothing, two)),
        (r"check must be callable with \(map, acknowledged\)", lambda: run(generator, nothing)),
        (r"workload must be callable with \(map\)", lambda: run(two, nothing)),
        ("recover must be callable", lambda: run(nothing, nothing, recover=two)),
        ("setup must be callable", lambda: run(nothing, nothing, setup=lambda: None)),
        ("check must be callable.*not NoneType", lambda: run(nothing, None)),
    ]
    for text, call in wrong:
        with pytest.raises(TypeError, match=text):
            call()
    explore(nothing, print, size=SIZE)  # any number of arguments


def test_late_crash_point_is_sampled() -> None:
    """A torn copy is found at the last crash point although an earlier one has more images than the budget."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1, persist=True)
        map.memset(512, 1, 256, MemFlag.NOFLUSH)
        map.store_u64(0, 0, persist=True)

    def recover(map: Map) -> None:
        if map.load_u64(0):
            map.memset(512, 0, 256)
            map.store_u64(0, 0, persist=True)

    def check(map: Map) -> None:
        assert len(set(map[512:768])) == 1

    with pytest.raises(CrashConsistencyError) as raised:
        explore(workload, check, size=SIZE, recover=recover, granularity=Granularity.PAGE, budget=500)
    assert raised.value.crash_point == (__file__, line_of(workload, "store_u64(0, 0"))
