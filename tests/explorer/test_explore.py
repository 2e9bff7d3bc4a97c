# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2.testing.explore`: what is recorded, what is checked, what is told of a failure."""

from __future__ import annotations

import _thread
import inspect
import pickle
import subprocess
import sys
import threading
from array import array
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Callable, NoReturn, Protocol

import attrs
import pytest

import pmem2
from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import CrashConsistencyError, LostStore, Report, explore, explore_model
from pmem2.testing._recorder import RecordingMap

SIZE = 4096
NODRAIN = MemFlag.NODRAIN


def images_of(workload: Callable[[Map], object], granularity: Granularity = Granularity.CACHE_LINE) -> set[bytes]:
    """Return every image of a workload, which must be all there are, each checked once."""
    seen: list[bytes] = []
    report = explore(workload, lambda map: seen.append(map[:]), size=SIZE, granularity=granularity)
    assert report.exhaustive
    assert report.images == len(seen) == len(set(seen))
    return set(seen)


def values_of(
    workload: Callable[[Map], object], *offsets: int, granularity: Granularity = Granularity.CACHE_LINE
) -> set[tuple[int, ...]]:
    """Return what 8 bytes at these offsets are, in every image."""
    images = images_of(workload, granularity)
    return {tuple(int.from_bytes(image[n : n + 8], sys.byteorder) for n in offsets) for image in images}


def failure_of(
    workload: Callable[[Map], object],
    check: Callable[[Map], object],
    size: int = SIZE,
    budget: int = 10_000,
    granularity: Granularity = Granularity.CACHE_LINE,
) -> CrashConsistencyError:
    """Return how a workload fails."""
    with pytest.raises(CrashConsistencyError) as raised:
        explore(workload, check, size=size, budget=budget, granularity=granularity)
    return raised.value


def line_of(function: Callable[..., object], text: str) -> int:
    """Return the number of the line of a function in which a text is."""
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def published(map: Map) -> None:
    """Check that what the flag at 64 promises is there."""
    if map.load_u64(64):
        assert map[0:8] == b"promised"


# ---- what is checked


def test_lines_are_independent() -> None:
    """Two stores to two lines survive in any combination."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(64, 2)

    assert values_of(workload, 0, 64) == {(0, 0), (1, 0), (0, 2), (1, 2)}


def test_a_line_keeps_program_order() -> None:
    """Of two stores to one line the first survives alone, the second does not."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(8, 2)

    assert values_of(workload, 0, 8) == {(0, 0), (1, 0), (1, 2)}


def test_what_is_persisted_stays() -> None:
    """After persist() nothing of it is lost any more."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1, persist=True)
        map.store_u64(64, 2, persist=True)

    assert values_of(workload, 0, 64) == {(0, 0), (1, 0), (1, 2)}


def test_a_flush_takes_the_whole_line_and_what_was_stored_before() -> None:
    """A flush of one byte captures its line, and not what is stored after it."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.flush(63, 1)
        map.store_u64(8, 2)
        map.drain()
        map.store_u64(64, 3)

    assert values_of(workload, 0, 8, 64) == {(0, 0, 0), (1, 0, 0), (1, 2, 0), (1, 0, 3), (1, 2, 3)}


def test_a_copy_is_torn_between_words_and_at_its_ends_between_bytes() -> None:
    """16 aligned bytes are four states; two bytes of a copy are four too, of an assignment two."""
    assert len(images_of(lambda map: map.memcpy(0, b"\1" * 16, NODRAIN))) == 4
    assert len(images_of(lambda map: map.memcpy(2, b"\1" * 2, NODRAIN))) == 4
    assert len(images_of(lambda map: map.__setitem__(slice(2, 4), b"\1\1"))) == 2
    assert len(images_of(lambda map: map.__setitem__(slice(3, 5), b"\1\1"))) == 4


def test_nothing_orders_a_nodrain_copy_against_later_stores() -> None:
    """Not even in its line, before the next drain; what was stored before it comes first."""

    def workload(map: Map) -> None:
        map.store_u64(16, 9)
        map.memcpy(0, (1).to_bytes(8, sys.byteorder), NODRAIN)
        map.store_u64(8, 2)
        map.drain()
        map.store_u64(64, 3, persist=True)

    expected = {(0, 0, 0, 0), (9, 0, 0, 0), (9, 1, 0, 0), (9, 0, 2, 0), (9, 1, 2, 0), (9, 1, 0, 3), (9, 1, 2, 3)}
    assert values_of(workload, 16, 0, 8, 64) == expected


def test_the_pieces_of_memcpy_many_are_unordered() -> None:
    """They survive in any combination, and all of them after it."""

    def workload(map: Map) -> None:
        map.memcpy_many([(0, b"\1" * 8), (8, b"\1" * 8)])
        map.store_u64(64, 1)

    assert len(images_of(workload)) == 5


def test_maps_are_copied_as_buffers_are() -> None:
    """One by one, and as pieces."""
    with pmem2.Source.from_anon(8) as source, pmem2.Map(source) as other:
        other.memset(0, 1, 8)

        def workload(map: Map) -> None:
            map.memcpy(0, other)
            map.memcpy_many([(64, other)])

        assert len(images_of(workload)) == 3


