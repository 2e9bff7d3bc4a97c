# SPDX-License-Identifier: BSD-3-Clause
"""Diagnosis: finds the fewest lost stores that make a check fail, and the crash point for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Callable

import attrs

from pmem2._buffers import merge_ranges
from pmem2.testing._callables import definition_of
from pmem2.testing._errors import CrashConsistencyError, LostStore, Reason, relative_path
from pmem2.testing._events import Event, Flush, Store, Unit

if TYPE_CHECKING:
    from pmem2._map import Map
    from pmem2.testing._closure import Closure, Failure
    from pmem2.testing._locations import SourceLocation
    from pmem2.testing._memory_model import CrashPoint, LostUnits
    from pmem2.testing._runner import CheckFailed
    from pmem2.testing._search import Search

MAX_CELLS_VISITED = 100_000
"""Cells: the search for fewer lost stores visits no more, to bound its time."""
MAX_STORES_FOR_PAIRS = 40
"""Pending stores: with more, not every pair of them is tried."""


@attrs.frozen(eq=False)
class Cause:
    """A crash point, and the lost stores that lead to a failing image there.

    Attributes:
        event: The number of the event at which the power fails; -1 before the first.
        lost: The units that do not survive, by store.
        failed: The image, and the exception of the check.
    """

    event: int
    lost: LostUnits
    failed: CheckFailed


def diagnose(
    closure: Closure,
    failure: Failure,
    workload: Callable[[Map], object],
    recover: Callable[[Map], object] | None,
) -> CrashConsistencyError:
    """Return the error that explains a failing image.

    Args:
        closure: All runs.
        failure: The failing image.
        workload: The workload.
        recover: The recovery.
    """
    chain, search = closure.failing_search(failure)
    cause = shrink(search, explain(search, failure.failed))
    for fewer in range(len(cause.lost)):
        better = next(find_failures(search, fewer), None)
        if better is not None:
            cause = explain(search, better)
            break
    events = search.run.events
    cuts = [(run.events, event) for run, event in chain] + [(events, cause.event)]
    functions = [workload] if recover is None else [workload, *(recover for _ in chain)]
    crashes = [
        definition_of(function) if event < 0 else run_events[event].location
        for function, (run_events, event) in zip(functions, cuts)
    ]
    lost = []
    for number, store in enumerate(events):
        if isinstance(store, Store) and store in cause.lost:
            location, units = store.location, cause.lost[store]
            blocks = {offset // search.flush_size * search.flush_size for offset, _ in units}
            flushes = [find_first_flush(events, number + 1, block, search.flush_size) for block in blocks]
            reason = loss_reason(flushes, cause.event)
            for offset, length in unit_ranges(units) if store.from_diff else [(store.offset, store.length)]:
                lost.append(LostStore(offset, length, location.filename, location.lineno, location.function, reason))
    torn = cause.event >= 0 and list(cause.lost) == [events[cause.event]]
    return CrashConsistencyError(crashes, cause.failed, lost, fix_hint(lost, crashes[-1], torn))


def explain(search: Search, failed: CheckFailed) -> Cause:
    """Return the earliest crash point at which this image requires the fewest lost stores."""
    causes: list[Cause] = []
    for point in search.crash_points():
        if point.complete and point.acknowledged == failed.acknowledged:
            states = search.closest_states(point, failed.image)
            lost = {} if states is None else lost_units(point, states)
            if states is not None and not (causes and len(causes[-1].lost) <= len(lost)):
                causes.append(Cause(point.event, lost, failed))
    return causes[-1]


def shrink(search: Search, cause: Cause) -> Cause:
    """Return a cause at the same crash point with fewer lost stores, or *cause* if there is none."""
    for point in search.crash_points():
        if point.event == cause.event and point.complete:
            lost, smaller = set(cause.lost), None
            states = search.closest_states(point, cause.failed.image)
            assert states is not None  # `explain` found the cause by them
            for store in cause.lost:
                for candidate in (restore_store(point, states, store), states_without(point, lost - {store})):
                    failed = search.find_failure(point, candidate)
                    if candidate is not None and failed is not None:
                        lost.discard(store)
                        states, smaller = candidate, failed
                        break
            return cause if smaller is None else explain(search, smaller)
    return cause  # pragma: no cover: the crash point exists


def find_failures(search: Search, count: int) -> Iterator[CheckFailed]:
    """Yield failing images that lose *count* stores."""
    cells_left = MAX_CELLS_VISITED
    for point in search.crash_points():
        if not point.complete:
            continue
        for states in states_losing(point, count):
            failed = search.find_failure(point, states)
            if failed is not None:
                yield failed
            cells_left -= len(point.cells)
            if cells_left < 0:
                return


def states_losing(point: CrashPoint, count: int) -> Iterator[list[int] | None]:
    """Yield states that lose *count* of the stores pending at a crash point, in whole or in part."""
    stores = list({piece.store: None for cell in point.cells for piece in cell.queue})
    if count < 2 or len(stores) <= MAX_STORES_FOR_PAIRS:
        for lost in combinations(stores, count):
            yield states_without(point, set(lost))
    if count == 1:
        newest = [cell.states - 1 for cell in point.cells]
        for store in stores:
            for number, cell in enumerate(point.cells):
                for state in cell.states_losing_part(store):
                    states = newest.copy()
                    states[number] = state
                    yield states


def lost_units(point: CrashPoint, states: Sequence[int]) -> LostUnits:
    """Return the units that these states lose, by store."""
    lost: LostUnits = {}
    for cell, state in zip(point.cells, states):
        for store, units in cell.lost(state).items():
            lost.setdefault(store, []).extend(units)
    return lost


def restore_store(point: CrashPoint, states: Sequence[int], store: Store) -> list[int] | None:
    """Return these states with *store* surviving in whole; `None` if the memory model excludes that.

    In the cells that change, stores that were lost in part are now lost in whole.
    """
    result: list[int | None] = []
    for cell, state in zip(point.cells, states):
        lost = set(cell.lost(state))
        result.append(cell.state_losing(lost - {store}) if store in lost else state)
    return all_or_none(result)


def states_without(point: CrashPoint, stores: set[Store]) -> list[int] | None:
    """Return the states that lose exactly *stores*, in whole; `None` if the memory model excludes that."""
    return all_or_none([cell.state_losing(stores) for cell in point.cells])


def all_or_none(states: Sequence[int | None]) -> list[int] | None:
    """Return the states; `None` if one of them is `None`."""
    return None if None in states else [state for state in states if state is not None]


def find_first_flush(events: Sequence[Event], start: int, offset: int, size: int) -> int | None:
    """Return the number of the first event from *start* on that flushes a part of the *size* bytes at *offset*."""
    for number in range(start, len(events)):
        event = events[number]
        if isinstance(event, Flush) and any(n and o < offset + size and offset < o + n for o, n in event.ranges):
            return number
    return None


def loss_reason(flushes: Sequence[int | None], crash: int) -> Reason:
    """Return why a store was lost; *flushes* are the events that first flush its parts, *crash* is the crash point."""
    if None in flushes:
        return "never flushed"
    return "flushed, not drained" if all(flush <= crash for flush in flushes if flush is not None) else "overtaken"


def fix_hint(lost: Sequence[LostStore], crash: SourceLocation, torn: bool) -> str:
    """Return the last line of the report: the call to add, and where."""
    if not lost:
        return "no flush can fix this; another order of the stores may"
    where = f"before line {crash.lineno} of {relative_path(crash.filename)}"
    if torn:
        return "a copy can be torn: copy to a place that nothing refers to yet, then publish it with one store_u64"
    if all(store.reason == "flushed, not drained" for store in lost):
        return f"fix: call drain() {where}"
    ranges = merge_ranges((store.offset, store.length) for store in lost)
    call = "persist({}, {})".format(*ranges[0]) if len(ranges) == 1 else f"persist_many({ranges})"
    return f"fix: call {call} {where}"


def unit_ranges(units: Iterable[Unit]) -> list[tuple[int, int]]:
    """Return the ranges that units cover, neighbours merged."""
    return merge_ranges((offset, len(stored)) for offset, stored in units)
