# SPDX-License-Identifier: BSD-3-Clause
"""The main job on a real file, on one screen: `python -m pmem2.demo [PATH]`."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pmem2
from pmem2._granularity import reason

SIZE = 16 * 1024 * 1024
GREETING = b"hello, persistent memory"
POINT = struct.Struct("<dd8s")
COUNTER, RECORDS = 4096, 8192
RECORD = struct.Struct("<QI52s")
SLOTS = (SIZE - RECORDS) // RECORD.size


def record(number: int) -> bytes:
    """Return the record of that number, with a checksum over its text."""
    text = f"this is record {number}".encode().ljust(52)
    return RECORD.pack(number, zlib.crc32(text), text)


def place(number: int) -> int:
    """Return where the record of that number lies, in bytes."""
    return RECORDS + number % SLOTS * RECORD.size


def append_forever(path: str) -> None:  # pragma: no cover: in the child that is killed
    """Append records until killed: first the record becomes durable, then the counter that says it is there."""
    with pmem2.open(path) as m:
        while True:
            number = m.load_u64(COUNTER)
            m.memcpy(place(number), record(number))
            m.fetch_add_u64(COUNTER, 1, persist=True)
            print(number + 1, flush=True)


def kill_in_mid_write(path: Path) -> int:
    """Kill a child that appends, when it has said that it appended 1,000 records; return the last one it told."""
    code = f"from pmem2.demo import append_forever; append_forever({os.fspath(path)!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = 0
        for line in child.stdout:
            told = int(line) if line.endswith("\n") else told
            if told == 1000:
                child.send_signal(signal.SIGKILL)
    return told


def damaged(m: pmem2.Map, count: int) -> int:
    """Return how many of the first *count* records are not what was appended."""
    return sum(m[place(n) : place(n) + RECORD.size] != record(n) for n in range(count))


def show(path: Path) -> int:
    """Run the demonstration on a new file at *path*; return an exit status."""
    with pmem2.open(path, "w+", size=SIZE) as m:
        print(f"made    {path}, {SIZE >> 20} MiB, allocated on disk")
        print(f"mapped  with {m.granularity.name} granularity: {reason(m.granularity)}")

        m.memcpy(0, GREETING)
        print(f"wrote   {GREETING.decode()!r} with memcpy: copied and durable when the call returned")

        with m.view(64, POINT.size) as view:
            POINT.pack_into(view, 0, 52.52, 13.405, b"Berlin")
        m.persist(64, POINT.size)
        print("wrote   a struct through a view, a plain store; then persist() made its 24 bytes durable")

        for _ in range(3):
            m.fetch_add_u64(128, 1, persist=True)
        print("wrote   a counter, three times, with fetch_add_u64: 8 bytes that never tear")

    told = kill_in_mid_write(path)
    print(f"killed  a child process in mid-write (SIGKILL), after it had told us of {told:,} records")

    with pmem2.open(path, "r") as m:
        with m.view(64, POINT.size) as view:
            latitude, longitude, name = POINT.unpack(view)
        city = name.rstrip(bytes(1)).decode()
        count = m.load_u64(COUNTER)
        bad = damaged(m, count)
        print(f"reopened: {m[: len(GREETING)].decode()!r}; {city} at {latitude}, {longitude};")
        print(f"        the counter is {m.load_u64(128)}; {count:,} records are there, {bad} of them damaged")
        lost = m[: len(GREETING)] != GREETING or m.load_u64(128) != 3 or count < told or bad > 0
    print("FAILED: something that was persisted is lost" if lost else "all that was persisted is there")
    return int(lost)


def main(arguments: list[str]) -> int:
    """Run the demonstration on the file that *arguments* name, or on one in this directory; remove it at the end."""
    path = Path(arguments[0]) if arguments else Path(f"pmem2-demo-{os.getpid()}")
    if path.exists():
        print(f"{path} exists; name a file that does not", file=sys.stderr)
        return 1
    try:
        return show(path)
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
