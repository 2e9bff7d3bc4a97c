# SPDX-License-Identifier: BSD-3-Clause
"""Benchmark of pmem2.testing: `python benchmarks/explorer.py [--json]`.

The images per second are those of one `explore`, including the recording and the replay. The benchmark prints the best
of several runs, by the clock and by the CPU time of the process, because other programs may take the rest. The cost of
the recording is the ratio of alternating runs of the same workload, recorded and not recorded.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from typing import Any, Callable

import pmem2
from pmem2 import Granularity, Map
from pmem2.testing import Report, explore
from pmem2.testing._recorder import new_recording_map
from pmem2.testing._workload import record_workload

Row = dict[str, Any]
ROUNDS = 5
LINES = 13
"""Lines with an unflushed store: 8192 images."""
RECORDS = 4000
STATEMENTS = 2000
TARGET = 20_000  # images per second


def unflushed(m: Map) -> None:
    """Store to LINES lines without a flush, which gives 2**LINES images."""
    for line in range(LINES):
        m.store_u64(line * 64, line + 1)


def counted(m: Map) -> None:
    """Persist each store, as a correct program does."""
    for number in range(RECORDS):
        m.store_u64(number % 8 * 64, number, persist=True)


def reading(length: int) -> Callable[[Map], None]:
    """Return a check that reads so many bytes."""

    def check(m: Map) -> None:
        m[:length]

    return check


def measure_images(
    name: str,
    size: int,
    workload: Callable[[Map], object],
    check: Callable[[Map], None],
    target: int,
    explore_with: Callable[..., Report] = explore,
) -> Row:
    """Return the images per second of one exploration."""
    clock, own = [], []
    count = 0
    for _ in range(ROUNDS):
        start, cpu = time.perf_counter(), time.process_time()
        report = explore_with(workload, check, size=size)
        own.append(time.process_time() - cpu)
        clock.append(time.perf_counter() - start)
        count = report.images
        assert report.exhaustive, name
    return {
        "name": name,
        "images": count,
        "per_second": count / min(clock),
        "per_cpu_second": count / min(own),
        "target": target,
    }


def hundred(m: Map) -> None:
    """Leave 101 images."""
    for number in range(100):
        m.store_u64(0, number + 1, persist=True)


def recover_two_lines(m: Map) -> None:
    """Store to two lines, unless they are up to date."""
    number = m.load_u64(0)
    for line in (64, 128):
        if m.load_u64(line) != number:
            m.store_u64(line, number, persist=True)


def recover_nothing(m: Map) -> None:
    """Look at the lines, and find nothing to do."""
    assert m.load_u64(0) >= m.load_u64(64) == m.load_u64(128)


def check_two_lines(m: Map) -> None:
    """Check both lines."""
    assert m.load_u64(64) == m.load_u64(128)


def measure_recoveries() -> list[Row]:
    """Return the images per second with a recovery that stores to two lines, and with one that stores nothing."""
    rows = []
    for name, recover in (("two lines stored", recover_two_lines), ("nothing stored", recover_nothing)):
        explore_with = functools.partial(explore, recover=recover)
        rows.append(measure_images(f"4 KiB, recovery, {name}", 4 << 10, hundred, check_two_lines, 0, explore_with))
    return rows


def measure_all_images() -> list[Row]:
    """Return the images per second for small and large maps."""
    rows = []
    small_target = TARGET if sys.implementation.name == "cpython" else 0
    for size, reads, target in ((4 << 10, 4 << 10, small_target), (1 << 20, 4 << 10, 0), (1 << 20, 1 << 20, 0)):
        what = f"{size >> 10} KiB, {reads >> 10} KiB read"
        for title, workload in (("nothing flushed", unflushed), ("all persisted", counted)):
            rows.append(measure_images(f"{what}, {title}", size, workload, reading(reads), target))
    return rows


def through_methods(m: Map) -> None:
    """Execute four statements per round."""
    for number in range(STATEMENTS // 4):
        offset = number % 64 * 8
        m.store_u64(offset, number)
        m.persist(offset, 8)


def through_view(m: Map, length: int) -> None:
    """Execute four statements per round; one of them stores through a view."""
    with m.view(0, length) as view:
        for number in range(STATEMENTS // 4):
            offset = number * 8 % (length - 8)
            view[offset] = number & 0xFF
            m.persist(offset, 8)


def with_idle_view(m: Map, length: int) -> None:
    """Execute four statements per round, without a store, while a view is alive."""
    with m.view(0, length) as view:
        total = 0
        for number in range(STATEMENTS // 4):
            offset = number * 8 % (length - 8)
            total += view[offset]
            total += 1


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure_recording(name: str, size: int, workload: Callable[[Map], object]) -> Row:
    """Return the cost of a workload with and without recording."""
    pairs = []
    for _ in range(ROUNDS):
        recorder = new_recording_map(size, Granularity.CACHE_LINE)
        recorder.begin()
        recorded = cpu_seconds(lambda recorder=recorder: record_workload(recorder, workload))  # type: ignore[misc]
        config = pmem2.Config(required_granularity=Granularity.PAGE)
        with pmem2.Source.from_anon(size) as source, Map(source, config) as plain:
            pairs.append((recorded, cpu_seconds(lambda plain=plain: [workload(plain) for _ in range(20)]) / 20))  # type: ignore[misc]
    return {
        "name": name,
        "statements_per_second": STATEMENTS / statistics.median(ours for ours, _ in pairs),
        "unrecorded_per_second": STATEMENTS / statistics.median(plain for _, plain in pairs),
        "ratio": statistics.median(ours / plain for ours, plain in pairs),
    }


def measure_all_recording() -> list[Row]:
    """Return the cost of recording with and without a view."""
    rows = [measure_recording("Map methods alone", 1 << 20, through_methods)]
    for length in (4 << 10, 1 << 20):
        for name, workload in (("stores through", through_view), ("no stores with", with_idle_view)):
            title = f"{name} a view of {length >> 10} KiB"
            rows.append(measure_recording(title, 1 << 20, functools.partial(workload, length=length)))
    return rows


def print_table(rows: list[Row]) -> None:
    """Print the rows as text."""
    for row in rows:
        if "images" in row:
            verdict = f"target {row['target']:,}" if row["target"] else "no target"
            print(
                f"{row['name']:<44}{row['images']:>8} images{row['per_second']:>10,.0f} per second,"
                f"{row['per_cpu_second']:>10,.0f} per second of CPU time ({verdict})"
            )
        else:
            print(
                f"{row['name']:<44}{row['statements_per_second']:>12,.0f} statements per second,"
                f"{row['unrecorded_per_second']:>12,.0f} not recorded, ratio {row['ratio']:,.1f}"
            )


def main() -> None:
    """Run the benchmark and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows: list[Row] = []
    for measure in (measure_all_images, measure_recoveries, measure_all_recording):
        more = measure()
        rows += more
        if not options.json:
            print_table(more)
    if options.json:
        print(json.dumps({"python": sys.version, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
