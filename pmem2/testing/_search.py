# SPDX-License-Identifier: BSD-3-Clause
"""The search: which images are checked, and in which order.

If the budget allows, all images are checked. Otherwise boundary images come first, then random ones. At each crash
point the search checks one image. For each cell that the check has read, it then branches: the images that agree in the
cells read earlier and differ in this one. So it skips cells that no check reads, and it visits no image twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Callable
from unittest import SkipTest

import attrs

from pmem2.testing._pruning import CheckedImages

if TYPE_CHECKING:
    from pmem2.testing._events import Event
    from pmem2.testing._memory_model import Cell, CrashPoint, Memory
    from pmem2.testing._runner import CheckRunner

Options = list[int]
"""For each cell of a crash point, the number of one of its options."""
UNLIMITED = 2**63
LOOKUPS_PER_CHECK = 10
"""Images that may turn out to be checked already, for each image that is checked."""
MAX_PASSES = 4
"""Passes over the unfinished crash points at the end of the search."""


@attrs.define(eq=False)
class Branch:
    """Images that agree with a checked one in the cells `order[:depth]`, and differ in the cell `order[depth]`."""

    options: Options
    order: list[int]
    depth: int
    step: int = 1


class CheckFailed(Exception):  # internal: never leaves this package
    """A check has rejected an image."""

    def __init__(self, image: bytes, acknowledged: int, reason: BaseException) -> None:
        """Hold the image, the count of acknowledgements, and the exception of the check."""
        super().__init__(reason)
        self.image = image
        self.acknowledged = acknowledged
        self.reason = reason


class Search:
    """Checks the images of a workload."""

    def __init__(
        self, new_memory: Callable[[], Memory], events: Sequence[Event], runner: CheckRunner, budget: int, seed: int
    ) -> None:
        """Count the images; check none yet.

        Args:
            new_memory: Returns the memory as it was before the workload.
            events: The events of the workload.
            runner: Runs the check on an image.
            budget: The most images to check.
            seed: The seed of the random choices.
        """
        self._new_memory = new_memory
        self._events = events
        self._runner = runner
        self._budget_left = budget
        self._budget = budget
        self._rng = random.Random(seed)
        self._image = bytearray()
        memory = new_memory()
        self._new_images = count_new_images(memory.replay(events))
        self._checked = CheckedImages(sorted(memory.cells), memory.cell_size)
        self._cell_size = memory.cell_size
        self.flush_size = memory.flush_size

    @property
    def images(self) -> int:
        """How many images were checked."""
        return self._budget - self._budget_left

    def crash_points(self) -> Iterator[CrashPoint]:
        """Replay the workload; keep `_image` correct in every cell that has only one state."""
        memory = self._new_memory()
        self._image = bytearray(memory.content)
        for point in memory.replay(self._events):
            for cell in memory.newly_durable:
                self._render_cell(cell, cell.durable)
            memory.newly_durable.clear()
            yield point

    def run(self) -> bool:
        """Check images; return whether the check can see nothing new in any image that is left.

        Raises:
            CheckFailed: The check rejects an image.
        """
        if sum(self._new_images) <= self._budget:
            for number, point in enumerate(self.crash_points()):
                if self._new_images[number]:
                    self._search(point, UNLIMITED)
            return True
        self._check_boundary_images()
        finished = [count == 0 for count in self._new_images]
        while self._budget_left and not all(finished):
            before = self._budget_left
            wanted = [count for count, done in zip(self._new_images, finished) if not done]
            share = fair_share(self._budget_left, wanted)
            for number, point in enumerate(self.crash_points()):
                if not finished[number]:
                    rng = None if self._new_images[number] <= share else self._rng
                    finished[number] = self._search(point, share, LOOKUPS_PER_CHECK * share + 100, rng)
            if before - self._budget_left <= before // 8:  # sampling mostly repeats images that were checked
                break
        self._exhaust_remaining(finished)
        return all(finished)

    def _exhaust_remaining(self, finished: list[bool]) -> None:
        """Search the unfinished crash points in order; the fewer are left, the more lookups each of them gets."""
        before, passes = (0, 0), MAX_PASSES
        while passes and not all(finished) and before != (now := (finished.count(False), self._budget_left)):
            before, passes = now, passes - 1
            lookups = LOOKUPS_PER_CHECK * self._budget // finished.count(False)
            for number, point in enumerate(self.crash_points()):
                if not finished[number]:
                    finished[number] = self._search(point, self._budget_left, lookups)

    def _check_boundary_images(self) -> None:
        """Check the images most likely to fail: all or nothing survives, one cell is lost, one cell survives."""
        for point in self.crash_points():
            self._check_if_new(point, highest_options(point))
            self._check_if_new(point, lowest_options(point))
        share = max(2, self._budget_left // 2 // len(self._new_images))
        for point in self.crash_points():
            highest, lowest = highest_options(point), lowest_options(point)
            numbers = range(len(point.cells))
            if 2 * len(numbers) > share:
                numbers = sorted(self._rng.sample(numbers, share // 2))  # type: ignore[assignment]
            for base, other in ((highest, lowest), (lowest, highest)):
                for number in numbers:
                    options = base.copy()
                    options[number] = other[number]
                    self._check_if_new(point, options)

    def _check_if_new(self, point: CrashPoint, options: Options) -> None:
        if self._budget_left:
            self._render(point, options)
            if self._checked.cells_if_checked(self._image, point.acknowledged) is None:
                self._check(point)

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
        lows = lowest_options(point)
        sizes = [cell.options - low for cell, low in zip(point.cells, lows)]
        number_of = {cell.offset // self._cell_size: number for number, cell in enumerate(point.cells)}
        branches: list[Branch] = []
        options = [max(option, low) for option, low in zip(highest_options(point), lows)]
        if rng is not None:
            options = self._randomize(lows, sizes, options, rng)
        fixed: list[int] = []
        while True:
            self._render(point, options)
            cells = self._checked.cells_if_checked(self._image, point.acknowledged)
            if cells is None:
                if not max_checks or not self._budget_left:
                    return False
                max_checks -= 1
                max_lookups += LOOKUPS_PER_CHECK
                cells = self._check(point)
            elif not max_lookups:
                return False
            else:
                max_lookups -= 1
            order = fixed + [
                number
                for index in cells
                if (number := number_of.get(index, -1)) >= 0 and sizes[number] > 1 and number not in fixed
            ]
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

    def _render(self, point: CrashPoint, options: Options) -> None:
        """Put the content of *options* into the image."""
        for cell, option in zip(point.cells, options):
            content = cell.option(option)
            if cell.rendered is not content:
                self._render_cell(cell, content)

    def _render_cell(self, cell: Cell, content: bytes) -> None:
        cell.rendered = content
        self._image[cell.offset : cell.offset + len(content)] = content

    def _check(self, point: CrashPoint) -> list[int]:
        """Check the image; return the cells that the check read, in order."""
        self._budget_left -= 1
        return self._check_uncounted(point)

    def _check_uncounted(self, point: CrashPoint) -> list[int]:
        """Check the image at no charge to the budget."""
        try:
            reads = self._runner.check(self._image, point.acknowledged)
        except KeyboardInterrupt:
            raise
        except BaseException as reason:
            if is_skip(reason):
                raise
            raise CheckFailed(bytes(self._image), point.acknowledged, reason) from reason
        return self._checked.add(self._image, point.acknowledged, reads)

    # ---- for the diagnosis of a failure

    def find_failure(self, point: CrashPoint, states: Sequence[int] | None) -> CheckFailed | None:
        """Check one state of each cell, at no charge to the budget; return the failure, or `None`."""
        if states is None:
            return None
        for cell, state in zip(point.cells, states):
            self._render_cell(cell, cell.content(state))
        if self._checked.cells_if_checked(self._image, point.acknowledged) is None:
            try:
                self._check_uncounted(point)
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
        return states if self._image == image else None


def is_skip(error: BaseException) -> bool:
    """Whether an exception skips the test, in pytest or unittest."""
    kind = type(error)
    # pytest hides its class: the name avoids an import of pytest
    return isinstance(error, SkipTest) or (kind.__module__, kind.__name__) == ("builtins", "Skipped")


def count_new_images(points: Iterable[CrashPoint]) -> list[int]:
    """Return the number of new images of each crash point: none if an earlier one has the same images."""
    first: dict[int, int] = {}
    return [
        point.image_count(UNLIMITED) if first.setdefault(point.key, n) == n else 0 for n, point in enumerate(points)
    ]


def highest_options(point: CrashPoint) -> Options:
    """Return the options in which everything survives."""
    return [cell.highest for cell in point.cells]


def lowest_options(point: CrashPoint) -> Options:
    """Return the first new option of the cell that was stored to, and the first option of every other cell."""
    return [
        min(point.first_new, cell.options - 1) if number == point.changed else 0
        for number, cell in enumerate(point.cells)
    ]


def fair_share(budget: int, wanted: Sequence[int]) -> int:
    """Return the share of each crash point; those that want less leave the rest of their share to the others."""
    share = 0
    for number, want in enumerate(sorted(wanted)):
        share = max(share, budget // (len(wanted) - number))
        budget -= min(want, share)
    return max(share, 1)
