# SPDX-License-Identifier: BSD-3-Clause
"""A short run of the programs that `nox -s fuzz` tries for longer, and a proof that it finds what kills."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.children import RunChild

FUZZ = Path(__file__).parents[2] / "fuzz"
IMPORTS = f"import os, signal, sys; sys.path.insert(0, {str(FUZZ)!r}); import programs, world"

pytestmark = pytest.mark.skipif(not FUZZ.exists(), reason="fuzz/ is not here")


def test_some_programs(run_child: RunChild) -> None:
    """No program of public calls kills or hangs the process, leaves anything behind, or raises what is not named."""
    child = run_child(f"{IMPORTS}; programs.fuzz(10, seed=0); print(programs.Totals.done > 0)")
    assert (child.returncode, child.stdout) == (0, "True\n"), child.stderr


def test_programs_found_by_coverage(run_child: RunChild) -> None:
    """What `nox -s atheris` has kept does no harm on any interpreter."""
    found = sorted(str(path) for path in (FUZZ / "corpus").iterdir())
    child = run_child(f"{IMPORTS}, arguments; arguments.main()", *found, PYTHONWARNINGS="ignore::ResourceWarning")
    assert (child.returncode, child.stdout) == (0, f"{len(found)} programs, no crash\n"), child.stderr
    assert found


PLANTED = f"""
{IMPORTS}
world.World.collect = lambda self: os.kill(os.getpid(), signal.SIGSEGV)
for name in set(programs.OPERATIONS) - {{"collect"}}:
    setattr(programs.Programs, name, None)
programs.fuzz(30, seed=0)
"""


def test_signal_shrinks_to_example(run_child: RunChild) -> None:
    """An operation that ends the process is found, and the report has nothing but it."""
    child = run_child(PLANTED)
    assert child.returncode == 1
    report = child.stderr[child.stderr.index("SIGSEGV") :]
    assert [line for line in report.splitlines() if line.startswith("state.")] == [
        "state.collect()",
        "state.teardown()",
    ]
