# SPDX-License-Identifier: BSD-3-Clause
"""`explore` with `recover` checks exactly the images of the oracle's closure, and finds exactly its failures."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import pmem2
from explorer import oracle
from explorer.oracle import Rule
from explorer.test_against_oracle import steps_in
from pmem2 import Granularity
from pmem2.testing import CrashConsistencyError, explore

HYPOTHESIS_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
RANDOM, MAX_IMAGES = (6, 200) if HYPOTHESIS_PROFILE == "default" else (400, 2000)
"""Random programs of each of the six tests (with the profile "ci", 2,400 in all), and the images of each at most."""


Program = tuple[list[oracle.Step], list[Rule]]
"""The steps of a workload, and the rules of its recovery."""
Forbidden = list[tuple[int, int, int]]
"""Cells, bytes in them, and values: a check rejects an image that has all of these values."""


@st.composite
def programs(draw: st.DrawFn, granularity: Granularity) -> Program:
    """Draw a program."""
    scale = cell_size(granularity)
    steps = steps_in(st.integers(1, 9), scale)
    recovering = steps.filter(lambda step: not isinstance(step, oracle.Yield))
    places = st.builds(lambda cell, byte: cell * scale + byte, st.integers(0, 2), st.integers(0, 17))
    rules = st.builds(Rule, places, st.integers(0, 3), recovering)
    return draw(st.lists(steps, max_size=5)), draw(st.lists(rules, max_size=4))


def cell_size(granularity: Granularity) -> int:
    """Return the size of a line or a sector."""
    return 512 if granularity is Granularity.PAGE else 64


def closure_of(program: Program, granularity: Granularity) -> oracle.Closure:
    """Return the closure of a program."""
    return oracle.Closure(*program, 4 * cell_size(granularity), granularity, MAX_IMAGES)


def assert_closure_matches(program: Program, closure: oracle.Closure, granularity: Granularity, budget: int) -> None:
    """Assert that explore checks the images of the closure, and knows whether it has checked them all."""
    steps, rules = program
    seen: list[tuple[int, bytes]] = []
    before = b""

    def workload(map: pmem2.Map) -> Generator[int, None, None]:
        yield from oracle.run(map, steps)

    def recover(map: pmem2.Map) -> None:
        nonlocal before
        before = map[:]
        oracle.recover(map, rules)

    def check(map: pmem2.Map, acknowledged: list[int]) -> None:
        seen.append((len(acknowledged), before))
        assert map[:] == closure.recovered[seen[-1]]

    size = 4 * cell_size(granularity)
    report = explore(workload, check, size=size, recover=recover, granularity=granularity, budget=budget)
    assert len(set(seen)) == len(seen) == report.images == min(budget, len(closure.depths))
    assert set(seen) <= closure.depths.keys()
    assert report.exhaustive == (budget >= len(closure.depths))
    if report.exhaustive:
        assert report.cuts == max(closure.depths.values())


def assert_failures_match(
    program: Program, closure: oracle.Closure, granularity: Granularity, forbidden: Forbidden
) -> None:
    """Assert that explore finds a failing image if the closure has one, with as many power failures as it needs."""
    steps, rules = program
    scale = cell_size(granularity)

    def rejects(content: bytes | pmem2.Map) -> bool:
        return all(content[cell * scale + byte] == value for cell, byte, value in forbidden)

    def workload(map: pmem2.Map) -> Generator[int, None, None]:
        yield from oracle.run(map, steps)

    def recover(map: pmem2.Map) -> None:
        oracle.recover(map, rules)

    def check(map: pmem2.Map, acknowledged: list[int]) -> None:
        assert not rejects(map)

    failing = {image: depth for image, depth in closure.depths.items() if rejects(closure.recovered[image])}
    report = error = None
    try:
        report = explore(workload, check, size=4 * scale, recover=recover, granularity=granularity)
    except CrashConsistencyError as raised:
        error = raised
    assert (error is not None) == bool(failing)
    if error is not None:
        depths = [depth for (_, content), depth in failing.items() if content == error.image]
        assert min(depths) <= len(error.crash_points)
        assert error.crash_point == error.crash_points[-1]
    if report is not None:
        assert report.exhaustive
        assert report.images <= len(closure.depths)
        assert report.cuts <= max(closure.depths.values())


@pytest.mark.parametrize("granularity", list(Granularity))
@given(data=st.data())
@settings(max_examples=RANDOM)
def test_closure_matches_oracle(granularity: Granularity, data: st.DataObject) -> None:
    """explore checks each image of the closure once, in any budget, and knows whether it has checked them all."""
    program = data.draw(programs(granularity))
    try:
        closure = closure_of(program, granularity)
    except oracle.TooMany:
        reject()
    missing = data.draw(st.sampled_from([-(10**6), 0, 1, 2, 5, len(closure.depths) // 2]))
    assert_closure_matches(program, closure, granularity, max(len(closure.depths) - missing, 1))


@pytest.mark.parametrize("granularity", list(Granularity))
@given(data=st.data())
@settings(max_examples=RANDOM)
def test_failures_match_oracle(granularity: Granularity, data: st.DataObject) -> None:
    """explore finds a failing image if and only if the closure has one, whatever recovery and check leave unread."""
    program = data.draw(programs(granularity))
    values = st.tuples(st.integers(0, 2), st.integers(0, 17), st.integers(0, 3))
    forbidden = data.draw(st.lists(values, min_size=1, max_size=3))
    try:
        closure = closure_of(program, granularity)
    except oracle.TooMany:
        reject()
    assert_failures_match(program, closure, granularity, forbidden)


def pinned(scale: int) -> dict[str, tuple[Program, Forbidden]]:
    """Return programs that show faults of the closure; random programs rarely do."""
    first, second, third = 0, scale, 2 * scale
    advance = [Rule(first, 2, oracle.Atomic(second, 1, True)), Rule(first, 1, oracle.Atomic(first, 2, True))]
    begin = oracle.Atomic(first, 1, True)
    lost, kept = [(1, 0, 1), (2, 0, 0)], [(1, 0, 1), (2, 0, 3)]
    end, proceed = Rule(first, 2, oracle.Atomic(first, 3, True)), Rule(first, 1, oracle.Atomic(first, 2, True))
    overwrite, persist = (
        [end, Rule(first, 1, oracle.Atomic(second, 2, durable)), proceed] for durable in (False, True)
    )
    return {
        "unread-line-is-lost": (([oracle.Atomic(third, 3, False), begin], advance), lost),
        "unread-line-is-kept": (([oracle.Atomic(third, 3, False), begin], advance), kept),
        "unread-line-later": (([begin, oracle.Atomic(third, 3, False)], advance), kept),
        "unread-line-durable": (([begin, oracle.Atomic(third, 3, True)], advance), kept),
        "unread-line-whole": (([begin, oracle.Set(third, b"\3" * 16)], advance), [*kept, (2, 8, 3)]),
        "acknowledged": (([begin, oracle.Yield(), oracle.Atomic(third, 3, False)], advance), kept),
        "overwritten-unread": (([oracle.Atomic(second, 1, False), begin], overwrite), [(0, 0, 3), (1, 0, 1)]),
        "persisted-unread": (([oracle.Atomic(second, 1, False), begin], persist), [(0, 0, 3), (1, 0, 1)]),
    }


@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("name", pinned(64))
def test_pinned_closure_matches(name: str, granularity: Granularity) -> None:
    """explore checks the closure of a pinned program, finds its failing image, and passes without one."""
    program, forbidden = pinned(cell_size(granularity))[name]
    closure = closure_of(program, granularity)
    for values in (forbidden, [*forbidden, (3, 0, 1)]):
        assert_failures_match(program, closure, granularity, values)
    for budget in (len(closure.depths), len(closure.depths) - 1):
        assert_closure_matches(program, closure, granularity, budget)
