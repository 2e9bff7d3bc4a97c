# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 demo`: its output, and its failure when data is lost."""

from __future__ import annotations

import inspect
import os
import re
import sys
from pathlib import Path

import pytest
from support.values import WITHOUT_MSYNC

import pmem2
from pmem2.cli import demo, main
from pmem2.cli._platform import Mount


@pytest.fixture(autouse=True)
def no_msync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Avoid msync, which would take most of the time of these tests; tests/project/test_readme.py runs it."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", WITHOUT_MSYNC)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Append a few records in this process instead of killing another one."""

    def append_records(path: Path) -> int:
        with pmem2.open(path) as m:
            return [demo.append(m) for _ in range(3)][-1]

    monkeypatch.setattr(demo, "kill_mid_write", append_records)


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo finds all durable data, shows a missing persist with its fix, fits the terminal, removes its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["demo"]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    assert [line for line in out.splitlines() if len(line) > 60] == []
    text = " ".join(out.split())
    lines, first = inspect.getsourcelines(demo.append_without_persist)
    line = first + next(number for number, text in enumerate(lines) if "fetch_add_u64" in text)
    assert "states that a power failure can leave; none loses or damages a record" in text
    assert f"a power failure at demo.py:{line} (append_without_persist) can leave" in text
    assert f"lost: 64 bytes at 8192, stored at demo.py:{line - 1}: never flushed" in text
    assert f"fix: call persist(8192, 64) before line {line} of demo.py" in text
    assert "proves nothing about power" in text
    assert text.endswith("0 of them damaged done all durable data is there")
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("no_child")
def test_append_keeps_persist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo fails if the explorer does not find the missing persist."""
    monkeypatch.setattr(demo, "append_without_persist", demo.append)
    assert main(["demo", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("FAILED   the explorer does not find a missing persist\n")


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize("filesystem", ["tmpfs", "ext4"])
def test_volatile_file_system(
    filesystem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On tmpfs the demo warns that nothing there survives a power failure."""
    monkeypatch.setattr(demo, "find_mount", lambda _path: Mount(filesystem, "/", "none", ()))
    monkeypatch.setattr(demo, "explore_both", lambda: True)
    assert main(["demo", str(tmp_path)]) == 0
    assert ("\nwarning  tmpfs is in memory: nothing" in capsys.readouterr().out) == (filesystem == "tmpfs")


def test_child_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A child process that ends by itself is an error."""
    monkeypatch.setattr(sys, "executable", "true")
    assert main(["demo", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "pmem2: the child process ended before it was killed; it reported 0 records\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("no_child")
def test_lost_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that differs from the appended one makes the demo fail."""
    monkeypatch.setattr(demo, "explore_both", lambda: True)
    append = demo.append

    def append_another(m: pmem2.Map) -> int:
        count = append(m)
        m[demo.record_offset(1)] = 0xFF
        return count

    monkeypatch.setattr(demo, "append", append_another)
    assert main(["demo", str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith(" 1 of them damaged\nFAILED   durable data is lost\n")


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
