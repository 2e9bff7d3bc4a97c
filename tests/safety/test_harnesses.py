# SPDX-License-Identifier: BSD-3-Clause
"""Short runs of the harnesses that disturb every public call; `nox -s soak` runs them for longer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.public_calls import ALL_CALLS, CALLS, public_names
from support.values import EMULATED, ON_PYPY, WITHOUT_MSYNC, rounds, weekly_on_pypy

if TYPE_CHECKING:
    from support.children import RunChild

RUN = "import sys; from safety.harness.program import main; sys.exit(main(sys.argv[1:]))"
SKIPPED = 77


def run_harness(
    run_child: RunChild, disturbance: str, count: int = 0, granularity: str = WITHOUT_MSYNC, only: str = ""
) -> None:
    """Run a harness in a child, which must find no problem."""
    if EMULATED and "PMEM2_TEST_ROUNDS" not in os.environ:
        pytest.skip("takes long under user emulation: set PMEM2_TEST_ROUNDS")
    repeated = str(rounds(max(count // 3, 1) if ON_PYPY else count))
    arguments = (disturbance, "--rounds", repeated, "--only", only)
    child = run_child(RUN, *arguments, PMEM2_FORCE_GRANULARITY=granularity)
    if child.returncode == SKIPPED:
        pytest.skip(child.stdout.strip())
    problems = child.stdout.splitlines()[:-1]  # the last line counts
    assert (problems, child.returncode, child.stderr) == ([], 0, "")


def test_all_calls_are_listed() -> None:
    """The table of calls has a row for each public function, method and property."""
    assert public_names() - {name.partition(" ")[0] for name in ALL_CALLS} == set()


def test_calls_are_distinct() -> None:
    """The table has most of its rows on each interpreter."""
    assert len(CALLS) > 140


def test_interrupted_calls(run_child: RunChild) -> None:
    """An exception of a signal handler comes out of any call, which leaves nothing behind."""
    run_harness(run_child, "interrupts", 5)


@weekly_on_pypy
def test_interrupted_blocks(run_child: RunChild) -> None:
    """An interrupted call in a `with` block lets the block close its map."""
    run_harness(run_child, "blocks", 3, "BYTE")


@weekly_on_pypy
def test_calls_interrupted_twice(run_child: RunChild) -> None:
    """A second exception soon after the first leaves nothing behind either."""
    run_harness(run_child, "double-interrupts", 3, "PAGE")


@weekly_on_pypy
def test_interrupts_in_cycles(run_child: RunChild) -> None:
    """The collector can free the frames of an interrupted call in a garbage cycle."""
    run_harness(run_child, "cycles", 3)


@pytest.mark.parametrize("only", ["Map.memcpy", "Map.view", "Map.read_into"])
def test_each_bytecode_of_calls(run_child: RunChild, only: str) -> None:
    """An exception between any two bytecodes leaves nothing pinned or borrowed, not even while it is handled."""
    run_harness(run_child, "bytecodes", only=only)


def test_each_allocation_of_calls(run_child: RunChild) -> None:
    """Whichever allocation of a call fails, a MemoryError comes out, and the call leaves nothing behind."""
    run_harness(run_child, "allocations")


@weekly_on_pypy
def test_calls_at_recursion_limit(run_child: RunChild) -> None:
    """A call at any depth works or raises RecursionError, and leaves nothing behind, as does dropping its result."""
    run_harness(run_child, "recursion", 10)


@weekly_on_pypy
def test_forks_inside_calls(run_child: RunChild) -> None:
    """A child that a signal handler forks inside a call cannot unmap what the call uses, and can close it later."""
    run_harness(run_child, "forks", 2, only="Map.")


def test_calls_of_threads(run_child: RunChild) -> None:
    """All calls run in many threads at once while the map is closed and replaced, and leave nothing behind."""
    run_harness(run_child, "threads")
