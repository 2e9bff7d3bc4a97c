# SPDX-License-Identifier: BSD-3-Clause
"""The events of a workload, in program order: stores, flushes, drains and acknowledgements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

import attrs

if TYPE_CHECKING:
    from pmem2.testing._locations import SourceLocation

WORD = 8
"""Bytes: an aligned store of this size is never torn."""

Unit = tuple[int, bytes]
"""An offset and the bytes stored there; a power failure keeps all of them or none."""


@attrs.frozen(eq=False)
class Store:
    """Bytes stored by one operation, or bytes that one statement changed.

    Attributes:
        location: The code that stored them.
        offset: The offset of the first byte in the map.
        length: The length in bytes.
        units: The parts that are never torn; any combination of them may survive a power failure.
        unordered: Whether later stores may survive without this one until the next drain.
        from_diff: Whether a comparison of the memory found this store; then there may be gaps between its units.
    """

    location: SourceLocation
    offset: int
    length: int
    units: tuple[Unit, ...]
    unordered: bool = False
    from_diff: bool = False


@attrs.frozen(eq=False)
class Flush:
    """A flush of every cache line (or page) that the ranges touch.

    *explicit* is true for a call of `flush` or `persist`, and false for the flush inside a copy or an atomic.
    """

    location: SourceLocation
    ranges: tuple[tuple[int, int], ...]
    explicit: bool = False


@attrs.frozen(eq=False)
class Drain:
    """A wait for all earlier flushes; *explicit* is true for a call of `drain`, false for a drain inside a method."""

    location: SourceLocation
    explicit: bool = False


@attrs.frozen(eq=False)
class Acknowledgement:
    """A `yield` of the workload."""

    location: SourceLocation


Event = Union[Store, Flush, Drain, Acknowledgement]


def split_copy(offset: int, content: bytes) -> tuple[Unit, ...]:
    """Return the units of a copy: aligned words, and single bytes at its unaligned ends."""
    end = offset + len(content)
    first, last = -(-offset // WORD) * WORD, end // WORD * WORD
    if first >= last:
        cuts = list(range(offset, end + 1))
    else:
        cuts = [*range(offset, first), *range(first, last, WORD), *range(last, end + 1)]
    return tuple((low, content[low - offset : high - offset]) for low, high in zip(cuts, cuts[1:]))


def split_assignment(offset: int, content: bytes) -> tuple[Unit, ...]:
    """Return the units of an assignment: a single one for 1, 2, 4 or 8 naturally aligned bytes."""
    size = len(content)
    return ((offset, content),) if size in (1, 2, 4, 8) and offset % size == 0 else split_copy(offset, content)