def test_byte_granularity_needs_no_flush() -> None:
    """Stores survive in program order; a copy may be half done."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(64, 2)
        map.memcpy(128, b"\1" * 16, NODRAIN)

    seen = images_of(workload, Granularity.BYTE)
    assert len(seen) == 3 + 3
    assert values_of(workload, 0, 64, granularity=Granularity.BYTE) == {(0, 0), (1, 0), (1, 2)}


def test_page_granularity_writes_sectors_back_on_their_own() -> None:
    """Each sector holds what the page was at some moment; a flush makes whole pages durable, a drain does nothing."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.drain()
        map.store_u64(512, 2)
        map.flush(4088, 8)
        map.store_u64(1024, 3)

    expected = {(0, 0, 0), (1, 0, 0), (0, 2, 0), (1, 2, 0), (1, 2, 3)}
    assert values_of(workload, 0, 512, 1024, granularity=Granularity.PAGE) == expected


def test_every_store_is_recorded() -> None:
    """Through each method, with any step, and through views, arrays and the address."""

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


def test_stores_through_views_are_found_statement_by_statement() -> None:
    """What one statement changes is unordered, what two change is ordered."""

    def workload(map: Map) -> None:
        view = map.view().cast("Q")
        view[0] = 1
        view[1] = 2
        view[2], view[3] = 3, 4

    expected = {(0, 0, 0, 0), (1, 0, 0, 0), (1, 2, 0, 0), (1, 2, 3, 0), (1, 2, 0, 4), (1, 2, 3, 4)}
    assert values_of(workload, 0, 8, 16, 24) == expected


def test_a_store_of_the_map_is_not_found_again_in_a_view() -> None:
    """While a view lives, an assignment is the one that was made: one byte, then another, and not a word."""

    def workload(map: Map) -> None:
        with map.view(0, 8):
            map[0:3] = b"\1\1\1"

    assert len(images_of(workload)) == 8


def test_stores_of_functions_that_are_called_are_found() -> None:
    """They have the place of the innermost function."""

    def inner(view: memoryview) -> None:
        view[0:8] = b"promise?"

    def workload(map: Map) -> None:
        with map.view(0, 8) as view:
            inner(view)
        map.store_u64(64, 1)

    error = failure_of(workload, published)
    assert error.lost == ()
    error = failure_of(workload, lambda map: map.load_u64(64) == 0 or map[0:8] == b"promise?" or pytest.fail("lost"))
    assert [(store.function, store.lineno) for store in error.lost] == [("inner", line_of(inner, "promise?"))]


def test_identical_images_are_checked_once() -> None:
    """Storing what is there already, or what was there before, brings nothing new."""

    def workload(map: Map) -> None:
        map.store_u64(0, 0)
        map.store_u64(0, 1)
        map.store_u64(0, 0)
        map.store_u64(0, 1)

    assert values_of(workload, 0) == {(0,), (1,)}


def test_a_thousand_stores_of_the_same_two_values_are_four_images() -> None:
    """However often, and in two lines."""

    def workload(map: Map) -> None:
        for number in range(1000):
            map.store_u64(0, number % 2)
            map.store_u64(64, number % 2)

    assert values_of(workload, 0, 64) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def going_round(map: Map, counted: bool) -> None:
    """Set ten lines again and again; count that in another."""
    for turn in range(60):
        if counted:
            map.store_u64(704, turn, persist=True)
        for line in range(10):
            map[64 * line] = (turn + 1) % 2
        map.persist(0, 640)


@pytest.mark.parametrize(("counted", "budget"), [(False, 1024), (False, 5000), (True, 5000)])
def test_lines_that_go_round_are_as_many_images_as_there_are(counted: bool, budget: int) -> None:
    """However often they are set: each image is checked, and it is known that none is left."""
    found = set()

    def check(map: Map) -> None:
        found.add(tuple(map[64 * line] for line in range(10)))

    report = explore(lambda map: going_round(map, counted), check, size=768, budget=budget)
    assert (report.images, report.exhaustive, len(found)) == (1024, True, 1024)


