# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 bench`: the latency of `persist` and the bandwidth of durable copies."""

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
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from itertools import cycle, product
from typing import TYPE_CHECKING, Callable, Generic, Optional, TypeVar

import attrs

from pmem2._enums import MemFlag
from pmem2._source import Source
from pmem2._version import __version__
from pmem2.cli._command import CommandError, add_command
from pmem2.cli._output import (
    allocate_ranges,
    check_output_path,
    remove_if_exists,
    source_of,
    warn_if_volatile,
    with_filename,
)
from pmem2.cli._terminal import print_warning, show_status, show_table
from pmem2.cli._text import COUNTS, RATES, TIMES, format_decimal, format_size, printable
from pmem2.cli.info import examine_platform

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure

    from pmem2._map import Map
    from pmem2.cli._command import Commands

HELP = """
Measures `persist` latency at random offsets (the store itself is not timed), and the bandwidth of durable memcpy and
memset at consecutive offsets, with temporal and with non-temporal stores; each with 1, 2, 4, ... threads, and 32 MiB
for each thread. The sizes are those of pmembench, and larger ones. Timings include Python overhead: the 0-byte row
shows the call overhead. Each figure is measured again until three times in a row agree within 10 %, at most four times
as long as it should take; one that still varies is marked with ~.

The command does not touch your files: it measures an unnamed file in the directory PATH, or beside a PATH that does
not exist, and the file disappears when the command ends. It refuses an existing PATH. With --overwrite it writes to a
DAX device or a large enough file, and destroys the content.

examples:
  pmem2 bench /mnt/pmem                         a file system
  pmem2 bench /mnt/pmem --plot bench.svg        draw a plot (extra: pmem2[plot])
  pmem2 bench /dev/dax0.0 --overwrite --json    a device; its content is lost"""

LATENCY_SIZES = (0, *(1 << power for power in range(3, 13)))
BANDWIDTH_SIZES = tuple(1 << power for power in range(6, 25))
STORES = {"temporal": MemFlag.TEMPORAL, "non-temporal": MemFlag.NONTEMPORAL}
OPERATIONS = ("memcpy", "memset")
BYTES_PER_THREAD = 32 * 1024 * 1024
CACHE_LINE = 64
SAMPLE_COUNT = 4096
BATCH_NS = 100_000  # time between two looks at the clock
ROUNDS = 3  # successive measurements that must agree
TOLERANCE = 0.1  # of the largest of them
PATIENCE = 4  # times the time for a figure, to wait until they agree
T = TypeVar("T")
Stopped = Callable[[], bool]


@attrs.frozen
class Latency:
    """Latency of `persist`."""

    threads: int
    size: int
    operations: int
    min_ns: int
    median_ns: int
    p99_ns: int


@attrs.frozen
class Bandwidth:
    """Bandwidth of a durable copy, of all threads together."""

    operation: str
    stores: str
    threads: int
    size: int
    operations: int
    bytes_per_second: int


@attrs.frozen
class Measured(Generic[T]):
    """A figure, the operations of all threads in a second (at the median latency), and whether measurements agree."""

    figure: T
    per_second: float
    stable: bool

    def cell(self, text: str) -> str:
        """Return a cell of a table, with a mark if it varies."""
        return text if self.stable else f"~{text}"


@attrs.frozen
class Result:
    """All figures of a run, and the platform that they describe."""

    path: str
    granularity: str
    pmem2_version: str
    libpmem2_version: Optional[str]
    flush_instruction: Optional[str]
    python: str
    persist: list[Measured[Latency]]
    copies: list[Measured[Bandwidth]]

    @property
    def unstable(self) -> int:
        """The number of figures that vary."""
        return [*(each.stable for each in self.persist), *(each.stable for each in self.copies)].count(False)

    def as_json(self) -> str:
        """Return the figures in the documented form."""
        figures = {name: [attrs.asdict(each.figure) for each in getattr(self, name)] for name in ("persist", "copies")}
        return json.dumps({**attrs.asdict(self, recurse=False), **figures}, indent=2)


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "bench", "measure the speed of a file system or a DAX device", HELP)
    parser.add_argument("path", metavar="PATH", help="a directory, or a file that does not exist yet")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument(
        "--threads",
        metavar="N",
        type=parse_thread_count,
        default=cores,
        help="largest number of threads (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", metavar="S", type=parse_seconds, default=0.05, help="time for each figure (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON with a stable schema")
    parser.add_argument("--plot", metavar="FILE", help="draw the figures to a .png, .svg or .pdf file")
    parser.add_argument("--overwrite", action="store_true", help="destroy the content of PATH")
    parser.set_defaults(run=run)


