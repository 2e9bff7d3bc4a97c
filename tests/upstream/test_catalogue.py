# SPDX-License-Identifier: BSD-3-Clause
"""Every test case of PMDK's own suite is a test here, or has a reason not to be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from upstream.catalogue import ALL_ROWS, ELSEWHERE


def rows_with_tests() -> set[int]:
    """Return the row numbers in the names of all test functions."""
    names = (
        node.name
        for path in Path(__file__).parents[1].rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    )
    return {int(match[1]) for match in map(re.compile(r"test_row_(\d{3})_\w").match, names) if match}


TESTED = rows_with_tests()


@pytest.mark.parametrize("row", ALL_ROWS)
def test_each_row_is_tested_or_says_why_not(row: int) -> None:
    """A row has either tests or a reason for having none."""
    assert (row in TESTED) != bool(ELSEWHERE.get(row, "").strip())


def test_there_are_no_other_rows() -> None:
    """Tests and reasons belong to rows that exist, and no row is listed twice."""
    assert TESTED | ELSEWHERE.keys() <= set(ALL_ROWS)
    assert len(ALL_ROWS) == len(set(ALL_ROWS))
