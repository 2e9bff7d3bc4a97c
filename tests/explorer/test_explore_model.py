# SPDX-License-Identifier: BSD-3-Clause
"""`explore_model`: a model instead of a check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable, Protocol

import pytest

from pmem2 import Granularity
from pmem2.testing import CrashConsistencyError, explore_model

if TYPE_CHECKING:
    from pmem2 import Map


class Numbers(Protocol):
    """A mapping from keys to numbers."""

    def __setitem__(self, key: int, value: int, /) -> None:
        """Store a number."""

    def both(self, value: int) -> None:
        """Store a number under two keys."""

    def items(self) -> Iterable[tuple[int, int]]:
        """Return the keys with numbers other than 0."""


class Cells:
    """The numbers in a map; 0 means absent."""

    def __init__(self, map: Map) -> None:
        """Hold the map."""
        self.map = map

    def __setitem__(self, key: int, value: int) -> None:
        """Store a number."""
        self.map.store_u64(64 * key, value, persist=True)

    def both(self, value: int) -> None:
        """Store a number under two keys, not atomically."""
        self[0] = self[1] = value

    def items(self) -> list[tuple[int, int]]:
        """Return the keys with numbers other than 0."""
        return [(key, value) for key in range(4) if (value := self.map.load_u64(64 * key))]


class Model(dict[int, int]):
    """The model: a dict."""

    def both(self, value: int) -> None:
        """Store a number under two keys."""
        self[0] = self[1] = value


def test_atomic_steps_pass() -> None:
    """Atomic steps pass, a step of two stores fails, and the model itself is not changed."""
    model: Numbers = Model()

    def five(cells: Numbers) -> None:
        cells[1] = 5

    def six(cells: Numbers) -> None:
        cells[0] = 6

    def seven(cells: Numbers) -> None:
        cells.both(7)

    def view(cells: Numbers) -> object:
        return sorted(cells.items())

    report = explore_model([five, six], Cells, model, view, size=256)
    assert report.exhaustive
    assert not model.items()
    with pytest.raises(CrashConsistencyError, match="after 1 steps the model was"):
        explore_model([five, seven], Cells, model, view, size=256)


EMPTY: Numbers = Model()


class Unflushed(Cells):
    """The numbers in a map, stored without a persist."""

    def __setitem__(self, key: int, value: int) -> None:
        """Store a number."""
        self.map.store_u64(64 * key, value)


class Early(Cells):
    """The numbers in a map; both are stored by the first of two steps."""

    def __setitem__(self, key: int, value: int) -> None:
        """Store both numbers for the key 1, and nothing for others."""
        if key == 1:
            super().__setitem__(1, value)
            super().__setitem__(0, value)


def store(key: int, value: int) -> Callable[[Numbers], None]:
    """Return the step that stores a number."""
    return lambda cells: cells.__setitem__(key, value)


def sorted_items(cells: Numbers) -> object:
    """Return the view: the numbers by key."""
    return sorted(cells.items())


def test_acknowledged_step_must_survive() -> None:
    """A structure that does not persist its steps fails: a power failure rolls back a step that was acknowledged."""
    text = r"recovered \[\], but after 1 steps the model was \[\(1, 5\)\]"
    with pytest.raises(CrashConsistencyError, match=text) as raised:
        explore_model([store(1, 5)], Unflushed, EMPTY, sorted_items, size=256)
    assert raised.value.crash_point[0] == __file__  # not the `yield` of explore_model


def test_unstarted_step_must_not_survive() -> None:
    """A structure that does the work of two steps in the first fails."""
    with pytest.raises(CrashConsistencyError, match="but after 0 steps"):
        explore_model([store(1, 5), store(0, 5)], Early, EMPTY, sorted_items, size=256)


def test_view_may_return_live_object() -> None:
    """A view that returns the model itself gives the content after each step, not the last one."""

    def view(cells: Numbers) -> object:
        return cells if isinstance(cells, Model) else dict(cells.items())

    steps = (store(key, key + 1) for key in range(2))  # an iterator, which is read once
    report = explore_model(steps, Cells, EMPTY, view, size=256)
    assert (report.images, report.exhaustive) == (5, True)


def test_options_reach_explore() -> None:
    """explore_model passes setup, granularity, budget, seed and lint on to explore."""
    seen: list[bytes] = []

    def formatted(map: Map) -> Unflushed:
        assert map[1023] == 7
        seen.append(map[:])
        return Unflushed(map)

    def setup(map: Map) -> None:
        map[1023] = 7

    def fill(cells: Numbers) -> None:
        for key in range(12):
            cells[key] = 1

    def run(seed: int) -> list[bytes]:
        seen.clear()
        report = explore_model(
            [fill], formatted, EMPTY, callable, size=1024, setup=setup, budget=60, seed=seed, lint=True
        )
        assert (report.images, report.exhaustive) == (60, False)
        assert {finding.kind for finding in report.findings} == {"never made durable"}
        return seen.copy()

    assert run(0) == run(0) != run(1)
    # BYTE needs no flush
    explore_model([store(1, 5)], Unflushed, EMPTY, sorted_items, size=256, granularity=Granularity.BYTE)
