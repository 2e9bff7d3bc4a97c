# SPDX-License-Identifier: BSD-3-Clause
"""The page docs/crash-testing.md: its Python blocks run, and its pytest output is exact."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pmem2.testing import explore

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "crash-testing.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RAISED = re.compile(r"^E +pmem2\.testing\.CrashConsistencyError.*\n(?:E .*\n)*", re.MULTILINE)
PRINTED = re.compile(r"print\(.*\)  # (.*)")


def blocks(language: str) -> list[str]:
    """Return the code blocks of the page in one language."""
    return [text for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if kind == language]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with the first two blocks of the page: the log with the bug, and its test."""
    for text in blocks("python")[:2]:
        (tmp_path / text.split()[1]).write_text(text, encoding="utf-8")
    return tmp_path


def test_output_matches_page(files: Path) -> None:
    """The test of the log with the bug fails with the output that the page shows."""
    search_path = os.pathsep.join(filter(None, sys.path))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "_pmem2_pytestplugin", "test_log.py"],
        cwd=files,
        env={**os.environ, "PYTHONPATH": search_path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    message = RAISED.search(ran.stdout)
    assert message is not None
    (printed,) = (text for text in blocks("console") if text.startswith("E "))
    assert printed == message.group()


def test_every_block_runs(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks run in order, the tests that they define pass, and they print what their comments say."""
    monkeypatch.chdir(files)
    log, test, fixed, *rest = blocks("python")
    names: dict[str, object] = {"crash_explorer": explore}
    monkeypatch.setitem(sys.modules, "log", type(sys)("log"))
    exec(compile(log, "log.py", "exec"), vars(sys.modules["log"]))
    exec(compile(fixed, "log.py", "exec"), vars(sys.modules["log"]))
    expected = []
    for text in (test, *rest):
        tests = re.findall(r"^def (test_\w+)\(crash_explorer\)", text, re.MULTILINE)
        calls = "".join(f"{name}(crash_explorer)\n" for name in tests)
        exec(compile(text + calls, "page.py", "exec"), names)
        expected += PRINTED.findall(text)
    assert len(rest) > 5
    assert capsys.readouterr().out.splitlines() == expected
