# SPDX-License-Identifier: BSD-3-Clause
"""How near pmem2 comes to C, and what else there is: `python benchmarks/speed.py [--json] [--plot FILE]`.

Times are medians of alternating runs in one process, so that the ratios hold on a noisy machine; the times themselves
do not. Files lie on a memory file system with forced CACHE_LINE granularity, so that a flush is an instruction.
"""

from __future__ import annotations

import argparse
import json
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

os.environ.setdefault("PMEM2_FORCE_GRANULARITY", "CACHE_LINE")  # before libpmem2 maps anything

import contenders
import reference
from _pmem2 import ffi, lib

import pmem2

Work = Callable[[int], object]
Row = dict[str, Any]
ROUNDS = 9
SHM = Path("/dev/shm")


def timed(work: Work, times: int) -> float:
    """Return nanoseconds for each of so many times."""
    start = time.perf_counter_ns()
    work(times)
    return (time.perf_counter_ns() - start) / times


def compare(name: str, ours: Work, theirs: Work, times: int, target: float, against: str = "C") -> Row:
    """Time two ways in turn; the ratio is the median of the ratios of neighbours."""
    ours(times // 10 + 1)
    theirs(times // 10 + 1)
    pairs = [(timed(ours, times), timed(theirs, times)) for _ in range(ROUNDS)]
    return {
        "name": name,
        "ours_ns": statistics.median(a for a, _ in pairs),
        "other_ns": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "target": target,
        "against": against,
    }


def small(m: pmem2.Map) -> list[Row]:
    """Compare methods with the bare call of the same C helper."""
    handle, data = m._handle, b"x" * 64
    limit = 1.1 if sys.implementation.name == "pypy" else 1.3

    def call(function: Callable[..., object], *arguments: object) -> Work:
        names = [f"a{n}" for n in range(len(arguments))]
        defaults = ", ".join(f"{name}={name}" for name in ["function", *names])
        scope: dict[str, Any] = {"function": function, **dict(zip(names, arguments))}
        exec(f"def work(times, {defaults}):\n for _ in range(times):\n  function({', '.join(names)})", scope)
        work: Work = scope["work"]
        return work

    def method(text: str) -> Work:
        scope: dict[str, Any] = {"m": m, "data": data}
        exec(f"def work(times, m=m, data=data):\n for _ in range(times):\n  {text}", scope)
        work: Work = scope["work"]
        return work

    cases = [
        ("persist(64, 8)", "m.persist(64, 8)", (lib.guarded_persist, handle, 64, 8)),
        ("flush(64, 8)", "m.flush(64, 8)", (lib.guarded_flush, handle, 64, 8)),
        ("drain()", "m.drain()", (lib.guarded_drain, handle)),
        ("memcpy(64, 64 bytes)", "m.memcpy(64, data)", (lib.guarded_copy, handle, 64, data, 64, 0)),
        ("store_u64(64, 8)", "m.store_u64(64, 8)", (lib.guarded_store_u64, handle, 64, 8, 0)),
    ]
    rows = [compare(name, method(text), call(*bare), 100_000, limit, "the bare call") for name, text, bare in cases]
    nothing = {"m": Nothing(), "data": data}
    exec("def work(times, m=m, data=data):\n for _ in range(times):\n  m.nothing(64, 8)", nothing)
    floor: Any = nothing["work"]
    rows.append(compare("floor: a Python method that does nothing", floor, call(lib.guarded_drain, handle), 100_000, 0))
    return rows


class Nothing:
    """What calling any method costs."""

    def nothing(self, offset: int, length: int) -> None:
        """Do nothing."""


def ranges(m: pmem2.Map, c: Any, c_map: int) -> list[Row]:
    """Compare many ranges with a loop in C, and a list of tuples with a loop in Python."""
    rows = []
    for count in (1000, 10_000):
        pairs = [(n * 192, 8) for n in range(count)]
        packed = memoryview(array("Q", [x for pair in pairs for x in pair])).cast("B").cast("Q", (count, 2))
        lent = ffi.from_buffer("uint64_t[]", packed)
        pointer = reference_pointer(c, "uint64_t *", lent)
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
                "C that checks as much",
            )
        )
        rows.append(
            compare(
                f"persist_many, {count} tuples",
                lambda times, pairs=pairs: [m.persist_many(pairs) for _ in range(times)],
                lambda times, pairs=pairs: [m.persist(o, n) for _ in range(times) for o, n in pairs],
                20_000 // count,
                0.2,
                "a loop in Python",
            )
        )
    return rows


def reference_pointer(c: Any, kind: str, lent: Any) -> Any:
    """Return an address that our cffi knows as a pointer of the reference's."""
    return c.ffi.cast(kind, int(ffi.cast("uintptr_t", lent)))


