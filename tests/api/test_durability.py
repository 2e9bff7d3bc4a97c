# SPDX-License-Identifier: BSD-3-Clause
"""Durability calls: which ranges persist, flush and deep_flush accept."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest
from support.map_calls import OUTSIDE, range_outside
from support.values import CONTENT, PAGE

import pmem2

if TYPE_CHECKING:
    from pmem2 import Granularity, Map, Source

LENGTH = len(CONTENT)
SMAPS = Path("/proc/self/smaps")
PAGES = 16


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


def dirty_pages(map: Map) -> int:
    """Return how many pages of a map the kernel has to write back."""
    inside, count = False, 0
    for line in SMAPS.read_text(encoding="ascii", errors="replace").splitlines():
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            inside = int(bounds[1], 16) <= map.address < int(bounds[2], 16)
        elif inside and line.startswith(("Shared_Dirty", "Private_Dirty")):
            count += int(line.split()[1]) * 1024 // PAGE
    return count


@pytest.mark.skipif(not SMAPS.exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("offset", "length", "pages"),
    [(0, 1, 1), (PAGE - 1, 2, 2), (PAGE - 1, 2 * PAGE + 2, 4), (1, 3 * PAGE, 4), (5 * PAGE + 1, 11 * PAGE - 1, 11)],
)
@pytest.mark.parametrize("call", ["persist", "flush", "deep_flush", "persist_many", "flush_many"])
def test_kernel_has_clean_pages(tmp_path: Path, call: str, offset: int, length: int, pages: int) -> None:
    """Each page of a durable range has reached the disk: the kernel has no more to write."""
    with pmem2.open(tmp_path / "pages", "w+", size=PAGES * PAGE) as map:
        if map.granularity is not pmem2.Granularity.PAGE:
            pytest.skip("only the page cache has dirty pages")
        map[::PAGE] = b"x" * PAGES
        with (tmp_path / "pages").open("rb") as file:
            os.fsync(file.fileno())
        if dirty_pages(map):
            pytest.skip("this file system is in memory")
        map[::PAGE] = b"y" * PAGES
        method = getattr(map, call)
        if call.endswith("many"):
            method([(offset, length)])
        else:
            method(offset, length)
        assert dirty_pages(map) <= PAGES - pages
