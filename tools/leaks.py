# SPDX-License-Identifier: BSD-3-Clause
"""Count what many cycles of each object leave behind: memory, descriptors, mappings, pthread keys.

`python tests/leaks.py [SCALE]`: SCALE 1 is 100,000 cycles (reservations 10,000, from_existing 500: libpmem2 itself
cannot do many more of these in one process, and each row is a process of its own). What libpmem2 leaks by itself is
measured first, through its own functions, and what pmem2 leaves may not be more.
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

from support import libpmem2

import pmem2

PAGE = os.sysconf("SC_PAGESIZE")
NOISE = 2048 if sys.implementation.name == "cpython" else 6144  # KiB: PyPy's heap breathes
libc = ctypes.CDLL(None)


class Held(NamedTuple):
    """What a process holds."""

    kilobytes: int
    descriptors: int
    mappings: int
    keys: int


def free_keys() -> int:
    """Return how many pthread keys are left."""
    keys = []
    key = ctypes.c_uint()
    while libc.pthread_key_create(ctypes.byref(key), None) == 0:
        keys.append(key.value)
    for number in keys:
        libc.pthread_key_delete(ctypes.c_uint(number))
    return len(keys)


def held() -> Held:
    """Return what this process holds now."""
    for _ in range(3):
        gc.collect()
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE // 1024
    mappings = len(Path("/proc/self/maps").read_text(encoding="utf-8").splitlines())
    return Held(resident, len(os.listdir("/proc/self/fd")), mappings, -free_keys())


def repeat(act: Callable[[], object], cycles: int) -> None:
    """Do it so many times, and collect now and then: how large PyPy's heap is between is no leak."""
    for cycle in range(cycles):
        act()
        if cycle % 5000 == 0:
            gc.collect()


def grown(act: Callable[[], object], cycles: int) -> Held:
    """Return what a child process holds more after so many cycles, after half as many that are not counted."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            repeat(act, cycles // 2)  # PyPy compiles what is done often, and makes its heap larger
            before = held()
            repeat(act, cycles)
            os.write(writing, json.dumps([after - first for after, first in zip(held(), before)]).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    if not said:
        sys.exit("a child has failed")
    return Held(*json.loads(said))


def main() -> int:
    """Print a table; return 1 if something of ours is not flat."""
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(bytes(16 * PAGE))
        source = pmem2.Source.from_path(path)
        lasting = source.map()
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

        # what it is, one cycle, how many, and what libpmem2 alone leaves then, if it leaks by itself
        rows: list[tuple[str, Callable[[], object], int, Callable[[], object] | None]] = [
            ("sources", lambda: pmem2.Source.from_path(path).close(), 100_000, None),
            ("configs", lambda: pmem2.Config(length=PAGE), 100_000, None),
            ("maps", lambda: source.map().close(), 100_000, None),
            ("views", lambda: lasting.view(8, 64).release(), 100_000, None),
            ("bad-block contexts", lambda: source.bad_blocks().close(), 100_000, None),
            ("reservations", lambda: pmem2.VMReservation(1 << 20).close(), 10_000, raw_reservation),
            ("from_existing", existing, 500, raw_existing),
        ]
        print(f"{'':30} {'cycles':>8} {'KiB':>7} {'descr.':>7} {'mappings':>9} {'keys':>6}")
        for name, act, most, library in rows:
            cycles = max(int(most * scale), 100)
            alone = Held(0, 0, 0, 0)
            if library is not None:
                alone = grown(library, cycles)
                print(f"{name + ', libpmem2 alone':30} {cycles:8} {alone[0]:7} {alone[1]:7} {alone[2]:9} {alone[3]:6}")
            more = grown(act, cycles)
            print(f"{name:30} {cycles:8} {more[0]:7} {more[1]:7} {more[2]:9} {more[3]:6}")
            ours = Held(*(all - of_library for all, of_library in zip(more, alone)))
            flat = ours.kilobytes < NOISE and ours.descriptors <= 0 and ours.mappings < 20 and ours.keys <= 0
            failed = failed or not flat
        os.close(descriptor)
        lasting.close()
        source.close()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
