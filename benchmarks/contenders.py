# SPDX-License-Identifier: BSD-3-Clause
"""What a user would pick instead: the same work, with the same guarantee, on the same file.

`python benchmarks/contenders.py [FOLDER]` counts, for one operation of each, the system calls (with strace) and the
calls from Python into C. That holds where time does not: in an emulated machine, for one.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import pmem2

SIZE = 16 << 20
PAGE = mmap.PAGESIZE
RECORD = bytes(range(64))
CHUNK = bytes(1 << 20)
PLACES = [n * 64 for n in range(64, SIZE // 64)]
random.seed(1)
random.shuffle(PLACES)  # the same for everybody


class Contender(ABC):
    """A way to write to a file; whatever a method stored is durable when it returns."""

    name: str

    @abstractmethod
    def __init__(self, path: Path) -> None: ...

    @abstractmethod
    def append(self, place: int, record: bytes, tail: int) -> None:
        """Store a record, and only when it is durable the tail that publishes it."""

    @abstractmethod
    def update(self, place: int, value: int) -> None:
        """Store 8 bytes."""

    @abstractmethod
    def scatter(self, places: Sequence[int], value: int) -> None:
        """Store 8 bytes in many places."""

    @abstractmethod
    def copy(self, data: bytes) -> None:
        """Copy a large block to the beginning."""


class Ours(Contender):
    """What is measured."""

    name = "pmem2"

    def __init__(self, path: Path) -> None:
        self.map = pmem2.open(path)

    def append(self, place: int, record: bytes, tail: int) -> None:
        self.map.memcpy(place, record)
        self.map.store_u64(0, tail, persist=True)

    def update(self, place: int, value: int) -> None:
        self.map.store_u64(place, value, persist=True)

    def scatter(self, places: Sequence[int], value: int) -> None:
        store = self.map.store_u64
        ranges = array("Q")
        for place in places:
            store(place, value)
            ranges.append(place)
            ranges.append(8)
        self.map.persist_many(ranges)

    def copy(self, data: bytes) -> None:
        self.map.memcpy(0, data)


class StandardLibrary(Contender):
    """mmap, and its flush of the pages that were touched."""

    name = "mmap"

    def __init__(self, path: Path) -> None:
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)

    def flush(self, place: int, length: int) -> None:
        start = place // PAGE * PAGE
        self.map.flush(start, place + length - start)

    def append(self, place: int, record: bytes, tail: int) -> None:
        self.map[place : place + len(record)] = record
        self.flush(place, len(record))
        self.update(0, tail)

    def update(self, place: int, value: int) -> None:
        self.map[place : place + 8] = value.to_bytes(8, "little")
        self.flush(place, 8)

    def scatter(self, places: Sequence[int], value: int) -> None:
        data = value.to_bytes(8, "little")
        for place in places:
            self.map[place : place + 8] = data
        self.map.flush()

    def copy(self, data: bytes) -> None:
        self.map[: len(data)] = data
        self.flush(0, len(data))


class NumPy(Contender):
    """numpy.memmap, whose flush is of the whole file."""

    name = "numpy.memmap"

    def __init__(self, path: Path) -> None:
        import numpy

        self.numpy = numpy
        self.bytes: Any = numpy.memmap(path, dtype="u1", mode="r+")
        self.words: Any = self.bytes.view("u8")

    def append(self, place: int, record: bytes, tail: int) -> None:
        self.bytes[place : place + len(record)] = self.numpy.frombuffer(record, "u1")
        self.bytes.flush()
        self.words[0] = tail
        self.bytes.flush()

    def update(self, place: int, value: int) -> None:
        self.words[place // 8] = value
        self.bytes.flush()

    def scatter(self, places: Sequence[int], value: int) -> None:
        self.words[self.numpy.asarray(places) // 8] = value
        self.bytes.flush()

    def copy(self, data: bytes) -> None:
        self.bytes[: len(data)] = self.numpy.frombuffer(data, "u1")
        self.bytes.flush()


class CTypes(Contender):
    """libpmem2 through ctypes: nothing is checked."""

    name = "ctypes"

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(ctypes.util.find_library("pmem2"))
        source, config, made = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        with open(path, "r+b") as file:
            for code in (
                library.pmem2_source_from_fd(ctypes.byref(source), file.fileno()),
                library.pmem2_config_new(ctypes.byref(config)),
                library.pmem2_config_set_required_store_granularity(config, 2),
                library.pmem2_map_new(ctypes.byref(made), config, source),
            ):
                if code:
                    raise OSError(f"libpmem2 returned {code}")
        size, address = ctypes.c_size_t, ctypes.c_void_p

        def function(name: str, *arguments: Any) -> Any:
            get = getattr(library, f"pmem2_get_{name}_fn")
            get.restype = address
            return ctypes.CFUNCTYPE(None, *arguments)(get(made))

        library.pmem2_map_get_address.restype = address
        self.address = library.pmem2_map_get_address(made)
        self.persist = function("persist", address, size)
        self.flush = function("flush", address, size)
        self.drain = function("drain")
        self.memcpy = function("memcpy", address, ctypes.c_char_p, size, ctypes.c_uint)

    def append(self, place: int, record: bytes, tail: int) -> None:
        self.memcpy(self.address + place, record, len(record), 0)
        self.update(0, tail)

    def update(self, place: int, value: int) -> None:
        ctypes.c_uint64.from_address(self.address + place).value = value
        self.persist(self.address + place, 8)

    def scatter(self, places: Sequence[int], value: int) -> None:
        for place in places:
            ctypes.c_uint64.from_address(self.address + place).value = value
            self.flush(self.address + place, 8)
        self.drain()

    def copy(self, data: bytes) -> None:
        self.memcpy(self.address, data, len(data), 0)


class PyNVM(Contender):
    """PyNVM (2017), which persists whole buffers only."""

    name = "PyNVM"

    def __init__(self, path: Path) -> None:
        from nvm import pmem

        self.map: Any = pmem.map_file(str(path), SIZE, pmem.FILE_CREATE, 0o600)
        on_dax = pmem.is_pmem(self.map) or "PMEM2_FORCE_GRANULARITY" in os.environ
        self.persist: Any = pmem.persist if on_dax else pmem.msync

    def write(self, place: int, data: bytes) -> None:
        self.map.seek(place)
        self.map.write(data)

    def append(self, place: int, record: bytes, tail: int) -> None:
        self.write(place, record)
        self.persist(self.map)
        self.update(0, tail)

    def update(self, place: int, value: int) -> None:
        self.write(place, value.to_bytes(8, "little"))
        self.persist(self.map)

    def scatter(self, places: Sequence[int], value: int) -> None:
        data = value.to_bytes(8, "little")
        for place in places:
            self.write(place, data)
        self.persist(self.map)

    def copy(self, data: bytes) -> None:
        self.write(0, data)
        self.persist(self.map)


CONTENDERS: list[type[Contender]] = [Ours, StandardLibrary, NumPy, CTypes, PyNVM]


def append(contender: Contender, times: int) -> None:
    """Append records of 64 bytes to a log."""
    for n in range(times):
        contender.append(PAGE + n % 4096 * 64, RECORD, n)


def update(contender: Contender, times: int) -> None:
    """Change 8 bytes in places all over the file."""
    for n in range(times):
        contender.update(PLACES[n % len(PLACES)], n)


def scatter(contender: Contender, times: int) -> None:
    """Change 8 bytes in each of 1000 places, with one barrier."""
    for n in range(times):
        contender.scatter(PLACES[:1000], n)


def copy(contender: Contender, times: int) -> None:
    """Copy 1 MiB."""
    for _ in range(times):
        contender.copy(CHUNK)


Workload = Callable[[Contender, int], None]
WORKLOADS: dict[str, Workload] = {
    "64-byte record and tail": append,
    "8-byte update": update,
    "1000 scattered updates": scatter,
    "copy of 1 MiB": copy,
}


def available(path: Path) -> list[Contender]:
    """Return those that can be had here; print the others."""
    contenders = []
    for kind in CONTENDERS:
        try:
            contenders.append(kind(path))
        except (ImportError, RuntimeError) as error:
            print(f"{kind.name}: skipped, {error}", file=sys.stderr)
    return contenders


def system_calls(kind: str, workload: str, path: Path) -> float:
    """Return how many system calls one operation makes."""
    counts = []
    for times in (4, 20):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "calls"
            job = [sys.executable, __file__, "--kind", kind, "--workload", workload, "--times", str(times), str(path)]
            subprocess.run(["strace", "-f", "-qq", "-o", str(out), *job], check=True)
            counts.append(len(out.read_text(errors="replace").splitlines()))
    return (counts[1] - counts[0]) / 16


def native_calls(contender: Contender, workload: Workload) -> float:
    """Return how many built-in functions, cffi's among them, one operation calls; ctypes hides its own."""
    count = 0

    def watch(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "c_call"

    sys.setprofile(watch)
    try:
        workload(contender, 10)
    finally:
        sys.setprofile(None)
    return count / 10


def main() -> None:
    """Count, or do one piece of work under strace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, default=Path(tempfile.gettempdir()), help="a folder")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--workload", help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        (kind,) = [each for each in CONTENDERS if each.name == options.kind]
        WORKLOADS[options.workload](kind(options.path), options.times)
        return
    path = options.path / f"pmem2-contenders-{os.getpid()}"
    pmem2.open(path, "x+", size=SIZE).close()
    try:
        with pmem2.open(path) as m:
            print(f"{path.parent}: {m.granularity.name} granularity")
        traced = shutil.which("strace") is not None
        if not traced:
            print("system calls: skipped, they need strace")
        for contender in available(path):
            for name, workload in WORKLOADS.items():
                calls = f"{system_calls(contender.name, name, path):>10.1f} system calls" if traced else ""
                print(f"{contender.name:<14}{name:<26}{native_calls(contender, workload):>10.1f} calls into C{calls}")
    finally:
        path.unlink()


if __name__ == "__main__":
    main()
