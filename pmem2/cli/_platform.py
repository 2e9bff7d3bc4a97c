# SPDX-License-Identifier: BSD-3-Clause
"""Facts about the platform from /proc and /sys, readable by every user."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import attrs

from pmem2._ffi import lib
from pmem2._files import SYSFS

if TYPE_CHECKING:
    from collections.abc import Mapping

PROC = Path("/proc")
TMPFS = ("tmpfs", "ramfs")
VOLATILE = (*TMPFS, "hugetlbfs")  # these keep files in memory and lose them when power fails
O_PATH = getattr(os, "O_PATH", 0o10000000)  # missing in PyPy's os


# Magic numbers of statfs(2), for paths whose mount /proc does not list: in a chroot, without /proc, a memfd
FILESYSTEMS = {
    0x01021994: "tmpfs",
    0x01021997: "9p",
    0x2FC12FC1: "zfs",
    0x4D44: "vfat",
    0x58465342: "xfs",
    0x62656572: "sysfs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0x73717368: "squashfs",
    0x794C7630: "overlay",
    0x858458F6: "ramfs",
    0x9123683E: "btrfs",
    0x958458F6: "hugetlbfs",
    0x9FA0: "proc",
    0xCA451A4E: "bcachefs",
    0xE0F5E1E2: "erofs",
    0xEF53: "ext4",  # ext2 and ext3 have the same number
    0xF2F52010: "f2fs",
    0xFE534D42: "cifs",
}


@attrs.frozen
class Mount:
    """A mounted file system; only its name is known if /proc does not list it."""

    filesystem: str
    point: Optional[str] = None
    source: Optional[str] = None
    options: tuple[str, ...] = ()

    @property
    def dax(self) -> bool:
        """Whether DAX is on for every file of the mount."""
        return not {"dax", "dax=always"}.isdisjoint(self.options)


@attrs.frozen
class Region:
    """A region of NVDIMMs with its persistence domain: the parts of the platform that survive a power failure."""

    name: str
    persistence_domain: Optional[str]


def find_mount(path: str) -> Mount:
    """Return the mount that a path is on. The kernel's own number of it is right for every path, a name is not."""
    fd = os.open(path, O_PATH | os.O_CLOEXEC)  # opens nothing: has no effect even on a device
    try:
        number = re.search(r"^mnt_id:\s*(\d+)", read_text(PROC / f"self/fdinfo/{fd}") or "", re.MULTILINE)
        magic = lib.guarded_filesystem_magic(fd)
    finally:
        os.close(fd)
    mounts = parse_mounts(read_text(PROC / "self/mountinfo") or "")
    return mounts.get(number[1] if number else "") or Mount(FILESYSTEMS.get(magic, f"unknown ({magic:#x})"))


def parse_mounts(mountinfo: str) -> dict[str, Mount]:
    """Return the mounts in /proc/self/mountinfo by their numbers; see proc(5)."""
    mounts = {}
    for line in mountinfo.strip().split("\n") if mountinfo else []:
        before, _, after = line.partition(" - ")
        number, _, _, _, point, options = before.split(" ")[:6]
        filesystem, source, more = after.split(" ")[:3]  # the source may be empty
        unique = dict.fromkeys([*options.split(","), *more.split(",")])
        mounts[number] = Mount(filesystem, unescape_mount(point), unescape_mount(source), tuple(unique))
    return mounts


