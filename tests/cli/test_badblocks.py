# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 badblocks` without bad blocks; tests/hardware/test_cli.py has real ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.terminal import terminal_input

from pmem2 import BadBlock
from pmem2.cli import badblocks, main
from pmem2.cli._command import CommandError

BLOCKS = [BadBlock(4096, 4096), BadBlock(65536, 8192)]


@pytest.mark.parametrize("flags", [[], ["--clear"], ["--clear", "--yes"]])
def test_no_bad_blocks(path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """For a good file the command reports no bad blocks, asks nothing and clears nothing."""
    before = path.read_bytes()
    assert main(["badblocks", str(path), *flags]) == 0
    assert capsys.readouterr() == (f"{path}: no bad blocks are known\n", "")
    assert path.read_bytes() == before


def test_yes_needs_clear(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--yes without --clear is wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(["badblocks", str(path), "--yes"])
    assert caught.value.code == 2
    assert "--yes needs --clear" in capsys.readouterr().err


def test_other_file_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command refuses a directory and a FIFO, and does not block on the FIFO."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        assert main(["badblocks", str(path)]) == 1
        assert "neither a regular file nor a DAX device" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    """The list shows the offset and the length of each block and their total size."""
    badblocks.list_blocks("file", BLOCKS)
    assert capsys.readouterr().out == "file: 2 bad, 12 KiB in all\noffset  length\n4096      4096\n65536     8192\n"


def test_confirm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The question names the lost size; only "y" and "yes" confirm."""
    badblocks.confirm(BLOCKS, yes=True)
    assert capsys.readouterr().out == ""
    for answer in ("y\n", " YES \n"):
        with terminal_input(monkeypatch, answer):
            badblocks.confirm(BLOCKS, yes=False)
        assert "12 KiB will be overwritten with zeros" in capsys.readouterr().out
    for answer in ("n\n", "\n", "yesterday\n", "\x04"):
        with terminal_input(monkeypatch, answer), pytest.raises(CommandError, match="nothing was cleared"):
            badblocks.confirm(BLOCKS, yes=False)


def test_script_needs_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal, nothing is cleared unless --yes is given."""
    with open(os.devnull, encoding="utf-8") as null:
        monkeypatch.setattr("sys.stdin", null)
        with pytest.raises(CommandError, match="--yes clears without asking"):
            badblocks.confirm(BLOCKS, yes=False)
