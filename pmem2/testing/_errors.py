# SPDX-License-Identifier: BSD-3-Clause
"""CrashConsistencyError: reports a state that the check rejects, the fewest lost stores, and a fix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Literal

import attrs

from pmem2.testing._locations import SourceLocation, is_internal_frame

if TYPE_CHECKING:
    from pmem2.testing._runner import CheckFailed

Reason = Literal["never flushed", "flushed, not drained", "overtaken"]


@attrs.frozen()
class LostStore:
    """A store that did not survive the power failure, or survived only in part.

    Attributes:
        offset: The offset of its first byte in the map.
        length: Its length in bytes.
        filename: The source file that made the store.
        lineno: The line in that file.
        function: The function in that file.
        reason: "never flushed": no flush in the whole run covers the store. "flushed, not drained": at the crash point
            the store was flushed, but no drain had followed. "overtaken": the first flush that covers the
            store comes after the crash point.
    """

    offset: int
    length: int
    filename: str
    lineno: int
    function: str
    reason: Reason


class CrashConsistencyError(AssertionError):
    """A power failure can leave a state that the check rejects.

    Attributes:
        crash_points: The file and the line at which the power fails: one pair for each power failure, the one in the
            workload first. This is the shortest chain that was found.
        crash_point: The last of them.
        image: The content of the memory after the last power failure. To debug the recovery or the check, write it to a
            file and map that.
        lost: The fewest stores that the last power failure must lose for this image; empty if the workload or the
            recovery itself passes through the state.
        reason: The exception that the recovery or the check raised.
    """

    crash_points: tuple[tuple[str, int], ...]
    image: bytes
    lost: tuple[LostStore, ...]
    reason: BaseException

    def __init__(
        self, crashes: Sequence[SourceLocation], failed: CheckFailed, lost: Sequence[LostStore], fix: str
    ) -> None:
        """Format the report.

        Args:
            crashes: The locations at which the power fails.
            failed: The image, and the exception that was raised.
            lost: The stores that did not survive the last power failure.
            fix: The last line of the report.
        """
        self.crash_points = tuple((crash.filename, crash.lineno) for crash in crashes)
        self.image = failed.image
        self.lost = tuple(lost)
        self.reason = reason = failed.reason
        what = f"{type(reason).__name__}: {reason}".rstrip(": \n").split("\n")[0]
        verdict = "a state that the check rejects" if failed.recovered else "a state in which the recovery fails"
        head = f"a power failure at {format_chain(crashes)} can leave {verdict}: {what}{raise_site(reason)}"
        passing = "recovery" if len(crashes) > 1 else "workload"
        super().__init__("\n".join([head, *format_table(self.lost, passing), fix]))

    @property
    def crash_point(self) -> tuple[str, int]:
        """The file and the line at which the power fails last."""
        return self.crash_points[-1]

    def __reduce__(self) -> tuple[Callable[..., CrashConsistencyError], tuple[object, ...]]:
        """Pickle the finished report: the arguments of `__init__` are not kept."""
        return _unpickle, (str(self), self.crash_points, self.image, self.lost, self.reason)


def _unpickle(
    text: str,
    crash_points: tuple[tuple[str, int], ...],
    image: bytes,
    lost: tuple[LostStore, ...],
    reason: BaseException,
) -> CrashConsistencyError:
    """Return the error that was pickled."""
    error = CrashConsistencyError.__new__(CrashConsistencyError, text)
    error.crash_points, error.image, error.lost, error.reason = crash_points, image, lost, reason
    return error


def format_chain(crashes: Sequence[SourceLocation]) -> str:
    """Return the locations of the power failures as text."""
    first, *more = [f"{relative_path(crash.filename)}:{crash.lineno} ({crash.function})" for crash in crashes]
    return "".join([first, *(f", and another at {crash}" for crash in more), "," if more else ""])


def raise_site(reason: BaseException) -> str:
    """Return where the check raised, as text; drop the explorer's own frames from the traceback."""
    trace = reason.__traceback__
    while trace is not None and is_internal_frame(trace.tb_frame):
        trace = trace.tb_next
    if trace is None:
        return ""
    reason.__traceback__ = trace
    while trace.tb_next is not None and not is_internal_frame(trace.tb_next.tb_frame):
        trace = trace.tb_next
    return f" ({relative_path(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})"


def relative_path(filename: str) -> str:
    """Return a path below the current directory as relative, any other path unchanged."""
    relative = os.path.relpath(filename) if os.path.isabs(filename) else filename
    return filename if relative.startswith("..") else relative


def format_table(lost: Sequence[LostStore], passing: str) -> list[str]:
    """Return the lines that list the lost stores; *passing* has passed through the state if there are none."""
    if not lost:
        return [f"no store is lost: the {passing} itself passes through this state"]
    rows = [("lost at", "bytes", "stored at", "in", "why")]
    rows += [
        (str(s.offset), str(s.length), f"{relative_path(s.filename)}:{s.lineno}", s.function, s.reason) for s in lost
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