def unescape_mount(text: str) -> str:
    r"""Replace the octal escapes with which the kernel writes special characters, such as \040 for a blank."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def list_devices(pattern: str) -> list[Path]:
    """Return the directories of sysfs that match a pattern, in numerical order."""
    return sorted(Path(SYSFS).glob(pattern), key=lambda folder: (len(folder.name), folder.name))


def list_regions() -> list[Region]:
    """Return the regions of NVDIMMs."""
    folders = list_devices("bus/nd/devices/region*")
    return [Region(folder.name, read_text(folder / "persistence_domain")) for folder in folders]


def list_namespaces() -> list[tuple[str, str, int]]:
    """Return name, mode as ndctl calls it, and size of the namespaces of NVDIMMs."""
    modes = {"memory": "fsdax", "dax": "devdax", "safe": "sector"}
    found = []
    for folder in list_devices("bus/nd/devices/namespace*"):
        mode = read_text(folder / "mode") or "unknown mode"
        found.append((folder.name, modes.get(mode, mode), read_int(folder / "size")))
    return [namespace for namespace in found if namespace[2]]  # an empty one is the seed of the next


def list_cxl_regions() -> list[tuple[str, str, int]]:
    """Return name, mode ("ram", "pmem") and size of the regions of CXL memory."""
    folders = list_devices("bus/cxl/devices/region*")
    return [
        (folder.name, read_text(folder / "mode") or "unknown mode", read_int(folder / "size")) for folder in folders
    ]


def list_persistent_memory() -> list[str]:
    """Return the paths of this machine's persistent memory: DAX mounts, other disks of NVDIMMs, DAX devices."""
    mounts = [mount for mount in parse_mounts(read_text(PROC / "self/mountinfo") or "").values() if mount.dax]
    disks = [folder.name for folder in list_devices("block/pmem*")]
    sources = " ".join(str(mount.source) for mount in mounts)
    unused = [disk for disk in disks if not re.search(rf"/dev/{disk}(p\d+)?\b", sources)]
    devices = [folder.name for folder in list_devices("bus/dax/devices/dax*")]
    return [*dict.fromkeys(str(mount.point) for mount in mounts), *(f"/dev/{name}" for name in [*unused, *devices])]


def find_region(status: os.stat_result) -> Optional[str]:
    """Return the region of NVDIMMs that a file or a device lies on, or `None`; CXL has regions of the same names."""
    match = re.search(r"/ndbus\d+/(region\d+)/", str(sysfs_device(status)))
    return match and match[1]


def find_cxl_region(status: os.stat_result) -> Optional[str]:
    """Return the region of CXL memory that a device lies on, or `None`."""
    match = re.search(r"/(region\d+)/dax_region\d+/", str(sysfs_device(status)))
    return match and match[1]


def sysfs_device(status: os.stat_result) -> Path:
    """Return the sysfs directory of a device, or of the disk that a file is on."""
    kind = "char" if stat.S_ISCHR(status.st_mode) else "block"
    number = status.st_rdev if kind == "char" or stat.S_ISBLK(status.st_mode) else status.st_dev
    return Path(SYSFS, "dev", kind, f"{os.major(number)}:{os.minor(number)}").resolve()


def is_dax_device(status: os.stat_result) -> bool:
    """Return whether a file is a DAX device, without opening it: opening some other devices has side effects."""
    return stat.S_ISCHR(status.st_mode) and (sysfs_device(status) / "subsystem").resolve().name == "dax"


def read_text(path: Path) -> Optional[str]:
    """Return the content of a file in /proc or /sys, or `None` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return None


def read_int(path: Path) -> int:
    """Return the number in a file of sysfs, decimal or with 0x; 0 if there is none."""
    return int(read_text(path) or "0", 0)


def flush_instruction(cpuinfo: str, environment: Mapping[str, str]) -> Optional[str]:
    """Return the flush instruction that libpmem2 selects, or `None` on an unknown processor."""
    names = re.findall(r"^(?:flags|Features)\s*:(.*)", cpuinfo, re.MULTILINE)
    flags = set(names[0].split()) if names else set()
    if "clflush" in flags:
        for name in ("clwb", "clflushopt"):
            if name in flags and environment.get(f"PMEM_NO_{name.upper()}") != "1":
                return name
        return "clflush"
    return ("dc cvap" if "dcpop" in flags else "dc cvac") if "asimd" in flags else None


def loaded_libpmem2(maps: str) -> tuple[Optional[str], Optional[str]]:
    """Return the path of the loaded libpmem2, and its version if the file contains it.

    Args:
        maps: The content of /proc/self/maps; see proc(5).
    """
    path = next((line.split(None, 5)[5] for line in maps.split("\n") if "/libpmem2" in line), None)
    if path is None:
        return None, None
    try:
        match = re.search(rb"src version: ?([\w.+~-]+)", Path(path).read_bytes())
    except OSError:  # an upgrade replaced the file
        return path, None
    return path, None if match is None else match[1].decode("ascii")
