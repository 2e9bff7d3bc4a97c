# SPDX-License-Identifier: BSD-3-Clause
"""`explore_model`: a model instead of a check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import pytest

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
