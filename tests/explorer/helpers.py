# SPDX-License-Identifier: BSD-3-Clause
"""Helpers of the explorer's tests: run a workload, and return its images, values or failure."""

from __future__ import annotations

import inspect
import sys
from typing import Callable

import pytest

from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import CrashConsistencyError, explore

SIZE = 4096
NODRAIN = MemFlag.NODRAIN


def discard(read: Callable[..., object]) -> Callable[..., None]:
    """Return a check that calls *read* and returns nothing."""

    def check(*arguments: object) -> None:
        read(*arguments)

    return check


def images_of(workload: Callable[[Map], object], granularity: Granularity = Granularity.CACHE_LINE) -> set[bytes]:
    """Return every image of a workload; assert that the search was exhaustive and checked each image once."""
    seen: list[bytes] = []
    report = explore(workload, lambda map: seen.append(map[:]), size=SIZE, granularity=granularity)
    assert report.exhaustive
    assert report.images == len(seen) == len(set(seen))
    return set(seen)


def values_of(
    workload: Callable[[Map], object], *offsets: int, granularity: Granularity = Granularity.CACHE_LINE
) -> set[tuple[int, ...]]:
    """Return the 8-byte integers at these offsets, for every image."""
    images = images_of(workload, granularity)
    return {tuple(int.from_bytes(image[n : n + 8], sys.byteorder) for n in offsets) for image in images}


def failure_of(
    workload: Callable[[Map], object],
    check: Callable[[Map], object],
    size: int = SIZE,
    budget: int = 10_000,
    granularity: Granularity = Granularity.CACHE_LINE,
) -> CrashConsistencyError:
    """Return the error that explore raises."""
    with pytest.raises(CrashConsistencyError) as raised:
        explore(workload, discard(check), size=size, budget=budget, granularity=granularity)
    return raised.value


def line_of(function: Callable[..., object], text: str) -> int:
    """Return the number of the first line of a function that contains a text."""
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def check_published(map: Map) -> None:
    """Check that the bytes at 0 are there once the flag at 64 is set."""
    if map.load_u64(64):
        assert map[0:8] == b"promised"