def test_the_search_for_the_last_image_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not certain then that all was checked, and that is told."""
    monkeypatch.setattr("pmem2.testing._search.TURNS", 1)
    report = explore(lambda map: going_round(map, counted=True), lambda map: map[0:640:64], size=768, budget=1030)
    assert report.images <= 1024
    assert not report.exhaustive


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_last_image_is_found_while_the_budget_lasts(counted: bool, seed: int) -> None:
    """One of 3,071 that the check can tell from each other, at the end."""

    def workload(map: Map) -> None:
        going_round(map, counted)
        for line in range(11):
            map[64 * line] = 2

    def check(map: Map) -> None:
        assert [map[64 * line] for line in range(11)] != [2, 0, 2, 0, 0, 2, 2, 0, 2, 0, 2]

    with pytest.raises(CrashConsistencyError):
        explore(workload, check, size=768, seed=seed)


def test_seventeen_lines_that_are_set_again_and_again() -> None:
    """In one statement; where nothing is torn all of their states are known, else what the budget allows."""

    def words(map: Map) -> None:
        for number in range(100):
            map[0 : 17 * 64 : 64] = bytes([number % 2]) * 17

    def lines(map: Map) -> None:
        for number in range(20):
            map.memset(0, number % 2, 17 * 64, MemFlag.NOFLUSH)

    report = explore(words, lambda map: map[0], size=SIZE)
    assert (report.images, report.exhaustive) == (2, True)
    report = explore(lines, lambda map: map[0], size=SIZE, budget=300)
    assert 2 < report.images <= 256
    assert not report.exhaustive


def test_a_counter_that_is_never_flushed() -> None:
    """More states of one line than are compared with each other, and each of them once."""

    def workload(map: Map) -> None:
        for number in range(2000):
            map.store_u64(0, number)

    assert len(images_of(workload)) == 2000


def test_a_small_budget() -> None:
    """The most telling alone; and what is found within it is found."""

    def workload(map: Map) -> None:
        for line in range(0, SIZE, 64):
            map.store_u64(line, 1)

    for budget in (1, 3, 30):
        report = explore(workload, lambda map: map[:], size=SIZE, budget=budget)
        assert (report.images, report.exhaustive) == (budget, False)


def test_lines_that_are_never_read_are_not_gone_through() -> None:
    """A hundred lines of which the check reads two are four images; a view of the check ends that."""

    def workload(map: Map) -> None:
        for line in range(0, 6400, 64):
            map.store_u64(line, 1)

    report = explore(workload, lambda map: (map.load_u64(0), map.load_u64(640)), size=6400)
    assert (report.images, report.exhaustive) == (4, True)
    report = explore(workload, lambda map: map.view().release(), size=6400, budget=500)
    assert (report.images, report.exhaustive) == (500, False)


def test_what_is_read_may_depend_on_what_was_read() -> None:
    """Where the flag is not set the rest is not looked at."""

    def workload(map: Map) -> None:
        for line in range(0, 640, 64):
            map.store_u64(line, 1)

    report = explore(workload, lambda map: map.load_u64(576) and len(map[:]), size=640)
    assert (report.images, report.exhaustive) == (2 + 511, True)


def test_a_check_that_reads_at_random_is_still_right() -> None:
    """Nothing is left out because of a reading that was another before."""
    count = 0

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(64, 1)
        map.store_u64(128, 1)

    def check(map: Map) -> None:
        nonlocal count
        count += 1
        map.load_u64(64 * (count % 3))
        assert map.load_u64(0) + map.load_u64(64) + map.load_u64(128) < 3

    failure_of(workload, check)


def test_the_budget_is_the_most_that_is_checked_and_the_telling_come_first() -> None:
    """With too many images for the budget everything, nothing, and each line lost alone are among them."""

    def workload(map: Map) -> None:
        for line in range(0, SIZE, 64):
            map.store_u64(line, 1)
        map.store_u64(8, 1)

    seen: list[bytes] = []
    report = explore(workload, lambda map: seen.append(map[:]), size=SIZE, budget=1000)
    assert (report.images, report.exhaustive) == (1000, False)
    assert len(set(seen)) == 1000
    lines = [[image[n] for n in range(0, SIZE, 64)] for image in seen if image[8]]
    assert [1] * 64 in lines
    assert any(sum(line) == 1 for line in lines)
    again: list[bytes] = []
    explore(workload, lambda map: again.append(map[:]), size=SIZE, budget=1000)
    assert again == seen
    other: list[bytes] = []
    explore(workload, lambda map: other.append(map[:]), size=SIZE, budget=1000, seed=1)
    assert other != seen


def test_a_large_copy_can_be_explored() -> None:
    """What cannot be gone through is sampled: half done copies are found."""

    def workload(map: Map) -> None:
        map.memset(0, 1, 2**18)

    error = failure_of(workload, lambda map: len(set(map[:])) == 1 or pytest.fail("half"), size=2**18, budget=50)
    assert [(store.offset, store.length) for store in error.lost] == [(0, 2**18)]


@pytest.mark.parametrize("granularity", list(Granularity))
def test_more_states_than_numbers_of_the_machine(granularity: Granularity) -> None:
    """A copy of whole sectors has 2**64 states in each, four ragged ones that are not drained 2**80 in one line."""

    def sectors(map: Map) -> None:
        map.memcpy(0, b"\1" * 1024)
        map.memset(512, 2, 1024, MemFlag.NOFLUSH)

    def lines(map: Map) -> None:
        for number in range(1, 5):
            map.memcpy(1, bytes([number]) * 62, NODRAIN | MemFlag.NONTEMPORAL)

    for workload in (sectors, lines):
        seen: list[bytes] = []

        def check(map: Map, seen: list[bytes] = seen) -> None:
            seen.append(map[:])

        report = explore(workload, check, size=SIZE, granularity=granularity, budget=200)
        assert report.images == len(set(seen)) == 200
        assert not report.exhaustive
        error = failure_of(workload, lambda map: map[8] == map[16] or pytest.fail("torn"), granularity=granularity)
        assert len(error.lost) == 1


def test_the_image_after_setup_is_durable() -> None:
    """Whatever setup does not flush is there, also what it stores through a view that the workload goes on to use."""
    views: list[memoryview] = []

    def setup(map: Map) -> None:
        map.store_u64(0, 7)
        views.append(map.view(8, 8))
        views[0][0] = 9

    def workload(map: Map) -> None:
        views.pop()[0] = 1

    seen: list[tuple[int, int]] = []
    report = explore(workload, lambda map: seen.append((map[0], map[8])), size=SIZE, setup=setup)
    assert seen == [(7, 9), (7, 1)] or seen == [(7, 1), (7, 9)]
    assert report.images == 2


# ---- acknowledgements


def test_a_generator_acknowledges() -> None:
    """The check gets what had been yielded by then; the moment after the last yield is one too."""

    def workload(map: Map) -> Generator[int, None, None]:
        map.store_u64(0, 1)
        yield 1
        map.persist(0, 8)
        yield 2

    seen: set[tuple[int, tuple[int, ...]]] = set()
    report = explore(workload, lambda map, acks: seen.add((map.load_u64(0), tuple(acks))), size=SIZE)
    assert seen == {(0, ()), (1, ()), (0, (1,)), (1, (1,)), (1, (1, 2))}
    assert report.images == 5


def test_what_is_yielded_is_copied() -> None:
    """A list that grows later is what it was."""

    def workload(map: Map) -> Generator[list[int], None, None]:
        done: list[int] = []
        for number in range(2):
            done.append(number)
            yield done

    seen: list[list[list[int]]] = []

    def check(map: Map, acknowledged: list[list[int]]) -> None:
        seen.append([done.copy() for done in acknowledged])
        for done in acknowledged:
            done.clear()

    explore(workload, check, size=SIZE)
    assert sorted(seen) == [[], [[0]], [[0], [0, 1]]]


def test_what_was_acknowledged_and_is_lost_is_found() -> None:
    """The crash point is the yield."""

    def workload(map: Map) -> Generator[None, None, None]:
        map.store_u64(0, 1)
        yield

    def check(map: Map, acknowledged: list[None]) -> None:
        assert map.load_u64(0) or not acknowledged

    with pytest.raises(CrashConsistencyError) as raised:
        explore(workload, check, size=SIZE)
    assert raised.value.crash_point == (__file__, line_of(workload, "yield"))
    assert [store.lineno for store in raised.value.lost] == [line_of(workload, "store_u64")]


# ---- what is told of a failure


def test_a_store_that_was_never_flushed() -> None:
    """The place, the range, the reason, and the call that mends it."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.store_u64(64, 1, persist=True)

    error = failure_of(workload, published)
    store = LostStore(0, 8, __file__, line_of(workload, "promised"), "workload", "never flushed")
    assert error.lost == (store,)
    assert error.crash_point == (__file__, line_of(workload, "store_u64"))
    assert f"persist(0, 8) before line {error.crash_point[1]} of " in str(error)
    assert error.image[0:8] == bytes(8)
    assert error.image[64] == 1
    assert len(error.image) == SIZE
    assert isinstance(error, AssertionError)
    assert isinstance(error.__cause__, AssertionError)


