# SPDX-License-Identifier: BSD-3-Clause
"""Enums: names and values of libpmem2.h."""

from __future__ import annotations

import enum

import pytest
from _pmem2 import lib

import pmem2

ENUMS: list[tuple[type[enum.IntEnum] | type[enum.IntFlag], str, list[str]]] = [
    (pmem2.Granularity, "PMEM2_GRANULARITY_", ["BYTE", "CACHE_LINE", "PAGE"]),
    (pmem2.Sharing, "PMEM2_", ["SHARED", "PRIVATE"]),
    (pmem2.Protection, "PMEM2_PROT_", ["NONE", "READ", "WRITE", "EXEC"]),
    (pmem2.MemFlag, "PMEM2_F_MEM_", ["NODRAIN", "NONTEMPORAL", "TEMPORAL", "WC", "WB", "NOFLUSH"]),
]
CODES = [name[len("PMEM2_E_") :] for name in dir(lib) if name.startswith("PMEM2_E_")]


@pytest.mark.parametrize(("kind", "prefix", "names"), ENUMS)
def test_members(kind: type[enum.IntEnum], prefix: str, names: list[str]) -> None:
    """An enum has exactly these members, with the values of the compiled module."""
    assert list(kind.__members__) == names
    assert {name: int(member) for name, member in kind.__members__.items()} == {
        name: getattr(lib, prefix + name) for name in names
    }


def test_error_codes() -> None:
    """ErrorCode has exactly the 37 codes PMEM2_E_* of the compiled module."""
    assert len(CODES) == 37
    assert set(pmem2.ErrorCode.__members__) == set(CODES)
    assert all(int(pmem2.ErrorCode[name]) == getattr(lib, f"PMEM2_E_{name}") for name in CODES)
    assert len(list(pmem2.ErrorCode)) == 37


@pytest.mark.parametrize("kind", [pmem2.Granularity, pmem2.Sharing, pmem2.ErrorCode])
def test_exclusive_choices(kind: type[enum.IntEnum]) -> None:
    """Granularity, Sharing and ErrorCode are IntEnums."""
    assert issubclass(kind, enum.IntEnum)


@pytest.mark.parametrize("kind", [pmem2.Protection, pmem2.MemFlag])
def test_combinable_bits(kind: type[enum.IntFlag]) -> None:
    """Protection and MemFlag are IntFlags with distinct single bits."""
    assert issubclass(kind, enum.IntFlag)
    bits = [int(member) for member in kind.__members__.values() if member]
    assert all(bit & (bit - 1) == 0 for bit in bits)
    assert len(set(bits)) == len(bits)


def test_granularity_order() -> None:
    """A finer granularity compares as smaller."""
    assert pmem2.Granularity.BYTE < pmem2.Granularity.CACHE_LINE < pmem2.Granularity.PAGE


def test_protection_none_is_zero() -> None:
    """Protection.NONE is 0."""
    assert int(pmem2.Protection.NONE) == 0


def test_valid_flags() -> None:
    """The MemFlags together are libpmem2's mask of valid flags."""
    assert sum(int(flag) for flag in pmem2.MemFlag.__members__.values()) == lib.PMEM2_F_MEM_VALID_FLAGS
