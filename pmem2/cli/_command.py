# SPDX-License-Identifier: BSD-3-Clause
"""What every command has: a parser with examples, and a way to fail."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves texts as they are, and has room for the names of all commands."""

    def __init__(self, prog: str) -> None:
        """Format the help of *prog*."""
        super().__init__(prog)
        self._action_max_length = 16  # argparse forgets the indentation of commands


def checked_place(path: str) -> str:
    """Return a path at which something is to be made.

    Raises:
        Failure: Nothing can be made there, but the system would make it elsewhere.
    """
    if not path:
        raise Failure("a name of no letters names nothing")
    if path.endswith("/") and not os.path.isdir(path):
        raise Failure(f"{path} is not a directory")
    return path


class Failure(Exception):
    """What was asked for could not be done; the text is one line for a person."""


def add_command(commands: Commands, name: str, summary: str, text: str) -> argparse.ArgumentParser:
    """Return the parser of a new command; *text* is what its help says after the options."""
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[:1].upper()}{summary[1:]}.",
        epilog=text.strip("\n"),
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
