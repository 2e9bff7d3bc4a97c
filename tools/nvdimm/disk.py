# SPDX-License-Identifier: BSD-3-Clause
"""The session `disk`: prove on five kinds of file system that data which pmem2 calls durable is on the disk.

python tools/nvdimm/disk.py           record and replay all of them
python tools/nvdimm/disk.py faults    show a fault of Linux

The machine records every write and flush while pmem2 works (disk_record.py). Then this host replays the records as
power failures leave a disk, mounts it and compares its files with what was promised (disk_replay.py). Mounting needs
root, loop devices and the file systems.
"""

from __future__ import annotations

import os
import shutil
import string
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from machine import AS_ROOT, CACHE, HERE, Machine, image, run, timed

PROVEN = ("ext4", "ext4-journal", "ext4-nojournal", "xfs", "btrfs")
LINUX_FAULTS = ("ext4-journal-zeroout",)
WRONG = "ext4-wrong"
DISK_SIZE = 320 << 20
LOG_SIZE = 4 << 30
RECORD = """
PYTHONPATH=/host/project PYTHONDONTWRITEBYTECODE=1 python3 /host/project/tools/nvdimm/disk_record.py \
    {variant} /dev/vd{disk} /dev/vd{log} /host/results/{name}.json {rounds} {wrong} || exit 1
"""


def media(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Create a disk and a log for each recording."""
    paths = []
    for name in names:
        for kind, size in (("disk", DISK_SIZE), ("log", LOG_SIZE)):
            path = folder / f"{name}.{kind}"
            path.touch()
            os.truncate(path, size)
            paths.append(path)
    return tuple(paths)


def record(names: Sequence[str], rounds: int) -> Machine:
    """Let pmem2 work on each disk in the machine."""
    folder = CACHE / "disk"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = "modprobe -a dm-mod dm-log-writes xfs btrfs"
    letters = iter(string.ascii_lowercase[1:])
    for name in names:
        variant, wrong = ("ext4", "wrong") if name == WRONG else (name, "")
        job += RECORD.format(
            variant=variant, disk=next(letters), log=next(letters), name=name, rounds=rounds, wrong=wrong
        )
    machine = Machine(folder, "ext4", "mem-ctrl", image(), media(folder, names))
    with timed("disk: recording"):
        if not run(machine, job):
            sys.exit(1)
    return machine


def failing(machine: Machine, names: Sequence[str], replays: int) -> list[str]:
    """Replay recordings, two at a time; return those with a replay that shows files that pmem2 does not promise."""

    def fails(name: str) -> bool:
        log, steps = machine.folder / f"{name}.log", machine.results / f"{name}.json"
        program = [sys.executable, str(HERE / "disk_replay.py"), name, str(log), str(steps), str(replays)]
        return subprocess.run([*AS_ROOT, "unshare", "--mount", *program], check=False).returncode != 0

    with ThreadPoolExecutor(2) as pool:
        return [name for name, failed in zip(names, pool.map(fails, names)) if failed]


def prove(names: Sequence[str], rounds: int, replays: int) -> None:
    """Record and replay; exit unless exactly the wrong `persist` loses data.

    Args:
        names: The variants of disk_record.py.
        rounds: How often all calls are made on each.
        replays: Replays on each.
    """
    machine = record([*names, WRONG], rounds)
    with timed("disk: replaying"):
        failed = failing(machine, names, replays)
    if failed:
        sys.exit(f"disk: data that pmem2 promises is not on the disk: {', '.join(failed)}")
    if not failing(machine, [WRONG], 0):
        sys.exit("disk: the wrong persist was not noticed")
    print("disk: every promise holds, and the wrong persist was noticed", flush=True)


def main(arguments: list[str]) -> None:
    """Prove all file systems; or show the fault of Linux that guarantees.md describes."""
    if arguments == ["faults"]:
        failed = failing(record(LINUX_FAULTS, 1), LINUX_FAULTS, 300)
        print(f"disk: Linux loses data on: {', '.join(failed) or 'none of these'}", flush=True)
    elif arguments:
        sys.exit(__doc__)
    else:
        prove(PROVEN, rounds=3, replays=450)


if __name__ == "__main__":
    main(sys.argv[1:])
