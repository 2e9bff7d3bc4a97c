# SPDX-License-Identifier: BSD-3-Clause
"""Owner, mode, ACL and extended attributes of a file that replaces another: they stay, and no right is added."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Union

ACCESS_ACL = "system.posix_acl_access"
DUPLICATES = "trusted.SGI_"  # the ACL once more, as XFS stores it
OF_CONTENT = ("security.capability", "security.evm", "security.ima")  # void when the content changes
GROUP_BITS, OTHER_BITS = 0o070, 0o007


def copy_attributes(like: Union[int, str], fd: int, mode: int) -> None:
    """Give a file the attributes of another one, as far as the user may.

    Args:
        like: The other file, a path or a descriptor.
        fd: The file.
        mode: Its new mode; fewer bits are set where its owner, group or ACL cannot be.
    """
    mode = keep_owner(fd, os.stat(like), mode)
    for name, value in sorted(read_xattrs(like).items()):  # the ACL last: it may take away the right to set others
        try:
            os.setxattr(fd, name, value)
        except OSError:
            if name == ACCESS_ACL:  # of a mode with an ACL, the bits of the group are those of everybody in the ACL
                mode &= ~GROUP_BITS
    os.fchmod(fd, mode)


def keep_owner(fd: int, status: os.stat_result, mode: int) -> int:
    """Set owner and group; return *mode* without the bits that would give rights to a wrong owner or group."""
    with suppress(OSError):
        os.fchown(fd, status.st_uid, status.st_gid)
        return mode
    mode &= ~stat.S_ISUID
    with suppress(OSError):
        os.fchown(fd, -1, status.st_gid)
        return mode
    for_everybody = mode & (mode & OTHER_BITS) << 3
    return mode & ~(stat.S_ISGID | GROUP_BITS) | for_everybody


def read_xattrs(file: Union[int, str]) -> dict[str, bytes]:
    """Return the extended attributes of a file, the ACL among them, that do not depend on its content."""
    found = {}
    with suppress(OSError):  # a file system without any
        for name in os.listxattr(file):
            if name not in OF_CONTENT and not name.startswith(DUPLICATES):
                found[name] = os.getxattr(file, name)
    return found


def has_acl(file: Union[int, str]) -> bool:
    """Return whether a file has an ACL that says more than its mode."""
    return ACCESS_ACL in read_xattrs(file)


def remove_acl(fd: int) -> None:
    """Remove the ACL that a new file has got from its directory."""
    with suppress(OSError):
        os.removexattr(fd, ACCESS_ACL)
