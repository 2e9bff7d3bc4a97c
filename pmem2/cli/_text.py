# SPDX-License-Identifier: BSD-3-Clause
"""Texts for people: sizes, times and rates with units, escaped names, wrapped lines."""

from __future__ import annotations

import textwrap

BINARY = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
TIMES = ("ns", "µs", "ms", "s")
RATES = ("B/s", "kB/s", "MB/s", "GB/s", "TB/s")
COUNTS = ("", "k", "M", "G", "T")
SURROGATES = range(0xDC80, 0xDD00)  # bytes of a file name that are not UTF-8


def format_size(number: float) -> str:
    """Format a number of bytes for people: 8 bytes, 4 KiB, 1.5 GiB."""
    power = 0
    while number >= 1024 and power < len(BINARY) - 1:
        number /= 1024
        power += 1
    digits = 0 if number == int(number) or number >= 100 else 1
    return f"{number:.{digits}f} {BINARY[power]}"


def format_decimal(number: float, units: tuple[str, ...]) -> str:
    """Format a number with the unit that fits: 401 ns, 7.1 ms, 0.04 B/s; the units are a factor of 1000 apart."""
    power = 0
    while number >= 999.5 and power < len(units) - 1:
        number /= 1000
        power += 1
    whole = number >= 9.95 or number == int(number)
    text = f"{number:.0f}" if whole else f"{number:.1f}" if number >= 0.95 else f"{number:.1g}"
    return f"{text} {units[power]}".rstrip()


def format_time(seconds: float) -> str:
    """Format a time as minutes and seconds: 3:07."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    """Escape what a terminal would obey or cannot show: control characters, bytes of a name that are not UTF-8."""
    return "".join(char if char.isprintable() else escape(char) for char in text)


def show_name(path: str) -> str:
    """Return a path as an error names it; an empty one is visible."""
    return path or "''"


def escape(char: str) -> str:
    r"""Return a character as Python writes it: \n, \x1b, \xff."""
    number = ord(char)
    return f"\\x{number - 0xDC00:02x}" if number in SURROGATES else repr(char)[1:-1]


def wrap(text: str, width: int) -> list[str]:
    """Break a text at blanks into lines of at most *width* columns; a longer word keeps a line of its own."""
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def wrap_command(command: str, width: int) -> str:
    r"""Break a shell command at blanks; each line but the last ends in a backslash, so that it can be pasted."""
    return " \\\n      ".join(wrap(command, width))
