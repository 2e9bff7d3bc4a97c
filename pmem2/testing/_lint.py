# SPDX-License-Identifier: BSD-3-Clause
"""What a workload does for nothing, and what it forgets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import attrs

from pmem2._enums import Granularity
from pmem2.testing._events import Drain, Event, Flush, Place, Store
from pmem2.testing._memory_model import flushed_size

Kind = Literal["never made durable", "flush of clean lines", "drain of nothing"]


@attrs.frozen()
class Finding:
    """A store, a flush or a drain that looks like a mistake.

    Attributes:
        kind: "never made durable" by the end of the workload, "flush of clean lines", or "drain of nothing".
        offset: Where it begins in the map, in bytes.
        length: Bytes; 0 for a drain.
        filename: Where in the source it was done.
        lineno: The line there.
        function: The function there.
    """

    kind: Kind
    offset: int
    length: int
    filename: str
    lineno: int
    function: str


def lint_of(events: Sequence[Event], granularity: Granularity) -> tuple[Finding, ...]:
    """Return what looks like a mistake, each once.

    On BYTE stores need no flush. On PAGE drains do nothing, and portable code has them all the same.
    """
    once: list[Finding] = []
    for finding in found(events, granularity):
        if finding not in once:
            once.append(finding)
    return tuple(once)


def found(events: Sequence[Event], granularity: Granularity) -> Iterator[Finding]:
    """Yield what looks like a mistake."""
    grain = flushed_size(granularity)
    dirty: dict[int, list[Store]] = {}  # what was stored to each line (page) since it was flushed
    waiting: dict[int, list[Store]] = {}  # what was flushed, and not yet drained
    pending = False
    for event in events:
        if isinstance(event, Store):
            pending = pending or event.free
            if granularity is not Granularity.BYTE or event.free:
                for index in {offset // grain: None for offset, _ in event.units}:
                    dirty.setdefault(index, []).append(event)
        elif isinstance(event, Flush):
            for offset, length in event.ranges:
                touched = [index for index in grains(offset, length, grain) if index in dirty]
                if event.asked and length and not touched and granularity is not Granularity.BYTE:
                    yield finding_at("flush of clean lines", offset, length, event.place)
                pending = pending or bool(touched)
                for index in touched:
                    stores = dirty.pop(index)
                    if granularity is not Granularity.PAGE:
                        waiting.setdefault(index, []).extend(stores)
        elif isinstance(event, Drain):
            if event.asked and not pending and granularity is Granularity.CACHE_LINE:
                yield finding_at("drain of nothing", 0, 0, event.place)
            waiting.clear()
            pending = False
    for stores in (*dirty.values(), *waiting.values()):
        for store in stores:
            yield finding_at("never made durable", store.offset, store.length, store.place)


def grains(offset: int, length: int, grain: int) -> range:
    """Return the numbers of the lines (pages) that a range touches."""
    return range(offset // grain, -(-(offset + length) // grain)) if length else range(0)


def finding_at(kind: Kind, offset: int, length: int, place: Place) -> Finding:
    """Return a finding at a place."""
    return Finding(kind, offset, length, place.filename, place.lineno, place.function)
