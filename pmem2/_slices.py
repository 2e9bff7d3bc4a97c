# SPDX-License-Identifier: BSD-3-Clause
"""Slices. The standard library types their parts with Any; this module keeps it from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, SupportsIndex

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

    Slice: TypeAlias = slice[Optional[SupportsIndex], Optional[SupportsIndex], Optional[SupportsIndex]]


SLICE: type = slice
"""Its own type would hold Any."""


def as_slice(key: object) -> Slice | None:
    """Return *key* if it is a slice, else `None`."""
    return key if isinstance(key, slice) else None


def clip(start: int, end: int | None, size: int) -> tuple[int, int]:
    """Return the ends of a slice of *size* bytes as numbers that do not count from the end."""
    low, high, _ = slice(start, end, 1).indices(size)
    return low, high


def slice_parts(key: Slice, size: int) -> tuple[int, int, int]:
    """Return the first index of a slice of *size* bytes, its step, and the number of indexes."""
    start, stop, step = key.indices(size)
    count = len(range(start, stop, step))
    return (start, step, count) if count > 1 else (start if count else 0, 1, count)


def slice_span(key: Slice, size: int) -> tuple[int, int, int]:
    """Return the smallest range that holds every index of a slice of *size* bytes.

    Returns:
        Offset, length, and the step through that range; a negative step begins at its end.
    """
    indexes = range(*key.indices(size))
    if not indexes:
        return 0, 0, 1
    low = min(indexes[0], indexes[-1])
    length = max(indexes[0], indexes[-1]) - low + 1
    return low, length, indexes.step
