# SPDX-License-Identifier: BSD-3-Clause
"""A short run of the fuzzer of `nox -s fuzz`, and a proof that it finds a fatal operation."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.children import RunChild
from support.values import weekly_on_pypy

FUZZ = Path(__file__).parents[2] / "fuzz"
IMPORTS = f"import os, signal, sys; sys.path.insert(0, {str(FUZZ)!r}); import model, programs"

pytestmark = pytest.mark.skipif(not FUZZ.exists(), reason="needs the folder fuzz/")


@weekly_on_pypy
def test_generated_programs(run_child: RunChild) -> None:
    """No program of public calls kills or hangs the process, leaks, or raises an undocumented exception."""
    child = run_child(f"{IMPORTS}; programs.fuzz(4, seed=0); print(programs.Totals.done > 0)")
    assert (child.returncode, child.stdout) == (0, "True\n"), child.stderr


def test_corpus(run_child: RunChild) -> None:
    """The programs that `nox -s fuzz-guided` found run without a crash on every interpreter."""
    found = sorted(str(path) for path in (FUZZ / "corpus").iterdir())
    child = run_child(f"{IMPORTS}, arguments; arguments.main()", *found, PYTHONWARNINGS="ignore::ResourceWarning")
    assert (child.returncode, child.stdout) == (0, f"{len(found)} programs, no crash\n"), child.stderr
    assert found


WITH_FATAL_OPERATION = f"""
{IMPORTS}
model.Model.collect = lambda self: os.kill(os.getpid(), signal.SIGSEGV)
for name in set(programs.OPERATIONS) - {{"collect"}}:
    setattr(programs.Programs, name, None)
programs.fuzz(30, seed=0)
"""


@weekly_on_pypy
def test_fatal_operation_is_reported_alone(run_child: RunChild) -> None:
    """Hypothesis finds an operation that kills the process, and shrinks the program to that operation."""
    child = run_child(WITH_FATAL_OPERATION)
    assert child.returncode == 1
    report = child.stderr[child.stderr.index("SIGSEGV") :]
    assert [line for line in report.splitlines() if line.startswith("state.")] == [
        "state.collect()",
        "state.teardown()",
    ]