def test_a_store_that_was_flushed_and_not_drained() -> None:
    """What mends it is a drain."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"promised", NODRAIN)
        map.store_u64(64, 1, persist=True)

    error = failure_of(workload, published)
    assert [store.reason for store in error.lost] == ["flushed, not drained"]
    assert "drain() before" in str(error)


def test_a_store_that_was_overtaken() -> None:
    """It is flushed in the end, but too late."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.store_u64(64, 1)
        map.persist()

    error = failure_of(workload, published)
    assert [store.reason for store in error.lost] == ["overtaken"]


def test_a_copy_that_survives_in_part_is_listed() -> None:
    """A record that is copied over another can be half of each."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"\1" * 64)

    error = failure_of(workload, lambda map: len(set(map[0:64])) == 1 or pytest.fail("torn"))
    assert [(store.offset, store.length) for store in error.lost] == [(0, 64)]
    assert error.crash_point == (__file__, line_of(workload, "memcpy"))
    assert "half done" in str(error)


def test_a_bad_state_that_the_workload_itself_passes_through() -> None:
    """Nothing is lost, and no flush can help."""

    def workload(map: Map) -> None:
        map.store_u64(64, 1, persist=True)
        map.memcpy(0, b"promised")

    error = failure_of(workload, published)
    assert error.lost == ()
    assert error.crash_point == (__file__, line_of(workload, "store_u64"))


def test_a_bad_beginning() -> None:
    """A check that does not accept what setup leaves fails where the workload begins."""

    def workload(map: Map) -> None:
        """Do nothing."""

    error = failure_of(workload, lambda map: pytest.fail("never"))
    assert error.crash_point == (__file__, line_of(workload, "def workload"))
    assert error.lost == ()


@attrs.define
class Nothing:
    """A workload that is no function."""

    def __call__(self, map: Map) -> None:
        """Do nothing."""


def test_a_bad_beginning_of_a_workload_without_code() -> None:
    """Where a workload is no function, the place is the call of explore."""
    error = failure_of(Nothing(), lambda map: pytest.fail("never"))
    assert error.crash_point[0] == __file__


def test_the_fewest_stores_are_named() -> None:
    """Among many that are pending, the one that matters."""

    def workload(map: Map) -> None:
        for line in range(128, 1280, 64):
            map.store_u64(line, 1)
        map[0:8] = b"promised"
        map.store_u64(64, 1)
        map.persist()

    error = failure_of(workload, published)
    assert [(store.offset, store.length) for store in error.lost] == [(0, 8)]


def test_two_stores_that_must_both_be_lost() -> None:
    """Two copies of the same, either of which would do."""

    def workload(map: Map) -> None:
        map.store_u64(128, 1)
        map.store_u64(192, 1)
        map.store_u64(64, 1, persist=True)

    def check(map: Map) -> None:
        assert not map.load_u64(64) or map.load_u64(128) or map.load_u64(192)

    error = failure_of(workload, check)
    assert [store.offset for store in error.lost] == [128, 192]
    assert "persist_many([(128, 8), (192, 8)])" in str(error)


def test_more_than_two_stores_that_must_be_lost() -> None:
    """Of those that are lost in the image that was found, none is listed that need not be."""

    def workload(map: Map) -> None:
        for line in range(128, 1024, 64):
            map.store_u64(line, 1)
        map.store_u64(64, 1, persist=True)

    def check(map: Map) -> None:
        assert not map.load_u64(64) or any(map.load_u64(line) for line in range(128, 448, 64))

    error = failure_of(workload, check)
    assert [store.offset for store in error.lost] == list(range(128, 448, 64))
    assert len(str(error).splitlines()) == 8


def test_fewer_stores_at_another_moment() -> None:
    """What is found first needs two stores to be lost; elsewhere one is enough, and that is told."""

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


def test_the_search_for_fewer_stores_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is too much to try, what was found is told, without what need not be lost."""

    def workload(map: Map) -> None:
        for line in range(128, 1280, 64):
            map.store_u64(line, 1)
        map.store_u64(64, 1)
        map.persist()

    def check(map: Map) -> None:
        assert not map.load_u64(64) or any(map.load_u64(line) for line in range(128, 320, 64))

    assert [store.offset for store in failure_of(workload, check).lost] == [128, 192, 256]
    monkeypatch.setattr("pmem2.testing._diagnosis.PAIRS", 1)
    assert [store.offset for store in failure_of(workload, check).lost] == [128, 192, 256]
    monkeypatch.setattr("pmem2.testing._diagnosis.EFFORT", 10)
    assert {128, 192, 256} <= {store.offset for store in failure_of(workload, check).lost}


