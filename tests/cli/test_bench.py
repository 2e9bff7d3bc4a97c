# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 bench`: its figures, and the files that it must not touch."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any, Callable

import pytest
from support.copying import without_tmpfs_warning
from support.terminal import block_imports, terminal_output
from support.values import PAGE, WITHOUT_MSYNC

from pmem2.cli import _terminal, bench, main

SCHEMA = Path(bench.__file__).parent / "bench.schema.json"


@pytest.fixture(autouse=True)
def no_msync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Avoid msync, which would take most of the time of these tests."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", WITHOUT_MSYNC)


@pytest.fixture
def few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure few and small sizes."""
    monkeypatch.setattr(bench, "BYTES_PER_THREAD", 64 * 1024)
    monkeypatch.setattr(bench, "LATENCY_SIZES", (0, 8, 64))
    monkeypatch.setattr(bench, "BANDWIDTH_SIZES", (64, 4096))


def run_bench(*arguments: object) -> int:
    """Run `pmem2 bench` with the shortest measurements; return its status."""
    return main(["bench", "--seconds", "0.0002", *map(str, arguments)])


def test_all_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has each figure once: 8 bytes to 4 KiB, 64 bytes to 16 MiB; no file remains."""
    monkeypatch.setattr(bench, "ROUNDS", 1)
    assert run_bench(tmp_path, "--json", "--threads", 1) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    sizes = [each["size"] for each in found["persist"]]
    assert sizes == [0, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    kinds = [(each["operation"], each["stores"], each["size"]) for each in found["copies"]]
    assert kinds == [
        (operation, stores, 1 << power)
        for operation in ("memcpy", "memset")
        for stores in ("temporal", "non-temporal")
        for power in range(6, 25)
    ]
    for each in found["persist"]:
        assert each["operations"] >= each["threads"]
        assert each["min_ns"] <= each["median_ns"] <= each["p99_ns"]
    assert all(each["operations"] >= each["threads"] and each["bytes_per_second"] > 0 for each in found["copies"])
    assert (found["path"], found["granularity"]) == (str(tmp_path), WITHOUT_MSYNC)
    assert os.listdir(tmp_path) == []
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(found)


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_thread_counts(most: int, counts: list[int]) -> None:
    """The thread counts are the powers of two below the maximum, and the maximum."""
    assert bench.thread_counts(most) == counts


@pytest.mark.usefixtures("few_sizes")
def test_threads_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has each figure for each number of threads."""
    assert run_bench(tmp_path, "--json", "--threads", 2) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["threads"] for each in found["persist"]] == [1] * 3 + [2] * 3
    assert [each["threads"] for each in found["copies"]] == [1] * 8 + [2] * 8


@pytest.mark.usefixtures("few_sizes")
def test_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For each number of threads there are tables of latencies and bandwidths, each cell with its unit."""
    assert run_bench(tmp_path, "--threads", 2) == 0
    text = capsys.readouterr().out
    for threads in ("1 thread", "2 threads"):
        for title in ("persist", "durable memcpy", "durable memset"):
            assert f"\n{title}, {threads}\nsize " in text
    assert text.count("\n8 bytes ") == 2
    assert " min " in text
    assert re.search(r"\nsize +temporal +operations/s +non-temporal +operations/s\n", text)
    rows = re.findall(r"\n(\d+ (?:bytes|KiB)) +(.*)", text)
    assert len(rows) == 2 * (3 + 2 * 2)
    for _, cells in rows:
        for cell in re.split("  +", cells):
            assert re.fullmatch(r"~?\d+(\.\d)?( ([nµm]?s|[kMGT]?B/s|[kMG]))?", cell), cell
            assert not cell.startswith(("0.0", "~0.0"))


def measured(*values: float) -> Callable[[float], tuple[float, float]]:
    """Return a measurement that gives these values, and then the last again and again."""
    left = list(values)
    return lambda _seconds: (left[0], left.pop(0) if len(left) > 1 else left[0])


def test_repeat_until_stable() -> None:
    """A figure is measured until the last three agree within 10 %, and those are taken."""
    assert bench.repeat(measured(9, 1, 5, 5.2, 5.4, 100), 1000) == ([5, 5.2, 5.4], True)
    assert bench.repeat(measured(0), 1000) == ([0, 0, 0], True)


def test_repeat_not_forever() -> None:
    """A figure that does not settle is measured three times at least, and is known to vary."""
    assert bench.repeat(measured(1, 2, 4, 8), 0) == ([1, 2, 4], False)


@pytest.mark.usefixtures("few_sizes")
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_unstable_figures(
    tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures that vary are marked in the table, and counted on standard error."""
    monkeypatch.setattr(bench, "TOLERANCE", -1)
    assert run_bench(tmp_path, "--threads", 1, *flags) == 0
    out, error = capsys.readouterr()
    mark = "" if flags else " (~)"
    assert f"pmem2: 11 of 11 figures{mark} vary by more than -100 %: other programs run, or" in error
    assert out.count("~") == (0 if flags else 3 * 4 + 2 * 2 * 4)


def test_tmpfs_warning(small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On tmpfs, the command warns that nothing there is durable."""
    monkeypatch.setattr(bench, "BYTES_PER_THREAD", PAGE)
    monkeypatch.setattr(bench, "measure", lambda *_arguments: ([], []))
    file = small_disk / "file"
    file.write_bytes(bytes(PAGE))
    for target, place in ((small_disk, small_disk), (small_disk / "new", small_disk), (file, file)):
        assert run_bench(target, "--threads", 1, "--overwrite") == 0
        assert capsys.readouterr().err == (
            f"pmem2: {place} is on tmpfs, in memory: a power failure or a restart loses it\n"
        )


@pytest.mark.usefixtures("few_sizes")
def test_new_file_is_unnamed(tmp_path: Path) -> None:
    """A PATH that does not exist selects the directory; no file is created under its name."""
    assert run_bench(tmp_path / "new", "--threads", 1) == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("few_sizes")
def test_existing_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An existing file is refused without --overwrite, and with it if it is too small."""
    before = path.read_bytes()
    assert run_bench(path, "--threads", 1) == 1
    assert f"{path} exists" in capsys.readouterr().err
    assert run_bench(path, "--threads", 1, "--overwrite") == 1
    assert "has 8 KiB, but needs 64 KiB" in capsys.readouterr().err
    assert path.read_bytes() == before
    os.truncate(path, 128 * 1024)
    assert run_bench(path, "--threads", 1, "--overwrite") == 0
    assert path.stat().st_size == 128 * 1024
    assert path.read_bytes()[: len(before)] != before
    assert path.stat().st_blocks * 512 >= 128 * 1024  # a hole on a full disk would kill the process


def test_full_disk(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk is an error, and no file remains."""
    assert run_bench(small_disk, "--threads", 1) == 1
    assert re.fullmatch(
        rf"pmem2: {small_disk}: cannot allocate \S+ MiB: No space left on device\n", capsys.readouterr().err
    )
    assert os.listdir(small_disk) == []


def test_missing_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing directory, a file name with a slash at its end and an empty path are errors."""
    assert run_bench(tmp_path / "missing/file") == 1
    assert capsys.readouterr().err == (
        f"pmem2: {tmp_path / 'missing/file'}: cannot create a file: No such file or directory\n"
    )
    assert run_bench(f"{tmp_path}/missing/") == 1
    assert capsys.readouterr().err == f"pmem2: {tmp_path}/missing/ is not a directory\n"
    assert run_bench("") == 1
    assert capsys.readouterr().err == "pmem2: the path is empty\n"


@pytest.mark.usefixtures("few_sizes")
def test_signal_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal during the measurement leaves no file."""

    def send_signal(*_arguments: object) -> None:
        assert os.listdir(tmp_path) == []
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(bench, "measure_latency", send_signal)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a background job may ignore it
    try:
        assert run_bench(tmp_path) == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("few_sizes")
@pytest.mark.parametrize("sizes", ["LATENCY_SIZES", "BANDWIDTH_SIZES"])
def test_signal_does_not_wait(tmp_path: Path, sizes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal ends a measurement at once, however long it should take, and the terminal's line is empty."""
    monkeypatch.setattr(bench, "LATENCY_SIZES", ())
    monkeypatch.setattr(bench, sizes, (64,))
    # to a thread that does not handle signals: the wait of the main thread goes on
    timer = threading.Timer(0.02, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))

    def start_timer(text: str) -> None:
        if text:
            timer.start()
        _terminal.show_status(text)

    monkeypatch.setattr(bench, "show_status", start_timer)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with terminal_output(monkeypatch, "stderr") as printed:
            assert main(["bench", str(tmp_path), "--threads", "1", "--seconds", "3000"]) == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    timer.join()
    assert printed[0].endswith("\r")


@pytest.mark.usefixtures("few_sizes")
def test_thread_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a thread cannot start, the command fails, and the other threads do not wait for it."""
    start, started = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) == 4:  # the first was a single thread; refuse the last of the three others
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(bench, "thread_counts", lambda most: [most])
    monkeypatch.setattr(bench, "LATENCY_SIZES", (8,))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    bench.run_in_threads(1, lambda number, _stopped: number)
    assert run_bench(tmp_path, "--threads", 3) == 1
    assert without_tmpfs_warning(capsys.readouterr().err) == "pmem2: cannot use 3 threads: can't start new thread\n"


def test_error_in_thread() -> None:
    """An error in one thread is raised in the caller."""
    with pytest.raises(OSError, match="written back"):
        bench.run_in_threads(3, lambda number, _stopped: os.strerror(0) if number else write_back())


def write_back() -> str:
    """Fail like a disk."""
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
    """A number outside its range is wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(["bench", str(tmp_path), *flag])
    assert caught.value.code == 2
    assert f"argument {flag[0]}: must be a" in capsys.readouterr().err


@pytest.mark.usefixtures("few_sizes")
def test_terminal_shows_current_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows the current figure; the line is empty at the end."""
    monkeypatch.setattr(bench, "TOLERANCE", 1)
    with terminal_output(monkeypatch, "stderr") as printed:
        assert run_bench(tmp_path, "--threads", 1) == 0
    steps = printed[0].split("\r")
    assert "persist 8 bytes, 1 thread" in steps
    assert "memset 4 KiB, non-temporal, 1 thread" in steps
    assert steps[-1] == ""


@pytest.mark.usefixtures("few_sizes")
def test_plot(tmp_path: Path) -> None:
    """The plot is saved in the format of the file name, with units and the path, whatever characters it has."""
    pytest.importorskip("matplotlib")
    picture, folder = tmp_path / "picture.SVG", tmp_path / "$\\nothing$\udcff"
    folder.mkdir()
    assert run_bench(folder, "--threads", 2, "--plot", picture) == 0
    content = picture.read_text(encoding="utf-8")
    assert content.startswith("<?xml")
    for text in (
        r"memset non-temporal, 2 threads",
        r"4 KiB",
        r"size",
        r"\$\\nothing\$\\xff, .*",
        r"\d [nµm]?s",
        r"\d [kMG]?B/s",
    ):
        assert re.search(f"<!-- [^>]*{text} -->", content), text


def test_plot_scale() -> None:
    """Figures of less than a decade have labels between the powers of ten, others have not."""
    figure_module = pytest.importorskip("matplotlib.figure")
    for slowest, labels in ((500, 2), (5_000_000, 0)):
        figure = figure_module.Figure()
        latencies = [
            bench.Measured(bench.Latency(1, size, 1, 1, ns, 9), 1, True) for size, ns in ((8, 100), (64, slowest))
        ]
        bandwidth = bench.Bandwidth("memcpy", "temporal", 1, 64, 1, 10**9)
        bench.plot(
            figure, bench.Result("p", "PAGE", "1", "2", None, "3", latencies, [bench.Measured(bandwidth, 1, True)])
        )
        axis = figure.axes[0].yaxis
        texts = axis.get_minor_formatter().format_ticks([200, 300])
        assert [text for text in texts if text] == ["200 ns", "300 ns"][:labels]


def test_unwritable_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plot that cannot be saved is reported before anything is measured."""
    pytest.importorskip("matplotlib")
    for name, message in (("picture.txt", "must end in one of"), ("missing/picture.png", "does not exist")):
        assert run_bench(tmp_path / "new", "--plot", tmp_path / name) == 1
        assert message in capsys.readouterr().err


def test_plot_needs_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without matplotlib, the error names the extra to install."""
    block_imports(monkeypatch, "matplotlib.figure")
    assert run_bench(tmp_path, "--plot", "picture.png") == 1
    assert "pip install 'pmem2[plot]'" in capsys.readouterr().err
