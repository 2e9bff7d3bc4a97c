# SPDX-License-Identifier: BSD-3-Clause
"""Argument validation: every type, number and flag is checked before it reaches C."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, SupportsIndex

from pmem2._enums import MemFlag

if TYPE_CHECKING:
    from typing_extensions import TypeIs

SIZE_MAX = 2**64 - 1
FILE_SIZE_MAX = 2**63 - 1

NO_FLAGS = MemFlag(0)
# libpmem2 accepts these pairs and ignores one of the two flags.
CONFLICTING_FLAGS = (
    MemFlag.NONTEMPORAL | MemFlag.TEMPORAL,
    MemFlag.WC | MemFlag.WB,
    MemFlag.NONTEMPORAL | MemFlag.NOFLUSH,
    MemFlag.WC | MemFlag.NOFLUSH,
)
ALL_FLAGS = sum(MemFlag)
VALID_FLAGS = {
    flags for flags in range(ALL_FLAGS + 1) if not any(flags & int(pair) == int(pair) for pair in CONFLICTING_FLAGS)
}


def raise_if_deeper(error: Exception) -> None:
    """Raise *error* again if it comes from Python code below the caller, such as a signal handler.

    Raises:
        Exception: *error*.
    """
    if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
        raise error


def check_type(value: object, kind: type, name: str) -> None:
    """Raise TypeError unless *value* is an instance of *kind*."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")


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


def is_index(value: object) -> TypeIs[SupportsIndex]:
    """Return whether *value* is an integer, or can be made one."""
    return hasattr(type(value), "__index__")


def int_repr(number: int) -> str:
    """Return *number* as text: decimal, or hexadecimal where Python refuses to print so many digits."""
    return str(number) if number.bit_length() <= 128 else f"{number:#x}"


def as_size(value: SupportsIndex, name: str, maximum: int = SIZE_MAX, minimum: int = 0) -> int:
    """Return *value* as an int from *minimum* to *maximum*.

    Raises:
        TypeError: *value* is a bool or not an integer.
        ValueError: *value* is too small or too large.
    """
    if type(value) is int and minimum <= value <= maximum:  # fast path
        return value
    number = as_int(value, name)
    if number < minimum:
        raise ValueError(f"{name} must be >= {minimum}, got {int_repr(number)}")
    if number > maximum:
        raise ValueError(f"{name} must be <= {maximum}, got {int_repr(number)}")
    return number


def as_positive(value: SupportsIndex, name: str, maximum: int = SIZE_MAX) -> int:
    """Return *value* as an int from 1 to *maximum*.

    Raises:
        TypeError: *value* is a bool or not an integer.
        ValueError: *value* is 0, negative or too large.
    """
    return as_size(value, name, maximum, minimum=1)


def check_mem_flags(value: SupportsIndex) -> int:
    """Return *value* as the flags of a copy.

    Raises:
        TypeError: *value* is not an integer.
        ValueError: Two flags exclude each other, or a bit is no flag.
    """
    flags = as_int(value, "flags")
    if flags in VALID_FLAGS:
        return flags
    if not 0 <= flags <= ALL_FLAGS:
        raise ValueError(f"flags must be a combination of MemFlag, got {flags:#x}")
    conflict = next(pair for pair in CONFLICTING_FLAGS if flags & int(pair) == int(pair))
    first, second = (flag.name for flag in MemFlag if flag in conflict)
    raise ValueError(f"flags must not combine {first} and {second}, got {flags:#x}")