def test_a_store_that_is_lost_in_part_is_alone() -> None:
    """Whatever else is lost in the image that was found by chance: it need not be."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"".join(bytes([n]) * 8 for n in range(1, 9)), MemFlag.NOFLUSH)
        for line in range(64, 832, 64):
            map.store_u64(line, 7)

    def check(map: Map) -> None:
        assert map[0:64:8] != bytes([0, 2, 0, 4, 5, 0, 7, 8]) or not map[64:832:64][-1]

    assert [store.offset for store in failure_of(workload, check).lost] == [0]


def test_many_stores_of_which_few_must_be_lost() -> None:
    """Four are named, although of the five that are lost where it was found first none can be spared."""

    def workload(map: Map) -> None:
        for line in range(0, 704, 64):
            map.store_u64(line, 1)

    def check(map: Map) -> None:
        lost = {n for n in range(10) if not map.load_u64(n * 64)}
        assert not map.load_u64(640) or not (lost >= set(range(5)) or lost == {6, 7, 8, 9})

    assert [store.offset for store in failure_of(workload, check, budget=100).lost] == [384, 448, 512, 576]


def test_a_nodrain_copy_that_is_lost_in_part() -> None:
    """A later store of its line survives without a word of it; only that copy is listed."""

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


def test_a_copy_over_two_lines_is_half_done() -> None:
    """One line of it is there, the other is not; or only a word of one."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"\1" * 128)

    def lines(map: Map) -> None:
        assert map[0] == map[64]

    def word(map: Map) -> None:
        assert map[8] or not (map[0] and map[16] and map[64] and map[120])

    for check in (lines, word):
        assert [(store.offset, store.length) for store in failure_of(workload, check).lost] == [(0, 128)]


def test_what_a_statement_has_changed_is_told_range_by_range() -> None:
    """Of two words that one statement stores, the one that is lost."""

    def workload(map: Map) -> None:
        with map.view(0, 128) as view:
            view[0:8], view[64:72] = b"promised", b"\1" * 8

    error = failure_of(workload, published)
    assert [(store.offset, store.length, store.lineno) for store in error.lost] == [
        (0, 8, line_of(workload, "promised"))
    ]


def test_stores_that_touch_are_mended_by_one_call() -> None:
    """Ranges that are neighbours are one range."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map[8:16] = b"promised"
        map.store_u64(64, 1, persist=True)

    def check(map: Map) -> None:
        assert not map.load_u64(64) or map[0:8] == b"promised" or map[8:16] == b"promised"

    assert "persist(0, 16) before" in str(failure_of(workload, check))


def test_the_image_can_be_checked_alone(tmp_path: Path) -> None:
    """Written to a file, mapped, and given to the check."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.store_u64(64, 1, persist=True)

    path = tmp_path / "image"
    path.write_bytes(failure_of(workload, published).image)
    with pmem2.open(path, "c") as map, pytest.raises(AssertionError):
        published(map)


