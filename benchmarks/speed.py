# SPDX-License-Identifier: BSD-3-Clause
"""Speed of pmem2 compared with C and with alternatives: `python benchmarks/speed.py [--json] [--plot FILE]`.

Each comparison runs two variants alternately in one process and takes the minimum of many short runs. So the ratio is
reliable on a noisy machine; the times are not. The files lie in memory with forced CACHE_LINE granularity, so that a
flush is one instruction.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any, Callable

os.environ.setdefault("PMEM2_FORCE_GRANULARITY", "CACHE_LINE")  # before the first map

import contenders
import reference

import pmem2
from pmem2._ffi import ffi, lib

Work = Callable[[int], object]
Row = dict[str, Any]
ROUNDS = 50
SHM = Path("/dev/shm")
guarded_persist, guarded_flush, guarded_drain = lib.guarded_persist, lib.guarded_flush, lib.guarded_drain
guarded_memmove, guarded_store_u64 = lib.guarded_memmove, lib.guarded_store_u64
READ_WRITE = lib.PMEM2_PROT_READ | lib.PMEM2_PROT_WRITE


def time_work(work: Work, times: int) -> float:
    """Return the nanoseconds of one of *times* repetitions."""
    start = time.perf_counter_ns()
    work(times)
    return (time.perf_counter_ns() - start) / times


def compare(
    name: str, ours: Work, theirs: Work, times: int, target: float, against: str = "C", rounds: int = ROUNDS
) -> Row:
    """Time two variants alternately, about a millisecond each; the minimum is the least disturbed run."""
    ours(times // 10 + 1)
    theirs(times // 10 + 1)
    pairs = [(time_work(ours, times), time_work(theirs, times)) for _ in range(rounds)]
    return {
        "name": name,
        "ours_ns": (ours_ns := min(a for a, _ in pairs)),
        "other_ns": (other_ns := min(b for _, b in pairs)),
        "ratio": ours_ns / other_ns,
        "median_ratio": statistics.median(a / b for a, b in pairs),
        "target": target,
        "against": against,
    }


class Unchecked:
    """The lower bound: Python methods that call the C function without checking arguments."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def persist(self, offset: int, length: int) -> None:
        """Call the C function."""
        if guarded_persist(self._handle, offset, length):
            raise ValueError

    def flush(self, offset: int, length: int) -> None:
        """Call the C function."""
        if guarded_flush(self._handle, offset, length):
            raise ValueError

    def drain(self) -> None:
        """Call the C function."""
        if guarded_drain(self._handle):
            raise ValueError

    def memcpy(self, offset: int, data: bytes) -> None:
        """Call the C function."""
        if guarded_memmove(self._handle, offset, data, len(data), 0):
            raise ValueError

    def store_u64(self, offset: int, value: int) -> None:
        """Call the C function."""
        if guarded_store_u64(self._handle, offset, value, 0):
            raise ValueError


# the call on a Map or on Unchecked, and the bare call of the same C function
SMALL = {
    "persist(64, 8)": "lib.guarded_persist(h, 64, 8)",
    "flush(64, 8)": "lib.guarded_flush(h, 64, 8)",
    "drain()": "lib.guarded_drain(h)",
    "memcpy(64, data)": "lib.guarded_memmove(h, 64, data, 64, 0)",
    "store_u64(64, 8)": "lib.guarded_store_u64(h, 64, 8, 0)",
}
ATOMICS = {
    "load_u64(64)": "lib.guarded_load_u64(h, 64)",
    "fetch_add_u64(64, 1)": "lib.guarded_fetch_add_u64(h, 64, 1, 0)",
    "compare_exchange_u64(64, 1, 2)": "lib.guarded_compare_exchange_u64(h, 64, 1, 2, 0)",
}


