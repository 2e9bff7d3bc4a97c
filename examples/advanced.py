# SPDX-License-Identifier: BSD-3-Clause
"""Show a part of a file in hexadecimal, whatever its alignment: `python advanced.py FILE OFFSET LENGTH`."""

from __future__ import annotations

import re
import sys

import pmem2

COLUMNS = 16


def number(text: str) -> int:
    """Return the number that *text* begins with, as C's atoi does: 32 bits of 64, in an unsigned variable."""
    found = re.match(r"[ \t-\r]*([+-]?[0-9]+)", text)
    long = min(max(int(found[1]) if found else 0, -(2**63)), 2**63 - 1)
    return ((long + 2**31) % 2**32 - 2**31) % 2**64


def part(source: pmem2.Source, offset: int, length: int) -> bytes:
    """Return bytes of a source: only whole multiples of its alignment can be mapped."""
    alignment = source.alignment
    before = offset % alignment
    whole = -(-(before + length) // alignment) * alignment
    config = pmem2.Config(offset=offset - before, length=whole or None)
    with source.map(config) as map:
        return map[before : before + length]


def dump(data: bytes) -> str:
    """Return the bytes as upper-case hexadecimal numbers, 16 in a line."""
    return "".join(f"{byte:02X} " + "\n" * (place % COLUMNS == 0) for place, byte in enumerate(data, 1))


def main(argv: list[str]) -> int:
    """Return the exit status."""
    if len(argv) != 4:
        print(f"usage: {argv[0]} src-file offset length", file=sys.stderr)
        return 1
    try:
        with pmem2.Source.from_path(argv[1]) as source:
            data = part(source, number(argv[2]), number(argv[3]))
    except OSError as error:
        print(f"{getattr(error, 'function', 'open')}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:  # the C program dies of numbers that are too large
        print(error, file=sys.stderr)
        return 1
    print(dump(data), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
