# SPDX-License-Identifier: BSD-3-Clause
"""A virtual machine with two NVDIMMs, which are files of the host: QEMU, Debian's kernel, Debian's libpmem2.

QEMU emulates the processor in software, so that the machine runs wherever QEMU does. Python runs 13 to 40 times slower
in it than on the host.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
CACHE = PROJECT / ".cache" / "nvdimm"
RECIPE = ("image.sh", "init")
KEY_PACKAGES = ("linux-image-amd64", "libpmem2-1", "ndctl", "python3", "pypy3")
BUILD_SCRIPT = PROJECT / "build_pmem2.py"
C_FILES = sorted((PROJECT / "native").iterdir())
AS_ROOT = () if os.geteuid() == 0 else ("sudo", "-n")

FILESYSTEMS = ("ext4", "xfs")
PERSISTENCE = {"mem-ctrl": "CACHE_LINE", "cpu": "BYTE"}
DIMM = "514M"  # 512 MiB of memory and 2 MiB for labels
# Part of the ordinary memory becomes a DAX device, as a BIOS does with CXL memory.
SOFT_RESERVED = "memmap=256M%1G-1+0xefffffff"
TIME_LIMIT = 1200  # seconds, for busy hosts: on an idle one the longest run takes 140
RESULT = "nvdimm: the job returned "


@contextlib.contextmanager
def timed(step: str) -> Iterator[None]:
    """Print the name of a step, and its duration."""
    print(f"nvdimm: {step} ...", flush=True)
    begin = time.monotonic()
    yield
    print(f"nvdimm: {step}: {time.monotonic() - begin:.0f} s", flush=True)


def digest(*parts: bytes) -> str:
    """Return a short hash."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def candidate_versions() -> bytes:
    """Return the package versions that apt would install now; nothing without apt."""
    try:
        policy = subprocess.run(["apt-cache", "policy", *KEY_PACKAGES], stdout=subprocess.PIPE, check=False)
    except FileNotFoundError:
        return b""
    return b"\n".join(line for line in policy.stdout.splitlines() if b"Candidate" in line)


def image() -> Path:
    """Return the folder of kernel, initramfs and disk; make it if its recipe or a package has changed."""
    folder = CACHE / f"image-{digest(*((HERE / name).read_bytes() for name in RECIPE), candidate_versions())}"
    if not folder.exists():
        new = folder.with_suffix(".new")
        new.mkdir(parents=True, exist_ok=True)
        for outdated in CACHE.glob("image-*"):
            if outdated != new:
                subprocess.run([*AS_ROOT, "rm", "-rf", str(outdated)], check=True)
        with timed("making the machine from Debian packages"):
            subprocess.run([*AS_ROOT, str(HERE / "image.sh"), str(new)], check=True)
        new.rename(folder)
    return folder


def extension(image: Path) -> Path:
    """Return the folder with `_pmem2`, compiled for the Pythons and the libpmem2 of the machine."""
    folder = image / f"extension-{digest(*(path.read_bytes() for path in (BUILD_SCRIPT, *C_FILES)))}"
    if not folder.exists():
        build = image / "root" / "tmp" / "build"
        subprocess.run([*AS_ROOT, "rm", "-rf", str(build)], check=True)
        with timed("compiling the extension for the machine"):
            subprocess.run([*AS_ROOT, "mkdir", "-p", "-m", "777", str(build / "native")], check=True)
            subprocess.run([*AS_ROOT, "cp", "-r", *map(str, C_FILES), str(build / "native")], check=True)
            subprocess.run([*AS_ROOT, "cp", str(BUILD_SCRIPT), str(build)], check=True)
            for python in ("python3", "pypy3"):
                script = f"cd /tmp/build && {python} build_pmem2.py > build.log 2>&1 || {{ cat build.log; exit 1; }}"
                subprocess.run([*AS_ROOT, "chroot", str(image / "root"), "sh", "-c", script], check=True)
        new = folder.with_suffix(".new")
        new.mkdir(exist_ok=True)
        for module in build.glob("_pmem2*.so"):
            shutil.copy(module, new)
        new.rename(folder)
    return folder


