# SPDX-License-Identifier: BSD-3-Clause
"""Inside the machine: let pmem2 work on a disk, and device-mapper record its writes and flushes.

`disk_record.py NAME DISK LOG STEPS ROUNDS [wrong]`. After each call that promises something, a mark goes into the
log, and the call with its promises (disk_model.py) into the file STEPS. With `wrong`, `persist` is `sync_file_range`
alone, which flushes neither the disk nor the metadata: the replay must notice it.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, NamedTuple

from disk_model import Event, digest

import pmem2
from pmem2 import MemFlag
from pmem2.cli import main as pmem2_command
from pmem2.testing import explore

DEVICE = "pmem2-logged"
FOLDER = Path("/mnt/logged")


class Variant(NamedTuple):
    """A file system and how it is made."""

    mkfs: tuple[str, ...]
    options: str = "defaults"
    zero_out: bool = True  # whether ext4 may write zeros to a short unwritten extent instead of splitting it


EXT4 = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0")
NO_JOURNAL = ("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=0")
VARIANTS = {
    "ext4": Variant(EXT4),
    "ext4-journal": Variant(EXT4, "data=journal", zero_out=False),
    "ext4-nojournal": Variant(NO_JOURNAL),
    "xfs": Variant(("mkfs.xfs", "-q", "-f", "-K")),
    "btrfs": Variant(("mkfs.btrfs", "-q", "-f", "-K"), "nodiscard"),
    "ext4-journal-zeroout": Variant(EXT4, "data=journal"),  # here Linux brings deleted data back: guarantees.md
}
SIZE = 8 << 20
FAR = 1 << 20  # ranges further apart than 256 KiB are submitted one by one
PAGE = 4096
SMALL = 5 * PAGE
WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER


def run(*command: object) -> None:
    """Run a command; exit with its output if it fails. The machine has no udev."""
    words = [str(word) for word in command]
    done = subprocess.run(words, env={**os.environ, "DM_DISABLE_UDEV": "1"}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stdout}{done.stderr}")


@contextmanager
def logged_disk(variant: Variant, disk: str, log: str) -> Iterator[None]:
    """Format and mount a disk whose writes are logged."""
    sectors = Path(f"/sys/class/block/{os.path.basename(disk)}/size").read_text(encoding="ascii").strip()
    run("dmsetup", "create", DEVICE, "--table", f"0 {sectors} log-writes {disk} {log}")
    run(*variant.mkfs, f"/dev/mapper/{DEVICE}")
    FOLDER.mkdir(exist_ok=True)
    run("mount", "-t", variant.mkfs[0].split(".")[1], "-o", variant.options, f"/dev/mapper/{DEVICE}", FOLDER)
    if not variant.zero_out:
        number = os.stat(f"/dev/mapper/{DEVICE}").st_rdev
        device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
        Path(f"/sys/fs/ext4/{device}/extent_max_zeroout_kb").write_text("0", encoding="ascii")
    os.sync()
    try:
        yield
    finally:
        run("umount", FOLDER)
        run("dmsetup", "remove", DEVICE)


def explored_program(map: pmem2.Map, write_back: Callable[[], None]) -> Iterator[None]:
    """Store to sectors of two pages, copy across both, and acknowledge what is durable."""
    for offset in (0, 512, 2560):
        map.store_u64(offset, 1)
    write_back()
    map.store_u64(520, 2)
    map[PAGE + 1024 : PAGE + 1032] = b"next one"
    map.persist(0, PAGE)
    yield
    map.store_u64(512, 3)
    map.memcpy(PAGE - 520, bytes(8) + b"copied 1" + bytes(504) + b"copied 2" + bytes(504) + b"copied 3")
    yield
    map.store_u64(1024, 4)
    write_back()
    map.memcpy(PAGE - 1024, b"unsynced" + bytes(504) + b"as well!", MemFlag.NOFLUSH)
    write_back()
    map.persist_many([(0, 1), (PAGE, 1)])
    yield


def explored_images() -> list[list[str]]:
    """Return the images that the crash explorer finds for the program, for each number of acknowledgements."""
    images: list[set[str]] = [set() for _ in range(4)]

    def check(map: pmem2.Map, acknowledged: list[None]) -> None:
        images[len(acknowledged)].add(digest(map[:]))

    report = explore(
        lambda map: explored_program(map, lambda: None), check, size=2 * PAGE, granularity=pmem2.Granularity.PAGE
    )
    print(f"the explorer: {report}", flush=True)
    return [sorted(found) for found in images]


class Recorder:
    """Calls pmem2 on files of the disk, and marks each return."""

    def __init__(self, seed: int) -> None:
        """Start with no step."""
        self.steps: list[tuple[str, list[Event]]] = []
        self.chance = random.Random(seed)
        self.libc = ctypes.CDLL(None, use_errno=True)

    def mark(self, call: str, *events: Event) -> None:
        """Mark that a call has returned."""
        self.steps.append((call, list(events)))
        run("dmsetup", "message", DEVICE, 0, "mark", len(self.steps) - 1)

    def data(self, length: int) -> bytes:
        """Return random bytes."""
        return bytes(self.chance.getrandbits(8) for _ in range(length))

    def range(self, longest: int = 3000) -> tuple[int, int]:
        """Return a random range of the large file."""
        length = self.chance.randint(1, longest)
        return self.chance.randrange(SIZE - length), length

    def write_back(self, name: str) -> None:
        """Let the kernel write pages back without a flush, as it may do at any moment."""
        fd = os.open(FOLDER / name, os.O_RDWR)
        self.libc.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(0), WRITE_AND_WAIT)
        os.close(fd)

    # ---- files

    def make_files(self) -> None:
        """Create files in each mode, and copy one."""
        pmem2.open(FOLDER / "w", "w+", size=SMALL).close()
        self.mark("open w+", ["create", "w", SMALL])
        with pmem2.open(FOLDER / "x", "x+", size=SMALL) as map:
            self.mark("open x+", ["create", "x", SMALL])
            data = self.data(SMALL)
            map.memcpy(0, data)
            self.mark("memcpy", ["copy", "x", 0, data.hex()], ["durable", "x", 0, SMALL])
        self.mark("close")
        pmem2.open(FOLDER / "x", "w+", size=2 * SMALL).close()
        self.mark("open w+ of a file", ["create", "x", 2 * SMALL])
        with pmem2.open(FOLDER / "short", "x+", size=SMALL) as map:  # on the blocks that were freed
            self.mark("open x+", ["create", "short", SMALL])
            map.memcpy(100, b"short")
            self.mark("memcpy", ["copy", "short", 100, b"short".hex()], ["durable", "short", 100, 5])
        with pmem2.open(FOLDER / "a", "a+", size=SMALL) as map:
            self.mark("open a+", ["create", "a", SMALL])
            map.memcpy(100, b"kept")
            self.mark("memcpy", ["copy", "a", 100, b"kept".hex()], ["durable", "a", 100, 4])
            pmem2.open(FOLDER / "a", "a+", size=2 * SMALL).close()
            self.mark("open a+ of a shorter file", ["grow", "a", 2 * SMALL])

    def run_explored_program(self) -> None:
        """Run the program whose images the explorer has found."""
        with pmem2.open(FOLDER / "explored", "x+", size=2 * PAGE) as map:
            self.mark("open x+", ["explore", "explored", explored_images()])
            for _ in explored_program(map, lambda: self.write_back("explored")):
                self.mark("the explored program", ["acknowledge", "explored"])

    def copy_file(self, source: str) -> None:
        """Run `pmem2 copy`; its destination exists from the second time on."""
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if pmem2_command(["copy", str(FOLDER / source), str(FOLDER / "copied")]):
                sys.exit("pmem2 copy failed")
        self.mark("pmem2 copy", ["replace", "copied", source])

    # ---- calls on a map of a large file; each returns its events

    def persist(self, map: pmem2.Map) -> list[Event]:
        """Store and persist a range."""
        offset, length = self.range()
        data = self.data(length)
        map[offset : offset + length] = data
        map.persist(offset, length)
        return [["store", "big", offset, data.hex()], ["durable", "big", offset, length]]

    def deep_flush(self, map: pmem2.Map) -> list[Event]:
        """Store and deep-flush a range."""
        offset, length = self.range()
        data = self.data(length)
        map[offset : offset + length] = data
        map.deep_flush(offset, length)
        return [["store", "big", offset, data.hex()], ["durable", "big", offset, length]]

    def many(self, map: pmem2.Map, flush: Callable[[list[tuple[int, int]]], None]) -> list[Event]:
        """Store to many ranges and flush them."""
        events: list[Event] = []
        ranges = []
        step = self.chance.choice([FAR, 64 << 10])
        for base in range(0, SIZE, step):
            offset, data = base + self.chance.randrange(step - 64), self.data(self.chance.randint(1, 64))
            map[offset : offset + len(data)] = data
            ranges.append((offset, len(data)))
            events.append(["store", "big", offset, data.hex()])
        self.chance.shuffle(ranges)
        flush(ranges)
        return events + [["durable", "big", offset, length] for offset, length in ranges]

    def persist_many(self, map: pmem2.Map) -> list[Event]:
        """Store and persist many ranges."""
        return self.many(map, map.persist_many)

    def flush_many(self, map: pmem2.Map) -> list[Event]:
        """Store and flush many ranges."""
        return self.many(map, map.flush_many)

    def memcpy(self, map: pmem2.Map) -> list[Event]:
        """Copy to several pages."""
        offset, length = self.range(3 * PAGE)
        data = self.data(length)
        map.memcpy(offset, data)
        return [["copy", "big", offset, data.hex()], ["durable", "big", offset, length]]

    def memset(self, map: pmem2.Map) -> list[Event]:
        """Fill several pages."""
        offset, length = self.range(3 * PAGE)
        map.memset(offset, 0xAB, length)
        return [["copy", "big", offset, (b"\xab" * length).hex()], ["durable", "big", offset, length]]

    def memcpy_many(self, map: pmem2.Map) -> list[Event]:
        """Copy to many far places."""
        pieces = [(base + self.chance.randrange(FAR - 64), self.data(64)) for base in range(0, SIZE, FAR)]
        map.memcpy_many(pieces)
        copies: list[Event] = [["copy", "big", offset, data.hex()] for offset, data in pieces]
        return copies + [["durable", "big", offset, 64] for offset, _ in pieces]

    def store_u64(self, map: pmem2.Map) -> list[Event]:
        """Store and persist a word."""
        offset, value = self.chance.randrange(SIZE // 8) * 8, self.chance.getrandbits(64)
        map.store_u64(offset, value, persist=True)
        return [["store", "big", offset, value.to_bytes(8, "little").hex()], ["durable", "big", offset, 8]]

    def store(self, map: pmem2.Map) -> list[Event]:
        """Store to many sectors of few pages and make nothing durable; the kernel writes some of it back."""
        events: list[Event] = []
        pages = [self.chance.randrange(SIZE // PAGE) for _ in range(4)]
        for _ in range(12):
            offset = self.chance.choice(pages) * PAGE + self.chance.randrange(PAGE - 40)
            data = self.data(40)
            if self.chance.random() < 0.5:
                map[offset : offset + 40] = data
                events.append(["store", "big", offset, data.hex()])
            else:
                map.memcpy(offset, data, MemFlag.NOFLUSH)
                events.append(["copy", "big", offset, data.hex()])
            if self.chance.random() < 0.3:
                self.write_back("big")
        return events

    def work(self, rounds: int) -> None:
        """Make files, then call each method in turn."""
        self.mark("mount")
        self.make_files()
        self.run_explored_program()
        with pmem2.open(FOLDER / "big", "w+", size=SIZE) as map:
            self.mark("open w+", ["create", "big", SIZE])
            methods = [self.store, self.persist, self.store, self.memcpy, self.persist_many, self.store_u64, self.store]
            methods += [self.deep_flush, self.flush_many, self.memset, self.store, self.memcpy_many]
            for number in range(rounds):
                for method in methods:
                    events = method(map)
                    self.mark(method.__name__, *events)
                self.copy_file("big" if number % 2 == 0 else "w")
        self.mark("close")


class WrongRecorder(Recorder):
    """Takes `sync_file_range` for `persist`: it writes pages and waits for them, but does not flush the disk."""

    def persist(self, map: pmem2.Map) -> list[Event]:
        """Store to a range and submit its pages."""
        offset, length = self.range()
        data = self.data(length)
        map[offset : offset + length] = data
        self.write_back("big")
        return [["store", "big", offset, data.hex()], ["durable", "big", offset, length]]


def main() -> None:
    """Record one variant."""
    name, disk, log, steps, rounds, *wrong = sys.argv[1:]
    variant = VARIANTS[name]
    recorder = (WrongRecorder if wrong else Recorder)(len(name))
    with logged_disk(variant, disk, log):
        recorder.work(int(rounds))
    Path(steps).write_text(json.dumps(recorder.steps), encoding="utf-8")
    uptime = Path("/proc/uptime").read_text(encoding="ascii").split()[0]
    print(f"nvdimm: {uptime} s: {name}: {len(recorder.steps)} marks", flush=True)


if __name__ == "__main__":
    main()
