# SPDX-License-Identifier: BSD-3-Clause
"""Write a greeting to a file and make it durable: `python basic.py FILE`."""

from __future__ import annotations

import sys

import pmem2

GREETING = b"hello, persistent memory\0"


def greet(map: pmem2.Map) -> None:
    """Store the part of the greeting that fits at the beginning, and persist the whole file."""
    greeting = GREETING[: len(map)]
    map[: len(greeting)] = greeting
    map.persist()


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
    if len(argv) != 2:
        print(f"usage: {argv[0]} file", file=sys.stderr)
        return 1
    try:
        with pmem2.open(argv[1]) as map:
            greet(map)
    except OSError as error:
        print(f"{getattr(error, 'function', 'open')}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
