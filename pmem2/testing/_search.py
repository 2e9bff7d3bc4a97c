# SPDX-License-Identifier: BSD-3-Clause
"""The search: which images of one run are checked, and in which order.

If the budget allows, all images are checked. Otherwise boundary images come first, then random ones. At each crash
point the search checks one image. For each cell that the check has read, it then branches: the images that agree in the
cells read earlier and differ in this one. So it skips cells that no check reads, and it visits no image twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Callable, Union

import attrs

from pmem2.testing._image import Image
from pmem2.testing._memory_model import Cell, CrashPoint, FreeCell, Memory, cell_size, flush_size
from pmem2.testing._pruning import Leaf, numbers_read
from pmem2.testing._runner import CheckFailed

if TYPE_CHECKING:
    import random

    from pmem2._enums import Granularity
    from pmem2.testing._checker import Checker
    from pmem2.testing._events import Event
    from pmem2.testing._image import Cells
    from pmem2.testing._memory_model import UnitsByCell
    from pmem2.testing._pruning import Path

Options = list[int]
"""For each cell of a crash point, the number of one of its options."""
AnyCell = Union[Cell, FreeCell]
UNLIMITED = 2**63
LOOKUPS_PER_CHECK = 10
"""Images that may turn out to be checked already, for each image that is checked."""
FIRST_SHARE = 8
"""Images of each crash point in the first round of sampling; each further round allows so many times as many."""
MAX_PASSES = 4
"""Passes over the unfinished crash points at the end of the search."""
FEW_IMAGES = 16
"""A run with so few images is searched at once, without boundary images first."""

# The phases of a search: the lower, the more likely is a failure.
BOTH_EXTREMES, ONE_CELL, THE_REST = range(3)


@attrs.define(eq=False)
class Run:
    """A recorded run of the workload, or of the recovery on the image that a power failure has left.

    Attributes:
        depth: How often the power has failed before.
        changed: The memory at the start: the content of each cell that differs from the content after setup.
        events: What the run stored, flushed and drained.
        cache: Saves work when the events are replayed again.
        acknowledged: How often the workload had yielded at the start.
        free: The cells that had several states when the power failed, and that this run has neither read nor stored to.
        successors: The runs that begin with a power failure in this one, each with the number of the event.
        leaves: The paths of the images that a power failure in this run can leave.
    """

    depth: int
    changed: dict[int, bytes]
    events: Sequence[Event]
    cache: UnitsByCell
    acknowledged: int = 0
    free: Sequence[FreeCell] = ()
    successors: dict[Run, int] = attrs.Factory(dict)
    leaves: dict[Leaf, None] = attrs.Factory(dict)


Recover = Callable[[Run, CrashPoint, Image, "Path", list[tuple[int, AnyCell, int]]], None]
"""Receives an image that a power failure in a run can leave, its path, and the cells that are free.

