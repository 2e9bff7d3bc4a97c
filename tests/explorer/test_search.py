# SPDX-License-Identifier: BSD-3-Clause
"""The search: every image once, the budget, the pruning by reads, and the check runner."""

from __future__ import annotations

import os
from typing import Callable

import pytest

import pmem2
from explorer.helpers import NODRAIN, SIZE, discard, failure_of, images_of, values_of
from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import CrashConsistencyError, Report, explore
from pmem2.testing._volatile import VolatileMap

LONG = os.environ.get("HYPOTHESIS_PROFILE", "default") != "default"
LINES = 10 if LONG else 7
"""Lines that `toggle_lines` toggles: they have 2**LINES images."""
SEEDS = 3 if LONG else 1


def test_identical_images_are_checked_once() -> None:
    """A store of a value that was there now or earlier brings no new image."""

    def workload(map: Map) -> None:
        map.store_u64(0, 0)
        map.store_u64(0, 1)
        map.store_u64(0, 0)
        map.store_u64(0, 1)

    assert values_of(workload, 0) == {(0,), (1,)}


def test_repeated_values_bring_no_images() -> None:
    """Hundreds of stores of the same two values to two lines give four images."""

    def workload(map: Map) -> None:
        for number in range(300):
            map.store_u64(0, number % 2)
            map.store_u64(64, number % 2)

    assert values_of(workload, 0, 64) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def toggle_lines(map: Map, counted: bool, lines: int = LINES) -> None:
    """Set all lines, clear them, and so on, 40 times; *counted* also stores the turn in another line."""
    for turn in range(40):
        if counted:
            map.store_u64(64 * (lines + 1), turn, persist=True)
        for line in range(lines):
            map[64 * line] = (turn + 1) % 2
        map.persist(0, 64 * lines)


@pytest.mark.parametrize(("counted", "budget"), [(False, 2**LINES), (False, 5 * 2**LINES), (True, 5 * 2**LINES)])
def test_toggled_lines_are_searched_exhaustively(counted: bool, budget: int) -> None:
    """The search checks every image of lines toggled again and again, and knows that none is left."""
    found = set()

    def check(map: Map) -> None:
        found.add(tuple(map[64 * line] for line in range(LINES)))

    report = explore(lambda map: toggle_lines(map, counted), check, size=64 * (LINES + 2), budget=budget)
    assert (report.images, report.exhaustive, len(found)) == (2**LINES, True, 2**LINES)


