# SPDX-License-Identifier: BSD-3-Clause
"""Add `os.pread`, which tests use, to every interpreter under wine, children included."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import msvcrt

    def pread(fd: int, length: int, offset: int) -> bytes:
        """Read like `os.pread` on POSIX, except that the file position moves."""
        msvcrt.setmode(fd, os.O_BINARY)
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, length)

    os.pread = pread  # type: ignore[attr-defined, unused-ignore] # Windows has no pread
