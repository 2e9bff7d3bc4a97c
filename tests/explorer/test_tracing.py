# SPDX-License-Identifier: BSD-3-Clause
"""A trace function that is already set keeps working while a workload is traced."""

from __future__ import annotations

import sys
from collections.abc import Generator
from types import FrameType
from typing import TYPE_CHECKING, Callable

from explorer.helpers import SIZE, discard, line_of
from pmem2.testing import explore

if TYPE_CHECKING:
    from pmem2 import Map


def test_trace_function_keeps_working() -> None:
    """The trace function sees each line of the workload, and is set again afterwards."""
    seen: set[int] = set()

    def tracer(frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], object]:
        if frame.f_code.co_filename == __file__:
            seen.add(frame.f_lineno)
        return tracer

    def workload(map: Map) -> Generator[None, None, None]:
        with map.view() as view:
            view[0] = 1
        yield
        map[8] = 1

    before = sys.gettrace()
    sys.settrace(tracer)  # type: ignore[arg-type]
    try:
        report = explore(workload, discard(lambda map, acks: map[:16]), size=SIZE)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert {line_of(workload, text) for text in ("with map", "view[0]", "yield", "map[8]")} <= seen
    assert report.images == 5


def test_local_trace_function_returns_none() -> None:
    """A local trace function that returns None stays in use, as it does without the explorer."""
    seen: list[int] = []

    def local(frame: FrameType, event: str, argument: object) -> None:
        if event == "line":
            seen.append(frame.f_lineno)

    def tracer(frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], object] | None:
        return local if frame.f_code is workload.__code__ else None

    def workload(map: Map) -> None:
        map[0] = 1
        map[1] = 2
        map[2] = 3

    before = sys.gettrace()
    sys.settrace(tracer)  # type: ignore[arg-type]
    try:
        explore(workload, lambda map: None, size=SIZE)
    finally:
        sys.settrace(before)
    assert seen == [line_of(workload, f"map[{n}]") for n in range(3)]


def test_trace_function_without_line_events() -> None:
    """A trace function that turns line events off receives none, and the explorer still records each line."""
    seen: list[str] = []

    def tracer(frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], object] | None:
        if frame.f_code is not workload.__code__:
            return None
        seen.append(event)
        frame.f_trace_lines = False
        return tracer

    def workload(map: Map) -> None:
        view = map.view()
        view[0] = 1
        view[64] = 1
        view[0] = 2

    before = sys.gettrace()
    sys.settrace(tracer)  # type: ignore[arg-type]
    try:
        report = explore(workload, discard(lambda map: map[:65]), size=SIZE)
    finally:
        sys.settrace(before)
    assert report.images == 6
    assert seen == ["call", "return"]


def test_tracer_may_install_itself() -> None:
    """A trace function that installs itself at each call, as coverage's does, stops no recording."""

    def tracer(frame: FrameType, event: str, argument: object) -> None:
        sys.settrace(tracer)

    def store(view: memoryview, offset: int) -> None:
        view[offset] = 1

    def workload(map: Map) -> None:
        with map.view() as view:
            store(view, 0)
            store(view, 8)

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        assert explore(workload, discard(lambda map: map[0:16]), size=SIZE).images == 3
    finally:
        sys.settrace(before)


def test_line_events_turned_off_late() -> None:
    """A trace function that turns line events off at the first line stops no recording, and receives no second one."""
    seen: list[str] = []

    def local(frame: FrameType, event: str, argument: object) -> None:
        seen.append(event)
        frame.f_trace_lines = False

    def tracer(frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], object] | None:
        return local if frame.f_code is workload.__code__ else None

    def workload(map: Map) -> None:
        view = map.view()
        view[0] = 1
        view[8] = 1
        view[16] = 1

    before = sys.gettrace()
    sys.settrace(tracer)  # type: ignore[arg-type]
    try:
        assert explore(workload, discard(lambda map: map[0:24]), size=SIZE).images == 4
    finally:
        sys.settrace(before)
    assert seen == ["line", "return"]


def test_package_is_traced() -> None:
    """A trace function receives the lines of pmem2 too while a workload runs."""
    seen: set[str] = set()

    def tracer(frame: FrameType, event: str, argument: object) -> Callable[[FrameType, str, object], object]:
        if event == "line":
            seen.add(frame.f_code.co_name)
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)  # type: ignore[arg-type]
    try:
        explore(lambda map: map.fetch_add_u64(0, 1), lambda map: None, size=SIZE)
    finally:
        sys.settrace(before)
    assert "fetch_add_u64" in seen
