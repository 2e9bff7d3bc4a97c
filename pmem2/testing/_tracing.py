# SPDX-License-Identifier: BSD-3-Clause
"""Reports each statement of a workload, and keeps a trace function that is already set (coverage's) working."""

from __future__ import annotations

import sys
import threading
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Callable, Protocol, TypeVar

from pmem2.testing._locations import SourceLocation, external_location, is_internal_frame

if TYPE_CHECKING:
    from _typeshed import TraceFunction
    from typing_extensions import Literal

    TraceEvent = Literal["call", "line", "return", "exception", "opcode"]

T = TypeVar("T")
THREADS_ERROR = "an explored workload must not start threads"
THREAD_START = threading.Thread.start.__code__
TRACING_ERROR = "an explored workload must not stop tracing (sys.settrace)"


INTERNAL_CODE: set[CodeType] = set()
"""Code of this package; saves most calls of `is_part_of_method`."""


def is_part_of_method(frame: FrameType) -> bool:
    """Whether *frame* executes code of this package, or the standard library's part of its context managers."""
    code = frame.f_code
    while frame.f_globals.get("__name__") == "contextlib" and frame.f_back is not None:
        frame = frame.f_back  # pragma: no cover: runs in a trace function
    if not is_internal_frame(frame):
        return False
    if frame.f_code is code:  # pragma: no branch: runs in a trace function
        INTERNAL_CODE.add(code)
    return True


class Recorder(Protocol):
    """Records the stores of a function.

    Attributes:
        trace_statements: Starts the tracing of statements; set while a function runs.
    """

    trace_statements: Callable[[], None]

    def enter_statement(self, location: SourceLocation) -> None:
        """A statement begins."""

    def refuse(self, error: Exception) -> Exception:
        """Return *error*: the function did what cannot be recorded."""


def run_traced(function: Callable[[], T], recorder: Recorder, statements: bool = True) -> T:
    """Call *function*; report each statement in it and in the functions that it calls.

    Args:
        function: The function.
        recorder: Receives the statements.
        statements: Whether to trace statements at once; otherwise `recorder.trace_statements` starts it, and until
            then the function runs faster.

    Raises:
        RuntimeError: *function* started a thread, or stopped the tracing.
    """
    before = sys.gettrace()
    thread_started = False

    def trace_call(  # pragma: no cover: no trace function runs while a trace function runs
        frame: FrameType, event: TraceEvent, argument: object
    ) -> TraceFunction | None:
        nonlocal thread_started
        theirs = None if before is None else before(frame, event, argument)
        if before is not None:
            sys.settrace(trace_call)  # coverage re-installs itself on each call event; restore ours
        if frame.f_code is THREAD_START:
            thread_started = True
            raise recorder.refuse(RuntimeError(THREADS_ERROR))
        if not statements or frame.f_code in INTERNAL_CODE or is_part_of_method(frame):
            return theirs
        recorder.enter_statement(external_location(frame))
        return trace_lines(frame, theirs)

    def trace_lines(frame: FrameType, theirs: TraceFunction | None) -> TraceFunction:
        """Make *frame* report its lines; return its trace function, which calls *theirs* too."""
        lines, frame.f_trace_lines = frame.f_trace_lines, True  # they may have turned line events off; we need them

        def trace_frame(  # pragma: no cover: as trace_call
            frame: FrameType, event: TraceEvent, argument: object
        ) -> TraceFunction | None:
            nonlocal theirs, lines
            recorder.enter_statement(external_location((frame.f_back if event == "return" else None) or frame))
            if theirs is not None and (lines or event != "line"):
                frame.f_trace_lines = lines
                theirs = theirs(frame, event, argument) or theirs
                lines, frame.f_trace_lines = frame.f_trace_lines, True
            return trace_frame

        return trace_frame

    def trace_statements() -> None:
        """Trace the statements of the functions that are running, and of those that they call."""
        nonlocal statements
        frame = None if statements else sys._getframe(1)
        statements = True
        while frame is not None and frame is not base:
            if not is_part_of_method(frame):
                frame.f_trace = trace_lines(frame, frame.f_trace)  # type: ignore[assignment]
            frame = frame.f_back

    base = sys._getframe()
    recorder.trace_statements = trace_statements
    sys.settrace(trace_call)  # not in a helper: `before` would see the helper's return without its call
    try:
        result = function()
        if thread_started or sys.gettrace() is not trace_call:
            error = RuntimeError(THREADS_ERROR if thread_started else TRACING_ERROR)  # pragma: no cover: not traced
            raise recorder.refuse(error)  # pragma: no cover: not traced
        return result
    finally:
        sys.settrace(before)
        reinstall_coverage_tracer()


def reinstall_coverage_tracer() -> None:
    """Do nothing: the call event makes coverage install its C tracer again."""
