# SPDX-License-Identifier: BSD-3-Clause
"""All commands: help, exit status, signals, closed pipes, terminals."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.children import RunChild
from support.terminal import block_imports, terminal_output

import pmem2
from pmem2.cli import _terminal, error_text, main
from pmem2.cli._signals import SIGNALS, SignalExit, exit_on_signals

COMMANDS = ["info", "copy", "bench", "badblocks", "demo", "completion"]
PMEM2 = [sys.executable, "-m", "pmem2"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of each command ends with examples of that command."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    _, _, examples = capsys.readouterr().out.partition("examples:\n")
    assert examples.startswith(f"  pmem2 {command}")
    assert len(examples.splitlines()) > 1


def test_help_lists_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """The help lists every command."""
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {command}  " in text for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["info"], ["info", "--jso", "."], ["copy", "one"], ["bench", ".", "--threads", "0"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage prints the usage on standard error and exits with 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("usage: pmem2")


def test_module() -> None:
    """`python -m pmem2` runs the command."""
    done = subprocess.run([*PMEM2, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pmem2 {pmem2.__version__}\n"
    assert importlib.import_module("pmem2.__main__").main is main


def test_failure_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed command prints one line on standard error and returns 1."""
    assert main(["badblocks", str(tmp_path / "missing")]) == 1
    assert capsys.readouterr() == ("", f"pmem2: {tmp_path / 'missing'}: No such file or directory\n")


def test_error_text() -> None:
    """The text of an error has the file name but no errno."""
    assert error_text(OSError(2, "No such file", b"name")) == "name: No such file"
    assert error_text(OSError(2, "No such file")) == "No such file"
    assert error_text(OSError("just text")) == "just text"
    assert error_text(ValueError("text")) == "text"


