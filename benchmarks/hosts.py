# SPDX-License-Identifier: BSD-3-Clause
"""publish and acquire: their time against a loop in C, and a proof that acquire drops cache lines.

`python benchmarks/hosts.py [FILE]`; FILE may be a device DAX. Without it, the memory is a file in /dev/shm.

Two comparisons with C code that executes the same instructions on the same lines, clwb, clflushopt, or whichever the
processor has:

- the method against the C function called from Python through cffi, as a program does that carries such an extension,
- the checked C function of pmem2 against the bare instructions, both in a loop in C, which stores to each line before.

A load of a line after acquire has to come from memory: its time is compared with that of a load of a cached line. Each
load needs the result of the previous one, in random order, so that the processor cannot load in advance.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import tempfile
import time
from array import array
from functools import partial
from pathlib import Path
from typing import Any, Callable

from cffi import FFI

import pmem2
from pmem2._ffi import ffi, lib

LINE = 64
LENGTHS = (64, 4096, 1 << 20)
LINES = 256  # 16 KiB, which a first-level cache holds
ROUNDS = 30
SIZE = 2 << 20
DECLARATIONS = """
void c_publish(uintptr_t address, size_t length, int stores, size_t times);
void c_acquire(uintptr_t address, size_t length, int stores, size_t times);
void c_guard(uintptr_t guard, uintptr_t map, uintptr_t address, size_t length, size_t times);
uint64_t chase(uintptr_t address, size_t count);
"""
SOURCE = r"""
#include "cpu_cache.c"
#include <time.h>

/* Store to each line: those that publish writes back, or acquire drops, are seldom clean. */
static void store(uintptr_t address, size_t length, int stores)
{
    for (size_t i = 0; stores && i < length; i += 64)
        *(volatile char *)(address + i) = 1;
}

static void c_publish(uintptr_t address, size_t length, int stores, size_t times)
{
    while (times--) {
        store(address, length, stores);
        cache_fence();
        write_back_lines((void *)address, length);
        cache_fence();
    }
}

static void c_acquire(uintptr_t address, size_t length, int stores, size_t times)
{
    while (times--) {
        store(address, length, stores);
        cache_fence();
        drop_lines((void *)address, length);
        cache_fence();
    }
}

static void c_guard(uintptr_t guard, uintptr_t map, uintptr_t address, size_t length, size_t times)
{
    while (times--) {
        store(address, length, 1);
        ((int (*)(void *, size_t, size_t))guard)((void *)map, 0, length);
    }
}

static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Each line holds the offset of the next one. */
static uint64_t chase(uintptr_t address, size_t count)
{
    uint64_t offset = 0;
    cache_fence();
    const uint64_t start = nanoseconds();
    for (size_t i = 0; i < count; i++)
        offset = *(volatile uint64_t *)(address + offset);
    __asm__ volatile("" ::"r"(offset));
    return nanoseconds() - start;
}
"""


def build() -> Any:
    """Compile the loops and import them."""
    builder = FFI()
    builder.cdef(DECLARATIONS)
    native = str(Path(__file__).resolve().parents[1] / "native")
    builder.set_source("_hosts", SOURCE, include_dirs=[native], extra_compile_args=["-O2", "-Wno-unused-function"])
    path = builder.compile(tmpdir=tempfile.mkdtemp(prefix="pmem2-hosts-"))
    spec = importlib.util.spec_from_file_location("_hosts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lib


def best(works: dict[str, Callable[[], object]], times: int) -> dict[str, float]:
    """Return the nanoseconds of one of *times* repetitions of each work: the fastest of runs that alternate."""
    result = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = time.perf_counter_ns()
            work()
            result[name] = min(result[name], (time.perf_counter_ns() - start) / times)
    return result


def repeat(call: Callable[..., object], times: int, *arguments: int) -> Callable[[], None]:
    """Return a function that makes a call *times* times."""

    def work() -> None:
        for _ in range(times):
            call(*arguments)

    return work


def compare(m: pmem2.Map, c: Any) -> None:
    """Print the time of publish and acquire against the loop in C."""
    for name in ("publish", "acquire"):
        in_c = getattr(c, f"c_{name}")
        guard, handle = (int(ffi.cast("uintptr_t", p)) for p in (ffi.addressof(lib, f"guarded_{name}"), m._handle))
        for length in LENGTHS:
            times = max((4 << 20) // length // 16, 4) if length > LINE else 4000
            works: dict[str, Callable[[], object]] = {
                "pmem2": repeat(getattr(m, name), times, 0, length),
                "called": repeat(in_c, times, m.address, length, 0, 1),
                "guard in C": partial(c.c_guard, guard, handle, m.address, length, times),
                "loop in C": partial(in_c, m.address, length, 1, times),
            }
            found = best(works, times)
            for ours, theirs in (("pmem2", "called"), ("guard in C", "loop in C")):
                ratio = found[ours] / found[theirs]
                print(f"{name}, {length:>7} bytes: {ours:<10}{found[ours]:>9,.0f} ns, {ratio:.2f} times {theirs}")


def show_latency(m: pmem2.Map, c: Any) -> None:
    """Print the latency of a load of a cached line, and of one after acquire."""
    order = list(range(1, LINES))
    random.Random(1).shuffle(order)
    chain = [0, *order, 0]
    for here, there in zip(chain, chain[1:]):
        m[here * LINE : here * LINE + 8] = array("Q", [there * LINE]).tobytes()
    cached, dropped, written_back = [], [], []
    for _ in range(ROUNDS):
        c.chase(m.address, LINES)
        cached.append(c.chase(m.address, LINES))
        m.acquire(0, LINES * LINE)
        dropped.append(c.chase(m.address, LINES))
        c.chase(m.address, LINES)
        m.publish(0, LINES * LINE)
        written_back.append(c.chase(m.address, LINES))
    fast = min(cached)
    for name, times in (("cached", cached), ("after acquire", dropped), ("after publish", written_back)):
        print(f"load of a line, {name:<20}{min(times) / LINES:>8.1f} ns, {min(times) / fast:>6.1f} times")


def main(path: str | None) -> None:
    """Run the benchmark."""
    c = build()
    if path is not None:
        with pmem2.open(path) as m:
            compare(m, c)
            show_latency(m, c)
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, pmem2.open(folder + "/data", "w+", size=SIZE) as m:
        compare(m, c)
        show_latency(m, c)


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1:] else None)
