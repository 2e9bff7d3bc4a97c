# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 badblocks` without bad blocks; tests/hardware/test_cli.py has real ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.terminal import terminal_input

from pmem2 import BadBlock
from pmem2.cli import badblocks, main
from pmem2.cli._command import CommandError

SCHEMA = Path(badblocks.__file__).parent / "badblocks.schema.json"
BLOCKS = [BadBlock(4096, 4096), BadBlock(65536, 8192)]


@pytest.mark.parametrize("flags", [[], ["--clear"], ["--clear", "--yes"]])
def test_no_bad_blocks(path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """For a good file the command reports no bad blocks, asks nothing and clears nothing."""
    before = path.read_bytes()
    assert main(["badblocks", str(path), *flags]) == 0
    assert capsys.readouterr() == (f"{path}: no bad blocks are known\n", "")
    assert path.read_bytes() == before


@pytest.mark.parametrize("flags", [[], ["--clear", "--yes"]])
def test_json(path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one object; the schema accepts it, and requires every key."""
    assert main(["badblocks", str(path), "--json", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"path": str(path), "bad_blocks": [], "cleared": bool(flags)}
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate({**found, "bad_blocks": badblocks.as_json(BLOCKS)})
    assert not validator.is_valid({**found, "more": 1})
    assert not any(validator.is_valid({key: found[key] for key in found if key != missing}) for missing in found)


@pytest.mark.parametrize(
    ("flags", "message"), [(["--yes"], "--yes needs --clear"), (["--json", "--clear"], "--json --clear needs --yes")]
)
def test_flags_that_need_others(path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--yes without --clear is wrong usage; so is a question that a script cannot answer."""
    with pytest.raises(SystemExit) as caught:
        main(["badblocks", str(path), *flags])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


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
        for stdin in (null, None):  # None: the parent process closed it
            monkeypatch.setattr("sys.stdin", stdin)
            with pytest.raises(CommandError, match="--yes clears without asking"):
                badblocks.confirm(BLOCKS, yes=False)