@pytest.mark.filterwarnings("default")
def test_warning_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning is one line on standard error."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "nonsense")
    assert main(["info", str(path)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pmem2: PMEM2_FORCE_GRANULARITY='nonsense' has no effect")


# ---- signals


@pytest.fixture
def signals_enabled() -> Iterator[None]:
    """Install handlers: in a background job the shell ignores some signals."""
    before = [signal.signal(number, signal.default_int_handler) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_enabled")
@pytest.mark.parametrize("number", SIGNALS)
def test_later_signals_are_ignored(number: signal.Signals) -> None:
    """The first signal raises; later ones do not interrupt the clean-up; then all handlers are restored."""
    before = [signal.getsignal(other) for other in SIGNALS]
    steps = []

    def work() -> None:
        with exit_on_signals():
            try:
                os.kill(os.getpid(), number)
                steps.append("not interrupted")
            finally:
                for other in SIGNALS:
                    os.kill(os.getpid(), other)
                steps.append("cleaned up")

    with pytest.raises(SignalExit) as caught:
        work()
    assert steps == ["cleaned up"]
    assert caught.value.number == number
    assert [signal.getsignal(other) for other in SIGNALS] == before


def test_ignored_signal_stays_ignored() -> None:
    """A signal that nohup or the shell has set to ignored stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with exit_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


INTERRUPTED_COPY = """
import sys
from contextlib import contextmanager
from pmem2.cli import copy, main
@contextmanager
def progress(what, total):
    print("started", flush=True)
    import time
    for _ in range(600):  # Python handles a signal that arrives just before a sleep only after it
        time.sleep(0.1)
    yield lambda done: None
copy.progress = progress
sys.exit(main(["copy", *sys.argv[1:]]))
"""


@pytest.mark.usefixtures("signals_enabled")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_copy_quietly(path: Path, tmp_path: Path, number: signal.Signals) -> None:
    """A signal during a copy ends the process without output and leaves no file."""
    target = tmp_path / "target"
    target.mkdir()
    command = [sys.executable, "-c", INTERRUPTED_COPY, str(path), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        assert len(list(target.iterdir())) == 1
        child.send_signal(number)
        assert child.communicate(timeout=60) == ("", "")
    assert child.returncode == 128 + number
    assert not list(target.iterdir())


INTERRUPTED_IMPORT = """
import os, signal, sys
import _pmem2_cli

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "pmem2":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
sys.argv = ["pmem2", "info", "."]
sys.exit(_pmem2_cli.main())
"""


@pytest.mark.usefixtures("signals_enabled")
def test_ctrl_c_during_import() -> None:
    """Ctrl-C while modules are imported ends the process as it ends a C program."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_ignored_during_import() -> None:
    """An ignored SIGINT stays ignored while modules are imported."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + INTERRUPTED_IMPORT
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "granularity" in done.stdout


# ---- standard output


def test_missing_streams(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command works when `sys.stdout` and `sys.stderr` are None."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", None)
        assert main(["info", "missing"]) == 1
        sys.stdout.close()
        sys.stderr.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, path: Path, tmp_path: Path) -> None:
    """The command does its work when standard output or error is closed."""
    target = tmp_path / "copy"
    for arguments, status in ((["copy", path, target], 0), (["info", path], 0), (["info", tmp_path / "missing"], 1)):
        command = ["sh", "-c", f'"$@" {closed}', "sh", *PMEM2, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert "Traceback" not in done.stderr
    assert target.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "statuses"), [("info", {128 + signal.SIGPIPE}), ("--help", {0, 128 + signal.SIGPIPE})]
)
def test_closed_pipe_ends_quietly(arguments: str, statuses: set[int]) -> None:
    """A closed pipe causes no message, neither in the command nor at interpreter exit."""
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen([*PMEM2, arguments, "."], stdout=write, stderr=subprocess.PIPE, text=True) as child:
        os.close(write)
        assert child.communicate(timeout=60)[1] == ""
    assert child.returncode in statuses  # some versions of argparse ignore a closed pipe


@pytest.mark.parametrize("times", [1, 100])
def test_closed_pipe_in_process(
    times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """main() returns 128 + SIGPIPE for a closed pipe, at the final flush or before, and drops the output."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(["info", *["."] * times]) == 128 + signal.SIGPIPE
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("times", [1, 100])
def test_full_disk_behind_stdout(
    times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk behind standard output is reported once, at the final flush or before."""
    with open("/dev/full", "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(["info", *["."] * times]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"pmem2: (standard output: )?No space left on device\n", error)


def test_stdout_is_stringio(tmp_path: Path) -> None:
    """A caller can capture the output in a StringIO."""
    with contextlib.redirect_stdout(io.StringIO()) as caught:
        assert main(["info", str(tmp_path)]) == 0
    assert str(tmp_path) in caught.getvalue()


def test_undecodable_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file name that is not UTF-8 is printed with escapes."""
    name = os.fsencode(tmp_path) + b"/\xff"
    with open(name, "wb"):
        pass
    assert main(["info", os.fsdecode(name)]) == 0
    assert "\\udcff" in capsys.readouterr().out


def test_name_with_newline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error is one line even if the file name has control characters."""
    assert main(["info", str(tmp_path / "a\nb\x1b[2J")]) == 1
    assert capsys.readouterr().err == f"pmem2: {tmp_path}/a\\nb\\x1b[2J: No such file or directory\n"


# ---- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shell's script completes the commands and file names."""
    shtab = pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)
    assert script.count(shtab.FILE[shell]) > 5


def test_completion_needs_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without shtab, the error names the extra to install."""
    block_imports(monkeypatch, "shtab")
    assert main(["completion", "bash"]) == 1
    assert "pip install 'pmem2[cli]'" in capsys.readouterr().err


# ---- terminals


NO_EXTRAS = """
import sys
for name in ("rich", "rich.console", "shtab", "matplotlib", "numpy", "jsonschema"):
    sys.modules[name] = None
from pmem2.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_commands_need_no_extras(tmp_path: Path, path: Path, run_child: RunChild) -> None:
    """The commands run without the optional dependencies."""
    for arguments in (["info", str(path)], ["copy", str(path), str(tmp_path / "copy")], ["badblocks", str(path)]):
        done = run_child(NO_EXTRAS, *arguments)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (5022, "4.9 KiB"),
        (200 * 1024**2 + 1, "200 MiB"),
        (3 * 1024**4, "3 TiB"),
        (5000 * 1024**6, "5000 EiB"),
    ],
)
def test_sizes(number: int, text: str) -> None:
    """Sizes are printed in binary units."""
    assert _terminal.format_size(number) == text


def test_times() -> None:
    """Times are printed as minutes and seconds."""
    assert _terminal.format_time(187.4) == "3:07"


ROWS = [("[red]", "1"), ("two", "22")]


@pytest.mark.parametrize(
    ("headers", "numbers", "expected"),
    [
        (("name", "count"), True, "name   count\n[red]      1\ntwo       22\n"),
        (("name", "count"), False, "name   count\n[red]  1\ntwo    22\n"),
        (("", ""), False, "[red]  1\ntwo    22\n"),
    ],
)
def test_plain_table(
    headers: tuple[str, ...], numbers: bool, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal, a table has columns separated by blanks."""
    _terminal.show_table(headers, ROWS, numbers)
    assert capsys.readouterr().out == expected


def test_rich_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal rich draws the table and does not interpret markup in cells."""
    pytest.importorskip("rich")
    with terminal_output(monkeypatch, "stdout") as printed:
        _terminal.show_table(("name", "count"), ROWS, numbers=True)
    assert [line.split() for line in printed[0].splitlines() if "2" in line or "[" in line] == [
        ["[red]", "1"],
        ["two", "22"],
    ]
    assert "─" in printed[0]


def test_terminal_table_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal without rich, a table is plain."""
    block_imports(monkeypatch, "rich.console")
    with terminal_output(monkeypatch, "stdout") as printed:
        _terminal.show_table(("", ""), ROWS)
    assert printed == ["[red]  1\ntwo    22\n"]


def test_no_progress_without_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, progress prints nothing."""
    with _terminal.progress("copying", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_rich_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal rich shows a progress bar."""
    pytest.importorskip("rich")
    with terminal_output(monkeypatch, "stderr") as printed:
        with _terminal.progress("copying", 4096) as advance:
            advance(4096)
    assert "copying" in printed[0]
    assert "100%" in printed[0]


@pytest.mark.parametrize("total", [0, 4096])
def test_plain_progress(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    """On a terminal without rich, one line shows progress and disappears at the end."""
    block_imports(monkeypatch, "rich.console")
    monkeypatch.setattr(_terminal, "REDRAW_INTERVAL", 1000)
    with terminal_output(monkeypatch, "stderr") as printed:
        with _terminal.progress("copying", total) as advance:
            advance(0)
            advance(0)
            advance(total)
    lines = printed[0].split("\r")
    assert lines[0] == lines[-1] == ""
    assert lines[1].startswith("copying: ")
    assert f"copying: 100 %, {_terminal.format_size(total)} of {_terminal.format_size(total)}" in printed[0]
    assert len(lines) < 6


def test_plain_progress_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remaining time follows from the speed so far."""
    block_imports(monkeypatch, "rich.console")
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with terminal_output(monkeypatch, "stderr") as printed:
        with _terminal.progress("copying", 2048) as advance:
            advance(1024)
    assert "copying: 50 %, 1 KiB of 2 KiB, 102 bytes/s, 0:10 left" in printed[0]


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="importing everything takes seconds on PyPy")
def test_without_docstrings(path: Path, run_child: RunChild) -> None:
    """Under `python -OO`, which removes docstrings and asserts, every command works."""
    code = """
        import sys
        from pmem2.cli import main

        sys.exit(main(["info", sys.argv[1], "/"]) or main(["copy", sys.argv[1], f"{sys.argv[1]}.copy"]))
    """
    done = run_child(code, str(path), PYTHONOPTIMIZE="2")
    assert (done.returncode, done.stderr) == (0, "")
