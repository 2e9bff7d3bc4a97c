# SPDX-License-Identifier: BSD-3-Clause
"""Many far ranges of a file: one msync for each range against `persist_many`, `flush_many` and `memcpy_many`.

`python benchmarks/far_ranges.py [FOLDER]`. Prints seconds, and how many times as fast as one msync a range.
"""

from __future__ import annotations

import mmap
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

import pmem2

COUNT = 1000
DISTANCE = 1 << 20
ROUNDS = 3


def seconds(act: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def main(folder: str) -> None:
    """Measure in a new file of 1,000 MiB."""
    ranges = [(number * DISTANCE, 8) for number in range(COUNT)]
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        map = pmem2.open(file.name, "w+", size=COUNT * DISTANCE)
        memory = mmap.mmap(file.fileno(), len(map))

        def store(byte: int) -> None:
            for offset, _ in ranges:
                map[offset] = byte

        def sync_each() -> None:
            for offset, _ in ranges:
                memory.flush(offset, mmap.PAGESIZE)

        calls: dict[str, Callable[[], object]] = {
            "one msync a range": sync_each,
            "persist_many": lambda: map.persist_many(ranges),
            "flush_many": lambda: map.flush_many(ranges),
            "memcpy_many": lambda: map.memcpy_many([(offset, b"8 bytes.") for offset, _ in ranges]),
        }
        best = dict.fromkeys(calls, float("inf"))
        for number in range(ROUNDS):
            for place, (name, act) in enumerate(calls.items()):
                store(number * len(calls) + place)
                best[name] = min(best[name], seconds(act))
        memory.close()
        map.close()
    each = best["one msync a range"]
    print(f"{COUNT} ranges, {DISTANCE >> 10} KiB apart, best of {ROUNDS}:")
    for name, value in best.items():
        print(f"{name:>20} {value:7.3f} s {each / value:6.1f}")


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else str(Path.cwd()))
