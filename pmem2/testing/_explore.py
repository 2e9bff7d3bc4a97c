# SPDX-License-Identifier: BSD-3-Clause
"""explore: run a workload once, then check every state that a power cut could have left."""

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
from pmem2.testing._events import Acknowledgement, Place
from pmem2.testing._lint import Finding, lint_of
from pmem2.testing._locations import here, is_ours, place_of
from pmem2.testing._memory_model import Changes, Memory
from pmem2.testing._recorder import RecordingMap
from pmem2.testing._runner import Stage
from pmem2.testing._search import Failed, Search
from pmem2.testing._tracing import traced

if TYPE_CHECKING:
    from pmem2._map import Map

T = TypeVar("T")
END = object()


@attrs.frozen()
class Report:
    """What was checked.

    Attributes:
        images: How many distinct images, the one after setup included.
        exhaustive: Whether those are all that the check can tell from each other.
        seconds: How long it took.
        findings: What `lint=True` has found.
    """

    images: int
    exhaustive: bool
    seconds: float
    findings: tuple[Finding, ...] = ()


class Explorer(Protocol):
    """`explore`, as the fixture `crash_explorer` has it."""

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
    """Run a workload once, then check every state that a power cut could have left at any moment of it.

    Args:
        workload: Writes to a map. If it is a generator, each `yield` acknowledges something.
        check: Recovers from what is in a map, and asserts; any exception is a failure. It gets a fresh Map of each
            state; after a generator also the list of what had been yielded by then.
        size: Of the map, in bytes.
        setup: Prepares the map; what it has stored is durable.
        granularity: Of the map; what is proven on one need not hold on another.
        budget: How many images are checked at most. Where there are more, those that tell most come first, then
            random ones.
        seed: Of what is random.
        lint: Whether to report stores that were never made durable, flushes of what was clean, and drains of nothing.

    Raises:
        CrashConsistencyError: The check failed.
        RuntimeError: The workload uses threads, ends the tracing by which its statements are followed, or its map is
            stored to in another way that cannot be followed: by another process, or by `Map.store_u64(map, ...)`.
        BufferError: The workload closes its map.
        TypeError: A number is of a wrong type, or the workload is asynchronous or returns an iterator.
        ValueError: *size* or *budget* is not positive or too large.
        GranularityNotSupportedError: *granularity* is none.
    """
    __tracebackhide__ = True
    began = time.perf_counter()
    room, most = as_positive(size, "size", FILE_SIZE_MAX), as_positive(budget, "budget", FILE_SIZE_MAX)
    grain = Config(required_granularity=granularity).required_granularity
    if grain is None:
        raise TypeError("granularity must be a Granularity")
    with ExitStack() as stack:
        map = RecordingMap(room, grain)
        stack.callback(map.dispose)
        if setup is not None:
            setup(map)
        before = map.begin()
        acknowledged = record(map, workload)
        stage = Stage(room, grain, checker(check, acknowledged))
        stack.callback(stage.dispose)
        changes: Changes = {}
        search = Search(lambda: Memory(before, grain, changes), map.events, stage, most, seed)
        failed: Failed | None = None
        try:
            exhaustive = search.run()
        except Failed as found:
            failed = found
        if failed is not None:  # and no longer handled, so that what is raised in the diagnosis does not name it
            error = diagnose(search, map.events, start_of(workload), failed)
            raise error from error.reason
    findings = lint_of(map.events, grain) if lint else ()
    return Report(search.images, exhaustive, time.perf_counter() - began, findings)


def record(map: RecordingMap, workload: Callable[[Map], object]) -> list[object] | None:
    """Run the workload to its end; return what it acknowledged, or `None` if it is no generator."""
    acknowledged = run(map, workload)
    map.end()
    return acknowledged


def run(map: RecordingMap, workload: Callable[[Map], object]) -> list[object] | None:
    """Run the workload, traced."""
    result = traced(map, functools.partial(workload, map))
    if not isinstance(result, GeneratorType):
        if isinstance(result, (Coroutine, Iterator, AsyncIterator)):
            if isinstance(result, Coroutine):
                result.close()
            raise TypeError(f"a workload must be a function or a generator, and not return a {type(result).__name__}")
        return None
    acknowledged: list[object] = []
    while True:
        value = traced(map, functools.partial(following, result))
        if value is END:
            return acknowledged
        acknowledged.append(deepcopy(value))
        map.events.append(Acknowledgement(place_of_yield(result) or map.last))


def following(generator: GeneratorType[object, None, object]) -> object:
    """Return the next value, or `END`."""
    return next(generator, END)


def place_of_yield(generator: GeneratorType[object, None, object]) -> Place | None:
    """Return where a generator waits, or `None` if that is in this package."""
    while isinstance(generator.gi_yieldfrom, GeneratorType):
        generator = generator.gi_yieldfrom
    frame = generator.gi_frame
    return None if frame is None or is_ours(frame) else place_of(frame)


def start_of(workload: Callable[[Map], object]) -> Place:
    """Return where a workload begins."""
    code: object = getattr(workload, "__code__", None)
    return Place(code.co_filename, code.co_firstlineno, code.co_name) if isinstance(code, CodeType) else here()


def checker(check: Callable[..., object], acknowledged: list[object] | None) -> Callable[[Map, int], None]:
    """Return what checks a map after so many acknowledgements."""

    def plain(map: Map, _count: int) -> None:
        check(map)

    def acknowledging(map: Map, count: int) -> None:
        assert acknowledged is not None
        check(map, deepcopy(acknowledged[:count]))

    return plain if acknowledged is None else acknowledging
