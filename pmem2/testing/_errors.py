# SPDX-License-Identifier: BSD-3-Clause
"""What is told of a state that a check does not accept: the fewest stores that were lost, and what would mend it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Literal

import attrs

from pmem2.testing._locations import is_ours

if TYPE_CHECKING:
    from pmem2.testing._events import Place

Reason = Literal["never flushed", "flushed, not drained", "overtaken"]


@attrs.frozen()
class LostStore:
    """A store of which not all has survived.

    Attributes:
        offset: Where it begins in the map, in bytes.
        length: Bytes.
        filename: Where in the source it was made.
        lineno: The line there.
        function: The function there.
        reason: "never flushed" in the whole run; "flushed, not drained", or "overtaken" by what survives: flushed
            only later. Both as of the crash point.
    """

    offset: int
    length: int
    filename: str
    lineno: int
    function: str
    reason: Reason


class CrashConsistencyError(AssertionError):
    """A power cut can leave a state that the check does not accept.

    Attributes:
        crash_point: Where the power fails: file and line.
        image: What the memory is then; written to a file it can be mapped and given to the check alone.
        lost: The fewest stores that must be lost for it; empty when the workload itself passes through that state.
        reason: What the check has raised.
    """

    crash_point: tuple[str, int]
    image: bytes
    lost: tuple[LostStore, ...]
    reason: BaseException

    def __init__(self, crash: Place, image: bytes, lost: Sequence[LostStore], mend: str, reason: BaseException) -> None:
        """Say what was found.

        Args:
            crash: Where the power fails.
            image: What the memory is then.
            lost: What did not survive.
            mend: What to do.
            reason: What the check raised.
        """
        self.crash_point = crash.filename, crash.lineno
        self.image = image
        self.lost = tuple(lost)
        self.reason = reason
        what = f"{type(reason).__name__}: {reason}".rstrip(": \n").split("\n")[0]
        where = f"{short(crash.filename)}:{crash.lineno} ({crash.function})"
        head = f"a power cut at {where} can leave what the check does not accept: {what}{seen_at(reason)}"
        super().__init__("\n".join([head, *table(self.lost), mend]))

    def __reduce__(self) -> tuple[Callable[..., CrashConsistencyError], tuple[object, ...]]:
        """Be pickled as it is: what it was made of is not all there any more."""
        return again, (str(self), self.crash_point, self.image, self.lost, self.reason)


def again(
    text: str, crash_point: tuple[str, int], image: bytes, lost: tuple[LostStore, ...], reason: BaseException
) -> CrashConsistencyError:
    """Return the error that was pickled."""
    error = CrashConsistencyError.__new__(CrashConsistencyError, text)
    error.crash_point, error.image, error.lost, error.reason = crash_point, image, lost, reason
    return error


def seen_at(reason: BaseException) -> str:
    """Return where a check has raised, and leave out of its traceback how it was called."""
    trace = reason.__traceback__
    while trace is not None and is_ours(trace.tb_frame):
        trace = trace.tb_next
    if trace is None:
        return ""
    reason.__traceback__ = trace
    while trace.tb_next is not None and not is_ours(trace.tb_next.tb_frame):
        trace = trace.tb_next
    return f" ({short(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})"


def short(filename: str) -> str:
    """Return a path as it is read most easily."""
    relative = os.path.relpath(filename) if os.path.isabs(filename) else filename
    return filename if relative.startswith("..") else relative


def table(lost: Sequence[LostStore]) -> list[str]:
    """Return lines that list what is lost."""
    if not lost:
        return ["nothing is lost: the workload itself passes through this state"]
    rows = [("lost", "bytes", "stored at", "in", "why")]
    rows += [(str(s.offset), str(s.length), f"{short(s.filename)}:{s.lineno}", s.function, s.reason) for s in lost]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
