# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 bench`: how long it takes to make something durable, and how much of it in a second."""

from __future__ import annotations

import json
import os
import platform
import random
import secrets
import statistics
import threading
import time
from argparse import ArgumentTypeError
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Callable, Optional, TypeVar

import attrs

from pmem2._enums import MemFlag
from pmem2._source import Source
from pmem2._version import __version__
from pmem2.cli._command import Failure, add_command, checked_place
from pmem2.cli._terminal import show_table, size_text, status_line
from pmem2.cli.copy import allocate, remove, renamed
from pmem2.cli.info import examine_platform

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure

    from pmem2._map import Map
    from pmem2.cli._command import Commands

HELP = """
Measured are the latency of persist (the data is stored before, outside of the time) at random places, and the
bandwidth of memcpy and memset (durable when they return) from place to place, with temporal and non-temporal stores,
by 1, 2, 4, ... threads, each in 32 MiB of its own. The sizes are those of pmembench, and larger ones. All figures are
those of a Python program: the row of 0 bytes is what the call alone costs. They vary from run to run.

Nothing of yours is touched: PATH is a directory, or a file that does not exist in one, and what is measured is a file
without a name in that directory, which is gone when the command ends. A PATH that exists is refused, unless
--overwrite says that its content may be destroyed: a DAX device, or a file of the size that is needed.

examples:
  pmem2 bench /mnt/pmem                                 a file system
  pmem2 bench /mnt/pmem --threads 8 --plot bench.svg    a picture; needs pip install 'pmem2[plot]'
  pmem2 bench /dev/dax0.0 --overwrite --json            a device, whose content is lost"""

LATENCY_SIZES = (0, *(1 << power for power in range(3, 13)))
BANDWIDTH_SIZES = tuple(1 << power for power in range(6, 25))
STORES = {"temporal": MemFlag.TEMPORAL, "non-temporal": MemFlag.NONTEMPORAL}
OPERATIONS = ("memcpy", "memset")
PART = 32 * 1024 * 1024  # bytes for each thread
LINE = 64
PLACES = 4096
BATCH_NS = 100_000  # the clock is looked at about that often
T = TypeVar("T")


@attrs.frozen
class Latency:
    """How long persist took, in nanoseconds."""

    threads: int
    size: int
    operations: int
    min_ns: int
    median_ns: int
    p99_ns: int


@attrs.frozen
class Bandwidth:
    """How much was copied or set durably, by all threads together."""

    operation: str
    stores: str
    threads: int
    size: int
    operations: int
    bytes_per_second: int


@attrs.frozen
class Result:
    """All figures of a run, and what they are of."""

    path: str
    granularity: str
    pmem2_version: str
    libpmem2_version: Optional[str]
    flush_instruction: Optional[str]
    python: str
    persist: list[Latency]
    copies: list[Bandwidth]


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "bench", "measure how fast a file system or a DAX device is", HELP)
    parser.add_argument("path", metavar="PATH", help="a directory, or a file that does not exist yet")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--threads", metavar="N", type=positive, default=cores, help="at most (default: %(default)s)")
    parser.add_argument(
        "--seconds", metavar="S", type=duration, default=0.05, help="for each of the figures (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with always the same keys")
    parser.add_argument("--plot", metavar="FILE", help="draw the figures: .png, .svg, .pdf")
    parser.add_argument("--overwrite", action="store_true", help="the content of PATH may be destroyed")
    parser.set_defaults(run=run)


def positive(text: str) -> int:
    """Return the number in *text*."""
    if not (text.isdecimal() and int(text)):
        raise ArgumentTypeError("must be a whole number, 1 or more")
    return int(text)


def duration(text: str) -> float:
    """Return the seconds in *text*."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise ArgumentTypeError("must be a number of seconds, more than 0 and less than a million")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Measure, show and draw."""
    figure = new_figure(arguments.plot) if arguments.plot else None
    counts = thread_counts(arguments.threads)
    with ExitStack() as stack:
        map = stack.enter_context(target(arguments.path, counts[-1] * PART, bool(arguments.overwrite)))
        persist, copies = measure(map, counts, arguments.seconds)
        granularity = map.granularity.name
    about = examine_platform()
    result = Result(
        path=arguments.path,
        granularity=granularity,
        pmem2_version=__version__,
        libpmem2_version=about.libpmem2_version,
        flush_instruction=about.flush_instruction,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        persist=persist,
        copies=copies,
    )
    if arguments.json:
        print(json.dumps(attrs.asdict(result), indent=2))
    else:
        show(result)
    if figure is not None:
        draw(figure, result)
        figure.savefig(arguments.plot)
    return 0


