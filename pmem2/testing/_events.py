# SPDX-License-Identifier: BSD-3-Clause
"""What a workload does to memory, in the order in which it does it."""

from __future__ import annotations

from typing import Union

import attrs

WORD = 8  # bytes: what is aligned and stored at once is never torn

Unit = tuple[int, bytes]
"""An offset, and the bytes stored there, which survive all together or not at all."""


@attrs.frozen()
class Place:
    """Where in the source something was done: a line, and the function that it is in."""

    filename: str
    lineno: int
    function: str


@attrs.frozen(eq=False)
class Store:
    """Bytes that were stored by one operation, or found changed after one statement.

    Attributes:
        place: Where it was done.
        offset: Where the first byte is, in bytes.
        length: Bytes.
        units: What survives whole or not at all; any combination of them may survive.
        free: Whether nothing orders it against later stores before the next drain.
        found: Whether it was found by comparing memory; then there may be gaps between the units.
    """

    place: Place
    offset: int
    length: int
    units: tuple[Unit, ...]
    free: bool = False
    found: bool = False


@attrs.frozen(eq=False)
class Flush:
    """Ranges of which every line (page) was flushed; *asked* for, or as a part of a copy or an atomic."""

    place: Place
    ranges: tuple[tuple[int, int], ...]
    asked: bool = False


@attrs.frozen(eq=False)
class Drain:
    """A wait for everything that had been flushed; *asked* for by `drain()`, or as a part of another operation."""

    place: Place
    asked: bool = False


@attrs.frozen(eq=False)
class Acknowledgement:
    """A `yield` of the workload."""

    place: Place


Event = Union[Store, Flush, Drain, Acknowledgement]


def words(offset: int, content: bytes) -> tuple[Unit, ...]:
    """Return the units of a copy: aligned words, and single bytes at its ragged ends."""
    end = offset + len(content)
    first, last = -(-offset // WORD) * WORD, end // WORD * WORD
    if first >= last:
        cuts = list(range(offset, end + 1))
    else:
        cuts = [*range(offset, first), *range(first, last, WORD), *range(last, end + 1)]
    return tuple((low, content[low - offset : high - offset]) for low, high in zip(cuts, cuts[1:]))


def whole(offset: int, content: bytes) -> tuple[Unit, ...]:
    """Return the units of an assignment: one, where 1, 2, 4 or 8 bytes are naturally aligned."""
    size = len(content)
    return ((offset, content),) if size in (1, 2, 4, 8) and offset % size == 0 else words(offset, content)
