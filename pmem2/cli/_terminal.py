# SPDX-License-Identifier: BSD-3-Clause
"""Tables, progress and errors for people: rich draws them on a terminal if installed, else they are plain text."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Optional, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
REDRAW_INTERVAL = 0.1  # seconds


def format_size(number: float) -> str:
    """Format a number of bytes for people: 8 bytes, 4 KiB, 1.5 GiB."""
    power = 0
    while number >= 1024 and power < len(UNITS) - 1:
        number /= 1024
        power += 1
    digits = 0 if number == int(number) or number >= 100 else 1
    return f"{number:.{digits}f} {UNITS[power]}"


def format_time(seconds: float) -> str:
    """Format a time as minutes and seconds: 3:07."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def rich_console(stream: TextIO) -> Optional[Console]:
    """Return rich's console, or `None` if the stream is not a terminal or rich is not installed."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> None:
    """Print a table; *numbers* aligns every column but the first to the right."""
    console = rich_console(sys.stdout)
    if console is None:
        widths = [max(map(len, column)) for column in zip(headers, *rows)]
        for row in [headers, *rows] if any(headers) else rows:
            first, *rest = zip(row, widths)
            cells = [first[0].ljust(first[1])]
            cells += [cell.rjust(width) if numbers else cell.ljust(width) for cell, width in rest]
            print("  ".join(cells).rstrip())
        return
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, show_header=any(headers))
    for column, header in enumerate(headers):
        table.add_column(header, justify="right" if numbers and column else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a callback that advances the progress bar by a number of bytes; only a terminal shows the bar."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    console = rich_console(sys.stderr)
    if console is None:
        line = ProgressLine(label, total)
        try:
            yield line.advance
        finally:
            show_status("")
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.DownloadColumn(binary_units=True),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, advance=done)


class ProgressLine:
    """Progress on one line of a terminal, redrawn in place."""

    def __init__(self, label: str, total: int) -> None:
        """Start the clock."""
        self.label, self.total, self.done = label, total, 0
        self.began = time.monotonic()
        self.drawn = self.began - REDRAW_INTERVAL

    def advance(self, done: int) -> None:
        """Count *done* more bytes; redraw at most once per interval, and at the end."""
        self.done += done
        now = time.monotonic()
        if now - self.drawn >= REDRAW_INTERVAL or self.done == self.total:
            self.drawn = now
            speed = self.done / max(now - self.began, 1e-9)
            left = format_time((self.total - self.done) / speed) if speed else "-:--"
            percent = 100 * self.done // self.total if self.total else 100
            amount = f"{format_size(self.done)} of {format_size(self.total)}, {format_size(speed)}/s"
            show_status(f"{self.label}: {percent} %, {amount}, {left} left")


def show_status(text: str) -> None:
    """Replace the last line of the terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def print_error(text: str) -> None:
    """Print one line on standard error; escape control characters, which a file name may contain."""
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    print(f"pmem2: {line}", file=sys.stderr)
