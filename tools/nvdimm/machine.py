# SPDX-License-Identifier: BSD-3-Clause
"""A machine with two NVDIMMs, made of files: QEMU, Debian's kernel, Debian's libpmem2.

`python nvdimm/machine.py [ext4|xfs] [mem-ctrl|cpu]` runs the tests marked `medium` in it. Software emulation only, so
that it runs wherever QEMU does; the processor inside is 13 to 40 times slower than the one outside.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
CACHE = PROJECT / ".cache" / "nvdimm"
RECIPE = ("image.sh", "init")
VERSIONED = ("linux-image-amd64", "libpmem2-1", "ndctl", "python3", "pypy3")
EXTENSION = (PROJECT / "build_pmem2.py", *sorted((PROJECT / "native").iterdir()))
AS_ROOT = () if os.geteuid() == 0 else ("sudo", "-n")

FILESYSTEMS = ("ext4", "xfs")
PERSISTENCE = {"mem-ctrl": "CACHE_LINE", "cpu": "BYTE"}
DIMM = "514M"  # 512 MiB of memory and 2 MiB for labels
SOFT_RESERVED = "memmap=256M%1G-1+0xefffffff"  # of the ordinary memory, as a BIOS does with CXL memory: a DAX device
LIMIT = 600  # seconds; the longest run takes a fraction of it
RESULT = "nvdimm: the job returned "


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long it takes."""
    print(f"nvdimm: {what} ...", flush=True)
    begin = time.monotonic()
    yield
    print(f"nvdimm: {what}: {time.monotonic() - begin:.0f} s", flush=True)


def digest(*parts: bytes) -> str:
    """Return a short hash."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def versions() -> bytes:
    """Return which versions of the packages apt would install now, as far as it can tell."""
    try:
        policy = subprocess.run(["apt-cache", "policy", *VERSIONED], stdout=subprocess.PIPE, check=False)
    except FileNotFoundError:
        return b""
    return b"\n".join(line for line in policy.stdout.splitlines() if b"Candidate" in line)


def image() -> Path:
    """Return the folder with kernel, initramfs and disk, made if what they are made of is new."""
    folder = CACHE / f"image-{digest(*((HERE / name).read_bytes() for name in RECIPE), versions())}"
    if not folder.exists():
        new = folder.with_suffix(".new")
        new.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob("image-*"):
            if old != new:
                subprocess.run([*AS_ROOT, "rm", "-rf", str(old)], check=True)
        with timed("making the machine from Debian packages"):
            subprocess.run([*AS_ROOT, str(HERE / "image.sh"), str(new)], check=True)
        new.rename(folder)
    return folder


def extension(image: Path) -> Path:
    """Return the folder with `_pmem2`, compiled against the machine's own Pythons and its own libpmem2."""
    folder = image / f"extension-{digest(*(path.read_bytes() for path in EXTENSION))}"
    if not folder.exists():
        workshop = image / "root" / "tmp" / "build"
        subprocess.run([*AS_ROOT, "rm", "-rf", str(workshop)], check=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(timed("compiling the extension for the machine"))
            subprocess.run([*AS_ROOT, "mkdir", "-p", "-m", "777", str(workshop / "native")], check=True)
            subprocess.run([*AS_ROOT, "cp", "-r", *map(str, EXTENSION[1:]), str(workshop / "native")], check=True)
            subprocess.run([*AS_ROOT, "cp", str(EXTENSION[0]), str(workshop)], check=True)
            for python in ("python3", "pypy3"):
                inside = f"cd /tmp/build && {python} build_pmem2.py > build.log 2>&1 || {{ cat build.log; exit 1; }}"
                subprocess.run([*AS_ROOT, "chroot", str(image / "root"), "sh", "-c", inside], check=True)
        new = folder.with_suffix(".new")
        new.mkdir(exist_ok=True)
        for module in workshop.glob("_pmem2*.so"):
            shutil.copy(module, new)
        new.rename(folder)
    return folder


@attrs.frozen
class Machine:
    """A machine that can be switched on.

    Attributes:
        folder: Where its NVDIMMs and the folder that it shares with the host are.
        filesystem: What the first NVDIMM carries. The second is a DAX device.
        persistence: What power failure protection covers: the memory controllers, or the processors' caches as well.
        image: Kernel, initramfs and disk. The disk stays as it is.
    """

    folder: Path
    filesystem: str
    persistence: str
    image: Path

    @property
    def share(self) -> Path:
        """The folder that the machine sees as /host."""
        return self.folder / "share"

    def prepare(self, job: str) -> None:
        """Fill the shared folder: the project, the extension, and the shell script to run."""
        shutil.rmtree(self.share, ignore_errors=True)
        project = self.share / "project"
        for name in ("pmem2", "tests", "nvdimm", "benchmarks", "docs"):
            shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "pyproject.toml", project)
        for module in extension(self.image).iterdir():
            shutil.copy(module, project)
        shutil.copy(HERE / "guest.py", self.share)
        (self.share / "job").write_text(job, encoding="utf-8")
        (self.share / "results").mkdir()

    def command(self) -> list[str]:
        """Return the command that switches it on."""
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
            *(
                "-cpu",
                "max,vendor=GenuineIntel",
            ),  # AMD's kernel code would not take the machine checks that tests inject
            *("-smp", "1"),  # two were seen to lock up at boot on a busy host, and are not faster
            *("-machine", f"q35,nvdimm=on,nvdimm-persistence={self.persistence}"),
            *("-m", "2G,slots=4,maxmem=8G"),
            *memory,
            *("-drive", f"file={self.image / 'disk.img'},format=raw,if=virtio,snapshot=on,cache=unsafe"),
            *("-virtfs", f"local,path={self.share},mount_tag=host,security_model=none,multidevs=remap"),
            *("-kernel", str(self.image / "vmlinuz")),
            *("-initrd", str(self.image / "initramfs.gz")),
            *("-append", f"console=ttyS0 panic=-1 oops=panic quiet {SOFT_RESERVED} {environment}"),
            *["-nodefaults", "-display", "none", "-vga", "none", "-serial", "stdio", "-no-reboot", "-nic", "none"],
        ]

    def start(self) -> subprocess.Popen[str]:
        """Switch it on; its console is the standard output."""
        return subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield what the machine prints, and kill it when nobody listens any more."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.endswith("\n"):  # the last one may be cut short
                yield line.rstrip("\r\n")
    finally:
        process.kill()
        process.wait()