def parse_thread_count(text: str) -> int:
    """Parse a number of threads."""
    if not (text.isdecimal() and int(text)):
        raise ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def parse_seconds(text: str) -> float:
    """Parse a number of seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise ArgumentTypeError(f"must be a number of seconds > 0 and < 1000000, got {text!r}")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and plot."""
    figure = new_figure(arguments.plot) if arguments.plot else None
    counts = thread_counts(arguments.threads)
    with open_target(arguments.path, counts[-1] * BYTES_PER_THREAD, bool(arguments.overwrite)) as map:
        persist, copies = measure(map, counts, arguments.seconds)
        granularity = map.granularity.name
    facts = examine_platform()
    result = Result(
        path=arguments.path,
        granularity=granularity,
        pmem2_version=__version__,
        libpmem2_version=facts.libpmem2_version,
        flush_instruction=facts.flush_instruction,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        persist=persist,
        copies=copies,
    )
    if arguments.json:
        print(result.as_json())
    else:
        show_result(result)
    if result.unstable:
        total = len(persist) + len(copies)
        mark = "" if arguments.json else " (~)"
        print_warning(
            f"{result.unstable} of {total} figures{mark} vary by more than {TOLERANCE * 100:.0f} %: "
            "other programs run, or --seconds is too short"
        )
    if figure is not None:
        plot(figure, result)
        figure.savefig(arguments.plot)
    return 0


def thread_counts(most: int) -> list[int]:
    """Return the powers of two below *most*, and *most*."""
    return [*(1 << power for power in range(most.bit_length()) if 1 << power < most), most]


# ---- target


@contextmanager
def open_target(path: str, size: int, overwrite: bool) -> Iterator[Map]:
    """Yield a writable map of at least *size* bytes with disk space for all of it."""
    if os.path.isdir(check_output_path(path)) or not os.path.lexists(path):
        folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
        hidden = os.path.join(folder, f".pmem2-bench-{secrets.token_hex(8)}")
        with ExitStack() as undo:
            undo.callback(remove_if_exists, hidden)  # registered first: a signal may arrive at any moment
            try:
                fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise with_filename(error, "cannot create a file", path) from None
            undo.callback(os.close, fd)
            remove_if_exists(hidden)  # before the allocation, which takes time: SIGKILL then leaves no file
            allocate_ranges(fd, size, [(0, size)], path)
            warn_if_volatile(folder)
            with source_of(fd, repr(path)) as source, source.map() as map:
                yield map
        return
    if not overwrite:
        raise CommandError(f"{path} exists: name a directory, or use --overwrite to destroy the content")
    with Source.from_path(path) as source:
        if source.size < size:
            raise CommandError(
                f"{path} has {format_size(source.size)}, but needs {format_size(size)}: use fewer threads"
            )
        if os.path.isfile(path):  # pragma: no branch: nox -s nvdimm
            allocate_ranges(source.fd, source.size, [(0, source.size)], path)
        warn_if_volatile(path)
        with source.map() as map:
            yield map


# ---- measuring


def measure(
    map: Map, counts: Sequence[int], seconds: float
) -> tuple[list[Measured[Latency]], list[Measured[Bandwidth]]]:
    """Measure all figures."""
    map.memset(0, 0, counts[-1] * BYTES_PER_THREAD)  # touch every page before the clock runs
    latencies, bandwidths = [], []
    try:
        for threads in counts:
            for size in LATENCY_SIZES:
                show_status(f"persist {format_size(size)}, {format_threads(threads)}")
                latencies.append(measure_latency(map, threads, size, seconds))
            for operation, stores, size in product(OPERATIONS, STORES, BANDWIDTH_SIZES):
                show_status(f"{operation} {format_size(size)}, {stores}, {format_threads(threads)}")
                bandwidths.append(measure_bandwidth(map, operation, stores, threads, size, seconds))
    finally:
        show_status("")
    return latencies, bandwidths


def repeat(measure_once: Callable[[float], tuple[float, T]], seconds: float) -> tuple[list[T], bool]:
    """Measure until the last measurements agree, or for too long.

    Args:
        measure_once: Takes the time for a measurement; returns the value that must agree, and the measurement.
        seconds: The time for all measurements that must agree.

    Returns:
        The last measurements, and whether they agree.
    """
    found: list[tuple[float, T]] = []
    deadline = time.perf_counter() + PATIENCE * seconds
    while True:
        found = [*found, measure_once(seconds / ROUNDS)][-ROUNDS:]
        values = [value for value, _ in found]
        stable = len(found) == ROUNDS and max(values) - min(values) <= TOLERANCE * max(values)
        if stable or (len(found) == ROUNDS and time.perf_counter() > deadline):
            return [measurement for _, measurement in found], stable