def test_search_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is not exhaustive if the passes run out before the search has proved that no image is left."""
    monkeypatch.setattr("pmem2.testing._search.MAX_PASSES", 1)
    report = explore(
        lambda map: toggle_lines(map, counted=True, lines=8),
        discard(lambda map: map[0 : 64 * 8 : 64]),
        size=64 * 10,
        budget=2**8 + 6,
    )
    assert report.images <= 2**8
    assert not report.exhaustive


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_last_image_is_found(counted: bool, seed: int) -> None:
    """The search finds the single failing image, one of the last, within the budget."""
    failing = [*[2, 0, 2, 0, 0, 2, 2, 0, 2, 0][:LINES], 2]

    def workload(map: Map) -> None:
        toggle_lines(map, counted)
        for line in range(LINES + 1):
            map[64 * line] = 2

    def check(map: Map) -> None:
        assert [map[64 * line] for line in range(LINES + 1)] != failing

    with pytest.raises(CrashConsistencyError):
        explore(workload, check, size=64 * (LINES + 2), budget=10 * 2**LINES, seed=seed)


def test_store_over_many_lines() -> None:
    """A store to 17 lines merges its states if it cannot tear; otherwise the budget limits them."""

    def words(map: Map) -> None:
        for number in range(20):
            map[0 : 17 * 64 : 64] = bytes([number % 2]) * 17

    def lines(map: Map) -> None:
        for number in range(20):
            map.memset(0, number % 2, 17 * 64, MemFlag.NOFLUSH)

    report = explore(words, discard(lambda map: map[0]), size=SIZE)
    assert (report.images, report.exhaustive) == (2, True)
    report = explore(lines, discard(lambda map: map[0]), size=SIZE, budget=300)
    assert 2 < report.images <= 256
    assert not report.exhaustive


def test_unflushed_counter() -> None:
    """A line with more states than the search merges still has each image checked once."""

    def workload(map: Map) -> None:
        for number in range(1100):
            map.store_u64(0, number)

    assert len(images_of(workload)) == 1100


def test_small_budget() -> None:
    """The search checks exactly as many images as the budget allows."""

    def workload(map: Map) -> None:
        for line in range(0, SIZE, 64):
            map.store_u64(line, 1)

    for budget in (1, 3, 30):
        report = explore(workload, discard(lambda map: map[:]), size=SIZE, budget=budget)
        assert (report.images, report.exhaustive) == (budget, False)


def test_boundary_images_come_first() -> None:
    """Images that lose all, none or one of the lines are checked first, and the seed decides the others."""

    def workload(map: Map) -> None:
        for line in range(0, SIZE, 64):
            map.store_u64(line, 1)
        map.store_u64(8, 1)

    seen: list[bytes] = []
    report = explore(workload, lambda map: seen.append(map[:]), size=SIZE, budget=300)
    assert (report.images, report.exhaustive) == (300, False)
    assert len(set(seen)) == 300
    lines = [[image[n] for n in range(0, SIZE, 64)] for image in seen if image[8]]
    assert [1] * 64 in lines
    assert any(sum(line) == 1 for line in lines)
    again: list[bytes] = []
    explore(workload, lambda map: again.append(map[:]), size=SIZE, budget=300)
    assert again == seen
    other: list[bytes] = []
    explore(workload, lambda map: other.append(map[:]), size=SIZE, budget=1000, seed=1)
    assert other != seen


def test_every_boundary_image_is_checked() -> None:
    """A small budget checks each image that keeps or loses all lines, all but one or all but the newest and one."""
    lines = range(12)

    def workload(map: Map) -> None:
        for line in lines:
            map.store_u64(64 * line, 1)

    seen: list[set[int]] = []
    report = explore(
        workload, lambda map: seen.append({line for line in lines if map[64 * line]}), size=1024, budget=650
    )
    assert (report.images, report.exhaustive) == (650, False)
    boundary = [set(range(newest)) for newest in range(13)]  # everything survives
    boundary += [set(range(newest + 1)) - {lost} for newest in lines for lost in range(newest)]
    boundary += [{newest} for newest in lines]
    boundary += [{newest, other} for newest in lines for other in range(newest)]
    assert [image for image in boundary if image not in seen] == []


def test_newest_content_is_checked() -> None:
    """A small budget checks the content of the memory although each line had that content before the newest store."""

    def workload(map: Map) -> None:
        for number in (1, 2, 1):
            for line in range(12):
                map.store_u64(64 * line, number)
        map.store_u64(768, 1)

    seen: list[bytes] = []
    explore(workload, lambda map: seen.append(map[0:1024:64]), size=1024, budget=80)
    assert b"\1" * 13 + bytes(3) in seen


def test_unread_lines_are_pruned() -> None:
    """Lines that the check does not read bring no images, unless the check takes a view."""

    def workload(map: Map) -> None:
        for line in range(0, 6400, 64):
            map.store_u64(line, 1)

    report = explore(workload, discard(lambda map: (map.load_u64(0), map.load_u64(640))), size=6400)
    assert (report.images, report.exhaustive) == (4, True)
    report = explore(workload, discard(lambda map: map.view().release()), size=6400, budget=250)
    assert (report.images, report.exhaustive) == (250, False)


def test_reads_may_depend_on_reads() -> None:
    """The search skips lines that the check reads only if an earlier read requires it."""

    def workload(map: Map) -> None:
        for line in range(0, 640, 64):
            map.store_u64(line, 1)

    report = explore(workload, discard(lambda map: map.load_u64(576) and len(map[:])), size=640)
    assert (report.images, report.exhaustive) == (2 + 511, True)


def test_nondeterministic_reads_prune_nothing() -> None:
    """A check that reads at random still sees every image, the failing one included."""
    count = 0
    limit = 4
    seen: set[tuple[int, ...]] = set()

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(64, 1)
        map.store_u64(128, 1)

    def check(map: Map) -> None:
        nonlocal count
        count += 1
        map.load_u64(64 * (count % 3))
        seen.add((map.load_u64(0), map.load_u64(64), map.load_u64(128)))
        assert sum(map.load_u64(line) for line in (0, 64, 128)) < limit

    assert explore(workload, check, size=SIZE).exhaustive
    assert len(seen) == 8
    limit = 3
    failure_of(workload, check)


def test_changing_reads_prune_nothing() -> None:
    """A check that reads other lines in each of its first runs still sees the failing image."""
    count = 0

    def workload(map: Map) -> None:
        for line in (0, 64, 128):
            map.store_u64(line, 1)

    def check(map: Map) -> None:
        nonlocal count
        count += 1
        if count > 2:
            assert map[64] or not map[128]
        else:
            map.load_u64(64 * count - 64)

    failure_of(workload, check)


def test_shorter_reads_prune_nothing() -> None:
    """The search checks all other images after a check has read less than an earlier one that found the same."""
    count = 0

    def workload(map: Map) -> None:
        for line in (0, 64, 128):
            map.store_u64(line, 1)

    def check(map: Map) -> None:
        nonlocal count
        count += 1
        map.load_u64(0)
        if count == 1:
            map.load_u64(64)

    assert explore(workload, check, size=SIZE).images == 7  # of 8: as above


def test_reads_end_at_their_line() -> None:
    """A long read of lines that never differ does not count as a read of the line behind them."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(640, 1)

    assert explore(workload, discard(lambda map: map[0:640]), size=SIZE).images == 2
    assert explore(workload, discard(lambda map: map[0:641]), size=SIZE).images == 4


