# SPDX-License-Identifier: BSD-3-Clause
"""docs/crash-testing.md, run: every block of Python, and what pytest prints of the bug."""

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
    """Return the blocks of the page in one language."""
    return [text for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if kind == language]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with the log and its test, as the page has them before the bug is mended."""
    for text in blocks("python")[:2]:
        (tmp_path / text.split()[1]).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_message_is_what_pytest_prints(files: Path) -> None:
    """The test of the log that has the bug fails as printed."""
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
    """One after the other; what they define as tests passes, what they print is what the comments say."""
    monkeypatch.chdir(files)
    log, test, mended, *rest = blocks("python")
    names: dict[str, object] = {"crash_explorer": explore}
    monkeypatch.setitem(sys.modules, "log", type(sys)("log"))
    exec(compile(log, "log.py", "exec"), vars(sys.modules["log"]))
    exec(compile(mended, "log.py", "exec"), vars(sys.modules["log"]))
    expected = []
    for text in (test, *rest):
        tests = re.findall(r"^def (test_\w+)\(crash_explorer\)", text, re.MULTILINE)
        calls = "".join(f"{name}(crash_explorer)\n" for name in tests)
        exec(compile(text + calls, "page.py", "exec"), names)
        expected += PRINTED.findall(text)
    assert len(rest) > 5
    assert capsys.readouterr().out.splitlines() == expected