def thread_counts(most: int) -> list[int]:
    """Return 1, 2, 4, ... and the largest number itself."""
    return [*(1 << power for power in range(most.bit_length()) if 1 << power < most), most]


# ---- where


@contextmanager
def target(path: str, size: int, overwrite: bool) -> Iterator[Map]:
    """Yield a map of at least *size* bytes to be written to, all of it on disk."""
    if os.path.isdir(checked_place(path)) or not os.path.lexists(path):
        folder = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
        hidden = os.path.join(folder, f".pmem2-bench-{secrets.token_hex(8)}")
        with ExitStack() as undo:
            undo.callback(remove, hidden)  # from now on: a signal may come at any moment
            try:
                fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise renamed(error, "no file can be made there", path) from None
            undo.callback(os.close, fd)
            remove(hidden)  # and not after it has got its size, which takes time
            allocate(fd, size, [(0, size)], path)
            with Source.from_fd(fd) as source, source.map() as map:
                yield map
        return
    if not overwrite:
        raise Failure(f"{path} exists: name a directory, or --overwrite if its content may be destroyed")
    with Source.from_path(path) as source:
        if source.size < size:
            raise Failure(f"{path} has {size_text(source.size)}, and {size_text(size)} are needed: try fewer threads")
        if os.path.isfile(path):  # pragma: no branch: nox -s nvdimm
            allocate(source.fd, source.size, [(0, source.size)], path)
        with source.map() as map:
            yield map


# ---- measuring


def measure(map: Map, counts: Sequence[int], seconds: float) -> tuple[list[Latency], list[Bandwidth]]:
    """Return all figures."""
    map.memset(0, 0, counts[-1] * PART)  # so that no page is touched for the first time while the clock runs
    latencies, bandwidths = [], []
    for threads in counts:
        for size in LATENCY_SIZES:
            status_line(f"persist {size_text(size)}, {threads_text(threads)}")
            latencies.append(latency(map, threads, size, seconds))
        for operation in OPERATIONS:
            for stores in STORES:
                for size in BANDWIDTH_SIZES:
                    status_line(f"{operation} {size_text(size)}, {stores}, {threads_text(threads)}")
                    bandwidths.append(bandwidth(map, operation, stores, threads, size, seconds))
    status_line("")
    return latencies, bandwidths


def together(threads: int, work: Callable[[int], T]) -> list[T]:
    """Return what *work* returns in so many threads, which begin at the same moment and are told their number."""
    gate = threading.Barrier(threads)

    def begin(number: int) -> T:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        try:
            return list(pool.map(begin, range(threads)))
        except BaseException as error:
            gate.abort()  # so that no thread waits for one that could not be started
            if isinstance(error, RuntimeError):
                raise Failure(f"cannot use {threads_text(threads)}: {error}") from None
            raise


