# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 demo`: what it shows, and that it does not say that all is well when it is not."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

import pmem2
from pmem2.cli import demo, main


def test_demo_in_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything is found again, and the file is gone."""
    assert main(["demo", str(tmp_path)]) == 0
    out, error = capsys.readouterr()
    assert out.endswith("0 of them damaged\nall that was persisted is there\n")
    assert error == ""
    assert os.listdir(tmp_path) == []


def test_a_child_that_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was shown then: that is a failure."""
    monkeypatch.setattr(sys, "executable", "true")
    assert main(["demo", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "pmem2: the child process ended by itself when it had told of 0 records\n"
    assert os.listdir(tmp_path) == []


def test_what_is_lost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that is not what was appended is a failure."""
    monkeypatch.setattr(demo, "record", lambda _number: bytes(demo.RECORD.size))
    assert main(["demo", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("FAILED: something that was persisted is lost\n")


def test_a_file_that_cannot_be_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What libpmem2 says is told as it is."""

    def refused(_path: Path, _mode: str, size: int) -> pmem2.Map:
        with pmem2.Source.from_anon(size) as source:
            return source.map(pmem2.Config(offset=7))

    monkeypatch.setattr(pmem2, "open", refused)
    assert main(["demo", str(tmp_path)]) == 1
    assert "cannot map everything at 7" in capsys.readouterr().err


def test_places_where_it_cannot_be(tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there is not overwritten; what cannot be made is told by the name that was given."""
    (tmp_path / "file").write_bytes(b"mine")
    for path, complaint in (
        (f"{tmp_path}/file", "exists; name a file that does not, or a directory"),
        (f"{tmp_path}/new/", "is not a directory"),
        ("", "a name of no letters names nothing"),
        (
            f"{tmp_path}/new/file",
            f"{tmp_path}/new/file: no file of 16 MiB can be made there: No such file or directory",
        ),
        (str(small_disk), f"{small_disk}: no file of 16 MiB can be made there: No space left on device"),
    ):
        assert main(["demo", path]) == 1
        assert re.search(re.escape(complaint), capsys.readouterr().err)
    assert set(os.listdir(tmp_path)) == {"file", small_disk.name}
    assert (tmp_path / "file").read_bytes() == b"mine"
