# SPDX-License-Identifier: BSD-3-Clause
"""The options of `madvise` that a map refuses."""

from __future__ import annotations

import sys

from pmem2._ffi import lib

ADVICE_MAX = 2**31 - 1  # a C int
HARMFUL: dict[int, str] = {}
"""Options that lose data of the file, or that let a later access end the process, of a child too."""
HARMFUL_TO_VOLATILE: dict[int, str] = {}
"""Options that lose stored data that is in no file."""

if sys.platform != "win32":  # pragma: no branch: Windows has no madvise
    HARMFUL = {
        lib.MADV_REMOVE: "MADV_REMOVE",
        lib.MADV_DONTFORK: "MADV_DONTFORK",
        lib.MADV_WIPEONFORK: "MADV_WIPEONFORK",
        lib.MADV_HWPOISON: "MADV_HWPOISON",
        lib.MADV_SOFT_OFFLINE: "MADV_SOFT_OFFLINE",
        lib.MADV_GUARD_INSTALL: "MADV_GUARD_INSTALL",
    }
    HARMFUL_TO_VOLATILE = {
        lib.MADV_DONTNEED: "MADV_DONTNEED",
        lib.MADV_DONTNEED_LOCKED: "MADV_DONTNEED_LOCKED",
        lib.MADV_FREE: "MADV_FREE",
    }


def check_advice(option: int, *, volatile: bool) -> None:
    """Check that an option is only a hint; *volatile* says whether data of the map may be in no file.

    Raises:
        ValueError: It can lose data or end the process.
    """
    if option in HARMFUL:
        raise ValueError(f"option must not lose data or end the process, got {HARMFUL[option]}")
    if volatile and option in HARMFUL_TO_VOLATILE:
        name = HARMFUL_TO_VOLATILE[option]
        raise ValueError(f"option must not lose stored data: {name} does on a PRIVATE map and on existing memory")