def run_in_threads(threads: int, work: Callable[[int, Stopped], T]) -> list[T]:
    """Call *work* with 0, 1, ... in as many threads, which start at the same moment; return the results.

    Its second argument returns whether to stop: a signal need not wait until all time is over.
    """
    barrier, stop = threading.Barrier(threads), threading.Event()

    def begin(number: int) -> T:
        barrier.wait()
        return work(number, stop.is_set)

    with ThreadPoolExecutor(threads) as pool:
        try:
            running = [pool.submit(begin, number) for number in range(threads)]
            results: list[T] = []
            while len(results) < threads:  # in short waits: a signal does not end one if it comes just before
                done = wait(running, timeout=0.1, return_when=FIRST_EXCEPTION).done
                results = [future.result() for future in running if future in done]
            return results
        except BaseException as error:
            stop.set()
            barrier.abort()  # the other threads wait for one that could not start
            if isinstance(error, RuntimeError):
                raise CommandError(f"cannot use {format_threads(threads)}: {error}") from None
            raise


def measure_latency(map: Map, threads: int, size: int, seconds: float) -> Measured[Latency]:
    """Measure the latency of `persist` for one size."""

    def measure_once(seconds: float) -> tuple[float, list[int]]:
        found = run_in_threads(
            threads, lambda number, stopped: time_persists(map, number * BYTES_PER_THREAD, size, seconds, stopped)
        )
        times = [nanoseconds for each in found for nanoseconds in each]
        return statistics.median(times), times

    found, stable = repeat(measure_once, seconds)
    times = sorted(nanoseconds for each in found for nanoseconds in each)
    median = int(statistics.median(times))
    latency = Latency(threads, size, len(times), times[0], median, times[len(times) * 99 // 100])
    return Measured(latency, threads * 1e9 / max(median, 1), stable)


def time_persists(map: Map, begin: int, size: int, seconds: float, stopped: Stopped) -> list[int]:
    """Return the duration of each `persist`, in nanoseconds."""
    step = max(size, CACHE_LINE)
    slots = random.Random(begin).choices(range(BYTES_PER_THREAD // step), k=SAMPLE_COUNT)
    offsets = [begin + slot * step for slot in slots]
    clock, times = time.perf_counter_ns, []
    deadline = clock() + int(seconds * 1e9)
    for count, offset in enumerate(cycle(offsets)):  # pragma: no branch: the loop is endless
        map.memset(offset, count & 0xFF, size, MemFlag.NOFLUSH)
        start = clock()
        map.persist(offset, size)
        end = clock()
        times.append(end - start)
        if end >= deadline or stopped():
            break
    return times


def measure_bandwidth(
    map: Map, operation: str, stores: str, threads: int, size: int, seconds: float
) -> Measured[Bandwidth]:
    """Measure the bandwidth of one operation for one size."""
    flags = STORES[stores]

    def measure_once(seconds: float) -> tuple[float, tuple[int, int]]:
        runs = run_in_threads(
            threads,
            lambda number, stopped: run_copies(
                map, operation, flags, number * BYTES_PER_THREAD, size, seconds, stopped
            ),
        )
        operations = sum(count for count, _, _ in runs)
        elapsed = max(max(end for _, _, end in runs) - min(start for _, start, _ in runs), 1)
        return operations / elapsed, (operations, elapsed)

    found, stable = repeat(measure_once, seconds)
    operations, elapsed = (sum(column) for column in zip(*found))
    bandwidth = Bandwidth(operation, stores, threads, size, operations, operations * size * 10**9 // elapsed)
    return Measured(bandwidth, operations * 1e9 / elapsed, stable)


def run_copies(
    map: Map, operation: str, flags: MemFlag, begin: int, size: int, seconds: float, stopped: Stopped
) -> tuple[int, int, int]:
    """Copy or set at consecutive offsets; return the number of operations, the start and the end."""
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    offsets = cycle(range(begin, begin + BYTES_PER_THREAD, size))
    clock, count, batch = time.perf_counter_ns, 0, 1
    start = last = clock()
    while not count or (last < start + seconds * 1e9 and not stopped()):
        if operation == "memcpy":
            for _ in range(batch):
                map.memcpy(next(offsets), data, flags)
        else:
            for _ in range(batch):
                map.memset(next(offsets), batch & 0xFF, size, flags)
        count += batch
        now = clock()
        if now - last < BATCH_NS:
            batch *= 2
        last = now
    return count, start, last


# ---- output


def show_result(result: Result) -> None:
    """Print the figures as tables."""
    library = result.libpmem2_version or "(unknown version)"
    print(f"{printable(result.path)}: {result.granularity} granularity, {result.python}, libpmem2 {library}")
    for threads in sorted({each.figure.threads for each in result.persist}):
        show_latencies([each for each in result.persist if each.figure.threads == threads])
        for operation in OPERATIONS:
            show_bandwidths(
                [each for each in result.copies if (each.figure.threads, each.figure.operation) == (threads, operation)]
            )


def show_latencies(measured: Sequence[Measured[Latency]]) -> None:
    """Print the latencies of one number of threads."""
    print(f"\npersist, {format_threads(measured[0].figure.threads)}")
    rows = []
    for each in measured:
        times = (each.figure.min_ns, each.figure.median_ns, each.figure.p99_ns)
        cells = [format_decimal(time, TIMES) for time in times]
        rows.append([format_size(each.figure.size), *map(each.cell, [*cells, format_rate(each)])])
    show_table(("size", "min", "median", "p99", "operations/s"), rows)


def show_bandwidths(measured: Sequence[Measured[Bandwidth]]) -> None:
    """Print the bandwidths of one operation and one number of threads."""
    print(f"\ndurable {measured[0].figure.operation}, {format_threads(measured[0].figure.threads)}")
    rows = []
    for size in BANDWIDTH_SIZES:
        cells = [
            each.cell(text)
            for each in measured
            if each.figure.size == size
            for text in (format_decimal(each.figure.bytes_per_second, RATES), format_rate(each))
        ]
        rows.append([format_size(size), *cells])
    show_table(("size", *(header for stores in STORES for header in (stores, "operations/s"))), rows)


def format_rate(measured: Measured[T]) -> str:
    """Format the operations in a second."""
    return format_decimal(measured.per_second, COUNTS)


def format_threads(threads: int) -> str:
    """Format a number of threads."""
    return f"{threads} thread{'s' * (threads > 1)}"


def new_figure(file: str) -> Figure:
    """Return an empty figure; report a file that cannot be written before anything is measured.

    Raises:
        CommandError: matplotlib is missing, or the figure cannot be saved under this name.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CommandError("--plot needs matplotlib: pip install 'pmem2[plot]'") from None
    figure = Figure(figsize=(14, 6), layout="constrained")
    kinds = sorted(figure.canvas.get_supported_filetypes())
    if os.path.splitext(file)[1][1:].lower() not in kinds:
        raise CommandError(f"{file}: the name must end in one of {', '.join(kinds)}")
    if not os.access(os.path.dirname(file) or ".", os.W_OK):
        raise CommandError(f"{file}: its directory does not exist or is not writable")
    return figure


def plot(figure: Figure, result: Result) -> None:
    """Plot latencies on the left and bandwidths on the right."""
    from matplotlib.ticker import NullFormatter

    left, right = figure.subplots(1, 2)
    latencies, bandwidths = [each.figure for each in result.persist], [each.figure for each in result.copies]
    for threads in sorted({f.threads for f in latencies}):
        points = [(f.size, f.median_ns) for f in latencies if f.threads == threads and f.size]
        left.plot(*zip(*points), marker="o", label=format_threads(threads))
        for operation in OPERATIONS:
            for stores in STORES:
                kind = (operation, stores, threads)
                line = [(f.size, f.bytes_per_second) for f in bandwidths if (f.operation, f.stores, f.threads) == kind]
                right.plot(*zip(*line), marker=".", label=f"{operation} {stores}, {format_threads(threads)}")
    for axes, title, label, units in (
        (left, "persist", "median", TIMES),
        (right, "durable copies", "bandwidth", RATES),
    ):
        axes.set(title=title, xlabel="size", ylabel=label, yscale="log")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda size, _position: format_size(size))
        axes.tick_params(axis="x", rotation=45)
        low, high = axes.get_ylim()
        axes.yaxis.set_major_formatter(lambda value, _position, units=units: format_decimal(value, units))
        few_ticks = high < 10 * low  # then the powers of ten alone are no scale
        axes.yaxis.set_minor_formatter(axes.yaxis.get_major_formatter() if few_ticks else NullFormatter())
        axes.grid(alpha=0.3)
        axes.legend()
    title = f"{printable(result.path)}, {result.granularity} granularity, {result.python}"
    figure.suptitle(title, parse_math=False)
