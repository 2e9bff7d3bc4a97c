# SPDX-License-Identifier: BSD-3-Clause
"""A terminal for tests: what is printed on it, and what is typed."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest


class Terminal:
    """A pseudo-terminal."""

    def __init__(self) -> None:
        """Open it, and read what is printed on it."""
        self.master, slave = pty.openpty()
        self.stream: TextIO = os.fdopen(slave, "w", encoding="utf-8")
        self.printed = b""
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        """Read until the other side is closed."""
        try:
            while piece := os.read(self.master, 4096):
                self.printed += piece
        except OSError:  # EIO: it is
            pass

    def close(self) -> str:
        """Return what was printed, without the codes that move the cursor and choose colours."""
        self.stream.close()
        self.reader.join()
        os.close(self.master)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.printed.decode()).replace("\r\n", "\n")


@contextmanager
def shown(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[list[str]]:
    """Let `sys.stdout` or `sys.stderr` be a terminal; when the block has ended the list holds what was printed."""
    terminal, printed = Terminal(), list[str]()
    with monkeypatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, name, terminal.stream)
        try:
            yield printed
        finally:
            printed.append(terminal.close())


@contextmanager
def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> Iterator[None]:
    """Let `sys.stdin` be a terminal on which *text* is typed."""
    master, slave = pty.openpty()
    os.write(master, text.encode())
    with os.fdopen(slave, encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stream)
        yield
    os.close(master)


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let modules be such that cannot be imported."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