def test_torn_copy_brings_image() -> None:
    """A torn copy brings a new image although the whole copy only restores older content."""

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(8, 1)
        map.memset(0, 0, 16)

    assert values_of(workload, 0, 8) == {(0, 0), (1, 0), (1, 1), (0, 1)}


def test_later_reads_prune_nothing() -> None:
    """The search checks all other images after a check has read another line than before."""
    count = 0

    def workload(map: Map) -> None:
        for line in (0, 64, 128):
            map.store_u64(line, 1)

    def check(map: Map) -> None:
        nonlocal count
        count += 1
        map.load_u64(64 * (count % 3))

    assert explore(workload, check, size=SIZE).images == 7  # of 8: one equals the first in the only line that it read


def test_every_read_is_tracked() -> None:
    """Atomics, slices, copies from the map, iteration and the address count as reads."""

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
        assert explore(workload, discard(check), size=SIZE).images == 2
    assert explore(workload, discard(lambda map: map[64:128]), size=SIZE).images == 1

    def both(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(128, 1)

    assert explore(both, discard(lambda map: map[0:129]), size=SIZE).images == 4
    assert explore(both, discard(lambda map: map[0:256:128]), size=SIZE).images == 4
    assert explore(both, discard(copying), size=SIZE).images == 4
    assert explore(both, discard(lambda map: map.view(0, 8)[0]), size=SIZE).images == 4  # a view may be read anywhere


def test_each_image_has_fresh_map() -> None:
    """A check that keeps, overwrites or closes its map, or keeps a view, affects no other image."""
    kept: list[Map] = []
    views: list[memoryview] = []

    def workload(map: Map) -> None:
        map.store_u64(0, 1)
        map.store_u64(64, 1)

    def keeping(map: Map) -> None:
        assert all(other.closed for other in kept)
        kept.append(map)
        assert not map.closed
        assert map.load_u64(0) + map.load_u64(64) < 3
        map.memset(0, 255, SIZE)

    def closing(map: Map) -> None:
        assert map.load_u64(0) + map.load_u64(64) < 3
        with map:
            map.memset(0, 255, SIZE)

    def viewing(map: Map) -> None:
        views.append(map.view(0, 72))

    assert explore(workload, keeping, size=SIZE).images == 4
    assert all(map.closed for map in kept)
    with pytest.raises(ValueError, match="closed"):
        kept[0].load_u64(0)
    assert explore(workload, closing, size=SIZE).images == 4
    assert explore(workload, viewing, size=SIZE).images == 4
    assert {(view[0], view[64]) for view in views} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_check_memory_is_unmapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """explore unmaps the memory of the images when it returns, and does not wait for the garbage collector."""
    mapped: list[VolatileMap] = []

    class Listed(VolatileMap):  # type: ignore[misc] # see VolatileMap
        def __init__(self, size: int, granularity: Granularity) -> None:
            super().__init__(size, granularity)
            mapped.append(self)

    monkeypatch.setattr("pmem2.testing._runner.VolatileMap", Listed)
    explore(lambda map: map.store_u64(0, 1), discard(lambda map: map[0]), size=SIZE)
    assert mapped
    assert all(map.closed for map in mapped)


def test_large_copy_is_sampled() -> None:
    """The search finds a torn copy of 64 KiB by a sample of 50 images."""

    def workload(map: Map) -> None:
        map.memset(0, 1, 2**16)

    error = failure_of(workload, lambda map: len(set(map[:])) == 1 or pytest.fail("half"), size=2**16, budget=50)
    assert [(store.offset, store.length) for store in error.lost] == [(0, 2**16)]


@pytest.mark.parametrize("granularity", list(Granularity))
def test_state_numbers_exceed_64_bits(granularity: Granularity) -> None:
    """Copies with 2**64 and more states in one cell are explored and diagnosed."""

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

        report = explore(workload, check, size=SIZE, granularity=granularity, budget=50)
        assert report.images == len(set(seen)) == 50
        assert not report.exhaustive
        error = failure_of(workload, lambda map: map[8] == map[16] or pytest.fail("torn"), granularity=granularity)
        assert len(error.lost) == 1


def test_bad_arguments() -> None:
    """explore raises TypeError, ValueError, and for an unknown granularity the error of the library."""

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
