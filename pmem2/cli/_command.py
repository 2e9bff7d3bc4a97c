# SPDX-License-Identifier: BSD-3-Clause
"""Shared by all commands: the parser with its help, and the exception for a failed command."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Optional

from pmem2.cli._terminal import BOLD, styled, width_of
from pmem2.cli._text import wrap, wrap_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    Commands = argparse._SubParsersAction["Parser"]

EXAMPLES = "examples:\n"
WIDEST = 100  # columns; longer lines are hard to read


class CommandError(Exception):
    """The command failed; the text is one line for the user."""


class Parser(argparse.ArgumentParser):
    """Shows the usage of the command that an unknown argument was given to, not that of `pmem2`."""

    def parse_known_args(  # type: ignore[override]  # the base class has overloads for other namespaces
        self, args: Optional[Sequence[str]] = None, namespace: Optional[argparse.Namespace] = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments; each of them must be known."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


class HelpFormatter(argparse.HelpFormatter):
    """Fits paragraphs and examples to the terminal and aligns the names of all commands."""

    def __init__(self, prog: str) -> None:
        """Format the help of *prog*."""
        super().__init__(prog, width=min(width_of(sys.stdout), WIDEST) - 2)
        self._action_max_length = 16  # argparse ignores the indentation of subcommands

    def start_section(self, heading: Optional[str]) -> None:
        """Begin a section, with a bold heading on a terminal."""
        super().start_section(heading and styled(heading, BOLD))

    def _format_action(self, action: argparse.Action) -> str:
        """Return the help of an option, or of every command without a line for their metavar."""
        if isinstance(action, argparse._SubParsersAction):
            return "".join(map(super()._format_action, action._get_subactions()))
        return super()._format_action(action)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Wrap the help of an option."""
        return wrap(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap a description, paragraph by paragraph."""
        blocks = text.split("\n\n")
        return "\n\n".join(
            format_examples(block[len(EXAMPLES) :], width)
            if block.startswith(EXAMPLES)
            else "\n".join(wrap(block, width))
            for block in blocks
        )


def format_examples(text: str, width: int) -> str:
    """Return examples, each a command and perhaps its explanation, in two columns or one below the other."""
    split = [line.strip().partition("  ") for line in text.splitlines()]
    rows = [(command, purpose.strip()) for command, _, purpose in split]
    longest = max((len(command) for command, purpose in rows if purpose), default=0)
    lines = [f"  {command.ljust(longest)}  {purpose}".rstrip() for command, purpose in rows]
    if max(map(len, lines)) > width:
        lines = []
        for command, purpose in rows:
            lines.append(f"  {wrap_command(command, width - 8)}")
            lines += [f"      {line}" for line in wrap(purpose, width - 6) if line]
    return "\n".join([styled(EXAMPLES.strip(), BOLD), *lines])


def add_command(commands: Commands, name: str, summary: str, text: str) -> Parser:
    """Return the parser of a new command; its help shows *text* after the options."""
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[:1].upper()}{summary[1:]}.",
        epilog=text.strip("\n"),
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
