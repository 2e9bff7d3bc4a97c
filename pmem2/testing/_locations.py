# SPDX-License-Identifier: BSD-3-Clause
"""Where the program is: which statement of the caller's code is being done."""

from __future__ import annotations

import sys
from types import FrameType

from pmem2.testing._events import Place

OURS = "pmem2"


def is_ours(frame: FrameType) -> bool:
    """Whether a frame is of this package."""
    name = str(frame.f_globals.get("__name__"))
    return name == OURS or name.startswith(OURS + ".")


def place_of(frame: FrameType) -> Place:
    """Return where *frame*, or the innermost of its callers that is not of this package, is."""
    while frame.f_back is not None and is_ours(frame):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def here() -> Place:
    """Return the caller's place."""
    return place_of(sys._getframe(1))
