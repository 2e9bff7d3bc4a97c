# SPDX-License-Identifier: BSD-3-Clause
"""The state of this process that leaks would change."""

from __future__ import annotations

import gc
from pathlib import Path

from support.values import ON_PYPY

GC_PASSES = 3 if ON_PYPY else 2  # PyPy needs another pass for objects kept alive by finalizers


def collect_garbage() -> None:
    """Collect garbage until none is left."""
    for _ in range(GC_PASSES):
        gc.collect()


def count_mappings(path: Path) -> int:
    """Return how many mappings of a file this process has."""
    return Path("/proc/self/maps").read_text(encoding="utf-8").count(str(path))


def is_mapped(address: int) -> bool:
    """Return whether an address belongs to a mapping of this process."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    extents = ([int(number, 16) for number in line.split()[0].split("-")] for line in lines)
    return any(start <= address < end for start, end in extents)