def test_a_failure_can_be_pickled() -> None:
    """As a pool of processes does."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.store_u64(64, 1, persist=True)

    error = failure_of(workload, published)
    again: object = pickle.loads(pickle.dumps(error))
    assert isinstance(again, CrashConsistencyError)
    assert str(again) == str(error)
    assert (again.crash_point, again.image, again.lost) == (error.crash_point, error.image, error.lost)
    assert isinstance(again.reason, AssertionError)


def test_what_counts_as_a_failure() -> None:
    """Any exception, pytest's fail and xfail too; but not skip, and not Ctrl-C."""

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


# ---- what a workload and a check may do


def test_an_exception_of_the_workload_propagates() -> None:
    """As it is; setup's too."""

    def workload(map: Map) -> None:
        map[0] = 1 // 0

    for setup in (None, workload):
        with pytest.raises(ZeroDivisionError):
            explore(workload, lambda map: None, size=SIZE, setup=setup)


def test_a_refused_operation_is_not_recorded() -> None:
    """What Map refuses it refuses here, and nothing has happened."""

    def workload(map: Map) -> None:
        refused: list[Callable[[], None]] = [
            lambda: map.store_u64(1, 1),
            lambda: map.memcpy(SIZE, b"x"),
            lambda: map.persist(0, SIZE + 1),
            lambda: map.__setitem__(slice(0, 2), b"x"),
            lambda: map.memset(0, 256, 1),
            lambda: map.memcpy_many([(0, b"x"), (SIZE, b"x")]),
            lambda: map.store_u64(0, 2**64),
        ]
        for call in refused:
            with pytest.raises(ValueError, match=r"."):
                call()

    assert images_of(workload) == {bytes(SIZE)}


def test_closing_the_map_of_a_workload_is_refused() -> None:
    """As a Map that is in use is, by close() and by `with`."""

    def closing(map: Map) -> None:
        map.close()

    def leaving(map: Map) -> None:
        with map:
            map[0] = 1

    for workload in (closing, leaving):
        with pytest.raises(BufferError, match="must not close"):
            explore(workload, lambda map: None, size=SIZE)


def test_the_map_of_a_workload_is_not_to_be_closed_behind_its_back() -> None:
    """Nor stored to: its address may be known, and what is stored so has no place among the others."""

    def closing(map: Map) -> None:
        assert map.address
        Map.close(map)

    def storing(map: Map) -> None:
        Map.store_u64(map, 8, 1)

    with pytest.raises(BufferError):
        explore(closing, lambda map: None, size=SIZE)
    with pytest.raises(BufferError):
        explore(lambda map: None, lambda map: None, size=SIZE, setup=Map.close)
    with pytest.raises(RuntimeError, match="cannot be followed"):
        explore(storing, lambda map: None, size=SIZE)


def test_the_map_of_a_workload_is_closed_in_the_end() -> None:
    """Unless there are views of it, so that thousands of them need no collector."""
    kept: list[Map] = []
    views: list[memoryview] = []
    for workload in (kept.append, lambda map: views.append(map.view())):
        explore(workload, kept.append, size=SIZE)
        assert kept[0].closed
    assert views[0][0] == 0


def test_threads_are_refused() -> None:
    """Starting one, and using the map in one that was there."""

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


def test_threads_below_threading_are_refused() -> None:
    """Those that nothing but the system knows of, too: what they raise nobody else would hear of."""
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


def test_a_refusal_is_not_to_be_swallowed() -> None:
    """What comes after it is not recorded, so it is raised in the end; ending the tracing is refused too."""

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


def test_workloads_that_would_not_run_are_refused() -> None:
    """Coroutines, asynchronous generators, and iterators that are no generators."""

    async def coroutine(map: Map) -> None:
        """Do nothing."""

    async def generator(map: Map) -> AsyncGenerator[None, None]:
        yield

    def iterator(map: Map) -> Iterator[int]:
        return iter([1])

    for workload in (coroutine, generator, iterator):
        with pytest.raises(TypeError, match="function or a generator"):
            explore(workload, lambda map: None, size=SIZE)


