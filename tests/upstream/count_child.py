# SPDX-License-Identifier: BSD-3-Clause
"""Counts the msyncs, cache flushes and fences of operations, in a child with the debug build of libpmem2.

A test runs `print_counts` with the argument FILE, or `print_copies` with FILE SIZE... Both print JSON: the calls of the
façade and those of libpmem2 itself. The environment forces the granularity, names the log of the debug
build (PMEM2_LOG_FILE); for `print_counts` it preloads border.c.
"""

from __future__ import annotations

import json
import os
import re
import sys
from functools import partial
from typing import Callable

from support import libpmem2
from support.border import MS_SYNC, Border, Kind

import pmem2
from upstream.memcpy_child import CONFLICTING, VARIANT_FLAGS, Facade, Library, copiers

FAR = 1024 * 1024
PAIR = ((0, b"one"), (8, b"two"))
FAR_PAIR = ((0, b"one"), (FAR, b"two"))

FACADE: dict[str, Callable[[pmem2.Map], object]] = {
    "persist": pmem2.Map.persist,
    "flush": pmem2.Map.flush,
    "drain": pmem2.Map.drain,
    "deep_flush": pmem2.Map.deep_flush,
    "persist, empty range": lambda m: m.persist(0, 0),
    "persist_many, none": lambda m: m.persist_many([]),
    "persist_many, near": lambda m: m.persist_many([(0, 3), (8, 3)]),
    "persist_many, adjacent": lambda m: m.persist_many([(0, 4096), (4096, 4096)]),
    "persist_many, a few pages apart": lambda m: m.persist_many([(5 * 4096, 3), (0, 3)]),
    "persist_many, far": lambda m: m.persist_many([(0, 3), (FAR, 3)]),
    "flush_many, near": lambda m: m.flush_many([(0, 3), (8, 3)]),
    "flush_many, far": lambda m: m.flush_many([(0, 3), (FAR, 3)]),
    "memcpy": lambda m: m.memcpy(0, b"one"),
    "memcpy, NODRAIN": lambda m: m.memcpy(0, b"one", pmem2.MemFlag.NODRAIN),
    "memcpy, NOFLUSH": lambda m: m.memcpy(0, b"one", pmem2.MemFlag.NOFLUSH),
    "memset": lambda m: m.memset(0, 1, 3),
    "memcpy_many, near": lambda m: m.memcpy_many(PAIR),
    "memcpy_many, far": lambda m: m.memcpy_many(FAR_PAIR),
    "store_u64": lambda m: m.store_u64(0, 1, persist=True),
}

LIBRARY: dict[str, Callable[[int], object]] = {
    "persist": lambda m: libpmem2.persist(m, 0, libpmem2.map_size(m)),
    "flush": lambda m: libpmem2.flush(m, 0, libpmem2.map_size(m)),
    "drain": libpmem2.drain,
    "deep_flush": lambda m: libpmem2.deep_flush(m, 0, libpmem2.map_size(m)),
    "memcpy": lambda m: libpmem2.memcpy_flags(m, b"one", 0),
    "memcpy, NODRAIN": lambda m: libpmem2.memcpy_flags(m, b"one", pmem2.MemFlag.NODRAIN),
    "memcpy, NOFLUSH": lambda m: libpmem2.memcpy_flags(m, b"one", pmem2.MemFlag.NOFLUSH),
}


def run_logged(act: Callable[[], object]) -> list[str]:
    """Run *act* and return the functions of libpmem2 that logged a line."""
    with open(os.environ["PMEM2_LOG_FILE"], encoding="utf-8") as log:
        log.seek(0, os.SEEK_END)
        act()
        return re.findall(r"\[\w+\.c:\d+ (\w+)\]", log.read())


def run_counted(act: Callable[[], object]) -> tuple[int, int, int]:
    """Run *act* and return its msyncs, cache flushes and fences; libpmem2 does not log those inside a copy."""
    with Border().recording() as events:
        names = run_logged(act)
    msyncs = [event for event in events if event.kind == Kind.MSYNC]
    assert all(event.flags == MS_SYNC for event in msyncs)
    flushes = sum(name.startswith(("flush_cl", "flush_dc")) for name in names)
    return len(msyncs), flushes, names.count("memory_barrier")


def count_facade(operation: str, path: str) -> tuple[int, int, int]:
    """Return the msyncs, flushes and fences of the façade."""
    with pmem2.Source.from_path(path) as source, source.map() as map:
        return run_counted(lambda: FACADE[operation](map))


def count_library(operation: str, path: str) -> tuple[int, int, int] | None:
    """Return the msyncs, flushes and fences of libpmem2 itself, if it has that operation."""
    if operation not in LIBRARY:
        return None
    with open(path, "r+b") as file, copiers(file.fileno()) as (library, _):
        assert isinstance(library, Library)
        return run_counted(lambda: LIBRARY[operation](library.map))


def print_counts() -> None:
    """Print [msyncs, flushes, fences] of the façade and of libpmem2 itself, for each operation."""
    path = sys.argv[1]
    counts = {operation: (count_facade(operation, path), count_library(operation, path)) for operation in FACADE}
    print(json.dumps(counts))


def copy_with_all_flags(library: Library, facade: Facade, size: int) -> dict[str, list[list[str]]]:
    """Return the functions that each of VARIANT_FLAGS runs, for each kind of copy and for the façade's memcpy."""
    names: dict[str, list[list[str]]] = {"memcpy": [], "memmove": [], "memset": [], "facade": []}
    target, source = library.address, library.address + 4096
    data = bytes(size)
    for flags in VARIANT_FLAGS:
        names["memcpy"].append(run_logged(partial(library.memcpy, target, source, size, flags)))
        names["memmove"].append(run_logged(partial(library.memmove, target, source, size, flags)))
        names["memset"].append(run_logged(partial(library.memset, target, 1, size, flags)))
        if flags not in CONFLICTING:
            names["facade"].append(run_logged(partial(facade.map.memcpy, 0, data, flags)))
    return names


def print_copies() -> None:
    """Print the functions that copies of each size run."""
    path, *sizes = sys.argv[1:]
    with open(path, "r+b") as file, copiers(file.fileno()) as (library, facade):
        assert isinstance(library, Library)
        assert isinstance(facade, Facade)
        print(json.dumps({size: copy_with_all_flags(library, facade, int(size)) for size in sizes}))
