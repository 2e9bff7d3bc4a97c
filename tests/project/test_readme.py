# SPDX-License-Identifier: BSD-3-Clause
"""What the README shows, run."""

from __future__ import annotations

import doctest
import gc
from pathlib import Path

import pytest

from pmem2.cli import main

README = Path(__file__).parents[2] / "README.md"


def test_the_first_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session of the README runs as printed."""
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(README), module_relative=False, optionflags=doctest.ELLIPSIS)
    gc.collect()
    assert tried > 10
    assert failed == 0


@pytest.mark.parametrize(("name", "forced"), [("demo", ""), ("", "CACHE_LINE")])
def test_the_demo_loses_nothing(
    tmp_path: Path, name: str, forced: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demonstration finds all that it persisted, and cleans up, in a directory or under a name."""
    if forced:  # and quick
        monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", forced)
    assert main(["demo", str(tmp_path / name)]) == 0
    assert "all durable data is there" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_demo_spares_a_file_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there already is not touched."""
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
