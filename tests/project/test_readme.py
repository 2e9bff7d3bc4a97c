# SPDX-License-Identifier: BSD-3-Clause
"""The README: its Python session and its demo command work."""

from __future__ import annotations

import doctest
import gc
from pathlib import Path

import pytest
from support.values import WITHOUT_MSYNC

from pmem2.cli import main

README = Path(__file__).parents[2] / "README.md"


def test_python_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python session of the README produces the printed output."""
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(README), module_relative=False, optionflags=doctest.ELLIPSIS)
    gc.collect()
    assert tried > 10
    assert failed == 0


@pytest.mark.parametrize(("name", "forced"), [("demo", ""), ("", WITHOUT_MSYNC)])
def test_demo_loses_nothing(
    tmp_path: Path, name: str, forced: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo finds all persisted data and removes its files, for a directory and for a file name."""
    if forced:
        monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", forced)
    assert main(["demo", str(tmp_path / name)]) == 0
    assert "all durable data is there" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_demo_keeps_existing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo refuses an existing file or link and leaves it unchanged."""
    path = tmp_path / "precious"
    path.write_bytes(b"data")
    assert main(["demo", str(path)]) == 1
    assert "exists" in capsys.readouterr().err
    assert path.read_bytes() == b"data"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    assert main(["demo", str(link)]) == 1
    assert "exists" in capsys.readouterr().err
    assert link.is_symlink()
