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
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.children import RunChild
from support.terminal import block_imports

import pmem2
from pmem2.cli import SHELLS, error_text, main
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
    assert all(f"\n  {command}  " in text for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        ([], "[-h] [--version] COMMAND"),
        (["nonsense"], "[-h]"),
        (["--nonsense", "info"], "[-h]"),
        (["info", "--jso", "."], "info"),
        (["copy", "one"], "copy"),
        (["copy", "-v", "one", "two"], "copy"),
        (["badblocks", "one", "two"], "badblocks"),
        (["bench", ".", "--threads", "0"], "bench"),
        (["completion", "ksh"], "completion"),
    ],
)
def test_wrong_usage(arguments: list[str], usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage prints the usage of the command on standard error and exits with 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith(f"usage: pmem2 {usage} ")


def test_module() -> None:
    """`python -m pmem2`, which test_closed_pipe_ends_quietly runs, is the same function."""
    assert importlib.import_module("pmem2.__main__").main is main


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the version of pmem2."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr() == (f"pmem2 {pmem2.__version__}\n", "")


def test_failure_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed command prints one line on standard error and returns 1."""
    assert main(["badblocks", str(tmp_path / "missing")]) == 1
    assert capsys.readouterr() == ("", f"pmem2: {tmp_path / 'missing'}: No such file or directory\n")
    assert main(["badblocks", ""]) == 1
    assert capsys.readouterr() == ("", "pmem2: '': No such file or directory\n")


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
def progress(*arguments):
    print("started", flush=True)
    import time
    for _ in range(600):  # Python handles a signal that arrives just before a sleep only after it
        time.sleep(0.1)
    yield lambda done: None
copy.progress = progress
sys.exit(main(["copy", *sys.argv[1:]]))
"""


@pytest.mark.usefixtures("signals_enabled")
def test_signal_ends_copy_quietly(path: Path, tmp_path: Path) -> None:
    """A signal during a copy ends the process without output and leaves no file; test_copy.py has other signals."""
    target = tmp_path / "target"
    target.mkdir()
    command = [sys.executable, "-c", INTERRUPTED_COPY, str(path), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        assert len(list(target.iterdir())) == 1
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=60) == ("", "")
    assert child.returncode == 128 + signal.SIGINT
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


CLOSED_STREAMS = """
import sys
from pmem2.cli import main

path, target, missing = sys.argv[1:]
sys.exit(main(["copy", path, target]) == main(["info", path]) == 0 and main(["info", missing]))
"""


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, path: Path, tmp_path: Path) -> None:
    """The command does its work when standard output or error is closed."""
    target = tmp_path / "copy"
    code = [sys.executable, "-c", CLOSED_STREAMS, str(path), str(target), str(tmp_path / "no")]
    command = ["sh", "-c", f'"$@" {closed}', "sh", *code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert target.read_bytes() == path.read_bytes()


def test_closed_pipe_ends_quietly() -> None:
    """A closed pipe causes no message, neither in the command nor at interpreter exit."""
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen([*PMEM2, "info", "."], stdout=write, stderr=subprocess.PIPE, text=True) as child:
        os.close(write)
        assert child.communicate(timeout=60)[1] == ""
    assert child.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("arguments", [["info", "."], ["info", *["."] * 50], ["--help"]], ids=len)
def test_closed_pipe_in_process(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """main() returns 128 + SIGPIPE for a closed pipe, at the final flush or before, and drops the output."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(arguments) == 128 + signal.SIGPIPE
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("times", [1, 50])
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
    assert f"\n{tmp_path}/\\xff\n" in capsys.readouterr().out


def test_name_with_newline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error is one line even if the file name has control characters."""
    assert main(["info", str(tmp_path / "a\nb\x1b[2J")]) == 1
    assert capsys.readouterr().err == f"pmem2: {tmp_path}/a\\nb\\x1b[2J: No such file or directory\n"
    (tmp_path / "a\nb").touch()
    for command, wanted in (("info", "\n{}\n"), ("badblocks", "{}: no bad blocks")):
        assert main([command, str(tmp_path / "a\nb")]) == 0
        assert wanted.format(f"{tmp_path}/a\\nb") in capsys.readouterr().out


# ---- completion


@pytest.mark.parametrize("shell", SHELLS)
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shell's script completes the commands and file names."""
    shtab = pytest.importorskip("shtab")
    if shell not in shtab.SUPPORTED_SHELLS:
        pytest.skip(f"this shtab does not know {shell}")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)
    assert script.count(shtab.FILE[shell]) > 5


def test_old_shtab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An shtab that does not know the shell is reported."""
    shtab = pytest.importorskip("shtab")
    monkeypatch.setattr(shtab, "SUPPORTED_SHELLS", ["bash", "zsh", "tcsh"])
    assert main(["completion", "fish"]) == 1
    assert capsys.readouterr().err == "pmem2: completion for fish needs a newer shtab: pip install --upgrade shtab\n"


def test_completion_needs_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without shtab, the error names the extra to install."""
    block_imports(monkeypatch, "shtab")
    assert main(["completion", "bash"]) == 1
    assert "pip install 'pmem2[cli]'" in capsys.readouterr().err


# ---- without extras


BARE = """
import sys
for name in ("rich", "rich.console", "shtab", "matplotlib", "numpy", "jsonschema"):
    sys.modules[name] = None
from pmem2.cli import main

path, copy = sys.argv[1:]
sys.exit(main(["info", path, "/"]) or main(["copy", "-q", path, copy]) or main(["badblocks", path]))
"""


def test_bare_python(tmp_path: Path, path: Path, run_child: RunChild) -> None:
    """Commands run without the optional dependencies, and under `python -OO`, which removes docstrings and asserts."""
    optimize = "2" if sys.implementation.name == "cpython" else ""  # compiling everything takes seconds on PyPy
    done = run_child(BARE, str(path), str(tmp_path / "copy"), PYTHONOPTIMIZE=optimize)
    assert (done.returncode, done.stderr) == (0, "")
