# SPDX-License-Identifier: BSD-3-Clause
"""The closure: power failures in the workload, in each recovery after them, and so on, until no new image comes.

Each run, of the workload and of each recovery that stores something, has a search. The searches take turns, so that a
bug that needs two power failures is found long before all images of the workload are checked: the images that are most
likely to fail come first, and each further power failure gets half as many turns.

The search skips an image if the recovery and the check have read nothing in which it differs from an earlier one. But
what they have not read may decide after the next power failure. So a run begins not with one image, but with a set of
them: the cells that were not read are free, they keep all options that they had when the power failed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from pmem2.testing._image import WEIGHTS, Image
from pmem2.testing._memory_model import FreeCell, cell_size, free_key
from pmem2.testing._runner import CheckFailed
from pmem2.testing._search import BOTH_EXTREMES, FEW_IMAGES, THE_REST, Recover, Run, Search

if TYPE_CHECKING:
    from pmem2._enums import Granularity
    from pmem2.testing._checker import Checker
    from pmem2.testing._events import Event
    from pmem2.testing._memory_model import CrashPoint
    from pmem2.testing._pruning import Leaf, Path
    from pmem2.testing._search import AnyCell

Chain = list[tuple[Run, int]]
"""For each power failure, the run in which the power fails and the number of the event."""
CHECKS_AFTER_FAILURE = 1000
"""Images to check after the first failure, in search of one that needs fewer power failures."""


@attrs.define(eq=False)
class Failure:
    """A failing image, and the run in which the power failed last."""

    run: Run
    failed: CheckFailed


@attrs.define(eq=False)
class Queue:
    """Searches of one depth that are in the same phase."""

    turns: int = 0
    plans: deque[tuple[Run, Iterator[int]]] = attrs.Factory(deque)


class Closure:
    """Searches the workload, and the recovery of each image that it can leave.

    Attributes:
        exhaustive: Whether check and recovery can see nothing new in any image that is left.
        failure: The failure with the fewest power failures; `None` if there was none.
    """

    def __init__(
        self, initial: bytes, granularity: Granularity, events: Sequence[Event], checker: Checker, seed: int
    ) -> None:
        """Check no image yet.

        Args:
            initial: The content of the memory after setup.
            granularity: The granularity.
            events: The events of the workload.
            checker: Checks an image.
            seed: The seed of the random choices.
        """
        self.exhaustive = True
        self.failure: Failure | None = None
        self._initial = initial
        self._granularity = granularity
        self._checker = checker
        self._rng = random.Random(seed)
        self.workload = Run(0, {}, events, {})
        self._runs: dict[tuple[Leaf, int], Run] = {}
        self._queues: dict[tuple[int, int], Queue] = {}  # by depth and phase

    def search_workload(self) -> None:
        """Search the workload only: there is no recovery to follow."""
        try:
            for _ in self._search(self.workload, self._checker.budget, None):
                pass
        except CheckFailed as failed:
            self.failure = Failure(self.workload, failed)

    def search_all(self) -> None:
        """Search the workload and all recoveries."""
        self._add(self.workload)
        while (key := self._next_queue()) is not None:
            self._take_turn(key)
        self.exhaustive = self.exhaustive and not self._checker.exceeded

    def _add(self, run: Run) -> None:
        self._queue(run.depth, BOTH_EXTREMES).plans.append((run, self._search(run, FEW_IMAGES, self._recover)))

    def _queue(self, depth: int, phase: int) -> Queue:
        return self._queues.setdefault((depth, phase), Queue())

    def _next_queue(self) -> tuple[int, int] | None:
        """Return the depth and the phase whose turn it is; `None` if there is nothing to do, or no budget for it."""
        if self._checker.exceeded:
            return None
        waiting = [(queue.turns << sum(key), key) for key, queue in self._queues.items() if queue.plans]
        return min(waiting)[1] if waiting else None

    def _take_turn(self, key: tuple[int, int]) -> None:
        """Do the next part of the first plan in a queue."""
        depth, phase = key
        queue = self._queues[key]
        run, plan = queue.plans.popleft()
        budget = self._checker.budget_left
        try:
            next_phase = next(plan, None)
        except CheckFailed as failed:
            self._fail(Failure(run, failed))
            return
        queue.turns += 1 + budget - self._checker.budget_left
        if next_phase == phase:
            queue.plans.appendleft((run, plan))
        elif next_phase is not None and not (self.failure is not None and next_phase == THE_REST):
            self._queue(depth, next_phase).plans.append((run, plan))

    def _search(self, run: Run, at_once: int, recover: Recover | None) -> Iterator[int]:
        """Search a run; before each part of the work, yield its phase."""
        search = self._new_search(run, recover)
        yield from search.plan(at_once)
        self.exhaustive = self.exhaustive and search.exhausted

    def _new_search(self, run: Run, recover: Recover | None = None) -> Search:
        return Search(run, self._initial, self._granularity, self._checker, self._rng, recover)

    def _recover(
        self, run: Run, point: CrashPoint, image: Image, path: Path, free: list[tuple[int, AnyCell, int]]
    ) -> None:
        """Add the run of the recovery on an image that a power failure in *run* can leave, unless it is known."""
        steps, leaf = path
        key = image.key_of_all() - sum([image.key(cells) for cells in steps])
        for index, cell, low in free:
            key += WEIGHTS[index] * free_key(cell, low) - image.hashes.get(index, 0)
        recovery = self._runs.get((leaf, key))
        if recovery is None:
            if self.failure is not None and run.depth + 1 >= self.failure.run.depth:
                return
            cells = [FreeCell(index, cell, low) for index, cell, low in free]
            recovery = Run(run.depth + 1, image.differences(), leaf.events, leaf.cache, point.acknowledged, cells)
            self._runs[leaf, key] = recovery
            self._add(recovery)
        run.successors.setdefault(recovery, point.event)

    def _fail(self, failure: Failure) -> None:
        """Keep the failure; from now on, search only for one that needs fewer power failures."""
        if self.failure is None:
            self._checker.limit(CHECKS_AFTER_FAILURE)
        self.failure = failure
        for (depth, phase), queue in self._queues.items():
            if depth >= failure.run.depth or phase == THE_REST:
                queue.plans.clear()

    # ---- the order of power failures

    def _chains(self) -> dict[Run, Chain]:
        """Return the fewest power failures that lead to each run, in the order of their number."""
        chains: dict[Run, Chain] = {self.workload: []}
        waiting = deque([self.workload])
        while waiting:
            run = waiting.popleft()
            for successor, event in run.successors.items():
                if successor not in chains:
                    chains[successor] = [*chains[run], (run, event)]
                    waiting.append(successor)
        return chains

    def count_cuts(self) -> int:
        """Return the most power failures in a row after which a new image came."""
        cuts: dict[Leaf, int] = {}
        for run, chain in self._chains().items():
            for leaf in run.leaves:
                cuts.setdefault(leaf, len(chain) + 1)
        return max(cuts.values(), default=1)

    def failing_search(self, failure: Failure) -> tuple[Chain, Search]:
        """Return the power failures before the last one, and a search of the run in which the power failed last.

        In the run of this search, no cell is free: each has the content that leads to the failing image.
        """
        run, image = failure.run, Image(failure.failed.image, cell_size(self._granularity))
        changed = {**run.changed, **{cell.index: image.cell(cell.index) for cell in run.free}}
        last = Run(run.depth, changed, run.events, run.cache, run.acknowledged)
        return self._chains()[run], self._new_search(last)
