# SPDX-License-Identifier: BSD-3-Clause
"""explore_model: for those who have no check, but know what their data structure is to behave like."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from copy import deepcopy
from typing import TYPE_CHECKING, Callable, SupportsIndex, TypeVar

from pmem2._enums import Granularity
from pmem2.testing._explore import Report, explore

if TYPE_CHECKING:
    from pmem2._map import Map

S = TypeVar("S")


def explore_model(
    steps: Iterable[Callable[[S], object]],
    recover: Callable[[Map], S],
    model: S,
    view: Callable[[S], object],
    *,
    size: SupportsIndex,
    setup: Callable[[Map], object] | None = None,
    granularity: SupportsIndex = Granularity.CACHE_LINE,
    budget: SupportsIndex = 10_000,
    seed: int = 0,
    lint: bool = False,
) -> Report:
    """Check that each step is done wholly or not at all, whenever the power fails, and stays done.

    The steps are done on the data structure, which lives in a map, and on a model of it, as simple as a dict. After a
    power cut the structure, recovered, must be as the model was before the step that was interrupted, or after it.

    Args:
        steps: What is done, one after the other, to the structure and to the model alike.
        recover: Makes the structure from what is in a map.
        model: What behaves like it; it is copied.
        view: What of the structure, and of the model, is to be equal: `dict`, for example.
        size: Of the map, in bytes.
        setup: As in `explore`; it formats the map.
        granularity: As in `explore`.
        budget: As in `explore`.
        seed: As in `explore`.
        lint: As in `explore`.

    Raises:
        CrashConsistencyError: It was as neither.
        RuntimeError, BufferError, TypeError, ValueError, GranularityNotSupportedError: As `explore`.
    """
    every = list(steps)
    ideal = deepcopy(model)
    states = [deepcopy(view(ideal))]
    for step in every:
        step(ideal)
        states.append(deepcopy(view(ideal)))

    def workload(map: Map) -> Generator[None, None, None]:
        structure = recover(map)
        for step in every:
            step(structure)
            yield

    def check(map: Map, acknowledged: list[None]) -> None:
        done = len(acknowledged)
        found = view(recover(map))
        if found not in states[done : done + 2]:
            raise AssertionError(f"recovered {found!r}, and after {done} steps the model was {states[done]!r}")

    return explore(
        workload, check, size=size, setup=setup, granularity=granularity, budget=budget, seed=seed, lint=lint
    )
