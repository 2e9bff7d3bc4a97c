# SPDX-License-Identifier: BSD-3-Clause
"""Inside the machine, as its first process: make the media ready, run the job that the shared folder holds, power off.

What the host wants comes as environment variables: the kernel hands on what it does not know of its command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

DEVICES = Path("/sys/bus/nd/devices")
MOUNT_POINT = Path("/mnt/pmem")
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-b", "4096", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=0"),  # reflink and DAX exclude each other
}
RESULT = "nvdimm: the job returned "  # machine.py looks for it


def run(*command: object) -> None:
    """Run a command that must succeed, silently if it does."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stdout}")


def say(what: str) -> None:
    """Print *what*, and how long the machine has been up."""
    uptime = Path("/proc/uptime").read_text(encoding="ascii").split()[0]
    print(f"nvdimm: {uptime} s: {what}", flush=True)


def mount_what_everybody_needs() -> None:
    """Mount the file systems that a system has."""
    for kind, where in (
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
        ("debugfs", "/sys/kernel/debug"),
    ):
        Path(where).mkdir(exist_ok=True)
        run("mount", "-t", kind, "none", where)


def region_of(handle: int) -> int:
    """Return the number of the region of an NVDIMM; its handle is its place among the `-device` options, from 1 on.

    Regions are numbered in another order at each boot, the handles are not.
    """
    for region in DEVICES.glob("region*"):
        dimm = (region / "mapping0").read_text(encoding="ascii").split(",")[0]
        if int((DEVICES / dimm / "nfit" / "handle").read_text(encoding="ascii"), 16) == handle:
            return int(region.name[len("region") :])
    sys.exit(f"there is no NVDIMM with the handle {handle}")


def wait_for(device: Path) -> None:
    """Wait until the kernel has made a device."""
    for _ in range(100):
        if device.exists():
            return
        time.sleep(0.1)
    sys.exit(f"{device} does not appear")


def create(region: int, mode: str, device: Path) -> bool:
    """Give a region a namespace of that mode, unless an earlier boot has; return whether it is new."""
    name = f"namespace{region}.0"
    new = (DEVICES / name / "mode").read_text(encoding="ascii").strip() == "raw"
    if new:
        run("ndctl", "create-namespace", "--force", "--reconfig", name, "--mode", mode, "--map=mem")
    wait_for(device)
    return new


def media(filesystem: str) -> dict[str, str]:
    """Make one NVDIMM a mounted file system, the other a DAX device; return how the tests are told."""
    file_region, device_region = region_of(1), region_of(2)
    disk, device = Path(f"/dev/pmem{file_region}"), Path(f"/dev/dax{device_region}.0")
    if create(file_region, "fsdax", disk):
        run(*MAKE[filesystem], disk)
    create(device_region, "devdax", device)
    MOUNT_POINT.mkdir(exist_ok=True)
    run("modprobe", filesystem)
    run("mount", "-t", filesystem, "-o", "dax=always", disk, MOUNT_POINT)
    soft = next(path.name for path in Path("/sys/bus/dax/devices").iterdir() if "ndbus" not in str(path.resolve()))
    return {
        "PMEM2_TEST_FSDAX": str(MOUNT_POINT),
        "PMEM2_TEST_DEVDAX": str(device),
        "PMEM2_TEST_SOFTDAX": f"/dev/{soft}",  # no NVDIMM region backs it, as CXL memory
    }


def main() -> int:
    """Return the job's exit status."""
    os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root", LANG="C.UTF-8")
    filesystem = os.environ.get("FILESYSTEM", "ext4")
    say("Linux " + os.uname().release)
    mount_what_everybody_needs()
    run("modprobe", "-a", "nfit", "nd_pmem", "device_dax", "dax_pmem", "dax_hmem")
    os.environ.update(media(filesystem))
    say(f"{filesystem} at {MOUNT_POINT}, and {os.environ['PMEM2_TEST_DEVDAX']}")
    status = subprocess.run(["bash", "/host/job"]).returncode
    say("the job is done")
    run("umount", MOUNT_POINT)
    return status


if __name__ == "__main__":
    result: object = "nothing"
    try:
        result = main()
    except SystemExit as error:
        result = error.code
    finally:
        os.sync()
        print(f"{RESULT}{result}", flush=True)
        Path("/proc/sysrq-trigger").write_text("o", encoding="ascii")  # power off
        time.sleep(60)