@attrs.frozen
class Machine:
    """A virtual machine, not yet started.

    Attributes:
        folder: Holds its NVDIMMs and the folder that it shares with the host.
        filesystem: The file system of the first NVDIMM. The second one is a DAX device.
        persistence: `mem-ctrl` if a power failure loses the CPU caches, `cpu` if they are flushed (eADR).
        image: Folder of kernel, initramfs and disk. The machine does not change the disk.
        disks: Files that become the disks /dev/vdb, /dev/vdc ...
    """

    folder: Path
    filesystem: str
    persistence: str
    image: Path
    disks: tuple[Path, ...] = ()

    @property
    def share(self) -> Path:
        """The folder that the machine mounts as /host."""
        return self.folder / "share"

    @property
    def results(self) -> Path:
        """The folder for the results of a job."""
        return self.share / "results"

    def prepare(self, job: str) -> None:
        """Fill the shared folder: the project, the extension, and the shell script to run."""
        shutil.rmtree(self.share, ignore_errors=True)
        project = self.share / "project"
        for name in ("pmem2", "tests", "tools", "benchmarks", "docs"):
            shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "pyproject.toml", project)
        for module in extension(self.image).iterdir():
            shutil.copy(module, project)
        shutil.copy(HERE / "guest.py", self.share)
        (self.share / "job").write_text(job, encoding="utf-8")
        self.results.mkdir()

    def command(self) -> list[str]:
        """Return the command that starts the machine."""
        memory: list[str] = []
        for number in (1, 2):
            medium = self.folder / f"nvdimm{number}"
            if not medium.exists():
                medium.touch()
                os.truncate(medium, 514 << 20)
            backend = f"memory-backend-file,id=mem{number},share=on,mem-path={medium},size={DIMM},align=2M"
            device = f"nvdimm,id=nvdimm{number},memdev=mem{number},label-size=2M"
            memory += ["-object", backend, "-device", device]
        environment = f"FILESYSTEM={self.filesystem} PMEM2_TEST_GRANULARITY={PERSISTENCE[self.persistence]}"
        return [
            "qemu-system-x86_64",
            *("-accel", "tcg,tb-size=512"),
            # the kernel's code for AMD ignores the machine checks that tests inject
            *("-cpu", "max,vendor=GenuineIntel"),
            *("-smp", "1"),  # two processors are not faster, and have locked up at boot on a busy host
            *("-machine", f"q35,nvdimm=on,nvdimm-persistence={self.persistence}"),
            *("-m", "2G,slots=4,maxmem=8G"),
            *memory,
            *("-drive", f"file={self.image / 'disk.img'},format=raw,if=virtio,snapshot=on,cache=unsafe"),
            *(word for disk in self.disks for word in ("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe")),
            *("-virtfs", f"local,path={self.share},mount_tag=host,security_model=none,multidevs=remap"),
            *("-kernel", str(self.image / "vmlinuz")),
            *("-initrd", str(self.image / "initramfs.gz")),
            # on a busy host, the kernel would find that the timer does not work
            *("-append", f"console=ttyS0 panic=-1 oops=panic quiet no_timer_check {SOFT_RESERVED} {environment}"),
            *["-nodefaults", "-display", "none", "-vga", "none", "-serial", "stdio", "-no-reboot", "-nic", "none"],
        ]

    def start(self) -> subprocess.Popen[str]:
        """Start the machine; its console is the standard output."""
        return subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield the lines that the machine prints; kill the machine when the caller stops reading."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.endswith("\n"):  # the last one may be incomplete
                yield line.rstrip("\r\n")
    finally:
        process.kill()
        process.wait()


def run(machine: Machine, job: str, prefix: str = "") -> bool:
    """Run a job in the machine and print its output, with a prefix for each line; return whether it succeeded."""
    machine.prepare(job)
    process = machine.start()
    result = ""
    alarm = threading.Timer(TIME_LIMIT, process.kill)
    alarm.start()
    try:
        with open(machine.folder / "console.log", "w", encoding="utf-8") as log:
            for line in lines(process):
                print(line, file=log)
                print(f"{prefix}{line}", flush=True)
                if line.startswith(RESULT):
                    result = line[len(RESULT) :]
    finally:
        alarm.cancel()
    if not result:
        print(f"nvdimm: QEMU ended with {process.returncode} before the job did", flush=True)
    return result == "0"
