# SPDX-License-Identifier: BSD-3-Clause
"""Files that are neither regular files nor directories; not on Windows."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path


def make_fifo(path: Path) -> None:
    """Create a FIFO that no process has open."""
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    """Create the file of a Unix socket."""
    with closing(socket.socket(socket.AF_UNIX)) as server:
        folder = os.getcwd()
        os.chdir(path.parent)  # bind() accepts at most 108 bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(folder)


def make_device(path: Path) -> None:
    """Create a link to the null device."""
    path.symlink_to(os.devnull)
