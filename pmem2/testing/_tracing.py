# SPDX-License-Identifier: BSD-3-Clause
"""Follows a workload statement by statement, beside a tracer that may be at work already."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Callable, TypeVar

from pmem2.testing._locations import is_ours, place_of

if TYPE_CHECKING:
    from _typeshed import TraceFunction
    from typing_extensions import Literal

    Event = Literal["call", "line", "return", "exception", "opcode"]

    from pmem2.testing._recorder import RecordingMap

T = TypeVar("T")
THREADS = "a workload that is explored must not start threads"
SHARED = "a workload that is explored must not use its map in other threads"


def traced(map: RecordingMap, function: Callable[[], T]) -> T:
    """Call *function*, and tell *map* of each statement that it does, and of those of the functions that it calls.

    Raises:
        RuntimeError: A thread was started, or tracing was ended.
    """
    before = sys.gettrace()
    refused = False

    def begin(  # pragma: no cover: what traces is not traced
        frame: FrameType, event: Event, argument: object
    ) -> TraceFunction | None:
        nonlocal refused
        theirs = None if before is None else before(frame, event, argument)
        if before is not None:
            sys.settrace(begin)  # coverage's tracer puts itself in our place whenever it is called for a call
        if is_ours(frame):
            return theirs
        lines, frame.f_trace_lines = frame.f_trace_lines, True  # whether they want to be told of each line; we do
        if frame.f_code is threading.Thread.start.__code__:
            refused = True
            raise RuntimeError(THREADS)
        map.statement(place_of(frame))

        def go_on(frame: FrameType, event: Event, argument: object) -> TraceFunction | None:
            nonlocal theirs, lines
            map.statement(place_of((frame.f_back if event == "return" else None) or frame))
            if theirs is not None and (lines or event != "line"):
                frame.f_trace_lines = lines
                theirs = theirs(frame, event, argument) or theirs
                lines, frame.f_trace_lines = frame.f_trace_lines, True
            return go_on

        return go_on

    sys.settrace(begin)  # here and not in a function of its own, so that for `before` each call has its return
    try:
        result = function()
        if refused or sys.gettrace() is not begin:  # and then nobody sees the next line
            raise RuntimeError(  # pragma: no cover
                THREADS if refused else "a workload that is explored must not end tracing"
            )
        if map.shared:
            raise RuntimeError(SHARED)
        return result
    finally:
        sys.settrace(before)
        nothing()


def nothing() -> None:
    """Do nothing: with this call coverage's tracer takes its place again."""
