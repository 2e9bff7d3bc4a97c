# SPDX-License-Identifier: BSD-3-Clause
"""The command `pmem2`.

Not in the package, whose import takes a while in which Ctrl-C is to end quietly, too.
"""

from __future__ import annotations

import signal


def main() -> int:
    """Run the command; return its exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from pmem2.cli import main as run

    return run()