def bulk(m: pmem2.Map, source: pmem2.Source, c: Any, c_map: int) -> list[Row]:
    """Compare copies with the same calls in C, from every kind of buffer."""
    rows = []
    for length in (64 << 10, 1 << 20, 16 << 20):
        times = max((64 << 20) // length, 4)
        data = bytearray(os.urandom(length))
        lent = ffi.from_buffer("char[]", data)
        pointer = reference_pointer(c, "char *", lent)
        kinds: dict[str, Any] = {"bytearray": data, "bytes": bytes(data), "memoryview": memoryview(data)}
        try:
            import numpy
        except ImportError:
            pass
        else:
            kinds["ndarray"] = numpy.frombuffer(data, "u1")
        mine = ffi.from_buffer("char[]", kinds["bytes"])
        bare = reference_pointer(c, "char *", mine)
        rows.append(
            compare(
                f"floor: one bare call for {length >> 10} KiB",
                lambda times, mine=mine, n=length: [lib.guarded_copy(m._handle, 0, mine, n, 0) for _ in range(times)],
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


def bare_mapping(source: pmem2.Source, times: int) -> None:
    """Map and unmap with the C helpers alone."""
    message = ffi.new("char[]", lib.GUARD_MESSAGE_SIZE)
    for _ in range(times):
        handle = lib.guarded_map_alloc()
        lib.guarded_map_new(handle, source._handle, lib.PMEM2_GRANULARITY_PAGE, 0, 0, 0, 3, ffi.NULL, 0, message)
        lib.guarded_map_close(handle, message)
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
                        1000,
                        1.5,
                    )
                )
                rows.append(
                    compare(
                        f"floor: the C helpers alone, {length >> 10} KiB",
                        lambda times, s=source: bare_mapping(s, times),
                        lambda times, s=source: c.lib.c_map(s.fd, times),
                        1000,
                        0,
                    )
                )
    return rows


def instead() -> list[Row]:
    """Compare with what a user would pick instead, on an ordinary file and where a flush is an instruction."""
    rows = []
    claim = os.environ.pop("PMEM2_FORCE_GRANULARITY")
    for folder, forced in ((tempfile.gettempdir(), None), (str(SHM), claim)):
        if forced:
            os.environ["PMEM2_FORCE_GRANULARITY"] = forced
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place) / "data"
            pmem2.open(path, "x+", size=contenders.SIZE).close()
            ours, *others = contenders.available(path)
            for name, workload in contenders.WORKLOADS.items():
                for other in others:
                    rows.append(
                        compare(
                            f"{name}, {forced or 'ordinary file'}",
                            lambda times, workload=workload, ours=ours: workload(ours, times),
                            lambda times, workload=workload, other=other: workload(other, times),
                            10 if "1000" in name or "MiB" in name else 200,
                            1.0,
                            other.name,
                        )
                    )
    return rows


def start() -> list[Row]:
    """Time the import beyond what attrs and the cffi backend cost."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run(code: str) -> Work:
        def work(times: int) -> None:
            for _ in range(times):
                subprocess.run([sys.executable, "-c", code], check=True, env=environment)

        return work

    base = "import attrs, _cffi_backend"
    row = compare("start with `import pmem2`", run(f"{base}, pmem2"), run(base), 3, 0, "attrs and the cffi backend")
    row["added_ms"] = (row["ours_ns"] - row["other_ns"]) / 1e6
    return [row]


def instructions() -> list[Row]:
    """Count instructions with callgrind: the same on every run, whatever else the machine does."""
    if shutil.which("valgrind") is None or sys.implementation.name != "cpython":
        print("instruction counts: skipped, they need valgrind and CPython", file=sys.stderr)
        return []
    rows = []
    for name, text in (("persist(64, 8)", "m.persist(64, 8)"), ("memcpy(64, 64 bytes)", "m.memcpy(64, data)")):
        counts = []
        for times in (1000, 3000):
            code = (
                "import pmem2, os\n"
                "with pmem2.open('/dev/shm/pmem2-count-%d' % os.getpid(), 'w+', size=4096) as m:\n"
                " os.unlink('/dev/shm/pmem2-count-%d' % os.getpid())\n"
                f" data = b'x' * 64\n for _ in range({times}):\n  {text}\n"
            )
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, "-c", code]
                subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "0"})
                counts.append(next(int(x.split()[1]) for x in out.read_text().splitlines() if x.startswith("summary")))
        rows.append({"name": f"instructions of {name}", "count": (counts[1] - counts[0]) / 2000})
    return rows


def plot(file: Path, m: pmem2.Map, c: Any, c_map: int) -> None:
    """Draw ns for each range against the number of ranges, and GB/s against the size of a copy."""
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
            line.append(min(timed(work, times) for _ in range(5)) / count)
    for length in sizes:
        data = bytes(length)
        pointer = reference_pointer(c, "char *", ffi.from_buffer(data))
        times = max((32 << 20) // length // 64, 4)
        works = [
            lambda n, data=data: [m.memcpy(0, data) for _ in range(n)],
            lambda n, pointer=pointer, length=length: c.lib.c_copy(c_map, pointer, length, 0, n),
        ]
        for line, work in zip(copies.values(), works):
            line.append(length / min(timed(work, times) for _ in range(5)))
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
    """Print rows for people."""
    for row in rows:
        if "count" in row:
            print(f"{row['name']:<44}{row['count']:>12,.0f}")
            continue
        verdict = f"target {row['target']:g}" if row["target"] else "no target"
        if "added_ms" in row:
            verdict = f"{row['added_ms']:.1f} ms more, target 25"
        print(
            f"{row['name']:<44}{row['ours_ns']:>12,.0f} ns{row['other_ns']:>12,.0f} ns"
            f"{row['ratio']:>8.2f} of {row['against']} ({verdict})"
        )


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", type=Path, help="draw ns for a range and GB/s to a file; needs matplotlib")
    parser.add_argument("--only", help="comma-separated parts: small,ranges,bulk,mapping,instead,start,instructions")
    options = parser.parse_args()
    c = reference.build()
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        path = Path(folder) / "data"
        with pmem2.open(path, "w+", size=32 << 20) as m, pmem2.Source.from_path(path) as source:
            c_map = c.lib.c_open(source.fd)
            parts: dict[str, Callable[[], list[Row]]] = {
                "small": lambda: small(m),
                "ranges": lambda: ranges(m, c, c_map),
                "bulk": lambda: bulk(m, source, c, c_map),
                "mapping": lambda: mapping(c),
                "instead": instead,
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
