# SPDX-License-Identifier: BSD-3-Clause
"""Replay the log of a disk up to each mark, as power failures leave it, mount the disk and compare its files.

`disk_replay.py NAME LOG STEPS REPLAYS`, as root. At each mark, the disk has everything that was flushed, and of
the writes after that nothing, everything, or a random part: whole writes, or single sectors of them. Prints the number
of replays, and why replays fail; returns whether none did.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from disk_log import FLUSH, FUA, MARK, METADATA, SECTOR, Entry, read_log
from disk_model import Disk, Event

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
DISK_SIZE = 320 << 20
MAX_REPORTS = 3
TORN = 0.25  # of the writes


class Image:
    """A disk in a sparse file."""

    def __init__(self, path: Path) -> None:
        """Create the file, all zeros."""
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.truncate(self.fd, DISK_SIZE)

    def write(self, offset: int, data: bytes) -> None:
        """Write; zeros in a hole stay a hole."""
        if any(data) or self.next_data(offset) < offset + len(data):
            os.pwrite(self.fd, data, offset)

    def next_data(self, offset: int) -> int:
        """Return where data begins from *offset* on, the size of the disk if there is only a hole."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError:
            return DISK_SIZE

    def copy(self, path: Path) -> Image:
        """Return a copy."""
        other = Image(path)
        begin = self.next_data(0)
        while begin < DISK_SIZE:
            end = os.lseek(self.fd, begin, os.SEEK_HOLE)
            os.pwrite(other.fd, os.pread(self.fd, end - begin, begin), begin)
            begin = self.next_data(end)
        return other


class CrashPoint(NamedTuple):
    """A mark in the log.

    Attributes:
        step: The step that had just returned.
        place: The place of the mark in the log.
        unflushed: The writes that a power failure may lose.
        begun: The last step that may have made some of them.
    """

    step: int
    place: int
    unflushed: list[Entry]
    begun: int


def crash_points(log: list[Entry]) -> Iterator[CrashPoint]:
    """Yield every mark of a step."""
    marks = [place for place, entry in enumerate(log) if entry.mark.isdecimal()]
    for place in marks:
        flush = next((later for later in range(place, len(log)) if log[later].flags & FLUSH), len(log))
        begun = next((later for later in marks if later > flush), marks[-1])
        unflushed = [entry for entry in log[place:flush] if not entry.flags & MARK]
        yield CrashPoint(int(log[place].mark), place, unflushed, int(log[begun].mark))


def survivors(unflushed: list[Entry], chance: random.Random, torn_writes: float) -> Iterator[tuple[int, bytes]]:
    """Yield a random part of the writes: a device that bypasses its cache for one (FUA) keeps the order of these."""
    for entry in unflushed[: chance.randint(0, len(unflushed))]:
        torn = not entry.flags & METADATA and chance.random() < torn_writes
        if entry.flags & FUA or (not torn and chance.random() < 0.5):
            yield entry.offset, entry.data
        elif torn:
            for begin in range(0, len(entry.data), SECTOR):
                if chance.random() < 0.5:
                    yield entry.offset + begin, entry.data[begin : begin + SECTOR]


def variations(unflushed: list[Entry], count: int, torn_writes: float) -> Iterator[Iterable[tuple[int, bytes]]]:
    """Yield what is left of the writes: nothing, everything, then random parts."""
    yield ()
    yield ((entry.offset, entry.data) for entry in unflushed)
    for seed in range(count - 2):
        yield survivors(unflushed, random.Random(seed), torn_writes)


def mounted_files(image: Path, filesystem: str, folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Mount a disk, which recovers its file system, and return the files with these names that exist."""
    subprocess.run(["mount", "-t", filesystem, "-o", "loop", image, folder], check=True, capture_output=True, text=True)
    try:
        return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    finally:
        subprocess.run(["umount", folder], check=True)


class Replayer:
    """The replays of one log.

    Attributes:
        done: The number of replays.
        states: Hashes of the contents of all files that replays have shown.
        failures: Why replays have failed.
    """

    def __init__(self, name: str, memory: Path) -> None:
        """Start with an empty disk; *memory* is a folder for images."""
        self.filesystem = name.split("-")[0]
        # Without a journal, a file system cannot repair metadata that were half written.
        self.torn_writes = 0 if "nojournal" in name else TORN
        self.folder, self.scratch = memory / "mounted", memory / "scratch"
        self.folder.mkdir()
        self.image = Image(memory / "image")
        self.disk = Disk()
        self.done = 0
        self.states: set[int] = set()
        self.failures: list[str] = []

    def run(self, log: list[Entry], steps: list[tuple[str, list[Event]]], replays: int) -> None:
        """Replay the log about *replays* times."""
        points = list(crash_points(log))
        applied = 0
        for point in points:
            for entry in log[applied : point.place]:
                self.image.write(entry.offset, entry.data)
            applied = point.place
            call, events = steps[point.step]
            for event in events:
                self.disk.apply(event)
            running = [event for _, later in steps[point.step + 1 : point.begun + 1] for event in later]
            for kept in variations(point.unflushed, replays // len(points), self.torn_writes):
                reason = self.refuse(kept, running)
                if reason:
                    self.failures.append(f"mark {point.step}, {call}: {reason}")

    def refuse(self, kept: Iterable[tuple[int, bytes]], running: list[Event]) -> Optional[str]:
        """Mount the disk with the writes that are left; return why its files are wrong, `None` if they are right."""
        self.done += 1
        scratch = self.image.copy(self.scratch)
        for offset, data in kept:
            scratch.write(offset, data)
        os.close(scratch.fd)
        try:
            files = mounted_files(self.scratch, self.filesystem, self.folder, self.disk.names())
        except (OSError, subprocess.CalledProcessError) as error:
            return f"{error} {getattr(error, 'stderr', '')}"
        self.states.add(hash(frozenset(files.items())))
        return self.disk.refuse(files, running)


def main() -> int:
    """Return 1 if a replay failed."""
    name, log, steps, replays = sys.argv[1:]
    begin = time.monotonic()
    recorded = json.loads(Path(steps).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(dir=MEMORY) as memory:
        replayer = Replayer(name, Path(memory))
        replayer.run(list(read_log(log)), recorded, int(replays))
    for failure in replayer.failures[:MAX_REPORTS]:
        print(f"disk: {name}: {failure}")
    print(
        f"disk: {name}: {len(recorded)} marks, {replayer.done} replays, {len(replayer.states)} different states, "
        f"{len(replayer.failures)} failures, {time.monotonic() - begin:.0f} s",
        flush=True,
    )
    return 1 if replayer.failures else 0


if __name__ == "__main__":
    sys.exit(main())