def make_loop(text: str, m: Any) -> Work:
    """Compile a loop over one expression; its names are local variables."""
    scope: dict[str, Any] = {}
    bare = text.split("(")[0]
    call = text.replace(bare, "call", 1)
    names = {"m": m, "h": m._handle, "data": b"x" * 64, "lib": lib}
    names["call"] = eval(bare, names)
    arguments = ", ".join(f"{name}={name}" for name in ("call", "h", "data"))
    if bare.startswith("m."):  # look the method up on each call, as user code does
        call, arguments = text, "m=m, data=data"
    exec(f"def work(times, {arguments}):\n for _ in range(times):\n  {call}", names, scope)
    work: Work = scope["work"]
    return work


def small(m: pmem2.Map) -> list[Row]:
    """Compare checked and unchecked methods with the bare call of the same C function."""
    limit = 1.1 if sys.implementation.name == "pypy" else 1.3
    rows = []
    for text, bare in SMALL.items():
        theirs = make_loop(bare, m)
        rows.append(compare(text, make_loop(f"m.{text}", m), theirs, 2000, limit, "the bare call", 200))
        floor = make_loop(f"m.{text}", Unchecked(m._handle))
        rows.append(compare(f"floor: {text} unchecked", floor, theirs, 2000, 0, "the bare call", 200))
    return rows


def atomics(m: pmem2.Map) -> list[Row]:
    """Compare the atomics that return a value with the bare call of the same C function."""
    return [
        compare(text, make_loop(f"m.{text}", m), make_loop(bare, m), 2000, 1.5, "the bare call", 200)
        for text, bare in ATOMICS.items()
    ]


def indexing(m: pmem2.Map, path: Path) -> list[Row]:
    """Compare indexes, slices and searches with those of an mmap of the same file."""
    limit = 2.0 if sys.implementation.name == "pypy" else 8.0
    rows = []
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as other:
        for length in (1, 8, 64, 512, 4096):
            data, span = bytes(length), f"64:{64 + length}"
            for text, target in (
                (f"m[{span}]", limit),
                (f"m[{span}] = data", limit),
                (f"m[64:{64 + 3 * length}:3]", 3.0 if length == 4096 else 0.0),
                (f"m[64:{64 + 3 * length}:3] = data", 3.0 if length == 4096 else 0.0),
            ):
                ours, theirs = make_statement(text, m, data), make_statement(text, other, data)
                rows.append(compare(text, ours, theirs, 2000, target, "mmap", 100))
        for text in ("m[64]", "m[64] = 7"):
            ours, theirs = make_statement(text, m, b""), make_statement(text, other, b"")
            rows.append(compare(text, ours, theirs, 2000, limit, "mmap", 200))
        m[0 : 1 << 20] = bytes(1 << 20)
        m[(1 << 20) - 8 : 1 << 20] = wanted = b"needle!!"
        rows.append(
            compare(
                "find in 1 MiB",
                lambda times: [m.find(wanted, 0, 1 << 20) for _ in range(times)],
                lambda times: [other.find(wanted, 0, 1 << 20) for _ in range(times)],
                10,
                1.2,
                "mmap",
            )
        )
    return rows


def make_statement(text: str, m: Any, data: bytes) -> Work:
    """Compile a loop over one statement about `m` and `data`."""
    scope: dict[str, Any] = {}
    exec(f"def work(times, m=m, data=data):\n for _ in range(times):\n  {text}", {"m": m, "data": data}, scope)
    work: Work = scope["work"]
    return work