def test_each_image_has_a_fresh_map() -> None:
    """One that a check has kept is closed; one that it has closed, or a view that it has kept, disturbs nothing."""
    kept: list[Map] = []
    views: list[memoryview] = []

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(64, 1)

    def keeping(map: Map) -> None:
        kept.append(map)
        assert not map.closed
        map.memset(0, 255, SIZE)

    def closing(map: Map) -> None:
        assert map.load_u64(0) + map.load_u64(64) < 3
        with map:
            map.memset(0, 255, SIZE)

    def viewing(map: Map) -> None:
        views.append(map.view(0, 72))

    explore(workload, keeping, size=SIZE)
    assert all(map.closed for map in kept)
    with pytest.raises(ValueError, match="closed"):
        kept[0].load_u64(0)
    assert explore(workload, closing, size=SIZE).images == 4
    assert explore(workload, viewing, size=SIZE).images == 4
    assert {(view[0], view[64]) for view in views} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_a_check_may_use_every_way_to_read() -> None:
    """Atomics, copies from the map, its address and PEP 688 count as reading."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)

    def copying(map: Map) -> None:
        with pmem2.Source.from_anon(SIZE) as source, pmem2.Map(source) as other:
            other.memcpy(0, map)

    checks: list[Callable[[Map], object]] = [
        lambda map: map.compare_exchange_u64(0, 1, 2),
        lambda map: map.fetch_add_u64(0, 1),
        lambda map: map.address,
        lambda map: map[0],
        lambda map: map[-4096],
        lambda map: [map[n] for n in range(100)],
        copying,
    ]
    for check in checks:
        assert explore(workload, check, size=SIZE).images == 2
    assert explore(workload, lambda map: map[64:128], size=SIZE).images == 1


def test_large_views_are_compared_page_by_page() -> None:
    """What has changed is found wherever it is."""

    def workload(map: Map) -> None:
        with map.view() as view:
            view[5000] = view[12000] = 1
            map.persist(*(view.__setitem__(5001, 1), 0, 3 * SIZE)[1:])

    assert explore(workload, lambda map: map[:], size=3 * SIZE).images == 6


def test_maps_say_what_is_explored() -> None:
    """Granularity, size, and that they are Maps."""

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
        with pytest.raises(ValueError, match="outside"):
            map.deep_flush(0, 101)

    explore(workload, check, size=100, granularity=Granularity.PAGE)


def test_views_of_the_workload_are_watched_as_long_as_they_live() -> None:
    """A slice of a view that is gone is still a view; PEP 688 and the address too."""

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


def test_bad_arguments() -> None:
    """As everywhere: TypeError for a type, ValueError for a value, the library's error for a granularity."""

    def workload(map: Map) -> None:
        """Do nothing."""

    def run(**options: object) -> Report:
        return explore(workload, lambda map: None, **{"size": SIZE, **options})  # type: ignore[call-overload,no-any-return]

    for name, value in (("size", 0), ("budget", 0), ("size", -1), ("budget", 2**64)):
        with pytest.raises(ValueError, match=name):
            run(**{name: value})
    for name, wrong in (("size", "1"), ("budget", 1.5), ("granularity", None), ("size", True)):
        with pytest.raises(TypeError):
            run(**{name: wrong})
    with pytest.raises(pmem2.GranularityNotSupportedError):
        run(granularity=7)


def test_a_tracer_that_is_set_goes_on_working() -> None:
    """It sees the lines of the workload, and is there again afterwards."""
    seen: set[int] = set()

    def tracer(frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], object]:
        if frame.f_code.co_filename == __file__:
            seen.add(frame.f_lineno)
        return tracer

    def workload(map: Map) -> Generator[None, None, None]:
        with map.view() as view:
            view[0] = 1
        yield
        map[8] = 1

    before = sys.gettrace()
    sys.settrace(tracer)  # type: ignore[arg-type]
    try:
        report = explore(workload, lambda map, acks: map[:16], size=SIZE)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert {line_of(workload, text) for text in ("with map", "view[0]", "yield", "map[8]")} <= seen
    assert report.images == 5


def test_a_tracer_that_answers_with_nothing_goes_on_working() -> None:
    """As without us: its local function stays if it returns nothing."""
    seen: list[int] = []

    def local(frame: FrameType, event: str, argument: object) -> None:
        if event == "line":
            seen.append(frame.f_lineno)

    def tracer(frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], object] | None:
        return local if frame.f_code is workload.__code__ else None

    def workload(map: Map) -> None:
        map[0] = 1
        map[1] = 2
        map[2] = 3

    before = sys.gettrace()
    sys.settrace(tracer)  # type: ignore[arg-type]
    try:
        explore(workload, lambda map: None, size=SIZE)
    finally:
        sys.settrace(before)
    assert seen == [line_of(workload, f"map[{n}]") for n in range(3)]


def test_a_tracer_that_wants_no_lines_does_not_take_ours() -> None:
    """What is stored through a view has its place, line by line; the tracer is told of no line."""
    seen: list[str] = []

    def tracer(frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], object] | None:
        if frame.f_code is not workload.__code__:
            return None
        seen.append(event)
        frame.f_trace_lines = False
        return tracer

    def workload(map: Map) -> None:
        view = map.view()
        view[0] = 1
        view[64] = 1
        view[0] = 2

    before = sys.gettrace()
    sys.settrace(tracer)  # type: ignore[arg-type]
    try:
        report = explore(workload, lambda map: map[:65], size=SIZE)
    finally:
        sys.settrace(before)
    assert report.images == 6
    assert seen == ["call", "return"]


# ---- lint


def test_lint_finds_what_is_forgotten_and_what_is_for_nothing() -> None:
    """Stores never made durable, flushes of clean lines, drains of nothing: each with its place."""

    def workload(map: Map) -> Generator[None, None, None]:
        map.store_u64(0, 1)
        map.persist(64, 64)
        map.drain()
        for _ in range(2):
            map.store_u64(128, 1)
            map.flush(128, 8)
            yield

    def findings(granularity: Granularity) -> list[tuple[str, int]]:
        report = explore(workload, lambda map, acks: None, size=SIZE, granularity=granularity, lint=True)
        assert all(finding.filename == __file__ for finding in report.findings)
        return [(finding.kind, finding.lineno) for finding in report.findings]

    stored, flushed = line_of(workload, "(0, 1)"), line_of(workload, "persist")
    drained, again = line_of(workload, "drain"), line_of(workload, "(128, 1)")
    assert findings(Granularity.CACHE_LINE) == [
        ("flush of clean lines", flushed),
        ("drain of nothing", drained),
        ("never made durable", stored),
        ("never made durable", again),
    ]
    assert findings(Granularity.PAGE) == []
    assert findings(Granularity.BYTE) == []


