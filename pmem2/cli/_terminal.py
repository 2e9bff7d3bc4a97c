# SPDX-License-Identifier: BSD-3-Clause
"""What commands print: tables, facts, progress, errors. They fit the terminal, and have colours on one."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Callable, Optional, TextIO

from pmem2.cli._text import RATES, format_decimal, format_size, format_time, printable, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

DEFAULT_WIDTH = 80  # of a pipe, and of a terminal that does not know its size
LEAST_ROOM = 24  # columns for a value beside its label
WIDE = 70  # columns for a progress bar with speed and time
STEP_INDENT = 9  # columns
REDRAW_INTERVAL = 0.1  # seconds
PROGRESS_DELAY = 0.5  # seconds; a bar that disappears at once is a nuisance, and importing rich takes a moment
BOLD, RED, GREEN, YELLOW, CYAN = "1", "1;31", "32", "33", "36"  # parameters of the escape sequence SGR


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that understands escape sequences."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colors(stream: TextIO) -> bool:
    """Return whether to print colours: NO_COLOR forbids them, FORCE_COLOR demands them, else a terminal has them."""
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR")
    return forced != "0" if forced else is_terminal(stream)


def styled(text: str, style: str, stream: Optional[TextIO] = None) -> str:
    """Return the text in a style, if the stream (default: standard output) has colours."""
    return f"\x1b[{style}m{text}\x1b[0m" if has_colors(stream or sys.stdout) else text


def width_of(stream: TextIO) -> int:
    """Return the columns of a terminal; the variable COLUMNS overrides them."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
    except (OSError, ValueError):  # a pipe; a closed stream or one without descriptor
        return DEFAULT_WIDTH


def rich_console(stream: TextIO) -> Optional[Console]:
    """Return rich's console, or `None` if it is not installed."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of numbers; a terminal too narrow for it gets several, each with the first column."""
    widths = [max(map(len, column)) for column in zip(headers, *rows)]
    limit = width_of(sys.stdout) if sys.stdout.isatty() else sum(widths) + 2 * len(widths)
    for index, columns in enumerate(split_columns(widths, limit)):
        if index:
            print()
        for number, row in enumerate([headers, *rows]):
            rest = "".join(f"  {row[column].rjust(widths[column])}" for column in columns)
            line = f"{row[0].ljust(widths[0])}{rest}"
            print(line if number else styled(line, BOLD))


def split_columns(widths: Sequence[int], limit: int) -> list[list[int]]:
    """Return the columns after the first in groups that fit, beside the first, into *limit*."""
    groups: list[list[int]] = []
    used = limit
    for column, width in enumerate(widths[1:], 1):
        if used + 2 + width > limit:
            groups.append([])
            used = widths[0]
        groups[-1].append(column)
        used += 2 + width
    return groups


def show_facts(rows: Sequence[tuple[str, str]]) -> None:
    """Print labels with their values; a terminal gets values that are wrapped beside their labels, or below them."""
    terminal, width = sys.stdout.isatty(), width_of(sys.stdout)
    indent = max(len(label) for label, _ in rows) + 2
    below = terminal and width - indent < LEAST_ROOM
    if below:
        indent = 4
    for label, value in rows:
        lines = wrap(value, width - indent) if terminal else [value]
        margin = " " * indent
        head = f"{styled(label, CYAN)}\n{margin}" if below else styled(label.ljust(indent), CYAN)
        print(head + f"\n{margin}".join(lines))


def show_text(text: str) -> None:
    """Print a paragraph."""
    print("\n".join(wrap(printable(text), width_of(sys.stdout))))


def show_step(label: str, text: str, style: str = BOLD) -> None:
    """Print a label, and beside it a paragraph."""
    lines = wrap(printable(text), width_of(sys.stdout) - STEP_INDENT)
    print(styled(label.ljust(STEP_INDENT), style) + f"\n{' ' * STEP_INDENT}".join(lines))


@contextmanager
def progress(label: str, total: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Yield a callback that counts the bytes that are done; a terminal shows them if they take more than a moment."""
    if quiet or not is_terminal(sys.stderr):
        yield lambda _done: None
        return
    began, done = time.monotonic(), 0
    bar: Optional[Callable[[int], None]] = None
    with ExitStack() as stack:

        def advance(more: int) -> None:
            nonlocal done, bar
            done += more
            if bar is not None:
                bar(more)
            elif time.monotonic() - began >= PROGRESS_DELAY:
                bar = stack.enter_context(progress_bar(label, total, began))
                bar(done)

        yield advance


@contextmanager
def progress_bar(label: str, total: int, began: float) -> Iterator[Callable[[int], None]]:
    """Yield a callback that advances a progress bar by a number of bytes."""
    console = rich_console(sys.stderr)
    if console is None:
        line = ProgressLine(label, total, began)
        try:
            yield line.advance
        finally:
            show_status("")
        return
    from rich import progress as bars

    columns = [bars.TextColumn("{task.description}"), bars.TaskProgressColumn(), bars.DownloadColumn(binary_units=True)]
    if console.width >= WIDE:
        columns += [bars.BarColumn(), bars.TransferSpeedColumn(), bars.TimeRemainingColumn()]
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, advance=done)


class ProgressLine:
    """Progress on one line of a terminal, redrawn in place."""

    def __init__(self, label: str, total: int, began: float) -> None:
        """Set the time at which the first byte was begun."""
        self.label, self.total, self.done = label, total, 0
        self.began, self.drawn = began, began - REDRAW_INTERVAL

    def advance(self, done: int) -> None:
        """Count *done* more bytes; redraw at most once per interval, and at the end."""
        self.done += done
        now = time.monotonic()
        if now - self.drawn >= REDRAW_INTERVAL or self.done == self.total:
            self.drawn = now
            speed = self.done / max(now - self.began, 1e-9)
            left = format_time((self.total - self.done) / speed) if speed else "-:--"
            percent = 100 * self.done // self.total
            amount = f"{format_size(self.done)} of {format_size(self.total)}, {format_decimal(speed, RATES)}"
            show_status(f"{self.label}: {percent} %, {amount}, {left} left")


def show_status(text: str) -> None:
    """Replace the last line of the terminal; one that is too long would leave its beginning behind."""
    if is_terminal(sys.stderr):
        print(f"\r\x1b[K{text[: width_of(sys.stderr) - 1]}", end="", file=sys.stderr, flush=True)


def print_error(text: str, style: str = RED) -> None:
    """Print one line on standard error."""
    print(styled("pmem2:", style, sys.stderr), printable(text), file=sys.stderr)


def print_warning(text: str) -> None:
    """Print one line on standard error about something that is no failure."""
    print_error(text, YELLOW)
