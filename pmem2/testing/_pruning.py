# SPDX-License-Identifier: BSD-3-Clause
"""Pruning by what a check reads: skips images in which a check would read only what an earlier check has read.

A check that starts by reading cell 3 (a line or sector of the memory model) does so for every image. The content that
it finds there decides what it reads next, and so on. These reads form a decision tree, and each image follows one path
in it. If the path of an image ends at a leaf, a check of that image sees nothing new.

A recovery runs before the check, and its reads come first in the path. What it stores to counts as read: so the path
decides too what the recovery stores, and the leaf keeps these events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Union

import attrs

from pmem2.testing._image import Cells, Image

if TYPE_CHECKING:
    from pmem2.testing._events import Event
    from pmem2.testing._memory_model import UnitsByCell


class Leaf:
    """The end of a path: the images that agree in all cells of the path.

    Attributes:
        events: What the recovery stored, flushed and drained on each of them; empty if it stored nothing.
        cache: Saves work when the events are replayed again.
    """

    __slots__ = ("cache", "events")

    def __init__(self, events: Sequence[Event]) -> None:
        """Hold the events."""
        self.events = events
        self.cache: UnitsByCell = {}


Children = dict[int, Union["ReadNode", Leaf]]
"""What comes next, by the key of the content that was read."""


@attrs.define(eq=False)
class ReadNode:
    """A read of one or more cells."""

    cells: Cells
    children: Children = attrs.Factory(dict)


Path = tuple[Sequence[Cells], Leaf]
"""The reads of a check, in order, and the leaf at which they end."""


class CheckedImages:
    """The decision tree of all images that were checked."""

    def __init__(self, cells: Cells, cell_size: int) -> None:
        """Start with an empty tree.

        Args:
            cells: The numbers of the cells that may differ between images; the reads of all others are ignored.
            cell_size: The size of a cell in bytes.
        """
        self._cells = cells
        self._cell_size = cell_size
        self._roots: Children = {}
        self._deterministic = True
        self._spans: dict[tuple[int, int], Cells] = {}  # what _cells_in has returned

    def find(self, image: Image, acknowledged: int) -> Path | None:
        """Return the path of *image*; `None` if a check of it would see something new."""
        steps: list[Cells] = []
        node: ReadNode | Leaf | None = self._roots.get(acknowledged)
        while node is not None:
            if isinstance(node, Leaf):
                return steps, node
            steps.append(node.cells)
            node = node.children.get(image.key(node.cells))
        return None

    def add(
        self, image: Image, acknowledged: int, reads: Sequence[tuple[int, int]], events: Sequence[Event] = ()
    ) -> Path:
        """Add the *reads* (ranges, in order) and the *events* of a run on *image*; return its path."""
        steps = list(self._steps(reads)) if self._deterministic else [self._cells]
        children, key = self._roots, acknowledged
        for step in steps:
            node: ReadNode | Leaf | None = children.get(key)
            if node is None:
                node = children[key] = ReadNode(step)
            elif isinstance(node, Leaf) or (node.cells is not step and node.cells != step):
                return self._add_nondeterministic(image, acknowledged, reads, events)
            children, key = node.children, image.key(step)
        if key in children:
            return self._add_nondeterministic(image, acknowledged, reads, events)
        leaf = children[key] = Leaf(events)
        return steps, leaf

    def _add_nondeterministic(
        self, image: Image, acknowledged: int, reads: Sequence[tuple[int, int]], events: Sequence[Event]
    ) -> Path:
        """Forget the tree: a run found the same content and read on elsewhere. From now on each run reads all cells."""
        self._deterministic = False
        self._roots = {}
        return self.add(image, acknowledged, reads, events)

    def _steps(self, reads: Iterable[tuple[int, int]]) -> Iterator[Cells]:
        """Yield the cells that each range touches; skip cells that never differ and cells that were read before."""
        size = self._cell_size
        read: set[int] = set()
        for offset, length in reads:
            step = self._cells_in(offset // size, -(-(offset + length) // size))
            if not read.isdisjoint(step):
                step = frozenset(step).difference(read)
            if step:
                yield step
                read.update(step)
                if len(read) == len(self._cells):
                    return

    def _cells_in(self, low: int, high: int) -> Cells:
        """Return the cells from *low* to *high* that may differ."""
        found = self._spans.get((low, high))
        if found is None:
            cells = self._cells
            if isinstance(cells, range):
                found = range(max(low, cells.start), min(high, cells.stop))
            elif high - low < len(cells):
                found = frozenset([index for index in range(low, high) if index in cells])
            else:
                found = frozenset([index for index in cells if low <= index < high])
            self._spans[low, high] = found
        return found


def numbers_read(steps: Iterable[Cells], numbers: dict[int, int]) -> list[int]:
    """Return the numbers of the cells that were read, in order; *numbers* has the number of each cell by its index."""
    read: list[int] = []
    for cells in steps:
        if len(cells) > len(numbers):
            read += [number for index, number in numbers.items() if index in cells]
        else:
            read += [numbers[index] for index in cells if index in numbers]
    return read
