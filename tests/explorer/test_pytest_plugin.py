# SPDX-License-Identifier: BSD-3-Clause
"""The pytest plugin and its fixture `crash_explorer`."""

from __future__ import annotations

import subprocess
import sys

import pytest

TEST = """
def test_it(crash_explorer):
    def workload(map):
        map.store_u64(0, 1)
        map.store_u64(64, 1, persist=True)

    def check(map):
        assert {}

    report = crash_explorer(workload, check, size=128)
    assert report.images == 4
"""


def test_plugin_does_not_import_pmem2() -> None:
    """The plugin, which every pytest run loads, does not import pmem2."""
    code = "import _pmem2_pytestplugin, sys; sys.exit('pmem2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def installed(pytestconfig: pytest.Config) -> None:
    """Skip a test if pmem2 is only on the import path: pytest finds the plugin through the installed metadata."""
    if not pytestconfig.pluginmanager.has_plugin("pmem2"):
        pytest.skip("pmem2 is importable but not installed")


@pytest.mark.usefixtures("installed")
def test_fixture_is_found(pytester: pytest.Pytester) -> None:
    """pytest finds the fixture without configuration, and the report of a passing test counts the images."""
    pytester.makepyfile(TEST.format("map.load_u64(0) + map.load_u64(64) < 3"))
    result = pytester.runpytest_inprocess("-rA", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*crash states*", "4 images checked in * s, exhaustive"])


@pytest.mark.usefixtures("installed")
def test_failure_shows_lost_stores(pytester: pytest.Pytester) -> None:
    """pytest shows the table of lost stores, and no frames of pmem2."""
    pytester.makepyfile(TEST.format("map.load_u64(0) or not map.load_u64(64)"))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E * a power failure at *:4 (workload) can leave a state that the check rejects: AssertionError*",
            "E *lost at  bytes  stored at *",
            "E *0 * 8 *:3 * workload  never flushed",
            "E *fix: call persist(0, 8) before line 4 of *",
        ]
    )
    result.stdout.no_fnmatch_line("*_search.py*")
    result.stdout.no_fnmatch_line("*During handling*")
