# SPDX-License-Identifier: BSD-3-Clause
"""What commands print fits the terminal and a pipe, has colours where users want them, and is easy to read."""

from __future__ import annotations

import fcntl
import io
import struct
import sys
import termios
import time
from collections.abc import Iterator

import pytest
from support.terminal import Terminal, block_imports, terminal_output

from pmem2.cli import _command, _terminal, _text, main, make_parser

COMMANDS = ["", "info", "copy", "bench", "badblocks", "demo", "completion"]
WIDTHS = ["", "80", "60", "40"]  # without a value: the width of a pipe, 80


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal of 50 columns."""
    terminal = Terminal()
    fcntl.ioctl(terminal.stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
    yield terminal
    terminal.close()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what the user's environment says about terminals."""
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


# ---- help


def print_help(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the help of a command."""
    with pytest.raises(SystemExit):
        make_parser().parse_args([*command.split(), "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits(
    command: str, width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line of a help is wider than the terminal, and no word is broken."""
    monkeypatch.setenv("COLUMNS", "500")
    words = set(print_help(command, capsys).split())
    monkeypatch.setenv("COLUMNS", width)
    text = print_help(command, capsys)
    long = [line for line in text.splitlines() if len(line) > int(width or "80")]
    assert [line for line in long if len(line.split()) > 1] == []  # a path may be longer than a line
    assert set(text.split()) - {"\\"} == words


def test_narrow_help_is_complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal that is too narrow for anything gets the help, too."""
    monkeypatch.setenv("COLUMNS", "5")
    assert "examples:" in print_help("copy", capsys)


def test_broken_example_can_be_pasted() -> None:
    """A command that is too long for a line continues after a backslash."""
    assert _command.format_examples("  pmem2 copy a b    copy a\n  pmem2 demo", 16) == (
        "examples:\n  pmem2 \\\n      copy a b\n      copy a\n  pmem2 \\\n      demo"
    )
    assert _command.format_examples("  pmem2 copy    copy\n  pmem2 demo", 40) == (
        "examples:\n  pmem2 copy  copy\n  pmem2 demo"
    )


# ---- width and colours


def test_width(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS, then the terminal, then 80 columns."""
    pipe = io.StringIO()
    assert (_terminal.width_of(terminal.stream), _terminal.width_of(pipe)) == (50, 80)
    for columns, width in (("", 50), ("0", 50), ("x", 50), ("-3", 50), ("33", 33)):
        monkeypatch.setenv("COLUMNS", columns)
        assert _terminal.width_of(terminal.stream) == width
    assert _terminal.width_of(pipe) == 33


def test_width_unknown() -> None:
    """A terminal that does not know its size has 80 columns."""
    terminal = Terminal()
    assert _terminal.width_of(terminal.stream) == 80
    terminal.close()


@pytest.mark.parametrize(
    ("environment", "on_terminal", "in_pipe"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "3"}, True, True),
    ],
)
def test_colors(
    environment: dict[str, str], on_terminal: bool, in_pipe: bool, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR wins over FORCE_COLOR, that over TERM=dumb; without them a terminal has colours."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for stream, colored in ((terminal.stream, on_terminal), (io.StringIO(), in_pipe)):
        expected = "\x1b[1mtext\x1b[0m" if colored else "text"
        assert _terminal.styled("text", _terminal.BOLD, stream) == expected


def test_forced_colors_in_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With FORCE_COLOR, headings and errors have colours in a pipe, and lines are no longer than without."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1mexamples:\x1b[0m\n" in print_help("", capsys)
    assert main(["info", "missing"]) == 1
    output, error = capsys.readouterr()
    assert "\x1b[36mflush instruction  \x1b[0m" in output
    assert error == "\x1b[1;31mpmem2:\x1b[0m missing: No such file or directory\n"


def test_dumb_terminal_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal without escape sequences gets no line that must be redrawn."""
    with terminal_output(monkeypatch, "stderr", TERM="dumb") as printed:
        _terminal.show_status("working")
        with _terminal.progress("copying", 10) as advance:
            advance(10)
    assert printed == [""]


# ---- numbers and names


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
    assert _text.format_size(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 ns"),
        (0.04, "0.04 ns"),
        (0.951, "1.0 ns"),
        (7, "7 ns"),
        (9.96, "10 ns"),
        (401.4, "401 ns"),
        (999.4, "999 ns"),
        (999.6, "1.0 µs"),
        (7_147_389, "7.1 ms"),
        (71_473_890, "71 ms"),
        (1234e9, "1234 s"),
    ],
)
def test_times_with_units(number: float, text: str) -> None:
    """Two or three digits and the unit that fits; never 0.0."""
    assert _text.format_decimal(number, _text.TIMES) == text


def test_counts_without_unit() -> None:
    """Small counts have no unit and no blank at their end."""
    assert [_text.format_decimal(number, _text.COUNTS) for number in (5, 999_600)] == ["5", "1.0 M"]


def test_times() -> None:
    """Times are printed as minutes and seconds."""
    assert _text.format_time(187.4) == "3:07"


def test_printable_names() -> None:
    """Control characters and bytes that are not UTF-8 are escaped; an empty name is visible."""
    assert _text.printable("aä b\n\x1b[2J\udcff\u2028") == "aä b\\n\\x1b[2J\\xff\\u2028"
    assert [_text.show_name(path) for path in ("", "a b")] == ["''", "a b"]


# ---- tables


HEADERS, ROWS = ("name", "count", "more"), [("[red]", "1", "5"), ("two", "22", "666")]


def test_plain_table(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe, a table has columns of numbers, as wide as it needs."""
    _terminal.show_table(HEADERS, ROWS)
    assert capsys.readouterr().out == "name   count  more\n[red]      1     5\ntwo       22   666\n"


def test_narrow_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal too narrow for a table gets one for each group of columns."""
    for columns, expected in (
        ("18", "name   count  more\n[red]      1     5\ntwo       22   666\n"),
        ("17", "name   count\n[red]      1\ntwo       22\n\nname   more\n[red]     5\ntwo     666\n"),
    ):
        with terminal_output(monkeypatch, "stdout", COLUMNS=columns) as printed:
            _terminal.show_table(HEADERS, ROWS)
        assert printed == [expected]


FACTS = [("kind", "regular file"), ("because", "stores go through the page cache")]


def test_facts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Facts have a line each in a pipe; a terminal breaks them beside their labels or, if it is narrow, below."""
    _terminal.show_facts(FACTS)
    assert capsys.readouterr().out == "kind     regular file\nbecause  stores go through the page cache\n"
    for columns, expected in (
        ("35", "kind     regular file\nbecause  stores go through the page\n         cache\n"),
        ("20", "kind\n    regular file\nbecause\n    stores go\n    through the page\n    cache\n"),
    ):
        with terminal_output(monkeypatch, "stdout", COLUMNS=columns) as printed:
            _terminal.show_facts(FACTS)
        assert printed == [expected]


def test_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A step and a paragraph are broken in a pipe, too."""
    monkeypatch.setenv("COLUMNS", "20")
    _terminal.show_step("wrote", "a counter, three times")
    _terminal.show_text("nothing was found\there")
    assert capsys.readouterr().out == "wrote    a counter,\n         three times\nnothing was\nfound\\there\n"


# ---- progress


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show progress from the beginning."""
    monkeypatch.setattr(_terminal, "PROGRESS_DELAY", 0)


def test_no_progress_without_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, progress prints nothing."""
    with _terminal.progress("copying", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("columns", "bar"), [("200", True), ("40", False)])
def test_rich_progress(monkeypatch: pytest.MonkeyPatch, columns: str, bar: bool) -> None:
    """On a terminal rich shows a progress bar; a narrow one gets the figures only, on one line."""
    pytest.importorskip("rich")
    with terminal_output(monkeypatch, "stderr", COLUMNS=columns) as printed:
        with _terminal.progress("copying", 4096) as advance:
            advance(4096)
    assert "copying" in printed[0]
    assert "100%" in printed[0]
    assert ("━" in printed[0]) == bar


@pytest.mark.usefixtures("at_once")
def test_quiet_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --quiet, a terminal shows no progress."""
    with terminal_output(monkeypatch, "stderr") as printed:
        with _terminal.progress("copying", 10, quiet=True) as advance:
            advance(10)
    assert printed == [""]


def test_short_work_has_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows progress once half a second has passed, with all that was done before."""
    block_imports(monkeypatch, "rich.console")
    clock = iter([0.0, 0.4, 0.6, 0.6, 1.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with terminal_output(monkeypatch, "stderr") as printed:
        with _terminal.progress("copying", 4000) as advance:
            for _ in range(3):
                advance(1000)
    first, second, last = printed[0].split("\r")[1:]
    assert first == "copying: 50 %, 2.0 KiB of 3.9 KiB, 3.3 kB/s, 0:01 left"
    assert second.startswith("copying: 75 %")
    assert last == ""


@pytest.mark.usefixtures("at_once")
def test_plain_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal without rich, one line shows progress, sometimes, and disappears at the end."""
    block_imports(monkeypatch, "rich.console")
    monkeypatch.setattr(_terminal, "REDRAW_INTERVAL", 1000)
    with terminal_output(monkeypatch, "stderr") as printed:
        with _terminal.progress("copying", 4096) as advance:
            advance(0)
            advance(0)
            advance(4096)
    lines = printed[0].split("\r")
    assert lines[0] == lines[-1] == ""
    assert lines[1].startswith("copying: 0 %")
    assert "copying: 100 %, 4 KiB of 4 KiB, " in printed[0]
    assert len(lines) < 6


def test_status_fits_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A status line is cut at the width of the terminal: only the last line can be replaced."""
    with terminal_output(monkeypatch, "stderr", COLUMNS="10") as printed:
        _terminal.show_status("0123456789")
    assert printed == ["\r012345678"]


def test_output_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the progress bar needs rich."""
    block_imports(monkeypatch, "rich", "rich.console")
    assert _terminal.rich_console(sys.stderr) is None
