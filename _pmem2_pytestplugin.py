# SPDX-License-Identifier: BSD-3-Clause
"""What pytest finds without configuration: the fixture `crash_explorer`.

Not in the package, which every pytest of an environment would then import at its start, needed or not.
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
    """`pmem2.testing.explore`, which tells in the report of the test what was checked."""
    from pmem2.testing import explore

    @functools.wraps(explore)
    def reporting(*arguments: Any, **options: Any) -> Report:
        __tracebackhide__ = True
        report: Report = explore(*arguments, **options)
        every = "all there are" if report.exhaustive else "not all there are"
        told = f"{report.images} images checked, {every}, in {report.seconds:.2f} s"
        request.node.add_report_section("call", "crash states", told)
        return report

    return reporting
