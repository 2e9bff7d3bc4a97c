# SPDX-License-Identifier: BSD-3-Clause
"""Entry point of the `pmem2` command.

It lies outside the package: importing pmem2 takes a moment, and Ctrl-C during the import must not print a traceback.
"""

from __future__ import annotations

import signal


def main() -> int:
    """Run the command and return its exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job ignores SIGINT
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from pmem2.cli import main as run_command

    return run_command()
