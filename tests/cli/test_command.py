# SPDX-License-Identifier: BSD-3-Clause
"""The command line as a whole: help, exit status, signals, closed pipes, terminals."""

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
from support.terminal import shown, without

import pmem2
from pmem2.cli import _terminal, main, sentence
from pmem2.cli._signals import SIGNALS, Stopped, stopping

COMMANDS = ["info", "copy", "bench", "badblocks", "demo", "completion"]
PMEM2 = [sys.executable, "-m", "pmem2"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of each command has examples, which begin with it."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    _, _, examples = capsys.readouterr().out.partition("examples:\n")
    assert examples.startswith(f"  pmem2 {command}")
    assert len(examples.splitlines()) > 1


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """The help lists all commands."""
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {command}  " in text for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["info"], ["info", "--jso", "."], ["copy", "one"], ["bench", ".", "--threads", "0"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage is told on standard error, and ends with 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    output, complaint = capsys.readouterr()
    assert output == ""
    assert complaint.startswith("usage: pmem2")


def test_module() -> None:
    """`python -m pmem2` is the command."""
    done = subprocess.run([*PMEM2, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pmem2 {pmem2.__version__}\n"
    assert importlib.import_module("pmem2.__main__").main is main


def test_failure_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What fails says so in one line, and ends with 1."""
    assert main(["badblocks", str(tmp_path / "missing")]) == 1
    assert capsys.readouterr() == ("", f"pmem2: {tmp_path / 'missing'}: No such file or directory\n")


def test_sentence() -> None:
    """An error is what it says, without a number."""
    assert sentence(OSError(2, "No such file", b"name")) == "name: No such file"
    assert sentence(OSError(2, "No such file")) == "No such file"
    assert sentence(OSError("just text")) == "just text"
    assert sentence(ValueError("text")) == "text"


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning is one line for a person."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "nonsense")
    assert main(["copy", str(path), str(tmp_path / "copy")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pmem2: PMEM2_FORCE_GRANULARITY='nonsense' is ignored")


# ---- signals


@pytest.fixture
def heeded() -> Iterator[None]:
    """Let no signal be ignored, also where these tests run in the background."""
    before = [signal.signal(number, signal.default_int_handler) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before):
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_stops_and_more_are_ignored(number: signal.Signals) -> None:
    """A signal raises once; while what was begun is taken back, another one does nothing; then all is as before."""
    before = [signal.getsignal(other) for other in SIGNALS]
    steps = []

    def work() -> None:
        with stopping():
            try:
                os.kill(os.getpid(), number)
                steps.append("went on")
            finally:
                for other in SIGNALS:
                    os.kill(os.getpid(), other)
                steps.append("cleaned up")

    with pytest.raises(Stopped) as caught:
        work()
    assert steps == ["cleaned up"]
    assert caught.value.number == number
    assert [signal.getsignal(other) for other in SIGNALS] == before


def test_an_ignored_signal_stays_ignored() -> None:
    """What nohup, or a shell for a job in the background, has told us to ignore is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


STOPPED = """
import sys
from contextlib import contextmanager
from pmem2.cli import copy, main
@contextmanager
def progress(what, total):
    print("begun", flush=True)
    import time
    for _ in range(600):  # a signal that comes just before a sleep is heeded after it
        time.sleep(0.1)
    yield lambda done: None
copy.progress = progress
sys.exit(main(["copy", *sys.argv[1:]]))
"""


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_quietly(path: Path, tmp_path: Path, number: signal.Signals) -> None:
    """A process that is stopped in the middle of a copy says nothing and leaves nothing."""
    target = tmp_path / "target"
    target.mkdir()
    command = [sys.executable, "-c", STOPPED, str(path), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        assert len(list(target.iterdir())) == 1
        child.send_signal(number)
        assert child.communicate(timeout=60) == ("", "")
    assert child.returncode == 128 + number
    assert not list(target.iterdir())


EARLY = """
import os, signal, sys
import _pmem2_command

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "pmem2":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
sys.argv = ["pmem2", "info", "."]
sys.exit(_pmem2_command.main())
"""


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_before_we_have_begun_ends_quietly() -> None:
    """While modules are still imported it ends the process as it ends a program in C."""
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_that_is_ignored_stays_ignored() -> None:
    """As in a job in the background."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + EARLY
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "granularity" in done.stdout


# ---- standard output


def test_streams_that_there_are_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Python has None then, and we what nobody reads."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", None)
        assert main(["info", "nothing of that name"]) == 1
        sys.stdout.close()
        sys.stderr.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, path: Path, tmp_path: Path) -> None:
    """Whoever closes standard output or error does not want to read it; the work is done all the same."""
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
def test_a_closed_pipe_ends_quietly(arguments: str, statuses: set[int]) -> None:
    """Nobody reads any more: no word about it, neither while we run nor when the interpreter ends."""
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen([*PMEM2, arguments, "."], stdout=write, stderr=subprocess.PIPE, text=True) as child:
        os.close(write)
        assert child.communicate(timeout=60)[1] == ""
    assert child.returncode in statuses  # some versions of argparse overlook it


@pytest.mark.parametrize("times", [1, 100])
def test_a_closed_pipe(times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The same within this process, seen at the end or in between: what could not be printed is forgotten."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(["info", *["."] * times]) == 128 + signal.SIGPIPE
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("times", [1, 100])
def test_a_full_disk_behind_standard_output(
    times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be printed is a failure, told once, be it seen at the end or in between."""
    with open("/dev/full", "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(["info", *["."] * times]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"pmem2: (standard output: )?No space left on device\n", error)


def test_output_that_is_no_file(tmp_path: Path) -> None:
    """A caller may catch the output with a StringIO; names that are no text are printed all the same."""
    with contextlib.redirect_stdout(io.StringIO()) as caught:
        assert main(["info", str(tmp_path)]) == 0
    assert str(tmp_path) in caught.getvalue()


def test_a_name_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is not UTF-8 is shown with escapes."""
    name = os.fsencode(tmp_path) + b"/\xff"
    with open(name, "wb"):
        pass
    assert main(["info", os.fsdecode(name)]) == 0
    assert "\\udcff" in capsys.readouterr().out


def test_a_name_of_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error is one line, whatever the name that it tells."""
    assert main(["info", str(tmp_path / "a\nb\x1b[2J")]) == 1
    assert capsys.readouterr().err == f"pmem2: {tmp_path}/a\\nb\\x1b[2J: No such file or directory\n"


# ---- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script for a shell knows the commands, and where names of files are wanted."""
    shtab = pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)
    assert script.count(shtab.FILE[shell]) > 5


def test_completion_needs_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without shtab it is told what to install."""
    without(monkeypatch, "shtab")
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


def test_everything_works_without_the_extras(tmp_path: Path, path: Path, run_child: RunChild) -> None:
    """The commands need nothing but what pmem2 needs."""
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
    """Sizes are told in binary units."""
    assert _terminal.size_text(number) == text


def test_times() -> None:
    """Times are minutes and seconds."""
    assert _terminal.time_text(187.4) == "3:07"


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
    """Where there is no terminal a table is columns with blanks between them."""
    _terminal.show_table(headers, ROWS, numbers)
    assert capsys.readouterr().out == expected


def test_rich_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal rich draws the table, and takes nothing in it for an instruction."""
    pytest.importorskip("rich")
    with shown(monkeypatch, "stdout") as printed:
        _terminal.show_table(("name", "count"), ROWS, numbers=True)
    assert [line.split() for line in printed[0].splitlines() if "2" in line or "[" in line] == [
        ["[red]", "1"],
        ["two", "22"],
    ]
    assert "─" in printed[0]


def test_table_on_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal without rich a table is plain."""
    without(monkeypatch, "rich.console")
    with shown(monkeypatch, "stdout") as printed:
        _terminal.show_table(("", ""), ROWS)
    assert printed == ["[red]  1\ntwo    22\n"]


def test_progress_is_quiet_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A log gets no progress."""
    with _terminal.progress("copying", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


def test_rich_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal rich shows progress."""
    pytest.importorskip("rich")
    with shown(monkeypatch, "stderr") as printed:
        with _terminal.progress("copying", 4096) as advance:
            advance(4096)
    assert "copying" in printed[0]
    assert "100%" in printed[0]


@pytest.mark.parametrize("total", [0, 4096])
def test_plain_progress(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    """On a terminal without rich a line shows progress, and is gone at the end."""
    without(monkeypatch, "rich.console")
    monkeypatch.setattr(_terminal, "REDRAWN", 1000)
    with shown(monkeypatch, "stderr") as printed:
        with _terminal.progress("copying", total) as advance:
            advance(0)
            advance(0)
            advance(total)
    lines = printed[0].split("\r")
    assert lines[0] == lines[-1] == ""
    assert lines[1].startswith("copying: ")
    assert f"copying: 100 %, {_terminal.size_text(total)} of {_terminal.size_text(total)}" in printed[0]
    assert len(lines) < 6


def test_plain_progress_tells_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it took ten seconds: ten are left."""
    without(monkeypatch, "rich.console")
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with shown(monkeypatch, "stderr") as printed:
        with _terminal.progress("copying", 2048) as advance:
            advance(1024)
    assert "copying: 50 %, 1 KiB of 2 KiB, 102 bytes/s, 0:10 left" in printed[0]
