# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 badblocks`: list the known bad blocks of a file or a DAX device, or clear them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import attrs

from pmem2._source import Source
from pmem2.cli._command import CommandError, add_command
from pmem2.cli._terminal import show_table
from pmem2.cli._text import format_size, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pmem2._badblocks import BadBlock
    from pmem2.cli._command import Commands

HELP = """
A bad block is a part of the medium that has lost its data: a load from it kills the process, a read fails.
--clear makes the blocks usable again and fills them with zeros. Restore their data from a copy afterwards.
For a DAX device this needs root on most systems.

docs/command-line.md lists the keys of --json.

examples:
  pmem2 badblocks /mnt/pmem/database             list the bad blocks
  pmem2 copy /mnt/pmem/database /backup/         save the data that is still readable
  pmem2 badblocks /mnt/pmem/database --clear     clear the blocks; asks first
  pmem2 badblocks /dev/dax0.0 --clear --yes      clear the blocks from a script"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "badblocks", "list the bad blocks of a file or a DAX device, or clear them", HELP)
    parser.add_argument("path", metavar="PATH", help="a file or a DAX device")
    parser.add_argument("--clear", action="store_true", help="clear the blocks; they read as zeros afterwards")
    parser.add_argument("--yes", action="store_true", help="do not ask; required without a terminal")
    parser.add_argument("--json", action="store_true", help="print JSON with a stable schema")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """List or clear the bad blocks."""
    if arguments.yes and not arguments.clear:
        arguments.usage_error("--yes needs --clear")
    if arguments.json and arguments.clear and not arguments.yes:
        arguments.usage_error("--json --clear needs --yes: a script cannot answer")
    path: str = arguments.path
    with Source.from_path(path, writable=bool(arguments.clear)) as source, source.bad_blocks() as context:
        blocks = list(context)
        if not arguments.json:
            list_blocks(path, blocks)
        if blocks and arguments.clear:  # pragma: no cover: nox -s nvdimm
            confirm(blocks, bool(arguments.yes))
            for block in blocks:
                context.clear(block)
        if arguments.json:
            found = {"path": path, "bad_blocks": as_json(blocks), "cleared": bool(arguments.clear)}
            print(json.dumps(found, indent=2))
        elif blocks and arguments.clear:  # pragma: no cover: nox -s nvdimm
            print(f"cleared {len(blocks)}; they read as zeros now")
    return 0


def as_json(blocks: Sequence[BadBlock]) -> list[dict[str, int]]:
    """Return the blocks in the documented form."""
    return [attrs.asdict(block) for block in blocks]


def list_blocks(path: str, blocks: Sequence[BadBlock]) -> None:
    """Print the bad blocks."""
    path = printable(path)
    if not blocks:
        print(f"{path}: no bad blocks are known")
        return
    print(f"{path}: {len(blocks)} bad, {total_size(blocks)} in all")
    show_table(("offset", "length"), [(str(block.offset), str(block.length)) for block in blocks])


def confirm(blocks: Sequence[BadBlock], yes: bool) -> None:
    """Ask on the terminal whether to clear the blocks, unless *yes*.

    Raises:
        CommandError: The user declines, or stdin is not a terminal.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError("nothing was cleared: stdin is not a terminal; --yes clears without asking")
    try:
        answer = input(f"{total_size(blocks)} will be overwritten with zeros, their data is lost. Clear? [y/N] ")
    except EOFError:
        answer = "no"
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was cleared")


def total_size(blocks: Sequence[BadBlock]) -> str:
    """Return the size of all blocks together, as text."""
    return format_size(sum(block.length for block in blocks))
