# SPDX-License-Identifier: BSD-3-Clause
"""Measure what many cycles of each object leak: memory, descriptors, mappings, pthread keys.

`python tools/leaks.py [SCALE]`: SCALE 1 is 100,000 cycles, but 10,000 of reservations and 500 of from_existing, because
libpmem2 itself cannot do many more in one process. Each row is measured in its own process. If libpmem2 itself leaks,
its functions are measured first, and pmem2 may not leak more.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Callable, NamedTuple

import pmem2

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import libpmem2

PAGE = os.sysconf("SC_PAGESIZE")
NOISE = 2048 if sys.implementation.name == "cpython" else 6144  # KiB; the size of PyPy's heap varies
libc = ctypes.CDLL(None)


class Usage(NamedTuple):
    """The resources that a process uses."""

    kilobytes: int
    descriptors: int
    mappings: int
    keys: int


def free_keys() -> int:
    """Return how many pthread keys can still be created."""
    keys = []
    key = ctypes.c_uint()
    while libc.pthread_key_create(ctypes.byref(key), None) == 0:
        keys.append(key.value)
    for number in keys:
        libc.pthread_key_delete(ctypes.c_uint(number))
    return len(keys)


def measure_usage() -> Usage:
    """Return the present usage of this process."""
    for _ in range(3):
        gc.collect()
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE // 1024
    mappings = len(Path("/proc/self/maps").read_text(encoding="utf-8").splitlines())
    return Usage(resident, len(os.listdir("/proc/self/fd")), mappings, -free_keys())


def repeat(act: Callable[[], object], cycles: int) -> None:
    """Run cycles, and collect garbage now and then, so that PyPy's uncollected garbage does not count."""
    for cycle in range(cycles):
        act()
        if cycle % 5000 == 0:
            gc.collect()


def measure_growth(act: Callable[[], object], cycles: int) -> Usage:
    """Return how much the usage of a child process grows during some cycles, after half as many to warm up."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            repeat(act, cycles // 2)  # PyPy compiles hot code, which enlarges its heap
            before = measure_usage()
            repeat(act, cycles)
            os.write(writing, json.dumps([after - first for after, first in zip(measure_usage(), before)]).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        report = pipe.read()
    os.waitpid(pid, 0)
    if not report:
        sys.exit("a child failed")
    return Usage(*json.loads(report))


def main() -> int:
    """Print a table; return 1 if pmem2 leaks."""
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(bytes(16 * PAGE))
        source = pmem2.Source.from_path(path)
        permanent_map = source.map()
        descriptor = os.open(path, os.O_RDWR)

        def existing() -> None:
            pmem2.Map.from_existing(source, bytearray(64), pmem2.Granularity.BYTE).close()

        def raw_existing() -> None:
            memory = ctypes.create_string_buffer(64)
            with libpmem2.source(descriptor) as own:
                libpmem2.map_delete(
                    libpmem2.map_from_existing(own, ctypes.addressof(memory), 64, pmem2.Granularity.BYTE)[1]
                )

        def raw_reservation() -> None:
            libpmem2.reservation_delete(libpmem2.reservation_new(0, 1 << 20)[1])

        # name, one cycle, number of cycles, and the same cycle of libpmem2 alone if that leaks
        rows: list[tuple[str, Callable[[], object], int, Callable[[], object] | None]] = [
            ("sources", lambda: pmem2.Source.from_path(path).close(), 100_000, None),
            ("configs", lambda: pmem2.Config(length=PAGE), 100_000, None),
            ("maps", lambda: source.map().close(), 100_000, None),
            ("views", lambda: permanent_map.view(8, 64).release(), 100_000, None),
            ("bad-block contexts", lambda: source.bad_blocks().close(), 100_000, None),
            ("reservations", lambda: pmem2.VMReservation(1 << 20).close(), 10_000, raw_reservation),
            ("from_existing", existing, 500, raw_existing),
        ]
        print(f"{'':30} {'cycles':>8} {'KiB':>7} {'descr.':>7} {'mappings':>9} {'keys':>6}")
        for name, act, full, library in rows:
            cycles = max(int(full * scale), 100)
            alone = Usage(0, 0, 0, 0)
            if library is not None:
                alone = measure_growth(library, cycles)
                print(f"{name + ', libpmem2 alone':30} {cycles:8} {alone[0]:7} {alone[1]:7} {alone[2]:9} {alone[3]:6}")
            growth = measure_growth(act, cycles)
            print(f"{name:30} {cycles:8} {growth[0]:7} {growth[1]:7} {growth[2]:9} {growth[3]:6}")
            ours = Usage(*(both - library_alone for both, library_alone in zip(growth, alone)))
            flat = ours.kilobytes < NOISE and ours.descriptors <= 0 and ours.mappings < 20 and ours.keys <= 0
            failed = failed or not flat
        os.close(descriptor)
        permanent_map.close()
        source.close()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