def test_lint_is_silent_on_what_is_right() -> None:
    """Copies, atomics, an exchange that changes nothing, a persist of nothing."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"x" * 100)
        map.memcpy(0, b"y", NODRAIN)
        map.drain()
        map.compare_exchange_u64(0, 5, 6, persist=True)
        map.persist(0, 0)
        map.store_u64(0, 1)
        map.flush(0, 8)
        map.drain()

    assert explore(workload, lambda map: None, size=SIZE, lint=True).findings == ()
    assert explore(workload, lambda map: None, size=SIZE).findings == ()


# ---- a model instead of a check


class Numbers(Protocol):
    """Numbers by their keys."""

    def __setitem__(self, key: int, value: int, /) -> None:
        """Keep a number."""

    def both(self, value: int) -> None:
        """Keep it twice."""

    def items(self) -> Iterable[tuple[int, int]]:
        """Return the numbers that are not 0."""


class Cells:
    """Numbers that are kept in a map."""

    def __init__(self, map: Map) -> None:
        """Find them."""
        self.map = map

    def __setitem__(self, key: int, value: int) -> None:
        """Keep a number."""
        self.map.store_u64(64 * key, value, persist=True)

    def both(self, value: int) -> None:
        """Keep it twice, which is not done at once."""
        self[0] = self[1] = value

    def items(self) -> list[tuple[int, int]]:
        """Return the numbers that are not 0."""
        return [(key, value) for key in range(4) if (value := self.map.load_u64(64 * key))]


class Ideal(dict[int, int]):
    """What behaves like them."""

    def both(self, value: int) -> None:
        """Keep it twice."""
        self[0] = self[1] = value


def test_a_model_says_what_is_right() -> None:
    """Steps that are done at once pass; one that is not is found, and the model is left alone."""
    ideal: Numbers = Ideal()

    def five(cells: Numbers) -> None:
        cells[1] = 5

    def six(cells: Numbers) -> None:
        cells[0] = 6

    def seven(cells: Numbers) -> None:
        cells.both(7)

    def view(cells: Numbers) -> object:
        return sorted(cells.items())

    report = explore_model([five, six], Cells, ideal, view, size=256)
    assert report.exhaustive
    assert not ideal.items()
    with pytest.raises(CrashConsistencyError, match="after 1 steps the model was"):
        explore_model([five, seven], Cells, ideal, view, size=256)


# ---- pytest

TEST = """
def test_it(crash_explorer):
    def workload(map):
        map.store_u64(0, 1)
        map.store_u64(64, 1, persist=True)

    def check(map):
        assert {}

    report = crash_explorer(workload, check, size=128)
    assert report.images == 4
"""


def test_looking_at_the_address_again_costs_nothing() -> None:
    """The whole memory is watched from the first time on, once, whatever else is."""

    def workload(map: Map) -> None:
        for _ in range(10):
            assert map.address
            map.view()[0] = 1
        assert isinstance(map, RecordingMap)
        assert len(map._exposed) == 1

    assert explore(workload, lambda map: map[0], size=SIZE).images == 2


def test_pytest_imports_nothing() -> None:
    """What pytest imports everywhere, because pmem2 is installed, does not import pmem2."""
    code = "import _pmem2_pytestplugin, sys; sys.exit('pmem2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def installed(pytestconfig: pytest.Config) -> None:
    """What a test needs that is for an installed pmem2, by which pytest finds the plugin."""
    if not pytestconfig.pluginmanager.has_plugin("pmem2"):
        pytest.skip("pmem2 is not installed here, only to be imported")


@pytest.mark.usefixtures("installed")
def test_pytest_finds_the_fixture(pytester: pytest.Pytester) -> None:
    """Without configuration; what was checked is in the report of a test that passes."""
    pytester.makepyfile(TEST.format("map.load_u64(0) + map.load_u64(64) < 3"))
    result = pytester.runpytest_inprocess("-rA", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*crash states*", "4 images checked, all there are, in * s"])


@pytest.mark.usefixtures("installed")
def test_pytest_shows_what_is_lost(pytester: pytest.Pytester) -> None:
    """As a table, and none of our own frames."""
    pytester.makepyfile(TEST.format("map.load_u64(0) or not map.load_u64(64)"))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * a power cut at *:4 (workload) can leave what the check does not accept: AssertionError*",
            "E *lost  bytes  stored at *",
            "E *0 * 8 *:3 * workload  never flushed",
            "E *to mend it: persist(0, 8) before line 4 of *",
        ]
    )
    result.stdout.no_fnmatch_line("*_search.py*")
    result.stdout.no_fnmatch_line("*During handling*")
