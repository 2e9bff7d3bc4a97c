# SPDX-License-Identifier: BSD-3-Clause
"""Locations in the caller's source: the innermost stack frame outside of pmem2."""

from __future__ import annotations

import sys
from types import FrameType

import attrs

PACKAGE = "pmem2"
COMMANDS = "pmem2.cli."
"""The command line uses the package as any program does."""


@attrs.define()  # not a named tuple: the code of its constructor would count as the caller's
class SourceLocation:
    """A line of source, and the function that contains it."""

    filename: str
    lineno: int
    function: str


def is_internal_frame(frame: FrameType) -> bool:
    """Whether *frame* executes code of this package."""
    name = frame.f_globals.get("__name__")
    if not isinstance(name, str) or not name.startswith(PACKAGE):
        return False
    return name == PACKAGE or (name.startswith(PACKAGE + ".") and not name.startswith(COMMANDS))


def external_location(frame: FrameType) -> SourceLocation:
    """Return the location of *frame*, or of its innermost caller outside of this package."""
    while frame.f_back is not None and is_internal_frame(frame):
        frame = frame.f_back
    return SourceLocation(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def caller_location() -> SourceLocation:
    """Return the location of the code that called into this package."""
    return external_location(sys._getframe(1))
