# SPDX-License-Identifier: BSD-3-Clause
"""explore_model: explores a data structure against a model of it, such as a dict, instead of a check."""

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
    granularity: Granularity = Granularity.CACHE_LINE,
    budget: SupportsIndex = 10_000,
    seed: int = 0,
    lint: bool = False,
) -> Report:
    """Check that each step is atomic and durable: after a power failure it is done in whole or not at all.

    The steps run on a data structure, which lives in a map, and on a model of it, which can be as simple as a dict.
    After a power failure and a recovery, the structure must equal the model before the interrupted step or after it.

    Args:
        steps: Functions that are called in order, once with the structure and once with the model.
        recover: Returns the structure from the content of a map.
        model: An object that behaves like the structure; `explore_model` works on a copy.
        view: Returns the value to compare, of the structure and of the model: `dict`, for example.
        size: The size of the map in bytes.
        setup: As in `explore`; it formats the map.
        granularity: As in `explore`.
        budget: As in `explore`.
        seed: As in `explore`.
        lint: As in `explore`.

    Raises:
        CrashConsistencyError: A recovered structure equals neither.
        RuntimeError, BufferError, TypeError, ValueError, GranularityNotSupportedError: As `explore`.
    """
    all_steps = list(steps)
    expected_model = deepcopy(model)
    expected = [deepcopy(view(expected_model))]
    for step in all_steps:
        step(expected_model)
        expected.append(deepcopy(view(expected_model)))

    def workload(map: Map) -> Generator[None, None, None]:
        structure = recover(map)
        for step in all_steps:
            step(structure)
            yield

    recovered: list[S] = []

    def rebuild(map: Map) -> None:
        recovered[:] = [recover(map)]

    def check(map: Map, acknowledged: list[None]) -> None:
        done = len(acknowledged)
        found = view(recovered[0])
        if found not in expected[done : done + 2]:
            raise AssertionError(f"recovered {found!r}, but after {done} steps the model was {expected[done]!r}")

    return explore(
        workload,
        check,
        size=size,
        setup=setup,
        recover=rebuild,
        granularity=granularity,
        budget=budget,
        seed=seed,
        lint=lint,
    )
