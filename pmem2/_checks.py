# SPDX-License-Identifier: BSD-3-Clause
"""Argument validation: numbers and flags are checked before C sees them."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from pmem2._enums import MemFlag

SIZE_MAX = 2**64 - 1
FILE_SIZE_MAX = 2**63 - 1

NO_FLAGS = MemFlag(0)
CONFLICTING_FLAGS = (
    MemFlag.NONTEMPORAL | MemFlag.TEMPORAL,
    MemFlag.WC | MemFlag.WB,
    MemFlag.NONTEMPORAL | MemFlag.NOFLUSH,
    MemFlag.WC | MemFlag.NOFLUSH,
)
VALID_FLAGS = {
    flags for flags in range(sum(MemFlag) + 1) if not any(flags & int(both) == int(both) for both in CONFLICTING_FLAGS)
}


def as_int(value: SupportsIndex, name: str) -> int:
    """Return *value* as an int.

    Raises:
        TypeError: *value* is a bool or not an integer.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not bool")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None


def int_repr(number: int) -> str:
    """Return a number as text: Python itself refuses to write one of thousands of digits in decimal."""
    return str(number) if number.bit_length() <= 128 else f"{number:#x}"


def as_size(value: SupportsIndex, name: str, maximum: int = SIZE_MAX) -> int:
    """Return *value* as an int from 0 to *maximum*.

    Raises:
        TypeError: *value* is a bool or not an integer.
        ValueError: *value* is negative or too large.
    """
    if type(value) is int and 0 <= value <= maximum:  # what nearly always comes
        return value
    number = as_int(value, name)
    if number < 0:
        raise ValueError(f"{name} must not be negative, and {int_repr(number)} is")
    if number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, and {int_repr(number)} is not")
    return number


def as_positive(value: SupportsIndex, name: str, maximum: int = SIZE_MAX) -> int:
    """Return *value* as an int from 1 to *maximum*.

    Raises:
        TypeError: *value* is a bool or not an integer.
        ValueError: *value* is 0, negative or too large.
    """
    number = as_size(value, name, maximum)
    if number == 0:
        raise ValueError(f"{name} must not be 0")
    return number


def check_mem_flags(value: SupportsIndex) -> int:
    """Return *value* as flags of a copy.

    Raises:
        TypeError: It is not an integer.
        ValueError: The flags exclude each other, or are unknown.
    """
    flags = as_int(value, "flags")
    if flags not in VALID_FLAGS:
        raise ValueError(f"flags {flags:#x} exclude each other, or are unknown; combine MemFlag")
    return flags
