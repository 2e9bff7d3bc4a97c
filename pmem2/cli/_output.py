# SPDX-License-Identifier: BSD-3-Clause
"""Output files of commands: check the path, allocate space, name the user's path in errors, clean up."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from pmem2._files import allocate
from pmem2.cli._command import CommandError
from pmem2.cli._terminal import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

Range = tuple[int, int]


def check_output_path(path: str) -> str:
    """Return a path at which a command may create something.

    Raises:
        CommandError: The path is empty, or ends with a slash and is not a directory. Resolved, it would name another
            file.
    """
    if not path:
        raise CommandError("the path is empty")
    if path.endswith("/") and not os.path.isdir(path):
        raise CommandError(f"{path} is not a directory")
    return path


def allocate_ranges(fd: int, size: int, ranges: Sequence[Range], path: str) -> None:
    """Set the size of a file and allocate disk space for *ranges*, so that stores to them cannot fail."""
    try:
        os.ftruncate(fd, size)
        for offset, length in ranges:
            allocate(fd, length, path, offset)
    except OSError as error:
        needed = format_size(sum(length for _, length in ranges))
        raise with_filename(error, f"cannot allocate {needed}", path) from None


def with_filename(error: OSError, failure: str, path: str) -> OSError:
    """Return the error with a description of the *failure* and the user's *path* instead of a hidden file's."""
    number = error.errno or errno.EIO
    return OSError(number, f"{failure}: {os.strerror(number)}", path)


def remove_if_exists(path: str) -> None:
    """Remove a file, unless it does not exist or the file system is read-only."""
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EROFS):
            raise