def latency(map: Map, threads: int, size: int, seconds: float) -> Latency:
    """Return how long it takes to persist that many bytes."""
    found = together(threads, lambda number: persist_times(map, number * PART, size, seconds))
    times = sorted(nanoseconds for each in found for nanoseconds in each)
    p99 = times[len(times) * 99 // 100]
    return Latency(threads, size, len(times), times[0], int(statistics.median(times)), p99)


def persist_times(map: Map, begin: int, size: int, seconds: float) -> list[int]:
    """Return how long each persist took, in nanoseconds."""
    step = max(size, LINE)
    places = [begin + place * step for place in random.Random(begin).choices(range(PART // step), k=PLACES)]
    clock, times = time.perf_counter_ns, []
    deadline = clock() + int(seconds * 1e9)
    for count, offset in enumerate(cycle(places)):  # pragma: no branch: it never ends by itself
        map.memset(offset, count & 0xFF, size, MemFlag.NOFLUSH)
        before = clock()
        map.persist(offset, size)
        after = clock()
        times.append(after - before)
        if after >= deadline:
            break
    return times


def bandwidth(map: Map, operation: str, stores: str, threads: int, size: int, seconds: float) -> Bandwidth:
    """Return how many bytes are copied or set in a second."""
    found = together(threads, lambda number: repeat(map, operation, STORES[stores], number * PART, size, seconds))
    operations = sum(count for count, _, _ in found)
    elapsed = max(end for _, _, end in found) - min(begin for _, begin, _ in found)
    return Bandwidth(operation, stores, threads, size, operations, operations * size * 10**9 // max(elapsed, 1))


def repeat(map: Map, operation: str, flags: MemFlag, begin: int, size: int, seconds: float) -> tuple[int, int, int]:
    """Copy or set, from place to place; return how often, and when that began and ended."""
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    places = cycle(range(begin, begin + PART, size))
    clock, count, batch = time.perf_counter_ns, 0, 1
    start = last = clock()
    while last < start + seconds * 1e9 or not count:
        if operation == "memcpy":
            for _ in range(batch):
                map.memcpy(next(places), data, flags)
        else:
            for _ in range(batch):
                map.memset(next(places), batch & 0xFF, size, flags)
        count += batch
        now = clock()
        if now - last < BATCH_NS:
            batch *= 2
        last = now
    return count, start, last


# ---- showing


def show(result: Result) -> None:
    """Print tables."""
    library = result.libpmem2_version or "of an unknown version"
    print(f"{result.path}: {result.granularity} granularity, {result.python}, libpmem2 {library}")
    for threads in sorted({figure.threads for figure in result.persist}):
        print(f"\npersist, {threads_text(threads)}, in nanoseconds")
        mine = [figure for figure in result.persist if figure.threads == threads]
        rows = [(size_text(f.size), f"{f.min_ns:,}", f"{f.median_ns:,}", f"{f.p99_ns:,}") for f in mine]
        show_table(("size", "least", "median", "99 %"), rows, numbers=True)
        print(f"\ndurable copies, {threads_text(threads)}, in MB/s")
        kinds = [(operation, stores) for operation in OPERATIONS for stores in STORES]
        found = {(f.operation, f.stores, f.size): f.bytes_per_second for f in result.copies if f.threads == threads}
        table = [
            (size_text(size), *(f"{found[operation, stores, size] / 1e6:,.1f}" for operation, stores in kinds))
            for size in BANDWIDTH_SIZES
        ]
        show_table(("size", *(" ".join(kind) for kind in kinds)), table, numbers=True)


def threads_text(threads: int) -> str:
    """Return a number of threads."""
    return f"{threads} thread{'s' * (threads > 1)}"


def new_figure(file: str) -> Figure:
    """Return what can be drawn on, and saved in a file of that name.

    Raises:
        Failure: It cannot: that is known before anything is measured.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise Failure("--plot needs matplotlib: pip install 'pmem2[plot]'") from None
    figure = Figure(figsize=(14, 6), layout="constrained")
    kinds = sorted(figure.canvas.get_supported_filetypes())
    if os.path.splitext(file)[1][1:].lower() not in kinds:
        raise Failure(f"{file}: the name must end in one of {', '.join(kinds)}")
    if not os.access(os.path.dirname(os.path.abspath(file)), os.W_OK):
        raise Failure(f"{file}: its directory does not exist, or cannot be written to")
    return figure


def draw(figure: Figure, result: Result) -> None:
    """Draw latencies on the left, bandwidths on the right."""
    left, right = figure.subplots(1, 2)
    for threads in sorted({f.threads for f in result.persist}):
        points = [(f.size, f.median_ns) for f in result.persist if f.threads == threads and f.size]
        left.plot(*zip(*points), marker="o", label=threads_text(threads))
        for operation in OPERATIONS:
            for stores in STORES:
                kind = (operation, stores, threads)
                line = [
                    (f.size, f.bytes_per_second / 1e6)
                    for f in result.copies
                    if (f.operation, f.stores, f.threads) == kind
                ]
                right.plot(*zip(*line), marker=".", label=f"{operation} {stores}, {threads_text(threads)}")
    for axes, title, unit in ((left, "persist", "median, ns"), (right, "durable copies", "MB/s")):
        axes.set(title=title, xlabel="bytes", ylabel=unit, yscale="log")
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{result.path}, {result.granularity} granularity, {result.python}")
