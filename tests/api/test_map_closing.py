# SPDX-License-Identifier: BSD-3-Clause
"""Closing maps: what a closed map raises and what stays readable."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest
from support.map_calls import DURABILITY_CALLS, READ_MODIFY_WRITES, READS, WRITES
from support.values import CONTENT, PAGE

import pmem2
from pmem2 import Config, Map, Protection, Sharing, Source

READ, WRITE = Protection.READ, Protection.WRITE
LENGTH = len(CONTENT)


def copy_from_closed(map: Map) -> None:
    """Pass a closed map to memcpy as data."""
    with Source.from_anon(LENGTH) as source, source.map() as target:
        target.memcpy(0, map)


CALLS: dict[str, Callable[[Map], object]] = {
    **{f"read, {name}": call for name, call in READS.items() if name != "data"},
    **{f"write, {name}": call for name, call in WRITES.items()},
    **READ_MODIFY_WRITES,
    **DURABILITY_CALLS,
    "data": copy_from_closed,
    "address": lambda m: m.address,
    "size": lambda m: m.size,
    "len": len,
    "index outside": lambda m: m[2**70],
    "store outside": lambda m: m.__setitem__(-(2**70), 0),
    "slice of another length": lambda m: m.__setitem__(slice(0, 4), b"1"),
    "range outside": lambda m: m.persist(2**64 - 1, 1),
    "unaligned": lambda m: m.load_u64(1),
    "iteration": lambda m: list(iter(m)),
    "enter": Map.__enter__,
}


@pytest.mark.parametrize("name", CALLS)
def test_closed_map_raises(path: Path, name: str) -> None:
    """Every use of a closed map raises ValueError that says so, `address`, `size` and `len` included."""
    with pmem2.open(path) as map:
        pass
    assert map.closed is True
    with pytest.raises(ValueError, match="closed"):
        CALLS[name](map)


NAMED_ACTIONS: dict[str, Callable[[Map], object]] = {
    "read": lambda m: m[0],
    "write to": lambda m: m.__setitem__(0, 1),
    "drain": Map.drain,
    "persist 3 bytes at 1 of": lambda m: m.persist(1, 3),
    "load 8 bytes at 8 of": lambda m: m.load_u64(8),
    "persist 2 ranges of": lambda m: m.persist_many([(0, 1), (2, 3)]),
    "publish 3 bytes at 1 of": lambda m: m.publish(1, 3),
    "acquire 2 ranges of": lambda m: m.acquire_many([(0, 1), (2, 3)]),
    "copy 1 pieces to": lambda m: m.memcpy_many([(0, b"x")]),
}


@pytest.mark.parametrize("action", NAMED_ACTIONS)
def test_error_names_action(path: Path, action: str) -> None:
    """The error of a closed map names the refused action."""
    with pmem2.open(path) as map:
        pass
    with pytest.raises(ValueError, match=f"^cannot {action} <pmem2.Map, closed>: it is closed$"):
        NAMED_ACTIONS[action](map)


def test_properties_after_close(path: Path) -> None:
    """Granularity, protection, sharing and config stay readable after close."""
    config = Config(length=PAGE)
    with Source.from_path(path) as source, source.map(config) as map:
        granularity = map.granularity
    assert map.granularity is granularity
    assert map.protection == READ | WRITE
    assert map.sharing is Sharing.SHARED
    assert map.config is config


def test_close_twice(path: Path) -> None:
    """Closing a closed map has no effect, even if its addresses belong to another map."""
    map = pmem2.open(path)
    map.close()
    with pmem2.open(path) as other:
        map.close()
        assert other[:] == CONTENT


def test_with_closes(path: Path) -> None:
    """`with` closes the map whether or not the block raises, and the stores are in the file."""
    with pytest.raises(KeyError), pmem2.open(path) as map:  # noqa: PT012 # tests the block
        map[0] = 42
        raise KeyError
    assert map.closed
    assert path.read_bytes()[0] == 42
