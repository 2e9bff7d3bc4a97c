# SPDX-License-Identifier: BSD-3-Clause
"""Reports each statement of a workload, and keeps a trace function that is already set (coverage's) working."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Callable, Protocol, TypeVar

from pmem2.testing._locations import SourceLocation, external_location, is_internal_frame

if TYPE_CHECKING:
    from _typeshed import TraceFunction
    from typing_extensions import Literal

    TraceEvent = Literal["call", "line", "return", "exception", "opcode"]

T = TypeVar("T")
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
        trace_statements: Starts the tracing of statements, unless it has begun.
    """

    trace_statements: Callable[[], None]

    def enter_statement(self, location: SourceLocation) -> None:
        """A statement begins."""

    def refuse(self, error: Exception) -> Exception:
        """Return *error*: the function did what cannot be recorded."""


def run_traced(function: Callable[[], T], recorder: Recorder, at_once: bool = True) -> T:
    """Call *function*; report each statement in it and in the functions that it calls.

    Args:
        function: The function.
        recorder: Receives the statements.
        at_once: Whether to trace from the start; otherwise `recorder.trace_statements` starts it, and until then the
            function runs many times as fast.

    Raises:
        RuntimeError: *function* stopped the tracing.
    """
    tracer = StatementTracer(recorder)
    recorder.trace_statements = tracer.start
    if at_once:
        tracer.tracing = True
        sys.settrace(tracer.trace_call)  # not in a helper: the tracer before would see its return without its call
    try:
        result = function()
        if tracer.tracing and sys.gettrace() != tracer.trace_call:
            raise recorder.refuse(RuntimeError(TRACING_ERROR))  # pragma: no cover: not traced
        return result
    finally:
        recorder.trace_statements = do_nothing
        if sys.gettrace() is not tracer.before:
            sys.settrace(tracer.before)
            do_nothing()  # the call event makes coverage install its C tracer again


class StatementTracer:
    """Traces statements, and keeps the trace function working that was set before.

    Attributes:
        before: The trace function that was set before.
        tracing: Whether statements are traced.
    """

    __slots__ = ("_recorder", "before", "tracing")

    def __init__(self, recorder: Recorder) -> None:
        """Trace nothing yet."""
        self._recorder = recorder
        self.before = sys.gettrace()
        self.tracing = False

    def start(self) -> None:
        """Trace the statements of the functions that are running, and of those that they call."""
        if self.tracing:
            return
        self.tracing = True
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not run_traced.__code__:
            if not is_part_of_method(frame):
                frame.f_trace = self._trace_lines(frame, frame.f_trace)  # type: ignore[assignment]
            frame = frame.f_back
        sys.settrace(self.trace_call)

    def trace_call(  # pragma: no cover: no trace function runs while a trace function runs
        self, frame: FrameType, event: TraceEvent, argument: object
    ) -> TraceFunction | None:
        """Trace a function that is called."""
        theirs = None if self.before is None else self.before(frame, event, argument)
        if self.before is not None:
            sys.settrace(self.trace_call)  # coverage re-installs itself on each call event; restore ours
        if frame.f_code in INTERNAL_CODE or is_part_of_method(frame):
            return theirs
        self._recorder.enter_statement(external_location(frame))
        return self._trace_lines(frame, theirs)

    def _trace_lines(self, frame: FrameType, theirs: TraceFunction | None) -> TraceFunction:
        """Make *frame* report its lines; return its trace function, which calls *theirs* too."""
        recorder = self._recorder
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


def do_nothing() -> None:
    """Do nothing."""
