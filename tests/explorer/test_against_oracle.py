# SPDX-License-Identifier: BSD-3-Clause
"""`explore` checks exactly the images that the independent oracle finds by brute force."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import pmem2
from explorer import oracle
from pmem2 import Granularity, MemFlag
from pmem2.testing import CrashConsistencyError, explore

SIZE = 256
HYPOTHESIS_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
FLAGS = [MemFlag(0), MemFlag.NODRAIN, MemFlag.NOFLUSH, MemFlag.NONTEMPORAL | MemFlag.NODRAIN, MemFlag.TEMPORAL]


def steps_in(sizes: st.SearchStrategy[int], scale: int) -> st.SearchStrategy[oracle.Step]:
    """Return a strategy for steps in three lines or sectors of *scale* bytes."""
    words = st.builds(lambda cell, word: cell * scale + word * 8, st.integers(0, 2), st.integers(0, 2))
    places = st.one_of(words, st.builds(lambda word, byte: word + byte, words, st.integers(0, 9)))
    values = st.integers(0, 3)
    data = st.builds(lambda value, size: bytes([value]) * size, values, sizes)
    return st.one_of(
        st.builds(oracle.Set, places, data),
        st.builds(oracle.SetInView, places, data, places),
        st.builds(oracle.Atomic, words, values, st.booleans()),
        st.builds(oracle.Copy, places, data, st.sampled_from(FLAGS)),
        st.builds(oracle.CopyMany, st.lists(st.tuples(places, data), max_size=2)),
        st.builds(oracle.Flush, places, st.integers(0, scale), st.booleans()),
        st.builds(oracle.Drain),
        st.builds(oracle.Yield),
    )


def images_of(steps: Iterable[oracle.Step], size: int, granularity: Granularity) -> set[tuple[int, bytes]]:
    """Return the pairs of acknowledgements and image that the oracle finds."""
    memory = oracle.Oracle(bytes(size), granularity)
    for step in steps:
        memory.step(step)
    return memory.images


def assert_matches_oracle(steps: list[oracle.Step], granularity: Granularity, slack: int = 0) -> None:
    """Assert that explore checks each image of the oracle once, with a budget of *slack* more than needed."""
    size = SIZE * (8 if granularity is Granularity.PAGE else 1)
    expected = images_of(steps, size, granularity)
    seen: list[tuple[int, bytes]] = []

    def check(map: pmem2.Map, acknowledged: list[int]) -> None:
        seen.append((len(acknowledged), map[:]))

    def workload(map: pmem2.Map) -> Generator[int, None, None]:
        yield from oracle.run(map, steps)

    report = explore(workload, check, size=size, granularity=granularity, budget=len(expected) + slack)
    assert len(set(seen)) == len(seen) == report.images
    assert set(seen) == expected
    assert report.exhaustive


@pytest.mark.parametrize("granularity", list(Granularity))
@given(data=st.data())
@settings(max_examples=10 if HYPOTHESIS_PROFILE == "default" else 200)  # brute force is slow
def test_images_match_oracle(granularity: Granularity, data: st.DataObject) -> None:
    """explore checks each image that the oracle finds once, and no others, for any workload."""
    scale = 512 if granularity is Granularity.PAGE else 64
    steps = data.draw(st.lists(steps_in(st.integers(1, 9), scale), max_size=6))
    try:
        assert_matches_oracle(steps, granularity, data.draw(st.sampled_from([0, 10**6])))
    except oracle.TooMany:
        reject()


UNORDERED = MemFlag.NONTEMPORAL | MemFlag.NODRAIN
ONE, TWO = (number.to_bytes(8, "little") for number in (1, 2))
PROGRAMS: dict[str, list[oracle.Step]] = {
    "unordered-after-ordered": [
        *(oracle.Atomic(0, 1, False), oracle.Atomic(8, 2, False), oracle.Flush(0, 16, True)),
        *(oracle.Atomic(8, 0, True), oracle.Atomic(0, 0, True)),
        *(oracle.Copy(0, ONE, UNORDERED), oracle.Atomic(8, 2, False)),
    ],
    "same-store-after-other-lines": [
        *(oracle.Atomic(128, 1, True), oracle.Atomic(128, 0, True)),
        *(oracle.Atomic(0, 1, True), oracle.Atomic(64, 1, True), oracle.Atomic(128, 1, False)),
    ],
    "copy-torn-to-old-content": [
        *(oracle.Atomic(0, 1, False), oracle.Atomic(8, 1, False), oracle.Copy(0, bytes(16), MemFlag.NOFLUSH))
    ],
    "drain-of-copy-before-store": [
        *(oracle.Copy(0, ONE, UNORDERED), oracle.Atomic(8, 2, False), oracle.Drain(), oracle.Atomic(64, 3, False))
    ],
    "store-behind-copy": [*(oracle.Copy(0, ONE, UNORDERED), oracle.Atomic(8, 2, False), oracle.Atomic(64, 3, False))],
    "store-of-copied-content": [
        *(oracle.Copy(0, ONE, UNORDERED), oracle.Atomic(0, 1, False), oracle.Atomic(8, 2, False))
    ],
    "store-between-flush-and-drain": [
        *(oracle.Atomic(0, 1, False), oracle.Flush(0, 8, False), oracle.Atomic(0, 2, False), oracle.Drain()),
        *(oracle.Atomic(0, 3, False), oracle.Drain(), oracle.Atomic(64, 1, False), oracle.Yield()),
    ],
    "empty-flush": [oracle.Atomic(0, 1, False), oracle.Flush(8, 0, True), oracle.Atomic(64, 1, False)],
    "pieces-overlap": [oracle.CopyMany([(0, ONE), (0, TWO), (8, ONE)]), oracle.Yield()],
    "torn-store-behind-copy": [
        *(oracle.Copy(0, ONE, UNORDERED), oracle.Set(8, ONE + TWO), oracle.Copy(128, ONE, UNORDERED), oracle.Drain()),
        *(oracle.Atomic(offset, 0, True) for offset in (128, 16, 8, 0)),
        *(oracle.Copy(128, ONE, UNORDERED), oracle.Copy(0, ONE, UNORDERED), oracle.Set(8, ONE + TWO)),
    ],
}
"""Programs that show faults of the memory model; random programs rarely do."""


@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_matches_oracle(name: str, granularity: Granularity) -> None:
    """explore checks each image of a pinned program that the oracle finds, and no others."""
    for slack in (0, 10**6):
        assert_matches_oracle(PROGRAMS[name], granularity, slack)


@pytest.mark.parametrize("granularity", list(Granularity))
@given(data=st.data(), budget=st.integers(1, 60), size=st.sampled_from([2500, 4096, 9000]))
@settings(max_examples=8 if HYPOTHESIS_PROFILE == "default" else 500)
def test_any_workload_is_explored(granularity: Granularity, data: st.DataObject, budget: int, size: int) -> None:
    """explore returns a consistent report or a consistent error for large copies, small budgets and any check."""
    sizes = st.sampled_from([1, 3, 8, 9, 64, 65, 500, 1024])
    steps = data.draw(st.lists(steps_in(sizes, 512), max_size=12))
    place = data.draw(st.integers(0, size - 1))
    checks = 0

    def workload(map: pmem2.Map) -> Generator[int, None, None]:
        yield from oracle.run(map, steps)

    def check(map: pmem2.Map, acknowledged: list[int]) -> None:
        nonlocal checks
        checks += 1
        assert map[place] < 3 or map[0:64].count(3) % 2 == 0

    report = error = None
    try:
        report = explore(workload, check, size=size, granularity=granularity, budget=budget, lint=True)
    except CrashConsistencyError as raised:
        error = raised
    if report is not None:
        assert report.images == checks <= budget
    if error is not None:
        assert len(error.image) == size
        assert all(0 <= store.offset < store.offset + store.length <= size for store in error.lost)
