# SPDX-License-Identifier: BSD-3-Clause
"""What tests read files with on Linux, for all interpreters under wine: their children, too."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import msvcrt

    def pread(fd: int, length: int, offset: int) -> bytes:
        """Read as `os.pread` does elsewhere, but for the file pointer, which moves."""
        msvcrt.setmode(fd, os.O_BINARY)
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, length)

    os.pread = pread  # type: ignore[attr-defined, unused-ignore] # that is the point
