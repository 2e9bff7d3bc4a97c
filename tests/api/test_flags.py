# SPDX-License-Identifier: BSD-3-Clause
"""Flags of copies: valid combinations, unknown bits and wrong types."""

from __future__ import annotations

from typing import Callable

import pytest
from support.values import CONTENT

from pmem2 import Map, MemFlag

with_flags = pytest.mark.parametrize(
    "call",
    [
        lambda m, n: m.memcpy(0, b"1", n),
        lambda m, n: m.memcpy(0, bytearray(b"1"), flags=n),
        lambda m, n: m.memmove(0, b"1", n),
        lambda m, n: m.memset(0, 1, 1, n),
    ],
    ids=["memcpy", "memcpy, bytearray", "memmove", "memset"],
)

COMBINATIONS = range(64)


def has_conflict(flags: int) -> bool:
    """Return whether the contract forbids this combination of flags."""
    pairs = (
        MemFlag.NONTEMPORAL | MemFlag.TEMPORAL,
        MemFlag.WC | MemFlag.WB,
        MemFlag.NONTEMPORAL | MemFlag.NOFLUSH,
        MemFlag.WC | MemFlag.NOFLUSH,
    )
    return any(flags & pair == pair for pair in pairs)


@pytest.mark.parametrize("length", [1, 300])
@pytest.mark.parametrize("flags", COMBINATIONS)
def test_flag_combinations(small_map: Map, flags: int, length: int) -> None:
    """Combinations of flags that exclude each other raise ValueError, and all others copy the same bytes."""
    data, expected = b"\xee" * length, bytearray(CONTENT)
    calls: list[tuple[int, Callable[[MemFlag], None]]] = [
        (0, lambda f: small_map.memcpy(0, data, f)),
        (1000, lambda f: small_map.memcpy(1000, bytearray(data), flags=f)),
        (2000, lambda f: small_map.memmove(2000, data, f)),
        (3000, lambda f: small_map.memmove(3000, data, flags=f)),
        (4000, lambda f: small_map.memset(4000, 0xEE, length, f)),
        (5000, lambda f: small_map.memset(offset=5000, value=0xEE, length=length, flags=f)),
    ]
    for offset, call in calls:
        if has_conflict(flags):
            with pytest.raises(ValueError, match=f"flags must not combine [A-Z]+ and [A-Z]+, got {flags:#x}"):
                call(MemFlag(flags))
        else:
            expected[offset : offset + length] = data
            call(MemFlag(flags))
    small_map.drain()
    assert small_map[:] == expected


def test_number_of_valid_combinations() -> None:
    """The four exclusive pairs leave 26 of the 64 combinations valid."""
    assert sum(not has_conflict(flags) for flags in COMBINATIONS) == 26


@with_flags
@pytest.mark.parametrize("flags", [0, 1, 3, 0x21, 26])
def test_flags_as_int(small_map: Map, call: Callable[[Map, int], None], flags: int) -> None:
    """Flags may be a plain int."""
    if has_conflict(flags):
        with pytest.raises(ValueError, match="flags"):
            call(small_map, flags)
    else:
        call(small_map, flags)


@with_flags
@pytest.mark.parametrize("flags", [64, 65, 2**31, 2**32, 2**63, 2**64, 2**70, -1, -64])
def test_unknown_flags(small_map: Map, call: Callable[[Map, int], None], flags: int) -> None:
    """Unknown bits and negative flags raise ValueError and store nothing."""
    with pytest.raises(ValueError, match="flags must be a combination of MemFlag, got "):
        call(small_map, flags)
    assert small_map[:] == CONTENT


@with_flags
@pytest.mark.parametrize("flags", [True, False, 1.0, "1", None, b"1", [1]])
def test_flags_of_wrong_type(small_map: Map, call: Callable[[Map, int], None], flags: int) -> None:
    """Flags that are a bool or not an integer raise TypeError and store nothing."""
    with pytest.raises(TypeError):
        call(small_map, flags)
    assert small_map[:] == CONTENT
