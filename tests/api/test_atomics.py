# SPDX-License-Identifier: BSD-3-Clause
"""Atomic 8-byte loads, stores, exchanges and additions."""

from __future__ import annotations

import sys
from typing import Callable

import pytest
from support.map_calls import OUTSIDE
from support.values import CONTENT, PAGE, non_integers

from pmem2 import Granularity, Map, Source

LENGTH = len(CONTENT)


ORDER = sys.byteorder
MAX = 2**64 - 1


@pytest.mark.parametrize("offset", [0, 8, 64, PAGE - 8, LENGTH - 8])
@pytest.mark.parametrize("value", [0, 1, 255, 2**32, 2**63, MAX, 0x0102030405060708])
@pytest.mark.parametrize("persist", [False, True])
def test_store(small_map: Map, offset: int, value: int, persist: bool) -> None:
    """store_u64 stores 8 bytes in native byte order and changes no other byte, and load_u64 returns them."""
    small_map.store_u64(offset, value, persist)
    expected = CONTENT[:offset] + value.to_bytes(8, ORDER) + CONTENT[offset + 8 :]
    assert small_map[:] == expected
    assert small_map.load_u64(offset) == value
    small_map.store_u64(offset=offset, value=value, persist=persist)
    assert small_map[:] == expected


def test_load(small_map: Map) -> None:
    """load_u64 reads every aligned word as an int."""
    words = [small_map.load_u64(offset) for offset in range(0, LENGTH, 8)]
    assert words == [int.from_bytes(CONTENT[offset : offset + 8], ORDER) for offset in range(0, LENGTH, 8)]
    assert type(words[0]) is int


ATOMICS: dict[str, Callable[[Map, int], object]] = {
    "load": Map.load_u64,
    "store": lambda m, offset: m.store_u64(offset, 0),
    "store and persist": lambda m, offset: m.store_u64(offset, 0, persist=True),
    "exchange": lambda m, offset: m.compare_exchange_u64(offset, 0, 0),
    "add": lambda m, offset: m.fetch_add_u64(offset, 1),
}
every_atomic = pytest.mark.parametrize("name", ATOMICS)


@every_atomic
@pytest.mark.parametrize("offset", [1, 2, 4, 7, 9, 12, LENGTH - 9])
def test_unaligned_word(small_map: Map, name: str, offset: int) -> None:
    """An unaligned word raises ValueError and stores nothing."""
    with pytest.raises(ValueError, match="multiple of 8"):
        ATOMICS[name](small_map, offset)
    assert small_map[:] == CONTENT


@every_atomic
@pytest.mark.parametrize("offset", [LENGTH - 7, LENGTH - 1, LENGTH, LENGTH + 8, 2**63, 2**64 - 8, 2**64 - 1])
def test_word_outside(small_map: Map, name: str, offset: int) -> None:
    """A word that does not lie inside the map raises ValueError and stores nothing."""
    with pytest.raises(ValueError, match=OUTSIDE):
        ATOMICS[name](small_map, offset)
    assert small_map[:] == CONTENT


def test_alignment_of_address(anonymous_source: Source) -> None:
    """The address of a word must be aligned, not its offset."""
    memory = memoryview(bytearray(64))
    for start in range(1, 9):
        with Map.from_existing(anonymous_source, memory[start:], Granularity.BYTE) as map:
            for offset in range(17):
                if (map.address + offset) % 8:
                    with pytest.raises(ValueError, match="multiple of 8"):
                        map.store_u64(offset, 0)
                else:
                    map.store_u64(offset, start)
                    assert memory[start + offset : start + offset + 8] == start.to_bytes(8, ORDER)


@pytest.mark.parametrize("persist", [False, True])
def test_compare_exchange(small_map: Map, persist: bool) -> None:
    """compare_exchange_u64 stores only if the word has the expected value, and returns (swapped, previous)."""
    small_map.store_u64(8, 5)
    assert small_map.compare_exchange_u64(8, 4, MAX, persist) == (False, 5)
    assert small_map.load_u64(8) == 5
    assert small_map.compare_exchange_u64(8, 5, MAX, persist=persist) == (True, 5)
    assert small_map.load_u64(8) == MAX
    assert small_map.compare_exchange_u64(offset=8, expected=MAX, desired=0, persist=persist) == (True, MAX)
    assert small_map[:] == CONTENT[:8] + bytes(8) + CONTENT[16:]
    swapped, _ = small_map.compare_exchange_u64(8, 0, 1)
    assert swapped is True


@pytest.mark.parametrize("persist", [False, True])
@pytest.mark.parametrize(
    ("before", "delta", "after"),
    [
        (0, 0, 0),
        (0, 1, 1),
        (5, -1, 4),
        (0, -1, MAX),
        (MAX, 1, 0),
        (MAX, MAX, MAX - 1),
        (1, -(2**63), 2**63 + 1),
        (2**63, 2**63, 0),
        (7, MAX, 6),
    ],
)
def test_fetch_add(small_map: Map, before: int, delta: int, after: int, persist: bool) -> None:
    """fetch_add_u64 adds, wraps at 2**64 and returns the previous value, and the delta may be negative."""
    small_map.store_u64(8, before)
    assert small_map.fetch_add_u64(8, delta, persist) == before
    assert small_map.load_u64(8) == after
    assert small_map.fetch_add_u64(offset=8, delta=0, persist=persist) == after
    assert small_map[:8] + small_map[16:] == CONTENT[:8] + CONTENT[16:]


@pytest.mark.parametrize("delta", [2**64, -(2**63) - 1, 2**70, -(2**70)])
def test_delta_out_of_range(small_map: Map, delta: int) -> None:
    """A delta that does not fit 64 bits raises ValueError and stores nothing."""
    with pytest.raises(ValueError, match="delta"):
        small_map.fetch_add_u64(0, delta)
    assert small_map[:] == CONTENT


@non_integers
def test_delta_of_wrong_type(small_map: Map, wrong: int) -> None:
    """A delta that is a bool or not an integer raises TypeError and stores nothing."""
    with pytest.raises(TypeError, match="delta"):
        small_map.fetch_add_u64(0, wrong)
    assert small_map[:] == CONTENT
