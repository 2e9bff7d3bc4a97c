# SPDX-License-Identifier: BSD-3-Clause
"""Ctrl-C, SIGTERM and SIGHUP: the first raises an exception, and no further signal interrupts the clean-up."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalExit(KeyboardInterrupt):
    """A signal asks the command to end."""

    def __init__(self, number: int) -> None:
        """Keep the number of the signal."""
        super().__init__(number)
        self.number = number


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Raise SignalExit in the block at the first signal; ignore signals after that until the block ends."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # nohup and the shell, for background jobs, ignore some signals; those stay ignored
    handled = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]

    def raise_exit(number: int, _frame: object) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_IGN)
        raise SignalExit(number)

    for number in handled:
        signal.signal(number, raise_exit)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