Each of these cells comes with its number before and its lowest option behind it.
"""


@attrs.define(eq=False)
class Branch:
    """Images that agree with a checked one in the cells `order[:depth]`, and differ in the cell `order[depth]`."""

    options: Options
    order: list[int]
    depth: int
    step: int = 1


class Search:
    """Checks the images of a workload."""

    def __init__(
        self,
        run: Run,
        initial: bytes,
        granularity: Granularity,
        checker: Checker,
        rng: random.Random,
        recover: Recover | None,
    ) -> None:
        """Count the images; check none yet.

        Args:
            run: The run in which the power fails.
            initial: The content of the memory after setup.
            granularity: The granularity.
            checker: Checks an image.
            rng: Makes the random choices.
            recover: Receives each image whose recovery stores something; `None` if there is no recovery.
        """
        self.run = run
        self.exhausted = False
        self._initial = initial
        self._granularity = granularity
        self._checker = checker
        self._rng = rng
        self._recover = recover
        self._cell_size = cell_size(granularity)
        self.flush_size = flush_size(granularity)
        self._new_images = count_new_images(self.crash_points(), run.free)
        if run.depth:
            self._new_images[0] = 0  # the image that the run began with

    def crash_points(self) -> Iterator[CrashPoint]:
        """Replay the run; keep `_image` correct in every cell that has only one state."""
        image = self._image = Image(self._initial, self._cell_size)
        for index, content in self.run.changed.items():
            image.replace(index, content)
        memory = Memory(image.content, self._granularity, self.run.cache)
        memory.acknowledged = self.run.acknowledged
        for free in self.run.free:
            free.rendered = None
        for point in memory.replay(self.run.events):
            for cell in memory.newly_durable:
                self._render_cell(cell, cell.durable)
            memory.newly_durable.clear()
            yield point
        self._image = Image(b"", self._cell_size)  # a search may wait for long: free the memory

    def plan(self, at_once: int) -> Iterator[int]:
        """Check images; before each part of the work, yield its phase.

        Args:
            at_once: A run of so many images is searched without boundary images first.

        Raises:
            CheckFailed: The check or the recovery rejects an image.
        """
        total = sum(self._new_images)
        if total <= at_once:
            yield from self._search_in_order(BOTH_EXTREMES)
            return
        yield from self._check_extremes()
        if self.run.successors or total > self._checker.budget:
            yield ONE_CELL
            yield from self._check_one_cell()
        yield THE_REST
        if total <= self._checker.budget:
            yield from self._search_in_order(THE_REST)
        else:
            yield from self._sample()

    def _search_in_order(self, phase: int) -> Iterator[int]:
        """Search all crash points in order."""
        self.exhausted = True
        for number, point in enumerate(self.crash_points()):
            if self._new_images[number]:
                yield phase
                if not self._search(point, UNLIMITED):
                    self.exhausted = False

    def _sample(self) -> Iterator[int]:
        """Search the crash points that have few images, and random images of the others."""
        finished = [count == 0 for count in self._new_images]
        round_budget = FIRST_SHARE * finished.count(False)
        while self._checker.budget_left and not all(finished):
            checks = 0
            wanted = [count for count, done in zip(self._new_images, finished) if not done]
            budget = min(round_budget, self._checker.budget_left)
            share = fair_share(budget, wanted)
            for number, point in enumerate(self.crash_points()):
                if not finished[number]:
                    yield THE_REST
                    before = self._checker.budget_left
                    rng = None if self._new_images[number] <= share else self._rng
                    finished[number] = self._search(point, share, LOOKUPS_PER_CHECK * share + 100, rng)
                    checks += before - self._checker.budget_left
            if checks <= budget // 8:  # sampling mostly repeats images that were checked
                break
            round_budget *= FIRST_SHARE
        yield from self._exhaust_remaining(finished)
        self.exhausted = all(finished)

    def _exhaust_remaining(self, finished: list[bool]) -> Iterator[int]:
        """Search the unfinished crash points in order; the fewer are left, the more lookups each of them gets."""
        before, passes = (0, 0), MAX_PASSES
        while passes and not all(finished) and before != (now := (finished.count(False), self._checker.budget_left)):
            before, passes = now, passes - 1
            lookups = LOOKUPS_PER_CHECK * self._checker.budget // finished.count(False)
            for number, point in enumerate(self.crash_points()):
                if not finished[number]:
                    yield THE_REST
                    finished[number] = self._search(point, self._checker.budget_left, lookups)

    def _check_extremes(self) -> Iterator[int]:
        """Check the images most likely to fail: all or nothing survives."""
        for number, point in enumerate(self.crash_points()):
            if self._new_images[number]:
                yield BOTH_EXTREMES
                cells = self._cells(point)
                path = self._check_if_new(point, cells, highest_options(cells))
                if self._new_images[number] > 1:
                    self._check_if_new(point, cells, lowest_options(point, cells))
                elif path is not None:
                    self._new_images[number] = 0

    def _check_one_cell(self) -> Iterator[int]:
        """Check the images in which one cell is lost, or one cell survives."""
        share = max(2, self._checker.budget_left // 2 // len(self._new_images))
        for point_number, point in enumerate(self.crash_points()):
            if not self._new_images[point_number]:
                continue
            yield ONE_CELL
            cells = self._cells(point)
            highest, lowest = highest_options(cells), lowest_options(point, cells)
            numbers = range(len(cells))
            if 2 * len(numbers) > share:
                numbers = sorted(self._rng.sample(numbers, share // 2))  # type: ignore[assignment]
            for base, other in ((highest, lowest), (lowest, highest)):
                for number in numbers:
                    options = base.copy()
                    options[number] = other[number]
                    self._check_if_new(point, cells, options)

    def _check_if_new(self, point: CrashPoint, cells: Sequence[AnyCell], options: Options) -> Path | None:
        self._render(cells, options)
        path = self._checker.find(self._image, point.acknowledged)
        if path is None and self._checker.has_budget():
            path = self._checker.check(self._image, point.acknowledged)
        if path is not None and self._recover is not None:
            self._visit(point, cells, lowest_options(point, cells), path)
        return path

    def _cells(self, point: CrashPoint) -> Sequence[AnyCell]:
        """Return the cells with more than one state at a crash point."""
        return [*point.cells, *self.run.free] if self.run.free else point.cells

    def _visit(self, point: CrashPoint, cells: Sequence[AnyCell], lows: Options, path: Path) -> None:
        """Follow the recovery of an image, unless it stores nothing.

        The image stands for all images that agree with it in the cells that were read: the others stay free.
        """
        if self._recover is None:
            return
        steps, leaf = path
        self.run.leaves[leaf] = None
        if leaf.events:
            free = [
                (index, cell, low)
                for cell, low in zip(cells, lows)
                if cell.options - low > 1 and not was_read(steps, index := cell.offset // self._cell_size)
            ]
            self._recover(self.run, point, self._image, path, free)

    def _search(
        self, point: CrashPoint, max_checks: int, max_lookups: int = UNLIMITED, rng: random.Random | None = None
    ) -> bool:
        """Check images of one crash point; return whether the check can see nothing new in any other of them.

        Args:
            point: The crash point.
            max_checks: The most images to check.
            max_lookups: The most images to look up that were checked already; each check allows some more.
            rng: Chooses the order; `None` visits the images in sequence.
        """
        cells = self._cells(point)
        lows = lowest_options(point, cells)
        sizes = [cell.options - low for cell, low in zip(cells, lows)]
        numbers = {
            cell.offset // self._cell_size: number for number, (cell, size) in enumerate(zip(cells, sizes)) if size > 1
        }
        branches: list[Branch] = []
        options = [max(option, low) for option, low in zip(highest_options(cells), lows)]
        if rng is not None:
            options = self._randomize(lows, sizes, options, rng)
        fixed: list[int] = []
        while True:
            self._render(cells, options)
            path = self._checker.find(self._image, point.acknowledged)
            if path is None:
                if not max_checks or not self._checker.has_budget():
                    return False
                max_checks -= 1
                max_lookups += LOOKUPS_PER_CHECK
                path = self._checker.check(self._image, point.acknowledged)
            elif not max_lookups:
                return False
            else:
                max_lookups -= 1
            self._visit(point, cells, lows, path)
            order = fixed + [number for number in numbers_read(path[0], numbers) if number not in fixed]
            branches += [Branch(options, order, depth) for depth in range(len(fixed), len(order))]
            if not branches:
                return True
            if rng is not None:
                pick = rng.randrange(len(branches))
                branches[pick], branches[-1] = branches[-1], branches[pick]
            branch = branches[-1]
            fixed = branch.order[: branch.depth + 1]
            number = fixed[-1]
            if rng is None:
                options = branch.options.copy()
            else:
                options = self._randomize(lows, sizes, branch.options, rng)
                for kept in fixed:
                    options[kept] = branch.options[kept]
            options[number] = lows[number] + (branch.options[number] - lows[number] + branch.step) % sizes[number]
            branch.step += 1
            if branch.step == sizes[number]:
                branches.pop()

    def _randomize(self, lows: Options, sizes: list[int], base: Options, rng: random.Random) -> Options:
        """Return options that differ from *base* in a random number of cells."""
        options = base.copy()
        for _ in range(1 << rng.randrange(len(options).bit_length())):
            number = rng.randrange(len(options))
            options[number] = lows[number] + rng.choice((0, sizes[number] - 1, rng.randrange(sizes[number])))
        return options

    def _render(self, cells: Sequence[AnyCell], options: Options) -> None:
        """Put the content of *options* into the image."""
        for cell, option in zip(cells, options):
            content = cell.option(option)
            if cell.rendered is not content:
                self._render_cell(cell, content)

    def _render_cell(self, cell: AnyCell, content: bytes) -> None:
        cell.rendered = content
        self._image.replace(cell.offset // self._cell_size, content)

    # ---- for the diagnosis of a failure

    def find_failure(self, point: CrashPoint, states: Sequence[int] | None) -> CheckFailed | None:
        """Check one state of each cell, at no charge to the budget; return the failure, or `None`."""
        if states is None:
            return None
        for cell, state in zip(point.cells, states):
            self._render_cell(cell, cell.content(state))
        if self._checker.find(self._image, point.acknowledged) is None:
            try:
                self._checker.check_uncounted(self._image, point.acknowledged)
            except CheckFailed as failed:
                return failed
        return None

    def closest_states(self, point: CrashPoint, image: bytes) -> list[int] | None:
        """Return the states that give *image* and lose the fewest stores; `None` if none were found."""
        states = []
        for cell in point.cells:
            content = image[cell.offset : cell.offset + self._cell_size]
            state = cell.closest_state(content)
            if state is None:
                return None
            states.append(state)
            self._render_cell(cell, content)
        return states if self._image.content == image else None


def count_new_images(points: Iterable[CrashPoint], free: Sequence[FreeCell]) -> list[int]:
    """Return the number of new images of each crash point: none if an earlier one has the same images."""
    first: dict[int, int] = {}
    factor = 1
    for cell in free:
        factor *= cell.options
    return [
        factor * point.image_count(UNLIMITED) if first.setdefault(point.key, n) == n else 0
        for n, point in enumerate(points)
    ]


def was_read(steps: Sequence[Cells], index: int) -> bool:
    """Whether a cell was read."""
    return any(index in cells for cells in steps)


def highest_options(cells: Sequence[AnyCell]) -> Options:
    """Return the options in which everything survives."""
    return [cell.highest for cell in cells]


def lowest_options(point: CrashPoint, cells: Sequence[AnyCell]) -> Options:
    """Return the first new option of the cell that was stored to, and the first option of every other cell."""
    return [
        min(point.first_new, cell.options - 1) if number == point.changed else 0 for number, cell in enumerate(cells)
    ]


def fair_share(budget: int, wanted: Sequence[int]) -> int:
    """Return the share of each crash point; those that want less leave the rest of their share to the others."""
    share = 0
    for number, want in enumerate(sorted(wanted)):
        share = max(share, budget // (len(wanted) - number))
        budget -= min(want, share)
    return max(share, 1)
