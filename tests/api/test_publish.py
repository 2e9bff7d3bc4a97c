# SPDX-License-Identifier: BSD-3-Clause
"""publish and acquire: which cache lines are written back or dropped, and the fences around them.

tests/support/cache_steps.c records the instructions that the processor executes. That test also runs on persistent
memory with eADR (`nox -s nvdimm -- ext4 cpu`), where libpmem2's flush does nothing.
"""

from __future__ import annotations

import json
import mmap
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest
from support.children import RunChild
from support.compiled import preloadable
from support.map_calls import OUTSIDE, range_outside
from support.values import CONTENT, MEDIUM_GRANULARITY

import pmem2

if TYPE_CHECKING:
    from pmem2 import Map

LENGTH = len(CONTENT)
LINE = 64
RANGES = [(0, 64), (60, 8), (64, 4096), (100, 0), (1, 1), (65536, 8192)]
MANY = [(0, 8), (8, 8), (300, 100), (320, 1), (200, 0)]
RECORD = """
import ctypes, json, os, sys
import pmem2
from pmem2._ffi import ffi, lib
library, path, ranges, many = ctypes.CDLL(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
class Step(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_uint64), ("address", ctypes.c_uint64)]
library.steps_end.restype = ctypes.c_uint64
first = ctypes.POINTER(Step)()

def steps():
    count = library.steps_end(ctypes.byref(first))
    return "".join(chr(step.kind) for step in first[:count]), [step.address - m.address for step in first[:count]]

def of_method(call, *arguments):
    library.steps_at_access(ctypes.c_void_p(m.address), ctypes.c_size_t(m.size))
    call(*arguments)
    return steps()

def address_of(pointer):
    return int(ffi.cast("uintptr_t", pointer))

def of_function(name, pointer, first, second=0):
    guard = ctypes.c_void_p(address_of(ffi.addressof(lib, "guarded_" + name)))
    library.steps_of_call(guard, ctypes.c_void_p(pointer), ctypes.c_size_t(first), ctypes.c_size_t(second))
    return steps()

def of_guard(name, first, second):
    return of_function(name, address_of(m._handle), first, second)

packed = ffi.new("uint64_t[]", [number for pair in many for number in pair])
pointer = address_of(packed)
results = {}
for granularity in sys.argv[5:]:
    if "PMEM2_TEST_GRANULARITY" not in os.environ:
        os.environ["PMEM2_FORCE_GRANULARITY"] = granularity
    with pmem2.open(path) as m:
        assert m.granularity.name == granularity
        results[granularity] = {
            **{name: [of_guard(name, *range) for range in ranges] for name in ("publish", "acquire", "flush")},
            **{name: [of_guard(name, pointer, len(many))] for name in ("publish_many", "acquire_many")},
            "publish_memory": [of_function("publish_memory", m.address + start, length) for start, length in ranges],
            "acquire_memory": [of_function("acquire_memory", m.address + start, length) for start, length in ranges],
        }
        methods = {
            "publish": [of_method(m.publish, *range) for range in ranges],
            "acquire": [of_method(m.acquire, *range) for range in ranges],
            "views": [of_method(m.publish, m.view(60, 8)), of_method(m.acquire, m.view(60, 8))],
            "buffers": [of_method(pmem2.publish, m.view(60, 8)), of_method(pmem2.acquire, m.view(60, 8))],
            "many": [of_method(m.publish_many, many), of_method(m.acquire_many, many)],
        }
print(json.dumps([results, methods]))
"""
Record = tuple[str, list[int]]


