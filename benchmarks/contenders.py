# SPDX-License-Identifier: BSD-3-Clause
"""The alternatives to pmem2: the same work, with the same guarantee, on the same file.

`python benchmarks/contenders.py [FOLDER]` counts the system calls (with strace) and the calls from Python into C for
one operation of each alternative. Unlike times, the counts are meaningful in an emulated machine too.
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
OFFSETS = [n * 64 for n in range(64, SIZE // 64)]
random.seed(1)
random.shuffle(OFFSETS)  # the same order for every contender


class Contender(ABC):
    """A way to write to a file; the stores of a method are durable when it returns."""

    name: str

    @abstractmethod
    def __init__(self, path: Path) -> None: ...

    @abstractmethod
    def append(self, offset: int, record: bytes, tail: int) -> None:
        """Store a record durably, then the tail that publishes it."""

    @abstractmethod
    def update(self, offset: int, value: int) -> None:
        """Store 8 bytes."""

    @abstractmethod
    def scatter(self, offsets: Sequence[int], value: int) -> None:
        """Store 8 bytes at many offsets."""

    @abstractmethod
    def copy(self, data: bytes) -> None:
        """Copy a large block to the beginning."""


class Pmem2(Contender):
    """This library."""

    name = "pmem2"

    def __init__(self, path: Path) -> None:
        self.map = pmem2.open(path)

    def append(self, offset: int, record: bytes, tail: int) -> None:
        self.map.memcpy(offset, record)
        self.map.store_u64(0, tail, persist=True)

    def update(self, offset: int, value: int) -> None:
        self.map.store_u64(offset, value, persist=True)

    def scatter(self, offsets: Sequence[int], value: int) -> None:
        store = self.map.store_u64
        ranges = array("Q")
        for offset in offsets:
            store(offset, value)
            ranges.append(offset)
            ranges.append(8)
        self.map.persist_many(ranges)

    def copy(self, data: bytes) -> None:
        self.map.memcpy(0, data)


class StandardLibrary(Contender):
    """mmap, which flushes the changed pages."""

    name = "mmap"

    def __init__(self, path: Path) -> None:
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)

    def flush(self, offset: int, length: int) -> None:
        start = offset // PAGE * PAGE
        self.map.flush(start, offset + length - start)

    def append(self, offset: int, record: bytes, tail: int) -> None:
        self.map[offset : offset + len(record)] = record
        self.flush(offset, len(record))
        self.update(0, tail)

    def update(self, offset: int, value: int) -> None:
        self.map[offset : offset + 8] = value.to_bytes(8, "little")
        self.flush(offset, 8)

    def scatter(self, offsets: Sequence[int], value: int) -> None:
        data = value.to_bytes(8, "little")
        for offset in offsets:
            self.map[offset : offset + 8] = data
        self.map.flush()

    def copy(self, data: bytes) -> None:
        self.map[: len(data)] = data
        self.flush(0, len(data))


class NumPy(Contender):
    """numpy.memmap, which flushes the whole file."""

    name = "numpy.memmap"

    def __init__(self, path: Path) -> None:
        import numpy

        self.numpy = numpy
        self.bytes: Any = numpy.memmap(path, dtype="u1", mode="r+")
        self.words: Any = self.bytes.view("u8")

    def append(self, offset: int, record: bytes, tail: int) -> None:
        self.bytes[offset : offset + len(record)] = self.numpy.frombuffer(record, "u1")
        self.bytes.flush()
        self.words[0] = tail
        self.bytes.flush()

    def update(self, offset: int, value: int) -> None:
        self.words[offset // 8] = value
        self.bytes.flush()

    def scatter(self, offsets: Sequence[int], value: int) -> None:
        self.words[self.numpy.asarray(offsets) // 8] = value
        self.bytes.flush()

    def copy(self, data: bytes) -> None:
        self.bytes[: len(data)] = self.numpy.frombuffer(data, "u1")
        self.bytes.flush()


class CTypes(Contender):
    """libpmem2 through ctypes, without any check."""

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

    def append(self, offset: int, record: bytes, tail: int) -> None:
        self.memcpy(self.address + offset, record, len(record), 0)
        self.update(0, tail)

    def update(self, offset: int, value: int) -> None:
        ctypes.c_uint64.from_address(self.address + offset).value = value
        self.persist(self.address + offset, 8)

    def scatter(self, offsets: Sequence[int], value: int) -> None:
        for offset in offsets:
            ctypes.c_uint64.from_address(self.address + offset).value = value
            self.flush(self.address + offset, 8)
        self.drain()

    def copy(self, data: bytes) -> None:
        self.memcpy(self.address, data, len(data), 0)


class PyNVM(Contender):
    """PyNVM (2017), which can only persist a whole buffer."""

    name = "PyNVM"

    def __init__(self, path: Path) -> None:
        from nvm import pmem

        self.map: Any = pmem.map_file(str(path), SIZE, pmem.FILE_CREATE, 0o600)
        on_dax = pmem.is_pmem(self.map) or "PMEM2_FORCE_GRANULARITY" in os.environ
        self.persist: Any = pmem.persist if on_dax else pmem.msync

    def write(self, offset: int, data: bytes) -> None:
        self.map.seek(offset)
        self.map.write(data)

    def append(self, offset: int, record: bytes, tail: int) -> None:
        self.write(offset, record)
        self.persist(self.map)
        self.update(0, tail)

    def update(self, offset: int, value: int) -> None:
        self.write(offset, value.to_bytes(8, "little"))
        self.persist(self.map)

    def scatter(self, offsets: Sequence[int], value: int) -> None:
        data = value.to_bytes(8, "little")
        for offset in offsets:
            self.write(offset, data)
        self.persist(self.map)

    def copy(self, data: bytes) -> None:
        self.write(0, data)
        self.persist(self.map)


CONTENDERS: list[type[Contender]] = [Pmem2, StandardLibrary, NumPy, CTypes, PyNVM]


def append(contender: Contender, times: int) -> None:
    """Append 64-byte records to a log."""
    for n in range(times):
        contender.append(PAGE + n % 4096 * 64, RECORD, n)


def update(contender: Contender, times: int) -> None:
    """Update 8 bytes at offsets all over the file."""
    for n in range(times):
        contender.update(OFFSETS[n % len(OFFSETS)], n)


def scatter(contender: Contender, times: int) -> None:
    """Update 8 bytes at each of 1000 offsets, with one drain."""
    for n in range(times):
        contender.scatter(OFFSETS[:1000], n)


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
    """Return the installed contenders; print the others."""
    contenders = []
    for kind in CONTENDERS:
        try:
            contenders.append(kind(path))
        except (ImportError, RuntimeError) as error:
            print(f"{kind.name}: skipped, {error}", file=sys.stderr)
    return contenders


def count_system_calls(kind: str, workload: str, path: Path) -> float:
    """Count the system calls of one operation."""
    counts = []
    for times in (4, 20):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "calls"
            job = [sys.executable, __file__, "--kind", kind, "--workload", workload, "--times", str(times), str(path)]
            subprocess.run(["strace", "-f", "-qq", "-o", str(out), *job], check=True)
            counts.append(len(out.read_text(errors="replace").splitlines()))
    return (counts[1] - counts[0]) / 16


def count_native_calls(contender: Contender, workload: Workload) -> float:
    """Count the calls of built-in functions in one operation, those of cffi included; ctypes calls are invisible."""
    count = 0

    def count_call(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "c_call"

    sys.setprofile(count_call)
    try:
        workload(contender, 10)
    finally:
        sys.setprofile(None)
    return count / 10


def main() -> None:
    """Count for all contenders, or run one workload under strace."""
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
                system_calls = f"{count_system_calls(contender.name, name, path):>10.1f} system calls" if traced else ""
                c_calls = f"{count_native_calls(contender, workload):>10.1f} calls into C"
                print(f"{contender.name:<14}{name:<26}{c_calls}{system_calls}")
    finally:
        path.unlink()


if __name__ == "__main__":
    main()
