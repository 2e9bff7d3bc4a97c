# SPDX-License-Identifier: BSD-3-Clause
"""Every test case of PMDK's own suite has a test here, or a reason why it has none."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from upstream.catalogue import CASES, NOT_PORTED


def cases_in(path: Path) -> Iterator[str]:
    """Yield the PMDK cases in the `upstream` markers of a file; reading the source also finds skipped tests."""
    for function in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(function, ast.FunctionDef):
            for decorator in function.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.upstream":
                    yield from map(ast.literal_eval, decorator.args)


PORTED = {case for path in Path(__file__).parents[1].rglob("test_*.py") for case in cases_in(path)}


def test_cases_have_test_or_reason() -> None:
    """Each case has either a test or a reason for having none."""
    assert [case for case in CASES if (case in PORTED) == (case in NOT_PORTED)] == []
    assert all(reason.strip() for reason in NOT_PORTED.values())


def test_no_unknown_cases() -> None:
    """Markers and reasons name existing cases, and no case is listed twice."""
    assert PORTED | NOT_PORTED.keys() <= set(CASES)
    assert len(CASES) == len(set(CASES))