def lines(offset: int, length: int) -> list[int]:
    """Return the offsets of the lines that a range touches; a map begins at a line."""
    return list(range(offset // LINE * LINE, offset + length, LINE)) if length else []


def instruction(*names: str) -> str:
    """Return the letter in cache_steps.c of the first instruction that the processor has."""
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii").split()
    letters = {"clwb": "w", "clflushopt": "o", "clflush": "f"}
    return next(letters[name] for name in names if name in flags)


Recorded = dict[str, list[Record]]
Recording = tuple[dict[str, Recorded], Recorded]
LETTERS = {"publish": ("clwb", "clflushopt", "clflush"), "acquire": ("clflushopt", "clflush")}


@pytest.fixture
def recording(run_child: RunChild, file: Path) -> Recording:
    """The instructions of the C functions for each granularity, and those of the methods from the first line on."""
    if platform.machine() != "x86_64" or sys.platform == "win32":
        pytest.skip("needs the trap flag of x86-64")
    library = preloadable((Path(__file__).parents[1] / "support/cache_steps.c").read_text(encoding="utf-8"))
    granularities = [MEDIUM_GRANULARITY] if MEDIUM_GRANULARITY else ["BYTE", "PAGE"]
    never = {"PMEM_NO_CLWB": "1", "PMEM_NO_CLFLUSHOPT": "1", "PMEM_NO_FLUSH": "1"}  # libpmem2 obeys
    child = run_child(RECORD, str(library), str(file), json.dumps(RANGES), json.dumps(MANY), *granularities, **never)
    assert child.returncode == 0, child.stderr
    by_granularity, methods = json.loads(child.stdout)
    assert list(by_granularity) == granularities
    return by_granularity, methods


def check_methods(methods: Recorded) -> None:
    """Check which lines the methods act on, up to the last fence."""
    assert [offsets[:2] for _, offsets in methods["views"]] == [[0, 64]] * 2
    assert [offsets[:2] for _, offsets in methods["buffers"]] == [[0, 64]] * 2
    assert [kinds for kinds, _ in methods["buffers"]] == [2 * instruction(*names) + "m" for names in LETTERS.values()]
    assert [offsets[:4] for _, offsets in methods["many"]] == [[0, 256, 320, 384]] * 2
    for name, names in LETTERS.items():
        letter = instruction(*names)
        for range_, (kinds, offsets) in zip(RANGES, methods[name]):
            touched = lines(*range_)
            assert kinds == letter * len(touched) + "m" * bool(touched)
            assert offsets[: len(touched)] == touched


@pytest.mark.medium
def test_one_instruction_a_line(recording: Recording) -> None:
    """publish and acquire execute one instruction a line between two fences, on BYTE too, where flush executes none."""
    by_granularity, methods = recording
    for granularity, recorded in by_granularity.items():
        for name, names in LETTERS.items():
            letter = instruction(*names)
            for range_, (kinds, offsets) in [*zip(RANGES, recorded[name]), *zip(RANGES, recorded[f"{name}_memory"])]:
                touched = lines(*range_)
                assert kinds == "m" + letter * len(touched) + "m"
                assert offsets[1:-1] == touched
            ((kinds, offsets),) = recorded[f"{name}_many"]
            assert (kinds, offsets[1:-1]) == ("m" + 4 * letter + "m", [0, 256, 320, 384])
        if granularity == "BYTE":
            assert {kinds for kinds, _ in recorded["flush"]} == {""}
    if MEDIUM_GRANULARITY is None:  # QEMU's emulation of these instructions ignores the protection of the page
        check_methods(methods)


def calls(map: Map, offset: int, length: int | None) -> list[Callable[[], None]]:
    """Return calls of every method for one range."""
    single: list[Callable[[], None]] = [
        lambda: map.publish(offset, length),
        lambda: map.acquire(offset=offset, length=length),
    ]
    if length is None:
        return single
    pairs = [(0, 1), (offset, length)]
    return [*single, lambda: map.publish_many(pairs), lambda: map.acquire_many(iter(pairs))]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, None), (LENGTH, 0), (LENGTH, None), (1, LENGTH - 1), (5, 7)]
)
def test_ranges_inside(small_map: Map, offset: int, length: int | None) -> None:
    """Any range inside the map is accepted, and no byte changes."""
    small_map[0:5] = b"plain"
    for call in calls(small_map, offset, length):
        assert call() is None
    assert small_map[:] == b"plain" + CONTENT[5:]


@range_outside
def test_ranges_outside(small_map: Map, offset: int, length: int | None) -> None:
    """A range that does not lie inside the map raises ValueError."""
    for call in calls(small_map, offset, length):
        with pytest.raises(ValueError, match=OUTSIDE):
            call()


def test_memory_of_others() -> None:
    """The functions take any buffer that lies in one piece; publish needs a writable one."""
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory[0:5] = b"plain"
    with memoryview(memory) as view:
        for buffer in (memory, view, view[3:5], view[5:5], bytearray(b"plain"), bytearray()):
            pmem2.publish(buffer)
            pmem2.acquire(buffer)
        for function in (pmem2.publish, pmem2.acquire):
            with pytest.raises(BufferError, match=r"^buffer must be C-contiguous"):
                function(view[::2])
            with pytest.raises(TypeError, match=r"^buffer must be a bytes-like object, not str"):
                function("plain")  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=r"^buffer must be a bytes-like object, not int"):
                function(5)  # type: ignore[arg-type]
        pmem2.acquire(view.toreadonly())
        with pytest.raises(TypeError, match=r"^buffer must be writable, got a read-only buffer$"):
            pmem2.publish(view.toreadonly())
    assert memory[0:6] == b"plain\0"
    memory.close()
