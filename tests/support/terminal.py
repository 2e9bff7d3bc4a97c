# SPDX-License-Identifier: BSD-3-Clause
"""A pseudo-terminal that records output and supplies input in tests."""

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
        """Open the terminal and record its output in a thread."""
        self.master, slave = pty.openpty()
        self.stream: TextIO = os.fdopen(slave, "w", encoding="utf-8")
        self.printed = b""
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        """Record output until the other side is closed."""
        try:
            while piece := os.read(self.master, 4096):
                self.printed += piece
        except OSError:  # EIO: the other side is closed
            pass

    def close(self) -> str:
        """Return the recorded output without escape sequences."""
        self.stream.close()
        self.reader.join()
        os.close(self.master)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.printed.decode()).replace("\r\n", "\n")


@contextmanager
def terminal_output(monkeypatch: pytest.MonkeyPatch, name: str, **environment: str) -> Iterator[list[str]]:
    """Replace `sys.stdout` or `sys.stderr` with a terminal; after the block the list holds its output."""
    terminal, printed = Terminal(), list[str]()
    with monkeypatch.context() as patch:
        for variable, value in {"TERM": "xterm", "COLUMNS": "200", **environment}.items():
            patch.setenv(variable, value)
        patch.setattr(sys, name, terminal.stream)
        try:
            yield printed
        finally:
            printed.append(terminal.close())


@contextmanager
def terminal_input(monkeypatch: pytest.MonkeyPatch, text: str) -> Iterator[None]:
    """Replace `sys.stdin` with a terminal that supplies *text*."""
    master, slave = pty.openpty()
    os.write(master, text.encode())
    with os.fdopen(slave, encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stream)
        yield
    os.close(master)


def block_imports(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make imports of modules fail."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
