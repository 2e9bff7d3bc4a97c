# SPDX-License-Identifier: BSD-3-Clause
"""The command line: `pmem2`, a module for each command. See docs/command-line.md."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Optional

from pmem2._version import __version__
from pmem2.cli import badblocks, bench, copy, demo, info
from pmem2.cli._command import Failure, HelpFormatter, add_command
from pmem2.cli._signals import Stopped, stopping
from pmem2.cli._terminal import complain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DESCRIPTION = "What a file, a file system or a DAX device can do; durable copies; measurements; bad blocks."
EXAMPLES = """\
  pmem2 info /mnt/pmem /dev/dax0.0      what they can do, and why
  pmem2 copy database /mnt/pmem/        a copy that is durable when the command returns
  pmem2 bench /mnt/pmem                 how fast it is
  pmem2 demo                            write, kill a process in mid-write, find everything again

Each command explains itself: pmem2 info --help.
Exit status: 0 success, 1 what was asked failed, 2 wrong usage, 128 + N stopped by signal N."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="pmem2",
        description=DESCRIPTION,
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pmem2 {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (info, copy, bench, badblocks, demo):
        module.add(commands)
    completion = add_command(commands, "completion", "print what lets a shell complete these commands", COMPLETION)
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    completion.set_defaults(run=lambda arguments: complete(parser, commands.choices.values(), arguments.shell))
    return parser


COMPLETION = """
Needs the extra: pip install 'pmem2[cli]'.

examples:
  pmem2 completion bash > ~/.local/share/bash-completion/completions/pmem2
  pmem2 completion zsh > /usr/local/share/zsh/site-functions/_pmem2"""


def complete(parser: argparse.ArgumentParser, commands: Iterable[argparse.ArgumentParser], shell: str) -> int:
    """Print the completion script of a shell."""
    try:
        import shtab
    except ImportError:
        raise Failure("completion needs shtab: pip install 'pmem2[cli]'") from None
    for action in (action for command in commands for action in command._actions):
        if action.metavar in ("PATH", "SRC", "DST", "FILE"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # this is how shtab is told
    print(shtab.complete(parser, shell))
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command; return its exit status.

    Args:
        argv: The arguments; `None` are those of the process.

    Raises:
        SystemExit: The usage is wrong (2), or help was asked for (0).
    """
    for name in ("stdout", "stderr"):
        stream: object = getattr(sys, name)
        if stream is None:  # closed before we came: as if nobody reads it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 # until the process ends
    if hasattr(sys.stdout, "reconfigure"):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            with warnings.catch_warnings(), stopping():
                warnings.showwarning = lambda message, *_rest, **_more: complain(str(message))
                arguments = make_parser().parse_args(argv)
                return int(arguments.run(arguments))
        except Stopped as stop:
            return 128 + stop.number
        except BrokenPipeError:
            raise
        except (OSError, Failure) as error:
            print(end="", flush=True)  # if printing is what failed, it is said once
            complain(sentence(error))
            return 1
        finally:
            print(end="", flush=True)
    except OSError as error:  # nobody reads, or the disk is full; the interpreter is not to try once more at its end
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        if isinstance(error, BrokenPipeError):
            return 128 + signal.SIGPIPE
        complain(f"standard output: {sentence(error)}")
        return 1


def sentence(error: Exception) -> str:
    """Return what an error says, without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{os.fsdecode(error.filename)}: {error.strerror}"
