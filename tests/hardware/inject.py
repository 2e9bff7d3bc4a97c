# SPDX-License-Identifier: BSD-3-Clause
"""Persistent memory from below: where it lies, and how to make a part of it bad."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

SECTOR = 512
FIEMAP = 0xC020660B
FIEMAP_HEADER = struct.Struct("=QQLLLL")
FIEMAP_EXTENT = struct.Struct("=QQQQQLLLL")
INJECTION = Path("/sys/kernel/debug/mce-inject")


def sysfs(path: Path) -> Path:
    """Return the folder of the device behind a path: of the disk that a file is on, or of the DAX device itself."""
    status = path.stat()
    if status.st_rdev:
        return Path(f"/sys/dev/char/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}").resolve()
    return Path(f"/sys/dev/block/{os.major(status.st_dev)}:{os.minor(status.st_dev)}").resolve()


def attribute(path: Path, name: str) -> str:
    """Return an attribute of the device behind a path, or of what that device belongs to."""
    for folder in (sysfs(path), *sysfs(path).parents):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="ascii").strip()
    raise FileNotFoundError(name)


def place_on_disk(path: Path, offset: int) -> int:
    """Return where on its disk a byte of a file lies."""
    buffer = bytearray(FIEMAP_HEADER.size + FIEMAP_EXTENT.size)
    FIEMAP_HEADER.pack_into(buffer, 0, offset, 1, 0, 0, 1, 0)
    with open(path, "rb") as file:
        fcntl.ioctl(file, FIEMAP, buffer)
    logical, physical = FIEMAP_EXTENT.unpack_from(buffer, FIEMAP_HEADER.size)[:2]
    return int(physical) + offset - int(logical)


def make_bad(path: Path, offset: int, length: int) -> None:
    """Tell the kernel that a part of a file on fsdax is bad."""
    place = f"{place_on_disk(path, offset) // SECTOR} {length // SECTOR}"
    (sysfs(path) / "badblocks").write_text(place, encoding="ascii")


def forget_bad_blocks(mount_point: Path) -> None:
    """Make the disk of a file system good again: the kernel keeps what it was told no longer than the driver.

    A bad block that a file has left is given to another file, and XFS shuts down when it cannot write zeros there.
    """
    disk = sysfs(mount_point)
    device = disk.parent.parent
    driver = (device / "driver").resolve()
    filesystem = next(
        line.split()[2] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == str(mount_point)
    )
    subprocess.run(["umount", mount_point], check=True)
    for action in ("unbind", "bind"):
        (driver / action).write_text(device.name, encoding="ascii")
    mount = ["mount", "-t", filesystem, "-o", "dax=always", f"/dev/{disk.name}", str(mount_point)]
    subprocess.run(mount, check=True)


def machine_check(device: Path, offset: int) -> None:
    """Let the processor report an uncorrectable memory error in a DAX device, and wait until its region lists one."""
    subprocess.run(["modprobe", "mce-inject"], check=True)
    address = int(attribute(device, "resource"), 0) + offset
    before = attribute(device, "badblocks")
    for name, value in (
        ("flags", "sw\n"),  # the kernel is told, the processor is not
        ("cpu", "0"),
        ("status", "0xbd000000000000c0"),  # valid, uncorrected, with an address: a memory scrubbing error
        ("misc", "0x8c"),  # a physical address, to the page
        ("addr", hex(address)),
        ("bank", "1"),  # the last: it sets it off
    ):
        (INJECTION / name).write_text(value, encoding="ascii")
    for _ in range(300):
        if attribute(device, "badblocks") != before:
            return
        time.sleep(0.1)
    raise TimeoutError("the kernel does not list the bad block")
