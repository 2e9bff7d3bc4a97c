# SPDX-License-Identifier: BSD-3-Clause
"""Durability calls: which ranges persist, flush and deep_flush accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import pytest
from support.map_calls import OUTSIDE, range_outside
from support.values import CONTENT, PAGE

if TYPE_CHECKING:
    from pmem2 import Granularity, Map, Source

LENGTH = len(CONTENT)


def durability_calls(map: Map, offset: int, length: int | None) -> list[Callable[[], None]]:
    """Return calls of every method that makes a range durable."""
    calls: list[Callable[[], None]] = [
        lambda: map.persist(offset, length),
        lambda: map.flush(offset, length),
        lambda: map.deep_flush(offset, length),
        lambda: map.persist(offset=offset, length=length),
        lambda: map.flush(offset=offset, length=length),
        lambda: map.deep_flush(offset=offset, length=length),
    ]
    if length is not None:
        size: int = length  # mypy does not narrow *length* inside a lambda
        calls += [
            lambda: map.persist_many([(0, 1), (offset, size)]),
            lambda: map.flush_many([(0, 1), (offset, size)]),
        ]
    return calls


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, 1), (0, LENGTH), (0, None), (LENGTH, 0), (LENGTH, None), (1, LENGTH - 1), (5, 7)]
)
def test_ranges_inside(small_map: Map, offset: int, length: int | None) -> None:
    """Every durability call accepts any range inside the map, returns None and changes no byte."""
    for call in durability_calls(small_map, offset, length):
        assert call() is None
    small_map.drain()
    assert small_map[:] == CONTENT


def test_stores_on_every_granularity(source: Source, granularity: Granularity) -> None:
    """Stores and copies that were made durable read the same on every granularity."""
    with source.map() as map:
        map[0:5] = b"plain"
        map.persist(0, 5)
        map[8:13] = b"plain"
        map.flush(8, 5)
        map.drain()
        map.persist_many([(0, 5), (PAGE, PAGE)])
        map.flush_many([(8, 5), (3 * PAGE, PAGE)])
        map.memcpy(16, b"copied")
        map.memset(32, 7, 300)
        map.memcpy_many([(400, b"one"), (5000, b"two")])
        map.store_u64(8000, 5, persist=True)
        assert map.granularity is granularity
        assert map[:22] == b"plain\0\0\0plain\0\0\0copied"
        assert map[32:333] == b"\7" * 300 + b"\0"
        assert map[400:403] + map[5000:5003] == b"onetwo"
        assert map.load_u64(8000) == 5


@range_outside
def test_ranges_outside(small_map: Map, offset: int, length: int | None) -> None:
    """Every durability call, deep_flush included, raises ValueError for a range outside the map."""
    for call in durability_calls(small_map, offset, length):
        with pytest.raises(ValueError, match=OUTSIDE):
            call()
