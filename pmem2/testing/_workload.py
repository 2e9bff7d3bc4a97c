# SPDX-License-Identifier: BSD-3-Clause
"""Runs a workload or a recovery once, and records it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Coroutine, Iterator
from copy import deepcopy
from types import GeneratorType
from typing import TYPE_CHECKING, Callable

from pmem2.testing._events import Acknowledgement
from pmem2.testing._locations import SourceLocation, external_location, is_internal_frame
from pmem2.testing._threads import run_without_threads
from pmem2.testing._tracing import run_traced

if TYPE_CHECKING:
    from pmem2._map import Map
    from pmem2.testing._recorder import RecordingMap

END = object()


def record_workload(map: RecordingMap, workload: Callable[[Map], object]) -> list[object] | None:
    """Run a workload to its end; return the values that it yielded, or `None` if it is not a generator."""
    result = run_step(map, functools.partial(workload, map))
    acknowledged = None
    if isinstance(result, GeneratorType):
        acknowledged = record_generator(map, result)
    else:
        refuse_lazy(map, result, "workload must be a function or a generator function")
    map.end()
    return acknowledged


def record_generator(map: RecordingMap, generator: GeneratorType[object, None, object]) -> list[object]:
    """Run a generator to its end; return the values that it yielded."""
    acknowledged: list[object] = []
    while True:
        value = run_step(map, functools.partial(next_or_end, generator))
        if value is END:
            return acknowledged
        acknowledged.append(deepcopy(value))
        map.events.append(Acknowledgement(yield_location(generator) or map.last_location))


def record_recovery(map: RecordingMap, recover: Callable[[Map], object]) -> None:
    """Run a recovery."""
    result = run_step(map, functools.partial(recover, map), trace_at_once=False)
    refuse_lazy(map, result, "recover must be a function")
    map.end()


def refuse_lazy(map: RecordingMap, result: object, rule: str) -> None:
    """Check that a function has done its work.

    Raises:
        TypeError: It returned a generator, another iterator or a coroutine.
    """
    if result is not None and isinstance(result, (Coroutine, Iterator, AsyncIterator)):
        if isinstance(result, Coroutine):
            result.close()
        raise map.refuse(TypeError(f"{rule}, but returned a {type(result).__name__}"))


def run_step(map: RecordingMap, step: Callable[[], object], trace_at_once: bool = True) -> object:
    """Run a part of a workload, traced at once or from the first view on."""
    # not a partial: on PyPy that has a frame, which would count as the caller's
    result = run_without_threads(lambda: run_traced(step, map, trace_at_once), map.refuse_start)
    map.check_threads()
    return result


def next_or_end(generator: GeneratorType[object, None, object]) -> object:
    """Return the next value, or `END`."""
    return next(generator, END)


def yield_location(generator: GeneratorType[object, None, object]) -> SourceLocation | None:
    """Return the location of the current `yield`; `None` if it is inside this package."""
    while isinstance(generator.gi_yieldfrom, GeneratorType):
        generator = generator.gi_yieldfrom
    frame = generator.gi_frame
    return None if frame is None or is_internal_frame(frame) else external_location(frame)
