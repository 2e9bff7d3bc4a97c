# SPDX-License-Identifier: BSD-3-Clause
"""Inside the machine, as its first process: set up the media, run the job in the shared folder, power off.

The host passes environment variables on the kernel's command line: the kernel gives unknown parameters to this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

DEVICES = Path("/sys/bus/nd/devices")
MOUNT_POINT = Path("/mnt/pmem")
MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-b", "4096", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=0"),  # DAX does not work with reflink
}
RESULT = "nvdimm: the job returned "  # machine.py searches for it


def run(*command: object) -> None:
    """Run a command silently; exit with its output if it fails."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stdout}")


def log(text: str) -> None:
    """Print a text with the uptime of the machine."""
    uptime = Path("/proc/uptime").read_text(encoding="ascii").split()[0]
    print(f"nvdimm: {uptime} s: {text}", flush=True)


def mount_system_folders() -> None:
    """Mount the usual virtual file systems."""
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
    """Return the region number of an NVDIMM.

    The handle is the position among QEMU's `-device` options, from 1. Region numbers change from boot to boot.
    """
    for region in DEVICES.glob("region*"):
        dimm = (region / "mapping0").read_text(encoding="ascii").split(",")[0]
        if int((DEVICES / dimm / "nfit" / "handle").read_text(encoding="ascii"), 16) == handle:
            return int(region.name[len("region") :])
    sys.exit(f"no NVDIMM has the handle {handle}")


def wait_for(device: Path) -> None:
    """Wait until the kernel has created a device."""
    for _ in range(100):
        if device.exists():
            return
        time.sleep(0.1)
    sys.exit(f"{device} does not appear")


def create_namespace(region: int, mode: str, device: Path) -> bool:
    """Create the namespace of a region unless an earlier boot did; return whether it is new."""
    name = f"namespace{region}.0"
    new = (DEVICES / name / "mode").read_text(encoding="ascii").strip() == "raw"
    if new:
        run("ndctl", "create-namespace", "--force", "--reconfig", name, "--mode", mode, "--map=mem")
    wait_for(device)
    return new


def set_up_media(filesystem: str) -> dict[str, str]:
    """Make one NVDIMM a mounted file system, the other a DAX device; return environment variables for the tests."""
    file_region, device_region = region_of(1), region_of(2)
    disk, device = Path(f"/dev/pmem{file_region}"), Path(f"/dev/dax{device_region}.0")
    if create_namespace(file_region, "fsdax", disk):
        run(*MKFS[filesystem], disk)
    create_namespace(device_region, "devdax", device)
    MOUNT_POINT.mkdir(exist_ok=True)
    run("modprobe", filesystem)
    run("mount", "-t", filesystem, "-o", "dax=always", disk, MOUNT_POINT)
    soft = next(path.name for path in Path("/sys/bus/dax/devices").iterdir() if "ndbus" not in str(path.resolve()))
    return {
        "PMEM2_TEST_FSDAX": str(MOUNT_POINT),
        "PMEM2_TEST_DEVDAX": str(device),
        "PMEM2_TEST_SOFTDAX": f"/dev/{soft}",  # like CXL memory: no NVDIMM region backs it
    }


def main() -> int:
    """Return the job's exit status."""
    os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root", LANG="C.UTF-8")
    filesystem = os.environ.get("FILESYSTEM", "ext4")
    log("Linux " + os.uname().release)
    mount_system_folders()
    run("modprobe", "-a", "nfit", "nd_pmem", "device_dax", "dax_pmem", "dax_hmem")
    os.environ.update(set_up_media(filesystem))
    log(f"{filesystem} at {MOUNT_POINT}, and {os.environ['PMEM2_TEST_DEVDAX']}")
    status = subprocess.run(["bash", "/host/job"]).returncode
    log("the job is done")
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
