# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 demo`: the main job on a real file, on one screen."""

from __future__ import annotations

import os
import secrets
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pmem2
from pmem2._granularity import explain_granularity
from pmem2.cli._command import Failure, add_command, checked_place
from pmem2.cli._terminal import size_text
from pmem2.cli.copy import renamed

if TYPE_CHECKING:
    import argparse

    from pmem2.cli._command import Commands

HELP = """
Writes a file of 16 MiB in several ways, kills a process in the middle of writing to it, opens it again, and checks that
everything is there which had been made durable. The file is removed at the end.

examples:
  pmem2 demo                      a file in this directory
  pmem2 demo /mnt/pmem            a file on a file system with DAX
  pmem2 demo /mnt/pmem/new        a file of that name"""

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


def append(m: pmem2.Map) -> int:
    """Append a record: first it becomes durable, then the counter that says it is there; return the counter."""
    number = m.load_u64(COUNTER)
    m.memcpy(place(number), record(number))
    return m.fetch_add_u64(COUNTER, 1, persist=True) + 1


def append_forever(path: str) -> None:  # pragma: no cover: in the child that is killed
    """Append records until killed."""
    with pmem2.open(path) as m:
        while True:
            print(append(m), flush=True)


def kill_in_mid_write(path: Path) -> int:
    """Kill a child that appends, when it has said that it appended 1,000 records; return the last one it told."""
    code = f"from pmem2.cli.demo import append_forever; append_forever({os.fspath(path)!r})"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        told = 0
        try:
            for line in child.stdout:
                told = int(line) if line.endswith("\n") else told
                if told == 1000:
                    child.kill()
        finally:
            child.kill()  # Ctrl-C is ours alone: the child has a session of its own
    if told < 1000:
        raise Failure(f"the child process ended by itself when it had told of {told} records")
    return told


def damaged(m: pmem2.Map, count: int) -> int:
    """Return how many of the first *count* records are not what was appended."""
    return sum(m[place(n) : place(n) + RECORD.size] != record(n) for n in range(count))


def show(path: Path) -> int:
    """Run the demonstration on the new file at *path*; return an exit status."""
    with pmem2.open(path) as m:
        print(f"made    {path}, {SIZE >> 20} MiB, allocated on disk")
        print(f"mapped  with {m.granularity.name} granularity: {explain_granularity(m.granularity)}")

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


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "demo", "write, kill a process in mid-write, find everything again", HELP)
    parser.add_argument("path", metavar="PATH", nargs="?", default=".", help="a directory, or a file to be made")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration on a new file, and remove it at the end."""
    path = Path(checked_place(arguments.path))
    if path.is_dir():
        path /= f"pmem2-demo-{secrets.token_hex(4)}"
    try:
        pmem2.open(path, "x+", size=SIZE).close()
    except FileExistsError:
        raise Failure(f"{path} exists; name a file that does not, or a directory") from None
    except OSError as error:
        if error.filename is None:
            raise
        raise renamed(error, f"no file of {size_text(SIZE)} can be made there", arguments.path) from None
    try:
        return show(path)
    finally:
        path.unlink(missing_ok=True)
