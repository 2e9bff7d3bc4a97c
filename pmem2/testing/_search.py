# SPDX-License-Identifier: BSD-3-Clause
"""Which images are checked, and in what order.

All of them, where the budget allows. Else first those that tell most, then random ones. At each moment one image is
checked; then, for each cell that the check has read, those images that agree with it in all cells read before, and
differ in this one; and so on. So what a check never reads is not gone through, and no image comes twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Callable
from unittest import SkipTest

import attrs

from pmem2.testing._pruning import Known

if TYPE_CHECKING:
    from pmem2.testing._events import Event
    from pmem2.testing._memory_model import Cell, Memory, Moment
    from pmem2.testing._runner import Stage

Options = list[int]
"""For each cell of a moment, which of its options."""
ENDLESS = 2**63
LOOKS = 10
"""How many images that are known are looked at for each that is checked."""
TURNS = 4
"""How often that is done to find the last that are not known."""


@attrs.define(eq=False)
class Branch:
    """Images that are as one that was checked in the cells *order* before *depth*, and differ in the one there."""

    options: Options
    order: list[int]
    depth: int
    step: int = 1


class Failed(Exception):  # not an error, and never seen outside
    """A check has failed."""

    def __init__(self, image: bytes, acknowledged: int, reason: BaseException) -> None:
        """Say of what, and why."""
        super().__init__(reason)
        self.image = image
        self.acknowledged = acknowledged
        self.reason = reason


class Search:
    """Goes through the images of a workload."""

    def __init__(
        self, new_memory: Callable[[], Memory], events: Sequence[Event], stage: Stage, budget: int, seed: int
    ) -> None:
        """Begin with no image checked.

        Args:
            new_memory: Makes the memory as it was before the workload.
            events: What the workload did.
            stage: Where images are checked.
            budget: How many of them may be.
            seed: Of what is random.
        """
        self._new_memory = new_memory
        self._events = events
        self._stage = stage
        self._left = budget
        self._budget = budget
        self._random = random.Random(seed)
        self._image = bytearray()
        memory = new_memory()
        self._counts = counts(memory.replay(events))
        self._known = Known(sorted(memory.cells), memory.cell)
        self._cell = memory.cell
        self.flushed = memory.flushed

    @property
    def images(self) -> int:
        """How many images were checked."""
        return self._budget - self._left

    def moments(self) -> Iterator[Moment]:
        """Replay the workload, with an image at hand that is right where only one state is possible."""
        memory = self._new_memory()
        self._image = bytearray(memory.content)
        for moment in memory.replay(self._events):
            for cell in memory.settled:
                self._put(cell, cell.durable)
            memory.settled.clear()
            yield moment

    def run(self) -> bool:
        """Check images; return whether none is left that would tell something new.

        Raises:
            Failed: The check failed.
        """
        if sum(self._counts) <= self._budget:
            for number, moment in enumerate(self.moments()):
                if self._counts[number]:
                    self._search(moment, ENDLESS)
            return True
        self._telling()
        finished = [count == 0 for count in self._counts]
        while self._left and not all(finished):
            before = self._left
            share = fair_share(self._left, [n for n, done in zip(self._counts, finished) if not done])
            for number, moment in enumerate(self.moments()):
                if not finished[number]:
                    chaos = None if self._counts[number] <= share else self._random
                    finished[number] = self._search(moment, share, LOOKS * share + 100, chaos)
            if before - self._left <= before // 8:  # nearly all that chance finds is known
                break
        self._rest(finished)
        return all(finished)

    def _rest(self, finished: list[bool]) -> None:
        """Go through what is not *finished* from one end to the other, with more patience as there is less of it."""
        before, turns = (0, 0), TURNS
        while turns and not all(finished) and before != (now := (finished.count(False), self._left)):
            before, turns = now, turns - 1
            patience = LOOKS * self._budget // finished.count(False)
            for number, moment in enumerate(self.moments()):
                if not finished[number]:
                    finished[number] = self._search(moment, self._left, patience)

    def _telling(self) -> None:
        """Check each prefix of the workload, nothing else surviving, each cell lost alone and surviving alone."""
        for moment in self.moments():
            self._try(moment, highest(moment))
            self._try(moment, lowest(moment))
        share = max(2, self._left // 2 // len(self._counts))
        for moment in self.moments():
            most, least = highest(moment), lowest(moment)
            numbers = range(len(moment.cells))
            if 2 * len(numbers) > share:
                numbers = sorted(self._random.sample(numbers, share // 2))  # type: ignore[assignment]
            for base, other in ((most, least), (least, most)):
                for number in numbers:
                    options = base.copy()
                    options[number] = other[number]
                    self._try(moment, options)

    def _try(self, moment: Moment, options: Options) -> None:
        if self._left:
            self._show(moment, options)
            if self._known.way(self._image, moment.acknowledged) is None:
                self._check(moment)

    def _search(self, moment: Moment, share: int, patience: int = ENDLESS, chaos: random.Random | None = None) -> bool:
        """Check images of one moment; return whether all of them are known then.

        Args:
            moment: That moment.
            share: How many may be checked.
            patience: How many may be looked at that are known; some more for each that was not.
            chaos: What decides which come first; `None` is one after the other.
        """
        lows = lowest(moment)
        sizes = [cell.options - low for cell, low in zip(moment.cells, lows)]
        number_of = {cell.offset // self._cell: number for number, cell in enumerate(moment.cells)}
        branches: list[Branch] = []
        options = [max(option, low) for option, low in zip(highest(moment), lows)]
        if chaos is not None:
            options = self._scattered(lows, sizes, options, chaos)
        fixed: list[int] = []
        while True:
            self._show(moment, options)
            cells = self._known.way(self._image, moment.acknowledged)
            if cells is None:
                if not share or not self._left:
                    return False
                share -= 1
                patience += LOOKS
                cells = self._check(moment)
            elif not patience:
                return False
            else:
                patience -= 1
            order = fixed + [
                number
                for index in cells
                if (number := number_of.get(index, -1)) >= 0 and sizes[number] > 1 and number not in fixed
            ]
            branches += [Branch(options, order, depth) for depth in range(len(fixed), len(order))]
            if not branches:
                return True
            if chaos is not None:
                pick = chaos.randrange(len(branches))
                branches[pick], branches[-1] = branches[-1], branches[pick]
            branch = branches[-1]
            fixed = branch.order[: branch.depth + 1]
            number = fixed[-1]
            if chaos is None:
                options = branch.options.copy()
            else:
                options = self._scattered(lows, sizes, branch.options, chaos)
                for kept in fixed:
                    options[kept] = branch.options[kept]
            options[number] = lows[number] + (branch.options[number] - lows[number] + branch.step) % sizes[number]
            branch.step += 1
            if branch.step == sizes[number]:
                branches.pop()

    def _scattered(self, lows: Options, sizes: list[int], base: Options, chaos: random.Random) -> Options:
        """Return options that differ from *base* in a random number of cells."""
        options = base.copy()
        for _ in range(1 << chaos.randrange(len(options).bit_length())):
            number = chaos.randrange(len(options))
            options[number] = lows[number] + chaos.choice((0, sizes[number] - 1, chaos.randrange(sizes[number])))
        return options

    def _show(self, moment: Moment, options: Options) -> None:
        for cell, option in zip(moment.cells, options):
            content = cell.option(option)
            if cell.shown is not content:
                self._put(cell, content)

    def _put(self, cell: Cell, content: bytes) -> None:
        cell.shown = content
        self._image[cell.offset : cell.offset + len(content)] = content

    def _check(self, moment: Moment) -> list[int]:
        """Check the image; return the cells that were read, in that order."""
        self._left -= 1
        return self._recheck(moment)

    def _recheck(self, moment: Moment) -> list[int]:
        """Check the image once more, which is not counted."""
        try:
            reads = self._stage.check(self._image, moment.acknowledged)
        except KeyboardInterrupt:
            raise
        except BaseException as reason:
            if is_skip(reason):
                raise
            raise Failed(bytes(self._image), moment.acknowledged, reason) from reason
        return self._known.add(self._image, moment.acknowledged, reads)

    # ---- once more, for whoever asks why an image failed

    def fails(self, moment: Moment, states: Sequence[int] | None) -> Failed | None:
        """Return what a check of these states says against them, or `None`; such checks are not counted."""
        if states is None:
            return None
        for cell, state in zip(moment.cells, states):
            self._put(cell, cell.content(state))
        if self._known.way(self._image, moment.acknowledged) is None:
            try:
                self._recheck(moment)
            except Failed as failed:
                return failed
        return None

    def closest(self, moment: Moment, image: bytes) -> list[int] | None:
        """Return the states in which *image* is found and the fewest stores are lost; `None` if it cannot be found."""
        states = []
        for cell in moment.cells:
            content = image[cell.offset : cell.offset + self._cell]
            state = cell.closest(content)
            if state is None:
                return None
            states.append(state)
            self._put(cell, content)
        return states if self._image == image else None


def is_skip(error: BaseException) -> bool:
    """Whether an exception skips the test, by pytest or by unittest."""
    kind = type(error)
    return isinstance(error, SkipTest) or (kind.__module__, kind.__name__) == ("builtins", "Skipped")  # pytest's


def counts(moments: Iterable[Moment]) -> list[int]:
    """Return how many new images each moment has; none if there was one before it with the same."""
    seen: dict[int, int] = {}
    return [moment.images(ENDLESS) if seen.setdefault(moment.key, n) == n else 0 for n, moment in enumerate(moments)]


def highest(moment: Moment) -> Options:
    """Return the options in which everything survives."""
    return [cell.highest for cell in moment.cells]


def lowest(moment: Moment) -> Options:
    """Return the first options that are new, of the cells that were not stored to the first there are."""
    return [min(moment.first, cell.options - 1) if n == moment.new else 0 for n, cell in enumerate(moment.cells)]


def fair_share(budget: int, wanted: Sequence[int]) -> int:
    """Return how much each may have, so that what those leave who want less goes to the others."""
    share = 0
    for number, want in enumerate(sorted(wanted)):
        share = max(share, budget // (len(wanted) - number))
        budget -= min(want, share)
    return max(share, 1)
