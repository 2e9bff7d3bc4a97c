# SPDX-License-Identifier: BSD-3-Clause
"""Finds the fewest stores that must be lost for a check to fail, and where the power must fail for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import attrs

from pmem2._buffers import merge_ranges
from pmem2.testing._errors import CrashConsistencyError, LostStore, Reason, short
from pmem2.testing._events import Event, Flush, Place, Store, Unit

if TYPE_CHECKING:
    from pmem2.testing._memory_model import Lost, Moment
    from pmem2.testing._search import Failed, Search

EFFORT = 100_000
"""Cells that are looked at to find fewer stores that must be lost; more would take too long."""
PAIRS = 40
"""Stores that are pending at once, up to which each pair is tried."""


@attrs.frozen(eq=False)
class Cause:
    """A way to a failing image.

    Attributes:
        event: The number of the event at which the power fails; -1 before the first.
        lost: The stores of which something does not survive, each with that.
        failed: The image, and what the check has raised.
    """

    event: int
    lost: Lost
    failed: Failed


def diagnose(search: Search, events: Sequence[Event], start: Place, failed: Failed) -> CrashConsistencyError:
    """Return the error for a workload of which one image has *failed*.

    Args:
        search: What checks images.
        events: What the workload did.
        start: Where it begins.
        failed: What was found.
    """
    cause = shrunk(search, explain(search, failed))
    for fewer in range(len(cause.lost)):
        better = next(failing(search, fewer), None)
        if better is not None:
            cause = explain(search, better)
            break
    crash = start if cause.event < 0 else events[cause.event].place
    lost = []
    for number, store in enumerate(events):
        if isinstance(store, Store) and store in cause.lost:
            place, units = store.place, cause.lost[store]
            grains = {offset // search.flushed * search.flushed for offset, _ in units}
            reason = reason_of(
                [first_flush(events, number + 1, grain, search.flushed) for grain in grains], cause.event
            )
            for offset, length in ranges_of(units) if store.found else [(store.offset, store.length)]:
                lost.append(LostStore(offset, length, place.filename, place.lineno, place.function, reason))
    torn = cause.event >= 0 and list(cause.lost) == [events[cause.event]]
    mend = advice(lost, crash, torn)
    return CrashConsistencyError(crash, cause.failed.image, lost, mend, cause.failed.reason)


def explain(search: Search, failed: Failed) -> Cause:
    """Return the earliest moment at which the fewest stores must be lost for this image."""
    causes: list[Cause] = []
    for moment in search.moments():
        if moment.complete and moment.acknowledged == failed.acknowledged:
            states = search.closest(moment, failed.image)
            lost = {} if states is None else lost_in(moment, states)
            if states is not None and not (causes and len(causes[-1].lost) <= len(lost)):
                causes.append(Cause(moment.event, lost, failed))
    return causes[-1]


def shrunk(search: Search, cause: Cause) -> Cause:
    """Return a way to a failing image, at the same moment, for which fewer stores must be lost, if there is one."""
    for moment in search.moments():
        if moment.event == cause.event and moment.complete:
            lost, found = set(cause.lost), None
            states = search.closest(moment, cause.failed.image)
            assert states is not None  # for that is how the cause was found
            for store in cause.lost:
                for fewer in (restored(moment, states, store), without(moment, lost - {store})):
                    failed = search.fails(moment, fewer)
                    if fewer is not None and failed is not None:
                        lost.discard(store)
                        states, found = fewer, failed
                        break
            return cause if found is None else explain(search, found)
    return cause  # pragma: no cover: there is such a moment


def failing(search: Search, count: int) -> Iterator[Failed]:
    """Yield failing images for which *count* stores are lost."""
    effort = EFFORT
    for moment in search.moments():
        if not moment.complete:
            continue
        for states in losing(moment, count):
            failed = search.fails(moment, states)
            if failed is not None:
                yield failed
            effort -= len(moment.cells)
            if effort < 0:
                return


def losing(moment: Moment, count: int) -> Iterator[list[int] | None]:
    """Yield states in which *count* of the stores that are pending at a moment are lost, wholly or in part."""
    stores = list({piece.store: None for cell in moment.cells for piece in cell.queue})
    if count < 2 or len(stores) <= PAIRS:
        for lost in combinations(stores, count):
            yield without(moment, set(lost))
    if count == 1:
        everything = [cell.states - 1 for cell in moment.cells]
        for store in stores:
            for number, cell in enumerate(moment.cells):
                for state in cell.parts(store):
                    states = everything.copy()
                    states[number] = state
                    yield states


def lost_in(moment: Moment, states: Sequence[int]) -> Lost:
    """Return the stores of which something is lost in these states, each with that."""
    lost: Lost = {}
    for cell, state in zip(moment.cells, states):
        for store, units in cell.lost(state).items():
            lost.setdefault(store, []).extend(units)
    return lost


def restored(moment: Moment, states: Sequence[int], store: Store) -> list[int] | None:
    """Return these states but for *store*, which survives, where it was lost in part too; `None` if that cannot be."""
    result: list[int | None] = []
    for cell, state in zip(moment.cells, states):
        lost = set(cell.lost(state))
        result.append(cell.without(lost - {store}) if store in lost else state)
    return possible(result)


def without(moment: Moment, stores: set[Store]) -> list[int] | None:
    """Return the states in which *stores* are lost wholly, and no others; `None` if that cannot be."""
    return possible([cell.without(stores) for cell in moment.cells])


def possible(states: Sequence[int | None]) -> list[int] | None:
    """Return states that there are; `None` if one of them there is not."""
    return None if None in states else [state for state in states if state is not None]


def first_flush(events: Sequence[Event], start: int, offset: int, grain: int) -> int | None:
    """Return the number of the first event, from *start* on, that flushes what is at *offset*, of *grain* bytes."""
    for number in range(start, len(events)):
        event = events[number]
        if isinstance(event, Flush) and any(n and o < offset + grain and offset < o + n for o, n in event.ranges):
            return number
    return None


def reason_of(flushes: Sequence[int | None], crash: int) -> Reason:
    """Return why something could be lost of which the parts were flushed at these events."""
    if None in flushes:
        return "never flushed"
    return "flushed, not drained" if all(flush <= crash for flush in flushes if flush is not None) else "overtaken"


def advice(lost: Sequence[LostStore], crash: Place, torn: bool) -> str:
    """Return what would mend it."""
    if not lost:
        return "nothing that is flushed can mend it: another order of stores may"
    where = f"before line {crash.lineno} of {short(crash.filename)}"
    if torn:
        return "a copy may be half done: make it where nothing refers to it yet, then publish it with one store_u64"
    if all(store.reason == "flushed, not drained" for store in lost):
        return f"to mend it: drain() {where}"
    ranges = merge_ranges((store.offset, store.length) for store in lost)
    call = "persist({}, {})".format(*ranges[0]) if len(ranges) == 1 else f"persist_many({ranges})"
    return f"to mend it: {call} {where}"


def ranges_of(units: Iterable[Unit]) -> list[tuple[int, int]]:
    """Return where units are."""
    return merge_ranges((offset, len(stored)) for offset, stored in units)
