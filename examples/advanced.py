# SPDX-License-Identifier: BSD-3-Clause
"""Print any part of a file in hexadecimal, aligned or not: `python advanced.py FILE OFFSET LENGTH`."""

from __future__ import annotations

import re
import sys

import pmem2

COLUMNS = 16


def parse_number(text: str) -> int:
    """Parse the number at the start of *text* like C's atoi, whose 32-bit result the C program stores as unsigned."""
    found = re.match(r"[ \t-\r]*([+-]?[0-9]+)", text)
    long = min(max(int(found[1]) if found else 0, -(2**63)), 2**63 - 1)
    return ((long + 2**31) % 2**32 - 2**31) % 2**64


def read_part(source: pmem2.Source, offset: int, length: int) -> bytes:
    """Read bytes of a source through a map, whose offset and length are multiples of the alignment."""
    alignment = source.alignment
    start = offset % alignment
    aligned_length = -(-(start + length) // alignment) * alignment
    config = pmem2.Config(offset=offset - start, length=aligned_length or None)
    with source.map(config) as map:
        return map[start : start + length]


def dump(data: bytes) -> str:
    """Format bytes as upper-case hexadecimal numbers, 16 in a line."""
    return "".join(f"{byte:02X} " + "\n" * (count % COLUMNS == 0) for count, byte in enumerate(data, 1))


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
    if len(argv) != 4:
        print(f"usage: {argv[0]} src-file offset length", file=sys.stderr)
        return 1
    try:
        with pmem2.Source.from_path(argv[1]) as source:
            data = read_part(source, parse_number(argv[2]), parse_number(argv[3]))
    except OSError as error:
        print(f"{getattr(error, 'function', 'open')}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:  # numbers that are too large kill the C program
        print(error, file=sys.stderr)
        return 1
    print(dump(data), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
