# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 demo`: its output, and its failure when data is lost."""

from __future__ import annotations

import inspect
import os
import re
import sys
from pathlib import Path

import pytest

import pmem2
from pmem2.cli import demo, main
from pmem2.cli._platform import Mount


@pytest.fixture(autouse=True)
def no_msync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Avoid msync, which would take most of the time of these tests; tests/project/test_readme.py runs it."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE")


def test_demo_in_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo finds all durable data and removes its file."""
    assert main(["demo", str(tmp_path)]) == 0
    out, error = capsys.readouterr()
    assert out.endswith("0 of them damaged\nall durable data is there\n")
    assert error == ""
    assert os.listdir(tmp_path) == []


def test_missing_persist_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo explores its append with and without the persist, and prints the failing case with its fix."""
    assert main(["demo", str(tmp_path)]) == 0
    out, _ = capsys.readouterr()
    lines, first = inspect.getsourcelines(demo.append_without_persist)
    line = first + next(number for number, text in enumerate(lines) if "fetch_add_u64" in text)
    assert "states that a power failure can leave; none loses or damages a record\n" in out
    assert re.search(rf"a power failure at .*demo\.py:{line} \(append_without_persist\) can leave", out)
    assert re.search(rf"fix: call persist\(8192, 64\) before line {line} of .*demo\.py\n", out)
    assert "proves nothing about power" in out


def test_append_keeps_persist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo fails if the explorer does not find the missing persist."""
    monkeypatch.setattr(demo, "append_without_persist", demo.append)
    assert main(["demo", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("FAILED: the explorer does not find a missing persist\n")


@pytest.mark.parametrize("filesystem", ["tmpfs", "ext4"])
def test_volatile_file_system(
    filesystem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On tmpfs the demo says that nothing there survives a reboot."""
    monkeypatch.setattr(demo, "find_mount", lambda _path: Mount(filesystem, "/", "none", ()))
    assert main(["demo", str(tmp_path)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith(", on tmpfs: nothing there survives a reboot") == (filesystem == "tmpfs")


def test_child_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A child process that ends by itself is an error."""
    monkeypatch.setattr(sys, "executable", "true")
    assert main(["demo", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "pmem2: the child process ended before it was killed; it reported 0 records\n"
    assert os.listdir(tmp_path) == []


def test_lost_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that differs from the appended one makes the demo fail."""
    monkeypatch.setattr(demo, "make_record", lambda _number: bytes(demo.RECORD.size))
    assert main(["demo", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("FAILED: durable data is lost\n")


def test_mapping_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An error of libpmem2 keeps its own text."""

    def refused(_path: Path, _mode: str, size: int) -> pmem2.Map:
        with pmem2.Source.from_anon(size) as source:
            return source.map(pmem2.Config(offset=7))

    monkeypatch.setattr(pmem2, "open", refused)
    assert main(["demo", str(tmp_path)]) == 1
    assert "cannot map from offset 7 to the end" in capsys.readouterr().err


def test_wrong_paths(tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An existing file is not overwritten; errors name the path that the user gave."""
    (tmp_path / "file").write_bytes(b"mine")
    for path, message in (
        (f"{tmp_path}/file", "exists: name a new file or a directory"),
        (f"{tmp_path}/new/", "is not a directory"),
        ("", "the path is empty"),
        (
            f"{tmp_path}/new/file",
            f"{tmp_path}/new/file: cannot create a file of 16 MiB: No such file or directory",
        ),
        (str(small_disk), f"{small_disk}: cannot create a file of 16 MiB: No space left on device"),
    ):
        assert main(["demo", path]) == 1
        assert re.search(re.escape(message), capsys.readouterr().err)
    assert set(os.listdir(tmp_path)) == {"file", small_disk.name}
    assert (tmp_path / "file").read_bytes() == b"mine"
