# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 badblocks`; with real ones in tests/test_medium_cli.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.terminal import typed

from pmem2 import BadBlock
from pmem2.cli import badblocks, main
from pmem2.cli._command import Failure

BLOCKS = [BadBlock(4096, 4096), BadBlock(65536, 8192)]


@pytest.mark.parametrize("flags", [[], ["--clear"], ["--clear", "--yes"]])
def test_none(path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A good file has none, and nothing is asked or cleared."""
    before = path.read_bytes()
    assert main(["badblocks", str(path), *flags]) == 0
    assert capsys.readouterr() == (f"{path}: no bad blocks are known\n", "")
    assert path.read_bytes() == before


def test_yes_is_for_clear(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--yes without --clear is wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(["badblocks", str(path), "--yes"])
    assert caught.value.code == 2
    assert "--yes is for --clear" in capsys.readouterr().err


def test_what_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no file and no DAX device is refused, and a FIFO does not block."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        assert main(["badblocks", str(path)]) == 1
        assert "neither a regular file nor a DAX device" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    """The list says where they are, and how much it is together."""
    badblocks.describe("file", BLOCKS)
    assert capsys.readouterr().out == "file: 2 bad, 12 KiB in all\noffset  length\n4096      4096\n65536     8192\n"


def test_consent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A person is told what will be lost and asked; only a yes is one."""
    badblocks.consent(BLOCKS, yes=True)
    assert capsys.readouterr().out == ""
    for answer in ("y\n", " YES \n"):
        with typed(monkeypatch, answer):
            badblocks.consent(BLOCKS, yes=False)
        assert "12 KiB will be overwritten with zeros" in capsys.readouterr().out
    for answer in ("n\n", "\n", "yesterday\n", "\x04"):
        with typed(monkeypatch, answer), pytest.raises(Failure, match="nothing was cleared"):
            badblocks.consent(BLOCKS, yes=False)


def test_a_script_must_say_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be asked nothing is cleared without --yes."""
    with open(os.devnull, encoding="utf-8") as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        with pytest.raises(Failure, match="--yes clears without asking"):
            badblocks.consent(BLOCKS, yes=False)