def ranges(m: pmem2.Map, c: Any, c_map: int) -> list[Row]:
    """Compare a buffer of ranges with a loop in C, and a list of tuples with a loop in Python."""
    rows = []
    for count in (1000, 10_000):
        pairs = [(n * 192, 8) for n in range(count)]
        packed = memoryview(array("Q", [x for pair in pairs for x in pair])).cast("B").cast("Q", (count, 2))
        borrowed = ffi.from_buffer("uint64_t[]", packed)
        pointer = reference_pointer(c, "uint64_t *", borrowed)
        ours = compare(
            f"persist_many, {count} ranges of a buffer",
            lambda times, packed=packed: [m.persist_many(packed) for _ in range(times)],
            lambda times, pointer=pointer, count=count: c.lib.c_flush_many(c_map, pointer, count, times),
            200_000 // count,
            1.1,
        )
        rows.append(ours)
        rows.append(
            compare(
                f"persist_many, {count} ranges of a buffer",
                lambda times, packed=packed: [m.persist_many(packed) for _ in range(times)],
                lambda times, pointer=pointer, count=count: c.lib.c_flush_many_checked(c_map, pointer, count, times),
                200_000 // count,
                1.1,
                "C with the same checks",
            )
        )
        rows.append(
            compare(
                f"persist_many, {count} tuples",
                lambda times, pairs=pairs: [m.persist_many(pairs) for _ in range(times)],
                lambda times, pairs=pairs: [m.persist(o, n) for _ in range(times) for o, n in pairs],
                max(2000 // count, 1),
                0.2,
                "a loop in Python",
            )
        )
    return rows


def reference_pointer(c: Any, kind: str, pointer: Any) -> Any:
    """Convert a pointer of pmem2's cffi module to one of the reference module."""
    return c.ffi.cast(kind, int(ffi.cast("uintptr_t", pointer)))


def bulk(m: pmem2.Map, source: pmem2.Source, c: Any, c_map: int) -> list[Row]:
    """Compare copies from every kind of buffer with the same calls in C."""
    rows = []
    for length in (64 << 10, 1 << 20, 16 << 20):
        times = max((8 << 20) // length, 1)
        data = bytearray(os.urandom(length))
        borrowed = ffi.from_buffer("char[]", data)
        pointer = reference_pointer(c, "char *", borrowed)
        kinds: dict[str, Any] = {"bytearray": data, "bytes": bytes(data), "memoryview": memoryview(data)}
        try:
            import numpy
        except ImportError:
            pass
        else:
            kinds["ndarray"] = numpy.frombuffer(data, "u1")
        char_array = ffi.from_buffer("char[]", kinds["bytes"])
        bare = reference_pointer(c, "char *", char_array)
        rows.append(
            compare(
                f"floor: one bare call for {length >> 10} KiB",
                lambda times, char_array=char_array, n=length: [
                    lib.guarded_memmove(m._handle, 0, char_array, n, 0) for _ in range(times)
                ],
                lambda times, p=bare, n=length: c.lib.c_copy(c_map, p, n, 0, times),
                times,
                0,
            )
        )
        kind_pointers = {"bytes": bare}
        for kind, value in kinds.items():
            address = kind_pointers.get(kind, pointer)
            rows.append(
                compare(
                    f"memcpy, {length >> 10} KiB of {kind}",
                    lambda times, value=value: [m.memcpy(0, value) for _ in range(times)],
                    lambda times, p=address, n=length: c.lib.c_copy(c_map, p, n, 0, times),
                    times,
                    1.03,
                )
            )
        rows.append(
            compare(
                f"memset, {length >> 10} KiB",
                lambda times, n=length: [m.memset(0, 1, n) for _ in range(times)],
                lambda times, n=length: c.lib.c_set(c_map, n, times),
                times,
                1.03,
            )
        )
        rows.append(
            compare(
                f"pread_mcsafe_into, {length >> 10} KiB",
                lambda times, data=data: [source.pread_mcsafe_into(data) for _ in range(times)],
                lambda times, p=pointer, n=length: c.lib.c_pread(source.fd, p, n, times),
                times,
                1.03,
            )
        )
    return rows


def map_with_c_functions(source: pmem2.Source, times: int) -> None:
    """Map and unmap with the C functions alone."""
    message = ffi.new("char[]", lib.GUARD_MESSAGE_SIZE)
    fields = (lib.PMEM2_GRANULARITY_PAGE, lib.GUARD_GRANULARITY_UNSET, 0, 0, lib.PMEM2_SHARED, READ_WRITE, ffi.NULL, 0)
    for _ in range(times):
        handle = lib.guarded_map_alloc()
        lib.guarded_map_new(handle, source._handle, ffi.new("struct map_request *", fields), message)
        lib.guarded_map_close(handle, 0, message)
        lib.guarded_map_drop(handle)


def mapping(c: Any) -> list[Row]:
    """Compare mapping and unmapping with C, from 4 KiB to 8 TiB."""
    rows = []
    for length in (4 << 10, 16 << 20, 8 << 40):
        with tempfile.NamedTemporaryFile(dir=SHM) as file:
            os.truncate(file.name, length)
            with pmem2.Source.from_fd(file) as source:
                rows.append(
                    compare(
                        f"map and unmap {length >> 10} KiB",
                        lambda times, s=source: [pmem2.Map(s).close() for _ in range(times)],
                        lambda times, s=source: c.lib.c_map(s.fd, times),
                        20,
                        1.5,
                    )
                )
                rows.append(
                    compare(
                        f"floor: the C functions alone, {length >> 10} KiB",
                        lambda times, s=source: map_with_c_functions(s, times),
                        lambda times, s=source: c.lib.c_map(s.fd, times),
                        20,
                        0,
                    )
                )
    return rows


def alternatives() -> list[Row]:
    """Compare with the alternatives, on an ordinary file and in memory with forced granularity."""
    rows = []
    granularity = os.environ.pop("PMEM2_FORCE_GRANULARITY")
    for folder, forced in ((tempfile.gettempdir(), None), (str(SHM), granularity)):
        if forced:
            os.environ["PMEM2_FORCE_GRANULARITY"] = forced
        few, many = (5, 200) if forced else (2, 10)  # a disk is slow
        with tempfile.TemporaryDirectory(dir=folder) as directory:
            path = Path(directory) / "data"
            pmem2.open(path, "x+", size=contenders.SIZE).close()
            ours, *others = contenders.available(path)
            for name, workload in contenders.WORKLOADS.items():
                for other in others:
                    rows.append(
                        compare(
                            f"{name}, {forced or 'ordinary file'}",
                            lambda times, workload=workload, ours=ours: workload(ours, times),
                            lambda times, workload=workload, other=other: workload(other, times),
                            few if "1000" in name or "MiB" in name else many,
                            1.0,
                            other.name,
                            ROUNDS if forced else 5,
                        )
                    )
    return rows


def start() -> list[Row]:
    """Time the import of pmem2 without that of attrs and the cffi backend."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run(code: str) -> Work:
        def work(times: int) -> None:
            for _ in range(times):
                subprocess.run([sys.executable, "-c", code], check=True, env=environment)

        return work

    base = "import attrs, _cffi_backend"
    row = compare("start with `import pmem2`", run(f"{base}, pmem2"), run(base), 1, 0, "attrs and the cffi backend")
    row["added_ms"] = (row["ours_ns"] - row["other_ns"]) / 1e6
    return [row]


COUNTED = """
import os, sys
sys.path.insert(0, {here!r})
import pmem2, speed
path = f"/dev/shm/pmem2-count-{{os.getpid()}}"
with pmem2.open(path, "w+", size=4096) as m:
    os.unlink(path)
    floor = speed.Unchecked(m._handle)
    works = [speed.make_loop(*pair) for text, bare in speed.SMALL.items()
             for pair in ((f"m.{{text}}", m), (f"m.{{text}}", floor), (bare, m))]
    for work in works:
        work(100)
        os.getppid()  # callgrind starts a new count here
        work({times})
        os.getppid()
"""


def instructions() -> list[Row]:
    """Count instructions with callgrind: the result does not depend on the load of the machine."""
    if shutil.which("valgrind") is None or sys.implementation.name != "cpython":
        print("instruction counts: skipped, they need valgrind and CPython", file=sys.stderr)
        return []
    times = 1000
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        code = COUNTED.format(here=str(Path(__file__).parent), times=times)
        tool = ["valgrind", "--tool=callgrind", "--dump-before=getppid*", f"--callgrind-out-file={out}"]
        subprocess.run([*tool, sys.executable, "-c", code], check=True, capture_output=True)
        parts = [out.with_suffix(f".{number}").read_text() for number in range(2, 6 * len(SMALL) + 1, 2)]
    each = [int(part.split("\ntotals: ")[1].split()[0]) / times for part in parts]
    return [
        {"name": f"instructions of {text}", "count": each[3 * n], "floor": each[3 * n + 1], "bare": each[3 * n + 2]}
        for n, text in enumerate(SMALL)
    ]


def plot(file: Path, m: pmem2.Map, c: Any, c_map: int) -> None:
    """Plot the time of a range over the number of ranges, and the bandwidth over the size of a copy."""
    from matplotlib.figure import Figure

    counts = [1 << n for n in range(15)]
    sizes = [64 << n for n in range(0, 19, 2)]
    many: dict[str, list[float]] = {
        "persist_many, buffer": [],
        "persist_many, tuples": [],
        "loop of persist": [],
        "C": [],
    }
    copies: dict[str, list[float]] = {"memcpy": [], "C": []}
    for count in counts:
        pairs = [(n * 192, 8) for n in range(count)]
        numbers = array("Q", [x for pair in pairs for x in pair])
        pointer = reference_pointer(c, "uint64_t *", ffi.from_buffer(numbers))
        times = max(50_000 // count, 3)
        works: list[Work] = [
            lambda n, numbers=numbers: [m.persist_many(numbers) for _ in range(n)],
            lambda n, pairs=pairs: [m.persist_many(pairs) for _ in range(n)],
            lambda n, pairs=pairs: [m.persist(*pair) for _ in range(n) for pair in pairs],
            lambda n, pointer=pointer, count=count: c.lib.c_flush_many(c_map, pointer, count, n),
        ]
        for line, work in zip(many.values(), works):
            line.append(min(time_work(work, times) for _ in range(5)) / count)
    for length in sizes:
        data = bytes(length)
        pointer = reference_pointer(c, "char *", ffi.from_buffer(data))
        times = max((32 << 20) // length // 64, 4)
        works = [
            lambda n, data=data: [m.memcpy(0, data) for _ in range(n)],
            lambda n, pointer=pointer, length=length: c.lib.c_copy(c_map, pointer, length, 0, n),
        ]
        for line, work in zip(copies.values(), works):
            line.append(length / min(time_work(work, times) for _ in range(5)))
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, points, lines, x, y in (
        (left, counts, many, "ranges in one call", "ns for each range"),
        (right, sizes, copies, "bytes of one copy", "GB/s"),
    ):
        for name, line in lines.items():
            axes.plot(points, line, marker=".", label=name)
        axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
        axes.legend()
    figure.savefig(file)


def table(rows: list[Row]) -> None:
    """Print rows as a table."""
    for row in rows:
        if "count" in row:
            print(
                f"{row['name']:<44}{row['count']:>12,.0f}{row['floor']:>12,.0f} unchecked"
                f"{row['bare']:>12,.0f} bare call"
            )
            continue
        verdict = f"target {row['target']:g}" if row["target"] else "no target"
        if "added_ms" in row:
            verdict = f"{row['added_ms']:.1f} ms more, target 25"
        print(
            f"{row['name']:<44}{row['ours_ns']:>12,.0f} ns{row['other_ns']:>12,.0f} ns"
            f"{row['ratio']:>8.2f} of {row['against']} ({verdict})"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", type=Path, help="draw a plot to a file; needs matplotlib")
    parser.add_argument("--only", help="small,atomics,indexing,ranges,bulk,mapping,alternatives,start,instructions")
    options = parser.parse_args()
    c = reference.build()
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        path = Path(folder) / "data"
        with pmem2.open(path, "w+", size=32 << 20) as m, pmem2.Source.from_path(path) as source:
            c_map = c.lib.c_open(source.fd)
            parts: dict[str, Callable[[], list[Row]]] = {
                "small": lambda: small(m),
                "atomics": lambda: atomics(m),
                "indexing": lambda: indexing(m, path),
                "ranges": lambda: ranges(m, c, c_map),
                "bulk": lambda: bulk(m, source, c, c_map),
                "mapping": lambda: mapping(c),
                "alternatives": alternatives,
                "start": start,
                "instructions": instructions,
            }
            chosen = options.only.split(",") if options.only else list(parts)
            rows: list[Row] = []
            for name in chosen:
                part = parts[name]()
                rows += part
                if not options.json:
                    table(part)
            if options.plot:
                plot(options.plot, m, c, c_map)
    if options.json:
        print(json.dumps({"python": sys.version, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
