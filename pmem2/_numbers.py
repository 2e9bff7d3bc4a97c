# SPDX-License-Identifier: BSD-3-Clause
"""Numbers as C takes them: no bool, no float, nothing negative, nothing too large."""

from __future__ import annotations

import operator
from typing import SupportsIndex

SIZE_MAX = 2**64 - 1
FILE_SIZE_MAX = 2**63 - 1


def integer(value: SupportsIndex, name: str) -> int:
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


def written(number: int) -> str:
    """Return a number as text: Python itself refuses to write one of thousands of digits in decimal."""
    return str(number) if number.bit_length() <= 128 else f"{number:#x}"


def size(value: SupportsIndex, name: str, maximum: int = SIZE_MAX) -> int:
    """Return *value* as an int from 0 to *maximum*.

    Raises:
        TypeError: *value* is a bool or not an integer.
        ValueError: *value* is negative or too large.
    """
    if type(value) is int and 0 <= value <= maximum:  # what nearly always comes
        return value
    number = integer(value, name)
    if number < 0:
        raise ValueError(f"{name} must not be negative, and {written(number)} is")
    if number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, and {written(number)} is not")
    return number


def positive(value: SupportsIndex, name: str, maximum: int = SIZE_MAX) -> int:
    """Return *value* as an int from 1 to *maximum*.

    Raises:
        TypeError: *value* is a bool or not an integer.
        ValueError: *value* is 0, negative or too large.
    """
    number = size(value, name, maximum)
    if number == 0:
        raise ValueError(f"{name} must not be 0")
    return number
