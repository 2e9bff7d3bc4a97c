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


def places_of(key: Slice, size: int) -> tuple[int, int, Slice | None]:
    """Return the range (offset, length) that a slice of *size* bytes lies in.

    Returns:
        The offset, the length, and the slice within that range where it has gaps or runs backwards, else `None`.
    """
    places = range(*key.indices(size))
    if not places:
        return 0, 0, None
    low = min(places[0], places[-1])
    length = max(places[0], places[-1]) - low + 1
    return low, length, None if places.step == 1 else slice(None, None, places.step)
