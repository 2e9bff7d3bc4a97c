# SPDX-License-Identifier: BSD-3-Clause
"""Calls of map methods, grouped by the access that they need, and ranges outside a map."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from pmem2 import Config, Map, Protection, Source
from support.values import CONTENT

LENGTH = len(CONTENT)
OUTSIDE = "ends beyond the map"
"""Matches the error text for a range that does not lie inside its map."""

RANGES_OUTSIDE = [
    (0, LENGTH + 1),
    (1, LENGTH),
    (LENGTH, 1),
    (LENGTH + 1, 0),
    (LENGTH + 1, None),
    (2**63, None),
    (2**64 - 1, None),
    (2**64 - 1, 1),
    (2**64 - 1, 2**64 - 1),
    (1, 2**64 - 1),
    (0, 2**63),
    (LENGTH, 2**64 - LENGTH),
]
range_outside = pytest.mark.parametrize(("offset", "length"), RANGES_OUTSIDE)


def map_with_protection(path: Path, protection: Protection) -> Map:
    """Return a map of a file with a protection."""
    with Source.from_path(path) as source:
        return Map(source, Config(protection=protection))


def copy_from(map: Map) -> None:
    """Pass a map to memcpy as data."""
    with Source.from_anon(map.size) as source, source.map() as target:
        target.memcpy(0, map)


READS: dict[str, Callable[[Map], object]] = {
    "index": lambda m: m[0],
    "slice": lambda m: m[0:4],
    "slice with gaps": lambda m: m[0:4:2],
    "slice of nothing": lambda m: m[0:0],
    "view": lambda m: m.view(0, 4).release(),
    "view of nothing": lambda m: m.view(0, 0).release(),
    "load": lambda m: m.load_u64(0),
    "data": copy_from,
    "acquire": Map.acquire,
    "acquire nothing": lambda m: m.acquire(0, 0),
    "acquire_many": lambda m: m.acquire_many([(0, 1)]),
    "acquire_many of nothing": lambda m: m.acquire_many([]),
}
WRITES: dict[str, Callable[[Map], object]] = {
    "index": lambda m: m.__setitem__(0, 1),
    "slice": lambda m: m.__setitem__(slice(0, 4), b"1234"),
    "slice with gaps": lambda m: m.__setitem__(slice(0, 4, 2), b"12"),
    "slice of nothing": lambda m: m.__setitem__(slice(0, 0), b""),
    "memcpy": lambda m: m.memcpy(0, b"1234"),
    "memcpy of nothing": lambda m: m.memcpy(0, b""),
    "memmove": lambda m: m.memmove(0, bytearray(b"1234")),
    "memset": lambda m: m.memset(0, 1, 4),
    "memcpy_many": lambda m: m.memcpy_many([(0, b"1234")]),
    "memcpy_many of nothing": lambda m: m.memcpy_many([]),
    "store": lambda m: m.store_u64(0, 1),
    "store and persist": lambda m: m.store_u64(0, 1, persist=True),
    "publish": Map.publish,
    "publish nothing": lambda m: m.publish(0, 0),
    "publish_many": lambda m: m.publish_many([(0, 1)]),
    "publish_many of nothing": lambda m: m.publish_many([]),
}
READ_MODIFY_WRITES: dict[str, Callable[[Map], object]] = {
    "exchange": lambda m: m.compare_exchange_u64(0, 0, 1),
    "add": lambda m: m.fetch_add_u64(0, 1),
}
DURABILITY_CALLS: dict[str, Callable[[Map], object]] = {
    "persist": Map.persist,
    "persist nothing": lambda m: m.persist(0, 0),
    "flush": Map.flush,
    "drain": Map.drain,
    "deep_flush": Map.deep_flush,
    "persist_many": lambda m: m.persist_many([(0, 1)]),
    "persist_many of nothing": lambda m: m.persist_many([]),
    "flush_many": lambda m: m.flush_many([(0, 1)]),
}
