# SPDX-License-Identifier: BSD-3-Clause
"""The recursion limit: calls at all depths around it."""

from __future__ import annotations

import random
import sys
from collections import Counter
from functools import cache
from typing import Callable

from support.public_calls import CALLS, World

from pmem2 import MapExistsError, MappingExistsError
from safety.harness.process import ON_PYPY, describe, find_new_file, is_inside_package, take_ignored

LIMIT = 60 if ON_PYPY else 100  # PyPy limits the size of the stack: 768 bytes times this number
DEPTHS = 45  # below the limit: more than any call nests
BEYOND = 5  # depths above `deepest`, which is called in some functions itself

if ON_PYPY:
    import pypyjit  # type: ignore[import-not-found]

OCCUPIED = (MapExistsError, MappingExistsError)  # at the limit, PyPy cannot finalize the map that was dropped
REACHED = "reached the limit"


def descend(depth: int, act: Callable[[], object]) -> None:
    """Call *act* in so many nested calls; drop its result there."""
    if depth:
        descend(depth - 1, act)
    else:
        act()


def is_too_deep(depth: int) -> bool:
    """Return whether a function that does nothing cannot be called in so many nested calls."""
    try:
        descend(depth, int)
    except RecursionError:
        return True
    return False


@cache
def deepest() -> int:
    """Return in how many nested calls a function can be called."""
    low, high = 0, 1
    while not is_too_deep(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_too_deep(middle) else (middle, high)
    return low


def call_at(depth: int, act: Callable[[], object], world: World) -> list[str]:
    """Call *act* in so many nested calls; return `REACHED` if that was too deep, and describe what is wrong."""
    caught: BaseException | None = None
    try:
        descend(depth, act)
    except BaseException as error:
        caught = error
    found = take_ignored()[1]  # at once: their frames keep objects
    if isinstance(caught, RecursionError) or (ON_PYPY and isinstance(caught, OCCUPIED)):
        found.append(REACHED)
    elif caught is not None:
        found.append(f"{describe(caught)} instead of a RecursionError")
    inside = caught is not None and is_inside_package(caught)
    caught = None
    return found + find_new_file(world, inside=inside)


def reach_limit(world: World, name: str, rounds: int, rng: random.Random) -> list[str]:
    """Make a call, and drop its result, at some of the depths around the limit."""
    if ON_PYPY:
        pypyjit.set_param("off")  # compiled code needs less of the stack, so that the depth of the limit would vary
    call = CALLS[name]
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(LIMIT)
    try:
        depths = range(deepest() - DEPTHS, deepest() + BEYOND)
        chosen = [depths[0], *rng.sample(depths, min(rounds, len(depths)))]
        problems: Counter[str] = Counter()
        for depth in chosen:
            problems.update(call_at(depth, lambda: call(world), world))
            result = [call(world)]
            problems.update(call_at(depth, result.clear, world))
            result.clear()
    finally:
        sys.setrecursionlimit(before)
    if problems.pop(REACHED, 0) == 2 * len(chosen):
        problems[f"needs more than {DEPTHS} depths"] = len(chosen)
    return [f"{times} times: {text}" for text, times in problems.items()]
