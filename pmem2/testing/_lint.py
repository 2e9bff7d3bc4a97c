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

Kind = Literal[
    "never made durable", "flush of clean lines", "drain of nothing", "repeated persist", "check without recover stores"
]
REPEATS = 3
"""Persists of one line in a row: two may be meant for another medium, more are a mistake."""


@attrs.frozen()
class Finding:
    """A store, a flush or a drain that is probably a mistake.

    Attributes:
        kind: "never made durable" by the end of the workload, "flush of clean lines", "drain of nothing",
            "repeated persist" of one line (or page) that was persisted just before, with neither a store elsewhere nor
            a `yield` in between, or "check without recover stores": the power did not fail in that recovery.
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
    return without_repetition([*find_mistakes(events, granularity), *find_repeats(events, granularity)])


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


def find_repeats(events: Sequence[Event], granularity: Granularity) -> Iterator[Finding]:
    """Yield each third persist in a row of one line.

    The stores to one line survive in program order, so the last persist alone would do.
    """
    if granularity is Granularity.BYTE:
        return
    size = flush_size(granularity)
    line: int | None = None  # the line of the stores since the last event that needs what was persisted before
    repeats = 0
    dirty = False
    for event in events:
        if isinstance(event, Store):
            lines = {offset // size for offset, _ in event.units}
            if event.unordered or lines != {line}:
                line, repeats = lines.pop() if len(lines) == 1 and not event.unordered else None, 0
            dirty = True
        elif isinstance(event, Flush):
            touched = [blocks(offset, length, size) for offset, length in event.ranges]
            if dirty and line is not None and any(line in lines for lines in touched):
                dirty, repeats = False, repeats + 1
                if repeats == REPEATS:
                    yield make_finding("repeated persist", line * size, size, event.location)
        elif not isinstance(event, Drain):
            line, repeats = None, 0


def lint_check(stores: Sequence[Store]) -> tuple[Finding, ...]:
    """Return each place at which a check stored."""
    kind: Kind = "check without recover stores"
    return without_repetition([make_finding(kind, store.offset, store.length, store.location) for store in stores])


def without_repetition(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return each finding once."""
    unique: dict[Finding, None] = dict.fromkeys(findings)
    return tuple(unique)


def blocks(offset: int, length: int, size: int) -> range:
    """Return the numbers of the lines (pages) of *size* bytes that a range touches."""
    return range(offset // size, -(-(offset + length) // size)) if length else range(0)


def make_finding(kind: Kind, offset: int, length: int, location: SourceLocation) -> Finding:
    """Return a finding at a location."""
    return Finding(kind, offset, length, location.filename, location.lineno, location.function)
