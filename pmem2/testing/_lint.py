# SPDX-License-Identifier: BSD-3-Clause
"""Lint: stores that never become durable, and flushes and drains without effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import attrs

from pmem2._enums import Granularity
from pmem2.testing._events import Drain, Event, Flush, Store
from pmem2.testing._memory_model import flush_size

if TYPE_CHECKING:
    from pmem2.testing._locations import SourceLocation

Kind = Literal["never made durable", "flush of clean lines", "drain of nothing"]


@attrs.frozen()
class Finding:
    """A store, a flush or a drain that is probably a mistake.

    Attributes:
        kind: "never made durable" by the end of the workload, "flush of clean lines", or "drain of nothing".
        offset: The offset of the range in the map.
        length: The length in bytes; 0 for a drain.
        filename: The source file of the store, flush or drain.
        lineno: The line in that file.
        function: The function in that file.
    """

    kind: Kind
    offset: int
    length: int
    filename: str
    lineno: int
    function: str


def lint_events(events: Sequence[Event], granularity: Granularity) -> tuple[Finding, ...]:
    """Return each probable mistake once.

    On BYTE, stores need no flush. On PAGE, a drain has no effect, but portable code calls it: it is no finding.
    """
    unique: list[Finding] = []
    for finding in find_mistakes(events, granularity):
        if finding not in unique:
            unique.append(finding)
    return tuple(unique)


def find_mistakes(events: Sequence[Event], granularity: Granularity) -> Iterator[Finding]:
    """Yield the probable mistakes, in program order."""
    size = flush_size(granularity)
    dirty: dict[int, list[Store]] = {}  # for each line (page): the stores since its last flush
    undrained: dict[int, list[Store]] = {}  # for each line: the stores that are flushed but not drained
    drain_needed = False
    for event in events:
        if isinstance(event, Store):
            drain_needed = drain_needed or event.unordered
            if granularity is not Granularity.BYTE or event.unordered:
                for index in {offset // size: None for offset, _ in event.units}:
                    dirty.setdefault(index, []).append(event)
        elif isinstance(event, Flush):
            for offset, length in event.ranges:
                touched = [index for index in blocks(offset, length, size) if index in dirty]
                if event.explicit and length and not touched and granularity is not Granularity.BYTE:
                    yield make_finding("flush of clean lines", offset, length, event.location)
                drain_needed = drain_needed or bool(touched)
                for index in touched:
                    stores = dirty.pop(index)
                    if granularity is not Granularity.PAGE:
                        undrained.setdefault(index, []).extend(stores)
        elif isinstance(event, Drain):
            if event.explicit and not drain_needed and granularity is Granularity.CACHE_LINE:
                yield make_finding("drain of nothing", 0, 0, event.location)
            undrained.clear()
            drain_needed = False
    for stores in (*dirty.values(), *undrained.values()):
        for store in stores:
            yield make_finding("never made durable", store.offset, store.length, store.location)


def blocks(offset: int, length: int, size: int) -> range:
    """Return the numbers of the lines (pages) of *size* bytes that a range touches."""
    return range(offset // size, -(-(offset + length) // size)) if length else range(0)


def make_finding(kind: Kind, offset: int, length: int, location: SourceLocation) -> Finding:
    """Return a finding at a location."""
    return Finding(kind, offset, length, location.filename, location.lineno, location.function)
