# SPDX-License-Identifier: BSD-3-Clause
"""Stores of aligned words and atomics are one instruction each; see tests/support/stepper.c."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Callable, NamedTuple, cast

import pytest
from support.children import RunChild
from support.compiled import preloadable

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

needs_steps = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="on other processors, an atomic may be a loop that cannot be stepped"
)
EXPECTED = 0x0303030303030303

INTERRUPT = """
import ctypes, sys
import pmem2
library, path, code = ctypes.CDLL(sys.argv[1]), sys.argv[2], sys.argv[3]
m = pmem2.open(path)
m.store_u64(0, 7)
assert library.interrupt_store(ctypes.c_void_p(m.address)) == 0
print(eval(code), m.load_u64(0))
"""
STEP = """
import ctypes, json, os, signal, sys
signal.alarm(1500)  # emulation is slow; elsewhere children.TIMEOUT comes first
import pmem2
library, path, code, runs = ctypes.CDLL(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
class Change(ctypes.Structure):
    _fields_ = [("before", ctypes.c_uint64), ("after", ctypes.c_uint64)]
library.step.restype = ctypes.c_long
m = pmem2.open(path)
act = eval("lambda: " + code)
act()  # binds symbols
results = []
for _ in range(runs):
    pid = os.fork()
    if pid == 0:
        if library.trace_access(ctypes.c_void_p(m.address)):
            os._exit(77)
        m.store_u64(8, int(act() or 0))
        os._exit(0)
    changes = (Change * 500)()
    count = library.step(pid, ctypes.c_void_p(m.address), changes)
    if count < 0:
        sys.exit(77)
    assert os.waitpid(pid, 0)[1] == 0
    results.append([[(change.before, change.after) for change in changes[:count]], m.load_u64(8)])
print(json.dumps(results))
"""


class Operation(NamedTuple):
    """An operation on the first word, and what it may make of the word."""

    code: str
    store: Callable[[int], int]


STORES = {
    "8 bytes": Operation("m.__setitem__(slice(0, 8), bytes(8))", lambda before: 0),
    "4 bytes": Operation("m.__setitem__(slice(0, 4), bytes(4))", lambda before: before >> 32 << 32),
    "2 bytes": Operation("m.__setitem__(slice(0, 2), bytes(2))", lambda before: before >> 16 << 16),
    "store_u64": Operation("m.store_u64(0, 0)", lambda before: 0),
    "fetch_add_u64": Operation("m.fetch_add_u64(0, 1)", lambda before: before + 1),
}


Changes = list[tuple[int, int]]
Stepped = Callable[[str, int], list[tuple[Changes, int]]]


def stepper() -> str:
    """Return the compiled stepper.c."""
    source = Path(__file__).parents[1] / "support/stepper.c"
    return str(preloadable(source.read_text(encoding="utf-8")))


@pytest.fixture
def stepped(run_child: RunChild, file: Path) -> Stepped:
    """Step through an operation several times; return the changes of the word and the result, each time."""
    library = stepper()

    def run(code: str, runs: int) -> list[tuple[Changes, int]]:
        child = run_child(STEP, library, str(file), code, str(runs))
        if child.returncode == 77:
            pytest.skip("processes may not be traced here")
        assert child.returncode == 0, child.stderr
        results = cast("list[tuple[list[list[int]], int]]", json.loads(child.stdout))
        return [([(before, after) for before, after in changes], result) for changes, result in results]

    return run


@needs_steps
@pytest.mark.parametrize("name", STORES)
def test_one_store_instruction(stepped: Stepped, name: str) -> None:
    """An aligned store of 2, 4 or 8 bytes, and an addition, is one instruction: no reader sees mixed bytes."""
    operation = STORES[name]
    for changes, result in stepped(operation.code, 3):
        ((before, after),) = changes
        assert after == operation.store(before)
        if name == "fetch_add_u64":
            assert result == before


@needs_steps
def test_one_exchange_instruction(stepped: Stepped) -> None:
    """compare_exchange_u64 compares and stores in one instruction: no store of another thread gets lost."""
    results = stepped(f"m.compare_exchange_u64(0, {EXPECTED}, 0)[0]", 30)
    swaps = [changes for changes, swapped in results if swapped]
    assert swaps
    assert all(changes == [(EXPECTED, 0)] for changes in swaps)
    assert not any(changes for changes, swapped in results if not swapped)


@needs_steps
def test_one_load_instruction(stepped: Stepped) -> None:
    """load_u64 reads eight bytes in one instruction, never a mixture of old and new ones."""
    for changes, result in stepped("m.load_u64(0)", 3):
        assert changes == []
        assert result in [number * 0x0101010101010101 for number in range(1, 5)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("m.fetch_add_u64(0, 1)", f"{2**32 + 7} {2**32 + 8}"),
        ("m.compare_exchange_u64(0, 7, 9)", f"(False, {2**32 + 7}) {2**32 + 7}"),
    ],
    ids=["fetch_add_u64", "compare_exchange_u64"],
)
def test_store_between_load_and_store(run_child: RunChild, file: Path, code: str, expected: str) -> None:
    """An addition and an exchange see a store that comes right before their own store."""
    child = run_child(INTERRUPT, stepper(), str(file), code)
    assert (child.returncode, child.stdout) == (0, expected + "\n"), child.stderr
