# SPDX-License-Identifier: BSD-3-Clause
"""The pytest plugin: the fixture `crash_explorer`, found without configuration.

It lies outside of the package: otherwise every pytest run in the environment would import pmem2 at its start.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pmem2.testing import Report
    from pmem2.testing._explore import Explorer


@pytest.fixture
def crash_explorer(request: pytest.FixtureRequest) -> Explorer:
    """`pmem2.testing.explore`; the report of the test says how many images were checked."""
    from pmem2.testing import explore

    @functools.wraps(explore)
    def explore_and_report(*arguments: Any, **options: Any) -> Report:
        __tracebackhide__ = True
        report: Report = explore(*arguments, **options)
        coverage = "exhaustive" if report.exhaustive else "not exhaustive"
        summary = f"{report.images} images checked in {report.seconds:.2f} s, {coverage}"
        request.node.add_report_section("call", "crash states", summary)
        return report

    return explore_and_report
