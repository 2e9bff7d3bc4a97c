# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 copy`: owner, mode, ACL and extended attributes of the copy."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

import pytest
from support.copying import run_copy
from support.values import CONTENT

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def xattrs(path: Path) -> dict[str, bytes]:
    """Return the extended attributes of a file, its ACL among them."""
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if not name.startswith("trusted.")}


def set_acl(path: Path) -> bytes:
    """Give user 65534 a right that the owning group has not; skip the test if ACLs are not supported."""
    entries = [(1, 6, 2**32 - 1), (2, 6, 65534), (4, 4, 2**32 - 1), (16, 6, 2**32 - 1), (32, 0, 2**32 - 1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, ACCESS, acl)
        os.setxattr(path, "user.pmem2", b"value")
    except OSError as error:
        pytest.skip(f"this file system has no ACLs or extended attributes: {error.strerror}")
    return acl


def test_acl_stays(path: Path, target: Path) -> None:
    """A replaced file keeps its ACL, whose mask the group bits of its mode are, and its extended attributes."""
    target.write_bytes(b"before")
    set_acl(target)
    before = xattrs(target), target.stat().st_mode
    assert run_copy(path, target) == 0
    assert (xattrs(target), target.stat().st_mode) == before
    assert target.read_bytes() == CONTENT


def test_no_acl_is_added(path: Path, target: Path) -> None:
    """A replaced file without ACL gets none, whatever the default of its directory and the ACL of SRC."""
    acl = set_acl(path)
    target.write_bytes(b"before")
    target.chmod(0o604)
    os.setxattr(target.parent, DEFAULT, acl)
    assert run_copy(path, target) == 0
    assert (xattrs(target), stat.S_IMODE(target.stat().st_mode)) == ({}, 0o604)


def test_default_acl(path: Path, target: Path) -> None:
    """A new file gets the default ACL of its directory, as with cp, if SRC has none."""
    acl = set_acl(target.parent)
    os.setxattr(target.parent, DEFAULT, acl)
    assert run_copy(path, target) == 0
    assert list(xattrs(target)) == [ACCESS]


def test_new_file_like_source(path: Path, target: Path) -> None:
    """A new file gets the ACL, the extended attributes and, from root, the owner of SRC."""
    set_acl(path)
    if os.geteuid() == 0:
        os.chown(path, 1234, 5678)
    assert run_copy(path, target) == 0
    assert xattrs(target) == xattrs(path)
    before, after = path.stat(), target.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set security attributes")
def test_label_stays(path: Path, target: Path) -> None:
    """A replaced file keeps its SELinux label, but no capabilities, which the kernel takes from changed files."""
    target.write_bytes(b"before")
    try:
        os.setxattr(target, "security.selinux", b"system_u:object_r:tmp_t:s0\0")
    except OSError as error:
        pytest.skip(f"no security attributes here: {error.strerror}")
    before = xattrs(target)
    os.setxattr(target, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    assert run_copy(path, target) == 0
    assert xattrs(target) == before


def refuse(*_arguments: object) -> None:
    """Refuse as the kernel does."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_acl_that_cannot_stay(path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its ACL, the owning group does not get the rights of the others in it."""
    target.write_bytes(b"before")
    set_acl(target)
    monkeypatch.setattr(os, "setxattr", refuse)
    assert run_copy(path, target) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize(("group_stays", "expected"), [(False, 0o655), (True, 0o2675)])
def test_owner_that_cannot_stay(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, group_stays: bool, expected: int
) -> None:
    """A new owner gets no setuid bit, a new group no right that others have not."""
    target.write_bytes(b"before")
    target.chmod(0o6675)
    real = os.fchown

    def fchown(fd: int, uid: int, gid: int) -> None:
        if not group_stays or uid != -1:
            refuse()
        real(fd, uid, gid)

    monkeypatch.setattr(os, "fchown", fchown)
    assert run_copy(path, target) == 0
    assert stat.S_IMODE(target.stat().st_mode) == expected
