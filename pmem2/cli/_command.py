# SPDX-License-Identifier: BSD-3-Clause
"""Shared by all commands: the parser with its help, and the exception for a failed command."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


class CommandError(Exception):
    """The command failed; the text is one line for the user."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of help texts and aligns the names of all commands."""

    def __init__(self, prog: str) -> None:
        """Format the help of *prog*."""
        super().__init__(prog)
        self._action_max_length = 16  # argparse ignores the indentation of subcommands


def add_command(commands: Commands, name: str, summary: str, text: str) -> argparse.ArgumentParser:
    """Return the parser of a new command; its help shows *text* after the options."""
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[:1].upper()}{summary[1:]}.",
        epilog=text.strip("\n"),
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
