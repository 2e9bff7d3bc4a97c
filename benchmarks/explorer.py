# SPDX-License-Identifier: BSD-3-Clause
"""What pmem2.testing costs: `python benchmarks/explorer.py [--json]`.

Images a second are those of one `explore`, with the recording and the replay in it; of several runs the best is told,
by the clock and by the time that the process itself had, as other programs take the rest. What recording costs is told
as the ratio of neighbouring runs of the same workload, recorded and not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any, Callable

import pmem2
from pmem2 import Granularity, Map
from pmem2.testing import explore
from pmem2.testing._explore import record
from pmem2.testing._recorder import RecordingMap

Row = dict[str, Any]
ROUNDS = 5
LINES = 13
"""Stores that may survive or not: 8192 images."""
RECORDS = 4000
STATEMENTS = 2000
TARGET = 20_000  # images a second


def unflushed(m: Map) -> None:
    """Leave as many lines to chance as give 2**LINES images."""
    for line in range(LINES):
        m.store_u64(line * 64, line + 1)


def counted(m: Map) -> None:
    """Store and persist, in turn, as a correct program does."""
    for number in range(RECORDS):
        m.store_u64(number % 8 * 64, number, persist=True)


def images(name: str, size: int, workload: Callable[[Map], object], check: Callable[[Map], object], goal: int) -> Row:
    """Measure images a second."""
    clock, own = [], []
    count = 0
    for _ in range(ROUNDS):
        start, cpu = time.perf_counter(), time.process_time()
        report = explore(workload, check, size=size)
        own.append(time.process_time() - cpu)
        clock.append(time.perf_counter() - start)
        count = report.images
        assert report.exhaustive, name
    return {
        "name": name,
        "images": count,
        "per_second": count / min(clock),
        "per_cpu_second": count / min(own),
        "target": goal,
    }


def all_images() -> list[Row]:
    """Measure images a second of small and of large maps."""
    rows = []
    goal = TARGET if sys.implementation.name == "cpython" else 0
    for size, reads, target in ((4 << 10, 4 << 10, goal), (1 << 20, 4 << 10, 0), (1 << 20, 1 << 20, 0)):
        what = f"{size >> 10} KiB, {reads >> 10} KiB read"
        for title, workload in (("nothing flushed", unflushed), ("all persisted", counted)):
            rows.append(images(f"{what}, {title}", size, workload, lambda m, n=reads: m[:n], target))  # type: ignore[misc]
    return rows


def through_methods(m: Map) -> None:
    """Do four statements a round."""
    for number in range(STATEMENTS // 4):
        offset = number % 64 * 8
        m.store_u64(offset, number)
        m.persist(offset, 8)


def through_a_view(m: Map, length: int) -> None:
    """Do four statements a round, one of which stores through a view."""
    with m.view(0, length) as view:
        for number in range(STATEMENTS // 4):
            offset = number * 8 % (length - 8)
            view[offset] = number & 0xFF
            m.persist(offset, 8)


def beside_a_view(m: Map, length: int) -> None:
    """Do four statements a round, none of which stores, while a view lives."""
    with m.view(0, length) as view:
        total = 0
        for number in range(STATEMENTS // 4):
            offset = number * 8 % (length - 8)
            total += view[offset]
            total += 1


def seconds(work: Callable[[], object]) -> float:
    """Return the time that this process had for it."""
    start = time.process_time()
    work()
    return time.process_time() - start


def recording(name: str, size: int, workload: Callable[[Map], object]) -> Row:
    """Compare a workload that is recorded with the same that is not."""
    pairs = []
    for _ in range(ROUNDS):
        recorder = RecordingMap(size, Granularity.CACHE_LINE)
        recorder.begin()
        recorded = seconds(lambda recorder=recorder: record(recorder, workload))  # type: ignore[misc]
        config = pmem2.Config(required_granularity=Granularity.PAGE)
        with pmem2.Source.from_anon(size) as source, Map(source, config) as plain:
            pairs.append((recorded, seconds(lambda plain=plain: [workload(plain) for _ in range(20)]) / 20))  # type: ignore[misc]
    return {
        "name": name,
        "statements_per_second": STATEMENTS / statistics.median(ours for ours, _ in pairs),
        "unrecorded_per_second": STATEMENTS / statistics.median(plain for _, plain in pairs),
        "ratio": statistics.median(ours / plain for ours, plain in pairs),
    }


def all_recording() -> list[Row]:
    """Compare workloads with and without a view."""
    rows = [recording("Map methods alone", 1 << 20, through_methods)]
    for length in (4 << 10, 1 << 20):
        for name, workload in (("stores through", through_a_view), ("no stores beside", beside_a_view)):
            rows.append(
                recording(f"{name} a view of {length >> 10} KiB", 1 << 20, lambda m, f=workload, n=length: f(m, n))  # type: ignore[misc]
            )
    return rows


def table(rows: list[Row]) -> None:
    """Print rows for people."""
    for row in rows:
        if "images" in row:
            verdict = f"target {row['target']:,}" if row["target"] else "no target"
            print(
                f"{row['name']:<44}{row['images']:>8} images{row['per_second']:>10,.0f} a second,"
                f"{row['per_cpu_second']:>10,.0f} a second of CPU ({verdict})"
            )
        else:
            print(
                f"{row['name']:<44}{row['statements_per_second']:>12,.0f} statements a second,"
                f"{row['unrecorded_per_second']:>12,.0f} unrecorded, ratio {row['ratio']:,.1f}"
            )


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows: list[Row] = []
    for part in (all_images, all_recording):
        more = part()
        rows += more
        if not options.json:
            table(more)
    if options.json:
        print(json.dumps({"python": sys.version, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
