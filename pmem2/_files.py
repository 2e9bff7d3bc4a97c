# SPDX-License-Identifier: BSD-3-Clause
"""What names an open file: a descriptor, and on Windows the handle behind it, which is what libpmem2 is given there."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    if sys.platform == "win32":
        from _pmem2 import Pointer

        File = Pointer
    else:
        File = int

DESCRIPTORS = range(2**31)

if sys.platform == "win32":
    import msvcrt

    from _pmem2 import ffi

    HANDLES = range(-(2**63), 2**64)
    # children do not inherit it
    QUIETLY = os.O_BINARY | os.O_NOINHERIT

    def file_of(fd: int) -> File | None:
        """Return the handle of a descriptor, `None` if it has none.

        The C runtime that knows the descriptor is the interpreter's; that of libpmem2, often another one, would abort.
        """
        try:
            return handle_of(msvcrt.get_osfhandle(fd)) if fd in DESCRIPTORS else None
        except OSError:
            return None

    def handle_of(number: int) -> File | None:
        """Return a handle that is given as a number, `None` if it can be none."""
        return ffi.cast("void *", number) if number in HANDLES else None

else:
    # never blocks, is not inherited by children, and becomes nobody's terminal
    QUIETLY = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

    def file_of(fd: int) -> File | None:
        """Return a descriptor, `None` if it can be none."""
        return fd if fd in DESCRIPTORS else None
