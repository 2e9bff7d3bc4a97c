# SPDX-License-Identifier: BSD-3-Clause
"""explore: runs a workload once, then checks every state that a power failure could have left."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack
from copy import deepcopy
from types import CodeType, GeneratorType
from typing import TYPE_CHECKING, Callable, Protocol, SupportsIndex, TypeVar, overload

import attrs

from pmem2._checks import FILE_SIZE_MAX, as_positive
from pmem2._config import Config
from pmem2._enums import Granularity
from pmem2.testing._diagnosis import diagnose
from pmem2.testing._events import Acknowledgement
from pmem2.testing._lint import Finding, lint_events
from pmem2.testing._locations import SourceLocation, caller_location, external_location, is_internal_frame
from pmem2.testing._memory_model import Memory, UnitsByCell
from pmem2.testing._recorder import RecordingMap
from pmem2.testing._runner import CheckRunner
from pmem2.testing._search import CheckFailed, Search
from pmem2.testing._tracing import run_traced

if TYPE_CHECKING:
    from pmem2._map import Map

T = TypeVar("T")
END = object()


@attrs.frozen()
class Report:
    """The result of an exploration without a failure.

    Attributes:
        images: How many distinct images were checked, the one after setup included.
        exhaustive: Whether the check can see nothing new in any other image.
        seconds: The time it took.
        findings: The findings of `lint=True`.
    """

    images: int
    exhaustive: bool
    seconds: float
    findings: tuple[Finding, ...] = ()


class Explorer(Protocol):
    """The type of `explore` and of the fixture `crash_explorer`."""

    @overload
    def __call__(
        self,
        workload: Callable[[Map], Iterator[T]],
        check: Callable[[Map, list[T]], object],
        *,
        size: SupportsIndex,
        setup: Callable[[Map], object] | None = None,
        granularity: SupportsIndex = Granularity.CACHE_LINE,
        budget: SupportsIndex = 10_000,
        seed: int = 0,
        lint: bool = False,
    ) -> Report: ...
    @overload
    def __call__(
        self,
        workload: Callable[[Map], object],
        check: Callable[[Map], object],
        *,
        size: SupportsIndex,
        setup: Callable[[Map], object] | None = None,
        granularity: SupportsIndex = Granularity.CACHE_LINE,
        budget: SupportsIndex = 10_000,
        seed: int = 0,
        lint: bool = False,
    ) -> Report: ...


@overload
def explore(
    workload: Callable[[Map], Iterator[T]],
    check: Callable[[Map, list[T]], object],
    *,
    size: SupportsIndex,
    setup: Callable[[Map], object] | None = None,
    granularity: SupportsIndex = Granularity.CACHE_LINE,
    budget: SupportsIndex = 10_000,
    seed: int = 0,
    lint: bool = False,
) -> Report: ...
@overload
def explore(
    workload: Callable[[Map], object],
    check: Callable[[Map], object],
    *,
    size: SupportsIndex,
    setup: Callable[[Map], object] | None = None,
    granularity: SupportsIndex = Granularity.CACHE_LINE,
    budget: SupportsIndex = 10_000,
    seed: int = 0,
    lint: bool = False,
) -> Report: ...
def explore(
    workload: Callable[[Map], object],
    check: Callable[[Map, list[T]], object] | Callable[[Map], object],
    *,
    size: SupportsIndex,
    setup: Callable[[Map], object] | None = None,
    granularity: SupportsIndex = Granularity.CACHE_LINE,
    budget: SupportsIndex = 10_000,
    seed: int = 0,
    lint: bool = False,
) -> Report:
    """Run a workload once, then check every state that a power failure could have left at any moment of it.

    Args:
        workload: Stores to a map. If it is a generator, each `yield` acknowledges a value.
        check: Recovers from the content of a map, and asserts; any exception is a failure. Each state comes as a fresh
            Map. For a generator workload, the check also receives the list of the values yielded by then.
        size: The size of the map in bytes.
        setup: Prepares the map; its stores count as durable.
        granularity: The granularity of the map; a result for one granularity need not hold for another.
        budget: The most images to check. If there are more, the images most likely to fail come first, then random
            ones.
        seed: The seed of the random choices.
        lint: Whether to report stores that never become durable, flushes of clean lines, and drains of nothing.

    Raises:
        CrashConsistencyError: The check failed.
        RuntimeError: The workload uses threads, stops the tracing of its statements, or its map contains stores that
            cannot be recorded: from another process, or from a call like `Map.store_u64(map, ...)`.
        BufferError: The workload closes its map.
        TypeError: A number has the wrong type, or the workload is asynchronous or returns an iterator.
        ValueError: *size* or *budget* is not positive, or is too large.
        GranularityNotSupportedError: *granularity* is not a member of `Granularity`.
    """
    __tracebackhide__ = True
    began = time.perf_counter()
    map_size, max_images = as_positive(size, "size", FILE_SIZE_MAX), as_positive(budget, "budget", FILE_SIZE_MAX)
    checked_granularity = Config(required_granularity=granularity).required_granularity
    if checked_granularity is None:
        raise TypeError("granularity must be a Granularity, not None")
    with ExitStack() as stack:
        map = RecordingMap(map_size, checked_granularity)
        stack.callback(map.dispose)
        if setup is not None:
            setup(map)
        initial = map.begin()
        acknowledged = record(map, workload)
        runner = CheckRunner(map_size, checked_granularity, adapt_check(check, acknowledged))
        stack.callback(runner.dispose)
        cache: UnitsByCell = {}
        search = Search(lambda: Memory(initial, checked_granularity, cache), map.events, runner, max_images, seed)
        failed: CheckFailed | None = None
        try:
            exhaustive = search.run()
        except CheckFailed as error:
            failed = error
        if failed is not None:  # diagnose outside `except`, so that errors do not chain to `failed`
            diagnosis = diagnose(search, map.events, workload_start(workload), failed)
            raise diagnosis from diagnosis.reason
    findings = lint_events(map.events, checked_granularity) if lint else ()
    return Report(search.images, exhaustive, time.perf_counter() - began, findings)


def record(map: RecordingMap, workload: Callable[[Map], object]) -> list[object] | None:
    """Run the workload to its end; return the values that it yielded, or `None` if it is not a generator."""
    acknowledged = run_workload(map, workload)
    map.end()
    return acknowledged


def run_workload(map: RecordingMap, workload: Callable[[Map], object]) -> list[object] | None:
    """Run the workload with tracing."""
    result = run_step(map, functools.partial(workload, map))
    if not isinstance(result, GeneratorType):
        if isinstance(result, (Coroutine, Iterator, AsyncIterator)):
            if isinstance(result, Coroutine):
                result.close()
            raise TypeError(
                f"workload must be a function or a generator function, but returned a {type(result).__name__}"
            )
        return None
    acknowledged: list[object] = []
    while True:
        value = run_step(map, functools.partial(next_or_end, result))
        if value is END:
            return acknowledged
        acknowledged.append(deepcopy(value))
        map.events.append(Acknowledgement(yield_location(result) or map.last_location))


def run_step(map: RecordingMap, step: Callable[[], object]) -> object:
    """Run a part of the workload with tracing."""
    result = run_traced(step, map.enter_statement)
    map.check_thread()
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


def workload_start(workload: Callable[[Map], object]) -> SourceLocation:
    """Return the location of the definition of a workload, or of the call of `explore` if that is unknown."""
    code: object = getattr(workload, "__code__", None)
    if not isinstance(code, CodeType):
        return caller_location()
    return SourceLocation(code.co_filename, code.co_firstlineno, code.co_name)


def adapt_check(check: Callable[..., object], acknowledged: list[object] | None) -> Callable[[Map, int], None]:
    """Return a function that calls *check* with a map, and for a generator with the values yielded so far."""

    def plain(map: Map, _count: int) -> None:
        check(map)

    def with_acknowledged(map: Map, count: int) -> None:
        assert acknowledged is not None
        check(map, deepcopy(acknowledged[:count]))

    return plain if acknowledged is None else with_acknowledged
