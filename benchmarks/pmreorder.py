# SPDX-License-Identifier: BSD-3-Clause
"""Comparison of pmem2.testing with PMDK's pmreorder: `python benchmarks/pmreorder.py CHECKOUT [--json]`.

CHECKOUT is the folder `src/tools/pmreorder` of PMDK's public repository. pmem2.testing records small workloads, some of
them with a bug. The benchmark writes the events as the log format of pmreorder, and gives `explore` and each engine of
pmreorder the same events and the same check. Both call the check in their own process; users of pmreorder also pay for
one process per image, because their check is a program.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable

import attrs

from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import CrashConsistencyError, explore
from pmem2.testing._events import Drain, Event, Flush, Store
from pmem2.testing._memory_model import LINE
from pmem2.testing._recorder import new_recording_map
from pmem2.testing._runner import CheckFailed, CheckRunner
from pmem2.testing._workload import record_workload

Row = dict[str, Any]
SIZE = 4096
BASE = 0x10000  # the address of the mapping in the log
ENGINES = ["NoReorderDoCheck", "ReorderAccumulative", "ReorderReverseAccumulative", "ReorderPartial", "ReorderFull"]


@attrs.frozen()
class Case:
    """A workload, its check, and whether the workload has a bug."""

    name: str
    bug: bool
    workload: Callable[[Map], object]
    check: Callable[[Map], object]


def published(m: Map) -> None:
    """Check that the 16 bytes at 0 are there once the word at 64 is set."""
    assert not m.load_u64(64) or m[0:16] == b"\1" * 16


def whole(m: Map) -> None:
    """Check that the 16 bytes are all old or all new."""
    assert m[0:16] in (bytes(16), b"\1" * 16)


def ordered(m: Map) -> None:
    """Check that the second word of a line is never set without the first."""
    assert m.load_u64(0) or not m.load_u64(8)


def all_six(m: Map) -> None:
    """Check that six lines are set once the word at 512 is set."""
    assert not m.load_u64(512) or all(m.load_u64(line * 64) for line in range(6))


def correct(m: Map) -> None:
    """Correct: persist, then publish."""
    m.memcpy(0, b"\1" * 16)
    m.store_u64(64, 1, persist=True)


def no_flush(m: Map) -> None:
    """Bug: no flush."""
    m.memcpy(0, b"\1" * 16, MemFlag.NOFLUSH)
    m.store_u64(64, 1, persist=True)


def no_drain(m: Map) -> None:
    """Bug: a flush without a drain."""
    m.memcpy(0, b"\1" * 16, MemFlag.NODRAIN)
    m.store_u64(64, 1, persist=True)


def too_early(m: Map) -> None:
    """Bug: publish first; the flag may be written back before its flush."""
    m.store_u64(64, 1)
    m.memcpy(0, b"\1" * 16)
    m.persist(64, 8)


def torn(m: Map) -> None:
    """Bug: copy two words that a reader expects to be atomic."""
    m.memcpy(0, b"\1" * 16)


def in_one_line(m: Map) -> None:
    """Correct: rely on the order of stores to one line."""
    m.store_u64(0, 1)
    m.store_u64(8, 1)
    m.persist(0, 16)


def six_lines(m: Map) -> None:
    """Correct: persist six lines with one call, then publish."""
    for line in range(6):
        m.store_u64(line * 64, 1)
    m.persist(0, 6 * 64)
    m.store_u64(512, 1, persist=True)


def five_of_six(m: Map) -> None:
    """Bug: persist five of six lines, then publish."""
    for line in range(6):
        m.store_u64(line * 64, 1)
    m.persist(0, 5 * 64)
    m.store_u64(512, 1, persist=True)


CASES = [
    Case("persisted, published", False, correct, published),
    Case("never flushed", True, no_flush, published),
    Case("not drained", True, no_drain, published),
    Case("published too early", True, too_early, published),
    Case("a copy half done", True, torn, whole),
    Case("the order of one line", False, in_one_line, ordered),
    Case("six lines, published", False, six_lines, all_six),
    Case("one of six lines missing", True, five_of_six, all_six),
]


def record_events(workload: Callable[[Map], object]) -> list[Event]:
    """Return the events of a workload."""
    recorder = new_recording_map(SIZE, Granularity.CACHE_LINE)
    recorder.begin()
    record_workload(recorder, workload)
    return recorder.events


def format_log(events: Iterable[Event], file: Path) -> Iterator[str]:
    """Yield the lines of a pmreorder log: a store per unit, a flush per range of lines, a fence per drain."""
    yield "START"
    yield f"REGISTER_FILE;{file};{BASE:#x};{SIZE:#x};0x0"
    for event in events:
        if isinstance(event, Store):
            for offset, stored in event.units:
                value = int.from_bytes(stored, sys.byteorder)
                yield f"STORE;{BASE + offset:#x};{value:#x};{len(stored):#x}"
        elif isinstance(event, Flush):
            for offset, length in event.ranges:
                low, high = offset // LINE * LINE, -(-(offset + length) // LINE) * LINE
                yield f"FLUSH;{BASE + low:#x};{high - low:#x}"
        elif isinstance(event, Drain):
            yield "FENCE"
    yield "STOP"


class Checker:
    """The consistency checker that pmreorder calls for each image."""

    def __init__(self, check: Callable[[Map], object]) -> None:

        def counted(m: Map, _count: int) -> None:
            check(m)

        self._runner = CheckRunner(SIZE, Granularity.CACHE_LINE, counted)
        self.images: list[bytes] = []
        self.found = False

    def check_consistency(self, filename: str) -> int:
        """Return 0 if the check accepts the image, as a checker program would."""
        image = bytearray(Path(filename).read_bytes())
        self.images.append(bytes(image))
        try:
            self._runner.run(image, 0)
        except CheckFailed:
            self.found = True
            return 1
        return 0


def make_row(case: Case, tool: str, images: int, distinct: int, found: bool, seconds: float) -> Row:
    """Return the result of one tool on one workload."""
    verdict = ("found" if found else "MISSED") if case.bug else ("FALSE ALARM" if found else "passes")
    return {
        "workload": case.name,
        "bug": case.bug,
        "tool": tool,
        "images": images,
        "distinct": distinct,
        "verdict": verdict,
        "milliseconds": seconds * 1000,
    }


def run_explore(case: Case) -> Row:
    """Run `explore` twice: for its verdict, and with a check that accepts everything to count the images."""
    start = time.process_time()
    found = False
    try:
        explore(case.workload, case.check, size=SIZE)
    except CrashConsistencyError:
        found = True
    seconds = time.process_time() - start
    images: list[bytes] = []
    explore(case.workload, lambda m: images.append(m[:]), size=SIZE)
    return make_row(case, "explore", len(images), len(set(images)), found, seconds)


def run_pmreorder(case: Case, engine: str, folder: Path) -> Row:
    """Run one engine of pmreorder on the same events and check."""
    import opscontext  # type: ignore[import-not-found] # in the checkout
    import statemachine  # type: ignore[import-not-found]
    from loggingfacility import LoggingBase  # type: ignore[import-not-found]

    file, log = folder / "image", folder / "log"
    file.write_bytes(bytes(SIZE))
    log.write_text("|".join(format_log(record_events(case.workload), file)))
    checker = Checker(case.check)
    start = time.process_time()
    random.seed(0)  # ReorderPartial chooses three sequences at random
    statemachine.State.trans_stores = []  # discard the state of the previous engine
    context = opscontext.OpsContext(str(log), checker, LoggingBase(), engine, None)
    machine = statemachine.StateMachine(statemachine.InitState(context))
    machine.run_all(*context.extract_operations())
    seconds = time.process_time() - start
    return make_row(case, engine, len(checker.images), len(set(checker.images)), checker.found, seconds)


def print_table(rows: list[Row]) -> None:
    """Print the rows as text, and a summary for each tool."""
    print(f"{'workload':<28}{'bug':<5}{'tool':<28}{'images':>8}{'distinct':>10}  {'':<12}{'ms of CPU':>9}")
    for row in rows:
        print(
            f"{row['workload']:<28}{'yes' if row['bug'] else 'no':<5}{row['tool']:<28}{row['images']:>8}"
            f"{row['distinct']:>10}  {row['verdict']:<12}{row['milliseconds']:>9.1f}"
        )
    print()
    for tool in ("explore", *ENGINES):
        of_tool = [row for row in rows if row["tool"] == tool]
        bugs = sum(row["bug"] for row in of_tool)
        found = sum(row["verdict"] == "found" for row in of_tool)
        alarms = sum(row["verdict"] == "FALSE ALARM" for row in of_tool)
        images, cost = sum(row["images"] for row in of_tool), sum(row["milliseconds"] for row in of_tool)
        print(f"{tool:<28}{found} of {bugs} bugs, {alarms} false alarms, {images} images, {cost:.0f} ms of CPU")


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="the folder src/tools/pmreorder of PMDK's repository")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if not (options.checkout / "statemachine.py").exists():
        print(f"skipped: there is no pmreorder in {options.checkout}", file=sys.stderr)
        return
    sys.path.insert(0, str(options.checkout))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            rows.append(run_explore(case))
            rows += [run_pmreorder(case, engine, Path(folder)) for engine in ENGINES]
    if options.json:
        print(json.dumps({"python": sys.version, "rows": rows}, indent=2))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
