# SPDX-License-Identifier: BSD-3-Clause
"""What the system tells of itself, in /proc, /sys and the environment; any user may read all of it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import attrs

from pmem2._files import SYSFS
from pmem2._granularity import FORCE_GRANULARITY_ENV, GRANULARITY_BY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROC = Path("/proc")


@attrs.frozen
class Mount:
    """A mounted file system."""

    filesystem: str
    point: str
    source: str
    options: tuple[str, ...]

    @property
    def dax(self) -> bool:
        """Whether all files on it are mapped directly."""
        return not {"dax", "dax=always"}.isdisjoint(self.options)


@attrs.frozen
class Region:
    """A region of NVDIMMs, and what of the platform still reaches it when the power fails."""

    name: str
    persistence_domain: Optional[str]


def mount_of(path: str) -> Optional[Mount]:
    """Return the file system that a path is on, `None` if the system does not tell."""
    real = os.path.realpath(path)
    found = None
    for mount in mounts(content(PROC / "self/mountinfo") or ""):
        inside = os.path.commonpath((mount.point, real)) == mount.point
        if inside and (found is None or len(mount.point) >= len(found.point)):  # the last one covers the others
            found = mount
    return found


def mounts(mountinfo: str) -> Iterable[Mount]:
    """Yield what proc(5) says of each mount."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point, options = before.split()[4:6]
        filesystem, source, more = after.split()[:3]
        unique = dict.fromkeys([*options.split(","), *more.split(",")])
        yield Mount(filesystem, unescaped(point), unescaped(source), tuple(unique))


def unescaped(text: str) -> str:
    """Return a name in which the kernel has written blanks and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def regions() -> list[Region]:
    """Return the regions of NVDIMMs, by their numbers."""
    folders = Path(SYSFS, "bus/nd/devices").glob("region*")
    return [
        Region(folder.name, content(folder / "persistence_domain"))
        for folder in sorted(folders, key=lambda folder: (len(folder.name), folder.name))
    ]


def region_of(status: os.stat_result) -> Optional[str]:
    """Return the region that a file or a device lies on, `None` for none."""
    device = device_of(status)
    return next((part for part in device.parts if re.fullmatch(r"region\d+", part)), None)


def device_of(status: os.stat_result) -> Path:
    """Return what sysfs has of a character device, or of the disk that a file is on."""
    kind, number = ("char", status.st_rdev) if stat.S_ISCHR(status.st_mode) else ("block", status.st_dev)
    return Path(SYSFS, "dev", kind, f"{os.major(number)}:{os.minor(number)}").resolve()


def is_dax_device(status: os.stat_result) -> bool:
    """Return whether that is a DAX device, without opening it: opening other devices may do something."""
    return stat.S_ISCHR(status.st_mode) and (device_of(status) / "subsystem").resolve().name == "dax"


def content(path: Path) -> Optional[str]:
    """Return what a file of the system says, `None` if it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return None


def flush_instruction(cpuinfo: str, environment: Mapping[str, str]) -> Optional[str]:
    """Return the instruction with which libpmem2 flushes caches, chosen as it does; `None` where that is not known."""
    names = re.findall(r"^(?:flags|Features)\s*:(.*)", cpuinfo, re.MULTILINE)
    flags = set(names[0].split()) if names else set()
    if "clflush" in flags:
        for name in ("clwb", "clflushopt"):
            if name in flags and environment.get(f"PMEM_NO_{name.upper()}") != "1":
                return name
        return "clflush"
    return ("dc cvap" if "dcpop" in flags else "dc cvac") if "asimd" in flags else None


def library(maps: str) -> tuple[Optional[str], Optional[str]]:
    """Return which libpmem2 is loaded, and its version if it has told that in its text.

    Args:
        maps: What is mapped into this process, as proc(5) says.
    """
    path = next((line.split(None, 5)[5] for line in maps.splitlines() if "/libpmem2" in line), None)
    if path is None:
        return None, None
    try:
        found = re.search(rb"src version: ?([\w.+~-]+)", Path(path).read_bytes())
    except OSError:  # it was replaced while we run
        return path, None
    return path, None if found is None else found[1].decode("ascii")


def forced_granularity(environment: Mapping[str, str]) -> Optional[str]:
    """Return the granularity that the environment claims, `None` for none or one that libpmem2 ignores."""
    claim = GRANULARITY_BY_NAME.get(environment.get(FORCE_GRANULARITY_ENV, "").upper())
    return None if claim is None else claim.name