def run(machine: Machine, job: str) -> bool:
    """Run a job in the machine, print what it prints; return whether it succeeded."""
    machine.prepare(job)
    process = machine.start()
    result = ""
    alarm = threading.Timer(LIMIT, process.kill)
    alarm.start()
    try:
        with open(machine.folder / "console.log", "w", encoding="utf-8") as log:
            for line in lines(process):
                print(line, file=log)
                print(line, flush=True)
                if line.startswith(RESULT):
                    result = line[len(RESULT) :]
    finally:
        alarm.cancel()
    if not result:
        print(f"nvdimm: QEMU ended with {process.returncode} before the job did", flush=True)
    return result == "0"


# Debian has pytest and its like for CPython only; without their compiled parts they work on PyPy too
TESTS = """
cp -r /host/project /tmp && cd /tmp/project
export TERM=dumb PYTHONDONTWRITEBYTECODE=1 COVERAGE_FILE=/host/results/.coverage
status=0
python3 -m coverage run -m pytest -q -p no:cacheprovider -m medium --basetemp=$PMEM2_TEST_FSDAX/cpython \
    --junitxml=/host/results/junit-cpython.xml --durations=3 {arguments} || status=1
echo "nvdimm: $(cut -d ' ' -f 1 /proc/uptime) s: CPython is done"
PYTHONPATH=/usr/lib/python3/dist-packages pypy3 -m pytest -q -p no:cacheprovider -m medium \
    --basetemp=$PMEM2_TEST_FSDAX/pypy --junitxml=/host/results/junit-pypy.xml --durations=3 {pypy} || status=1
echo "nvdimm: $(cut -d ' ' -f 1 /proc/uptime) s: PyPy is done"
exit $status
"""
ON_PYPY = " ".join(f"tests/test_medium_{name}.py" for name in ("badblocks", "devdax", "fsdax", "softdax"))


def marked() -> list[str]:
    """Return the files in which tests are marked, so that the slow machine need not read the others."""
    files = sorted((PROJECT / "tests").glob("test_*.py"))
    return [f"tests/{path.name}" for path in files if "mark.medium" in path.read_text(encoding="utf-8")]


def main() -> int:
    """Run the tests; return an exit status."""
    parser = argparse.ArgumentParser(description="Run the tests marked `medium` on emulated persistent memory.")
    parser.add_argument("filesystem", nargs="?", choices=FILESYSTEMS, default="ext4")
    parser.add_argument("persistence", nargs="?", choices=PERSISTENCE, default="mem-ctrl")
    parser.add_argument("--job", help="a shell command to run instead of the tests")
    parser.add_argument("--pytest", default="", help="more arguments of pytest")
    options = parser.parse_args(namespace=Options())
    folder = CACHE / f"{options.filesystem}-{options.persistence}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    machine = Machine(folder, options.filesystem, options.persistence, image())
    job = options.job or TESTS.format(
        arguments=f"{options.pytest} {' '.join(marked())}", pypy=f"{options.pytest} {ON_PYPY}"
    )
    with timed(f"{folder.name}: booting, testing, powering off"):
        succeeded = run(machine, job)
    print(f"nvdimm: results in {machine.share.relative_to(PROJECT) / 'results'}")
    return 0 if succeeded else 1


class Options(argparse.Namespace):
    """What the command line says."""

    filesystem: str
    persistence: str
    job: str | None
    pytest: str


if __name__ == "__main__":
    sys.exit(main())
