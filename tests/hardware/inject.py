# SPDX-License-Identifier: BSD-3-Clause
"""Injects bad blocks into persistent memory, and reads the attributes of its devices in sysfs."""

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
    """Return the sysfs folder of a DAX device, or of the disk that holds a file."""
    status = path.stat()
    if status.st_rdev:
        return Path(f"/sys/dev/char/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}").resolve()
    return Path(f"/sys/dev/block/{os.major(status.st_dev)}:{os.minor(status.st_dev)}").resolve()


def attribute(path: Path, name: str) -> str:
    """Return an attribute of the device of a path, or of the nearest parent device that has it."""
    for folder in (sysfs(path), *sysfs(path).parents):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="ascii").strip()
    raise FileNotFoundError(name)


def offset_on_disk(path: Path, offset: int) -> int:
    """Return the offset on disk of a byte of a file."""
    buffer = bytearray(FIEMAP_HEADER.size + FIEMAP_EXTENT.size)
    FIEMAP_HEADER.pack_into(buffer, 0, offset, 1, 0, 0, 1, 0)
    with open(path, "rb") as file:
        fcntl.ioctl(file, FIEMAP, buffer)
    logical, physical = FIEMAP_EXTENT.unpack_from(buffer, FIEMAP_HEADER.size)[:2]
    return int(physical) + offset - int(logical)


def make_bad(path: Path, offset: int, length: int) -> None:
    """Mark a range of a file on fsdax as bad in the kernel."""
    sectors = f"{offset_on_disk(path, offset) // SECTOR} {length // SECTOR}"
    (sysfs(path) / "badblocks").write_text(sectors, encoding="ascii")


def forget_bad_blocks(mount_point: Path) -> None:
    """Clear all bad blocks of the disk of a file system by rebinding its driver, which holds the list.

    Otherwise the file system gives a bad block of a deleted file to another file, and XFS shuts down when it cannot
    write zeros there.
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
    """Simulate an uncorrectable memory error in a DAX device, and wait until its region lists a bad block."""
    subprocess.run(["modprobe", "mce-inject"], check=True)
    address = int(attribute(device, "resource"), 0) + offset
    before = attribute(device, "badblocks")
    for name, value in (
        ("flags", "sw\n"),  # inject into the kernel only, not into the processor
        ("cpu", "0"),
        ("status", "0xbd000000000000c0"),  # valid, uncorrected, with an address: a memory scrubbing error
        ("misc", "0x8c"),  # a physical address, to the page
        ("addr", hex(address)),
        ("bank", "1"),  # must be last: this write triggers the injection
    ):
        (INJECTION / name).write_text(value, encoding="ascii")
    for _ in range(300):
        if attribute(device, "badblocks") != before:
            return
        time.sleep(0.1)
    raise TimeoutError("the kernel does not list the bad block")
