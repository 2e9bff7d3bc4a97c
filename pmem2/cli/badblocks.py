# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 badblocks`: what the system knows to be unreadable, and how to mend it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pmem2._source import Source
from pmem2.cli._command import Failure, add_command
from pmem2.cli._terminal import show_table, size_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pmem2._badblocks import BadBlock
    from pmem2.cli._command import Commands

HELP = """
A bad block is a part of the medium that has lost its data: a load from it kills a process, a read of it fails.
Clearing mends the block and fills it with zeros; what was in it is lost. Restore it from a copy afterwards.
For a DAX device this needs root on most systems.

examples:
  pmem2 badblocks /mnt/pmem/database             list them
  pmem2 copy /mnt/pmem/database /backup/         save what can still be read
  pmem2 badblocks /mnt/pmem/database --clear     mend them; asks first
  pmem2 badblocks /dev/dax0.0 --clear --yes      mend them, in a script"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "badblocks", "list the bad blocks of a file or a DAX device, or clear them", HELP)
    parser.add_argument("path", metavar="PATH", help="a file or a DAX device")
    parser.add_argument("--clear", action="store_true", help="mend them: what was in them is lost")
    parser.add_argument("--yes", action="store_true", help="do not ask; needed where there is no terminal")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """List or clear."""
    if arguments.yes and not arguments.clear:
        arguments.usage_error("--yes is for --clear")
    path: str = arguments.path
    with Source.from_path(path, writable=bool(arguments.clear)) as source, source.bad_blocks() as context:
        blocks = list(context)
        describe(path, blocks)
        if blocks and arguments.clear:  # pragma: no cover: nox -s nvdimm
            consent(blocks, bool(arguments.yes))
            for block in blocks:
                context.clear(block)
            print(f"cleared {len(blocks)}; they read as zeros now")
    return 0


def describe(path: str, blocks: Sequence[BadBlock]) -> None:
    """Say which bad blocks there are."""
    if not blocks:
        print(f"{path}: no bad blocks are known")
        return
    print(f"{path}: {len(blocks)} bad, {amount(blocks)} in all")
    show_table(("offset", "length"), [(str(block.offset), str(block.length)) for block in blocks], numbers=True)


def consent(blocks: Sequence[BadBlock], yes: bool) -> None:
    """Return if whoever may decide it wants the blocks to be cleared.

    Raises:
        Failure: They do not, or cannot be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure("nothing was cleared: there is no terminal on which to ask; --yes clears without asking")
    try:
        answer = input(f"{amount(blocks)} will be overwritten with zeros, what was there is lost. Clear? [y/N] ")
    except EOFError:
        answer = "no"
    if answer.strip().lower() not in ("y", "yes"):
        raise Failure("nothing was cleared")


def amount(blocks: Sequence[BadBlock]) -> str:
    """Return how much the blocks are together."""
    return size_text(sum(block.length for block in blocks))
