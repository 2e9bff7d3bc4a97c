# SPDX-License-Identifier: BSD-3-Clause
"""Slices, which the standard library types with Any: only here, so that it goes no further."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, SupportsIndex

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

    Slice: TypeAlias = slice[Optional[SupportsIndex], Optional[SupportsIndex], Optional[SupportsIndex]]


def as_slice(key: object) -> Slice | None:
    """Return *key* if it is a slice."""
    return key if isinstance(key, slice) else None


def slice_span(key: Slice, size: int) -> tuple[int, int, int]:
    """Return the range (offset, length) that a slice of *size* bytes lies in.

    Returns:
        The offset, the length, and the step with which that range is gone through: from its end if negative.
    """
    places = range(*key.indices(size))
    if not places:
        return 0, 0, 1
    low = min(places[0], places[-1])
    length = max(places[0], places[-1]) - low + 1
    return low, length, places.step
