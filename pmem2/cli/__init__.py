# SPDX-License-Identifier: BSD-3-Clause
"""The command line `pmem2`: one module for each command. See docs/command-line.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Optional

from pmem2._version import __version__
from pmem2.cli import badblocks, bench, copy, demo, info
from pmem2.cli._command import CommandError, HelpFormatter, Parser, add_command
from pmem2.cli._signals import SignalExit, exit_on_signals
from pmem2.cli._terminal import print_error, print_warning
from pmem2.cli._text import show_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DESCRIPTION = "Tools for persistent memory and memory-mapped files."
HELP = """\
examples:
  pmem2 info                          the persistent memory of this machine
  pmem2 info /mnt/pmem /dev/dax0.0    what they support, and why
  pmem2 copy database /mnt/pmem/      copy; the copy is durable at return
  pmem2 bench /mnt/pmem               measure the speed
  pmem2 demo                          see durable writes and a lost one

Details about a command: pmem2 info --help.

Exit status: 0 success, 1 the command failed, 2 wrong usage, 128 + N ended by signal N."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="pmem2",
        description=DESCRIPTION,
        epilog=HELP,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pmem2 {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (info, copy, bench, badblocks, demo):
        module.add(commands)
    completion = add_command(commands, "completion", "print a shell completion script", COMPLETION)
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    completion.set_defaults(run=lambda arguments: print_completion(parser, commands.choices.values(), arguments.shell))
    return parser


SHELLS = ("bash", "fish", "tcsh", "zsh")
COMPLETION = """
Needs the extra: pip install 'pmem2[cli]'.

examples:
  pmem2 completion bash > ~/.local/share/bash-completion/completions/pmem2
  pmem2 completion fish > ~/.config/fish/completions/pmem2.fish
  pmem2 completion zsh > /usr/local/share/zsh/site-functions/_pmem2"""


def print_completion(parser: argparse.ArgumentParser, commands: Iterable[argparse.ArgumentParser], shell: str) -> int:
    """Print the completion script of a shell."""
    try:
        import shtab
    except ImportError:
        raise CommandError("completion needs shtab: pip install 'pmem2[cli]'") from None
    if shell not in shtab.SUPPORTED_SHELLS:
        raise CommandError(f"completion for {shell} needs a newer shtab: pip install --upgrade shtab")
    for action in (action for command in commands for action in command._actions):
        if action.metavar in ("PATH", "SRC", "DST", "FILE"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab reads this attribute
    print(shtab.complete(parser, shell))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command and return its exit status.

    Args:
        argv: The arguments; `None` takes those of the process.

    Raises:
        SystemExit: The usage is wrong (2), or the arguments ask for help (0).
    """
    for name in ("stdout", "stderr"):
        stream: object = getattr(sys, name)
        if stream is None:  # the parent process closed it: discard the output
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 # open until the process ends
    if hasattr(sys.stdout, "reconfigure"):  # file names need not be valid UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            with warnings.catch_warnings(), exit_on_signals():
                warnings.showwarning = lambda message, *_rest, **_more: print_warning(str(message))
                arguments = make_parser().parse_args(argv)
                return int(arguments.run(arguments))
        except SignalExit as stop:
            return 128 + stop.number
        except BrokenPipeError:
            raise
        except (OSError, CommandError) as error:
            print(end="", flush=True)  # if stdout itself failed, this raises, and the error is reported once
            print_error(error_text(error))
            return 1
        finally:
            print(end="", flush=True)
    except OSError as error:  # stdout failed: point it at /dev/null so that interpreter exit does not flush again
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        if isinstance(error, BrokenPipeError):
            return 128 + signal.SIGPIPE
        print_error(f"standard output: {error_text(error)}")
        return 1


def error_text(error: Exception) -> str:
    """Return the text of an error with its file name, without the errno."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{show_name(os.fsdecode(error.filename))}: {error.strerror}"
