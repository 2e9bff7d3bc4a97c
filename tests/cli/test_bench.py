# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 bench`: what it measures, and what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from support.terminal import shown, without

from pmem2.cli import bench, main

SCHEMA = Path(bench.__file__).parent / "bench.schema.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be written back: most of the time of a test would be that."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little be measured."""
    monkeypatch.setattr(bench, "PART", 64 * 1024)
    monkeypatch.setattr(bench, "LATENCY_SIZES", (0, 8, 64))
    monkeypatch.setattr(bench, "BANDWIDTH_SIZES", (64, 4096))


def measured(*arguments: object) -> int:
    """Run `pmem2 bench`, as quick as can be; return its status."""
    return main(["bench", "--seconds", "0.0002", *map(str, arguments)])


def test_all_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every figure is there once: 8 bytes to 4 KiB, 64 bytes to 16 MiB; the file is gone."""
    assert measured(tmp_path, "--json", "--threads", 2) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [(each["threads"], each["size"]) for each in found["persist"]] == [
        (threads, size) for threads in (1, 2) for size in (0, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    ]
    kinds = [(each["threads"], each["operation"], each["stores"], each["size"]) for each in found["copies"]]
    assert kinds == [
        (threads, operation, stores, 1 << power)
        for threads in (1, 2)
        for operation in ("memcpy", "memset")
        for stores in ("temporal", "non-temporal")
        for power in range(6, 25)
    ]
    for each in found["persist"]:
        assert each["operations"] >= each["threads"]
        assert each["min_ns"] <= each["median_ns"] <= each["p99_ns"]
    assert all(each["operations"] >= each["threads"] and each["bytes_per_second"] > 0 for each in found["copies"])
    assert (found["path"], found["granularity"]) == (str(tmp_path), "CACHE_LINE")
    assert os.listdir(tmp_path) == []
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(found)


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_thread_counts(most: int, counts: list[int]) -> None:
    """Powers of two, and the number that was asked for."""
    assert bench.thread_counts(most) == counts


@pytest.mark.usefixtures("small")
def test_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People get a table of latencies and one of bandwidths for each number of threads."""
    assert measured(tmp_path, "--threads", 2) == 0
    text = capsys.readouterr().out
    for threads in ("1 thread", "2 threads"):
        assert f"\npersist, {threads}, in nanoseconds\nsize " in text
        assert f"\ndurable copies, {threads}, in MB/s\nsize " in text
    assert "memset non-temporal" in text
    assert text.count("\n8 bytes ") == 2


@pytest.mark.usefixtures("small")
def test_a_new_file_is_one_without_a_name(tmp_path: Path) -> None:
    """A name that is not taken says where to measure; it stays free."""
    assert measured(tmp_path / "new", "--threads", 1) == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("small")
def test_an_existing_file_is_refused(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there stays as it is, unless it is said that it may be destroyed."""
    before = path.read_bytes()
    assert measured(path, "--threads", 1) == 1
    assert f"{path} exists" in capsys.readouterr().err
    assert measured(path, "--threads", 1, "--overwrite") == 1
    assert "has 8 KiB, and 64 KiB are needed" in capsys.readouterr().err
    assert path.read_bytes() == before
    os.truncate(path, 128 * 1024)
    assert measured(path, "--threads", 1, "--overwrite") == 0
    assert path.stat().st_size == 128 * 1024
    assert path.read_bytes()[: len(before)] != before
    assert path.stat().st_blocks * 512 >= 128 * 1024  # a hole on a full disk would kill the process


def test_full_disk(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that is too small is an error, and stays empty."""
    assert measured(small_disk, "--threads", 1) == 1
    assert re.fullmatch(
        rf"pmem2: {small_disk}: cannot allocate \S+ MiB: No space left on device\n", capsys.readouterr().err
    )
    assert os.listdir(small_disk) == []


def test_a_place_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be made is an error."""
    assert measured(tmp_path / "missing/file") == 1
    assert capsys.readouterr().err == (
        f"pmem2: {tmp_path / 'missing/file'}: no file can be made there: No such file or directory\n"
    )
    assert measured(f"{tmp_path}/missing/") == 1
    assert capsys.readouterr().err == f"pmem2: {tmp_path}/missing/ is not a directory\n"
    assert measured("") == 1
    assert capsys.readouterr().err == "pmem2: a name of no letters names nothing\n"


@pytest.mark.usefixtures("small")
def test_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in the middle leaves nothing."""

    def stop(*_arguments: object) -> None:
        assert os.listdir(tmp_path) == []
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(bench, "latency", stop)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # also where these tests run in the background
    try:
        assert measured(tmp_path) == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("small")
def test_threads_that_cannot_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the system gives too few threads that is an error, for which the others do not wait."""
    start, started = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) == 4:  # one was for a single thread, and of three the last is refused
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(bench, "thread_counts", lambda most: [most])
    monkeypatch.setattr(bench, "LATENCY_SIZES", (8,))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    bench.together(1, lambda number: number)
    assert measured(tmp_path, "--threads", 3) == 1
    assert capsys.readouterr().err == "pmem2: cannot use 3 threads: can't start new thread\n"


def test_what_fails_in_a_thread_fails() -> None:
    """An error in one of several threads is that of all."""
    with pytest.raises(OSError, match="written back"):
        bench.together(3, lambda number: os.strerror(0) if number else write_back())


def write_back() -> str:
    """Fail as a disk does."""
    raise OSError(5, "cannot be written back")


@pytest.mark.parametrize(
    "flag",
    [
        ("--seconds", "nan"),
        ("--seconds", "inf"),
        ("--seconds", "0"),
        ("--seconds", "x"),
        ("--threads", "0"),
        ("--threads", "x"),
    ],
)
def test_wrong_numbers(tmp_path: Path, flag: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A number that cannot be is wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(["bench", str(tmp_path), *flag])
    assert caught.value.code == 2
    assert f"argument {flag[0]}: must be a" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_a_terminal_shows_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal says what is being measured, and is left clean."""
    with shown(monkeypatch, "stderr") as printed:
        assert measured(tmp_path, "--threads", 1) == 0
    steps = printed[0].split("\r")
    assert "persist 8 bytes, 1 thread" in steps
    assert "memset 4 KiB, non-temporal, 1 thread" in steps
    assert steps[-1] == ""


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("suffix", "beginning"), [("svg", b"<?xml"), ("PNG", b"\x89PNG")])
def test_plot(tmp_path: Path, suffix: str, beginning: bytes) -> None:
    """The figures are drawn, in the format that the name says."""
    pytest.importorskip("matplotlib")
    picture = tmp_path / f"picture.{suffix}"
    assert measured(tmp_path, "--threads", 2, "--plot", picture) == 0
    content = picture.read_bytes()
    assert content.startswith(beginning)
    assert suffix == "PNG" or b"<!-- memset non-temporal, 2 threads -->" in content


def test_plots_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That a picture cannot be saved is told before anything is measured."""
    pytest.importorskip("matplotlib")
    for name, complaint in (("picture.txt", "must end in one of"), ("missing/picture.png", "does not exist")):
        assert measured(tmp_path / "new", "--plot", tmp_path / name) == 1
        assert complaint in capsys.readouterr().err


def test_plot_needs_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without matplotlib it is told what to install."""
    without(monkeypatch, "matplotlib.figure")
    assert measured(tmp_path, "--plot", "picture.png") == 1
    assert "pip install 'pmem2[plot]'" in capsys.readouterr().err
