# SPDX-License-Identifier: BSD-3-Clause
"""Output files of commands: resolve the path, allocate space, name the user's path in errors, clean up."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from pmem2._files import allocate
from pmem2._source import Source
from pmem2.cli._command import CommandError
from pmem2.cli._platform import VOLATILE, find_mount, is_dax_device
from pmem2.cli._terminal import print_warning
from pmem2.cli._text import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

Range = tuple[int, int]
MAX_LINKS = 40  # as the kernel follows


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


def resolve_links(path: str) -> tuple[str, bool]:
    """Follow the symbolic links of a path; the last one may lead to a new file.

    Returns:
        The path, and whether it is a name. A link in /proc is none: its text may name nothing, or another file. Needs
        no working directory, which may have been removed.
    """
    for _ in range(MAX_LINKS):
        if not os.path.islink(path):
            return path, True
        if is_on_procfs(path):
            return path, False
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def is_on_procfs(link: str) -> bool:
    """Return whether a symbolic link is one of the kernel's, as /proc/self/fd/N."""
    return find_mount(os.path.dirname(link) or ".").filesystem == "proc"


def warn_if_volatile(path: str) -> bool:
    """Return whether a path is on a file system in memory, and warn about it; a DAX device itself is elsewhere."""
    filesystem = find_mount(path).filesystem
    volatile = filesystem in VOLATILE and not is_dax_device(os.stat(path))
    if volatile:
        print_warning(f"{path} is on {filesystem}, in memory: a power failure or a restart loses it")
    return volatile


def source_of(fd: int, name: str) -> Source:
    """Return a source that errors call by *name*, not by the number of a descriptor that the user does not know."""
    return Source._from_file(fd, "pmem2_source_from_fd", name)


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
