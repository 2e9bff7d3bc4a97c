# SPDX-License-Identifier: BSD-3-Clause
"""explore: runs a workload once, then checks every state that a power failure could have left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Callable, Protocol, SupportsIndex, TypeVar, overload

import attrs

from pmem2._checks import FILE_SIZE_MAX, as_positive
from pmem2._config import Config
from pmem2._enums import Granularity
from pmem2.testing._callables import adapt_check, check_callable
from pmem2.testing._checker import Checker
from pmem2.testing._closure import Closure
from pmem2.testing._diagnosis import diagnose
from pmem2.testing._lint import Finding, lint_check, lint_events
from pmem2.testing._memory_model import cell_size, stored_cells
from pmem2.testing._pruning import CheckedImages
from pmem2.testing._recorder import new_recording_map
from pmem2.testing._runner import CheckRunner
from pmem2.testing._threads import replaced_thread_start
from pmem2.testing._workload import record_workload

if TYPE_CHECKING:
    from pmem2._map import Map

T = TypeVar("T")


@attrs.frozen()
class Report:
    """The result of an exploration without a failure.

    Attributes:
        images: How many distinct images were checked, the one after setup included.
        cuts: The most power failures in a row after which a new image came: 1 without `recover`.
        exhaustive: Whether `recover` and the check can see nothing new in any other image.
        seconds: The time it took.
        findings: The findings of `lint=True`.
    """

    images: int
    cuts: int
    exhaustive: bool
    seconds: float
    findings: tuple[Finding, ...] = ()


class Explorer(Protocol):
    """The type of `explore` and of the fixture `crash_explorer`."""

    @overload
    def __call__(
        self,
        workload: Callable[[Map], Iterator[T]],
        check: Callable[[Map, list[T]], None],
        *,
        size: SupportsIndex,
        setup: Callable[[Map], object] | None = None,
        recover: Callable[[Map], object] | None = None,
        granularity: Granularity = Granularity.CACHE_LINE,
        budget: SupportsIndex = 10_000,
        seed: int = 0,
        lint: bool = False,
    ) -> Report: ...
    @overload
    def __call__(
        self,
        workload: Callable[[Map], object],
        check: Callable[[Map], None],
        *,
        size: SupportsIndex,
        setup: Callable[[Map], object] | None = None,
        recover: Callable[[Map], object] | None = None,
        granularity: Granularity = Granularity.CACHE_LINE,
        budget: SupportsIndex = 10_000,
        seed: int = 0,
        lint: bool = False,
    ) -> Report: ...


@overload
def explore(
    workload: Callable[[Map], Iterator[T]],
    check: Callable[[Map, list[T]], None],
    *,
    size: SupportsIndex,
    setup: Callable[[Map], object] | None = None,
    recover: Callable[[Map], object] | None = None,
    granularity: Granularity = Granularity.CACHE_LINE,
    budget: SupportsIndex = 10_000,
    seed: int = 0,
    lint: bool = False,
) -> Report: ...
@overload
def explore(
    workload: Callable[[Map], object],
    check: Callable[[Map], None],
    *,
    size: SupportsIndex,
    setup: Callable[[Map], object] | None = None,
    recover: Callable[[Map], object] | None = None,
    granularity: Granularity = Granularity.CACHE_LINE,
    budget: SupportsIndex = 10_000,
    seed: int = 0,
    lint: bool = False,
) -> Report: ...
def explore(
    workload: Callable[[Map], object],
    check: Callable[[Map, list[T]], None] | Callable[[Map], None],
    *,
    size: SupportsIndex,
    setup: Callable[[Map], object] | None = None,
    recover: Callable[[Map], object] | None = None,
    granularity: Granularity = Granularity.CACHE_LINE,
    budget: SupportsIndex = 10_000,
    seed: int = 0,
    lint: bool = False,
) -> Report:
    """Run a workload once, then check every state that a power failure could have left at any moment of it.

    Args:
        workload: Stores to a map. If it is a generator, each `yield` acknowledges a value.
        check: Asserts that the content of a map is right; any exception is a failure. Each state comes as a fresh
            Map. For a generator workload, the check also receives the list of the values yielded by then.
        size: The size of the map in bytes.
        setup: Prepares the map; its stores count as durable.
        recover: Runs before each check, on the same Map. The power may fail in it too: each state that this can leave
            is recovered and checked in turn, until no new state comes.
        granularity: The granularity of the map; a result for one granularity need not hold for another.
        budget: The most images to check. If there are more, the images most likely to fail come first, then random
            ones.
        seed: The seed of the random choices.
        lint: Whether to report stores that never become durable, flushes of clean lines, drains of nothing, repeated
            persists that could be one, and a check that stores although there is no *recover*.

    Raises:
        CrashConsistencyError: The check or the recovery failed.
        RuntimeError: The workload or the recovery uses threads, stops the tracing of its statements, or its map
            contains stores that cannot be recorded: from another process, or from a call like
            `Map.store_u64(map, ...)`.
        BufferError: The workload or the recovery closes its map.
        TypeError: A number has the wrong type, a function cannot be called with what it gets, the check returned
            something, the workload is asynchronous or returns an iterator, or so does the recovery.
        ValueError: *size* or *budget* is not positive, or is too large.
        GranularityNotSupportedError: *granularity* is not a member of `Granularity`.
    """
    __tracebackhide__ = True
    began = time.perf_counter()
    map_size, max_images = as_positive(size, "size", FILE_SIZE_MAX), as_positive(budget, "budget", FILE_SIZE_MAX)
    checked_granularity = Config(required_granularity=granularity).required_granularity
    if checked_granularity is None:
        raise TypeError("granularity must be a Granularity, not None")
    check_callable(workload, "workload", ["map"])
    for function, name in ((setup, "setup"), (recover, "recover")):
        if function is not None:
            check_callable(function, name, ["map"])
    with ExitStack() as stack:
        stack.enter_context(replaced_thread_start())
        map = new_recording_map(map_size, checked_granularity)
        stack.callback(map.dispose)
        if setup is not None:
            setup(map)
        initial = map.begin()
        acknowledged = record_workload(map, workload)
        check_callable(check, "check", ["map"] if acknowledged is None else ["map", "acknowledged"])
        runner = CheckRunner(map_size, checked_granularity, adapt_check(check, acknowledged), recover, lint)
        stack.callback(runner.dispose)
        bytes_in_cell = cell_size(checked_granularity)
        cells = stored_cells(map.events, bytes_in_cell) if recover is None else range(-(-map_size // bytes_in_cell))
        checker = Checker(runner, CheckedImages(cells, bytes_in_cell), max_images)
        closure = Closure(initial, checked_granularity, map.events, checker, seed)
        if recover is None:
            closure.search_workload()
        else:
            closure.search_all()
        if closure.failure is not None:
            diagnosis = diagnose(closure, closure.failure, workload, recover)
            raise diagnosis from diagnosis.reason
    findings = (*lint_events(map.events, checked_granularity), *lint_check(runner.check_stores)) if lint else ()
    seconds = time.perf_counter() - began
    return Report(checker.images, closure.count_cuts(), closure.exhaustive, seconds, findings)
