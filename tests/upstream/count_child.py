# SPDX-License-Identifier: BSD-3-Clause
"""What one operation comes down to: run in a child with a counting msync and the debug build of libpmem2.

`python -c "from upstream import count_child; count_child.print_counts()" OPERATION FILE` and `... count_child.print_copies()" SIZE FILE` print as JSON
what the façade and what libpmem2 itself called. The environment says which granularity is forced and where the log is
(PMEM2_LOG_FILE), and preloads `msyncs()`.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Callable

from support import libpmem2

import pmem2
from upstream.memcpy_child import EXCLUSIVE, VARIANT_FLAGS, Facade, Raw, copiers

COUNTER = """
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
static int count;
int msyncs(void) { return count; }
int msync(void *address, size_t length, int flags)
{
    count++;
    return (int)syscall(SYS_msync, address, length, flags);
}
"""

FAR = 1024 * 1024
PAIR = ((0, b"one"), (8, b"two"))
FAR_PAIR = ((0, b"one"), (FAR, b"two"))

FACADE: dict[str, Callable[[pmem2.Map], object]] = {
    "persist": pmem2.Map.persist,
    "flush": pmem2.Map.flush,
    "drain": pmem2.Map.drain,
    "deep_flush": pmem2.Map.deep_flush,
    "nothing": lambda m: m.persist(0, 0),
    "persist_many, none": lambda m: m.persist_many([]),
    "persist_many, near": lambda m: m.persist_many([(0, 3), (8, 3)]),
    "persist_many, touching": lambda m: m.persist_many([(0, 4096), (4096, 4096)]),
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

BARE: dict[str, Callable[[int], object]] = {
    "persist": lambda m: libpmem2.persist(m, 0, libpmem2.map_size(m)),
    "flush": lambda m: libpmem2.flush(m, 0, libpmem2.map_size(m)),
    "drain": libpmem2.drain,
    "deep_flush": lambda m: libpmem2.deep_flush(m, 0, libpmem2.map_size(m)),
    "memcpy": lambda m: libpmem2.memcpy_flags(m, b"one", 0),
    "memcpy, NODRAIN": lambda m: libpmem2.memcpy_flags(m, b"one", pmem2.MemFlag.NODRAIN),
    "memcpy, NOFLUSH": lambda m: libpmem2.memcpy_flags(m, b"one", pmem2.MemFlag.NOFLUSH),
}


def logged(act: Callable[[], object]) -> list[str]:
    """Return the functions of libpmem2 that log a line while *act* runs."""
    log = Path(os.environ["PMEM2_LOG_FILE"])
    before = len(log.read_text(encoding="utf-8"))
    act()
    return re.findall(r"\[\w+\.c:\d+ (\w+)\]", log.read_text(encoding="utf-8")[before:])


def counted(act: Callable[[], object]) -> tuple[int, int, int]:
    """Return how many msyncs, cache flushes and fences *act* takes (those that a copy has inside are not logged)."""
    msyncs = ctypes.CDLL(None).msyncs
    before = int(msyncs())
    names = logged(act)
    flushes = sum(name.startswith(("flush_cl", "flush_dc")) for name in names)
    return int(msyncs()) - before, flushes, names.count("memory_barrier")


def print_counts() -> None:
    """Print [msyncs, flushes, fences] of the façade, and of libpmem2 itself where it has that operation."""
    operation, path = sys.argv[1:]
    with pmem2.Source.from_path(path) as source, source.map() as map:
        facade = counted(lambda: FACADE[operation](map))
    bare = None
    if operation in BARE:
        with open(path, "r+b") as file, copiers(file.fileno()) as (library, _):
            assert isinstance(library, Raw)
            bare = counted(lambda: BARE[operation](library.map))
    print(json.dumps([facade, bare]))


def print_copies() -> None:
    """Print for each kind of copy, and for the façade's memcpy, which functions each of VARIANT_FLAGS runs."""
    size, path = int(sys.argv[1]), sys.argv[2]
    names: dict[str, list[list[str]]] = {"memcpy": [], "memmove": [], "memset": [], "facade": []}
    with open(path, "r+b") as file, copiers(file.fileno()) as (bare, facade):
        assert isinstance(bare, Raw)
        assert isinstance(facade, Facade)
        target, source = bare.address, bare.address + 4096
        data = bytes(size)
        for flags in VARIANT_FLAGS:
            names["memcpy"].append(logged(partial(bare.memcpy, target, source, size, flags)))
            names["memmove"].append(logged(partial(bare.memmove, target, source, size, flags)))
            names["memset"].append(logged(partial(bare.memset, target, 1, size, flags)))
            if flags not in EXCLUSIVE:
                names["facade"].append(logged(partial(facade.map.memcpy, 0, data, flags)))
    print(json.dumps(names))
