# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 demo`: durable writes to a real file, a killed writer, and the proof that no durable data is lost."""

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
from pmem2.cli._command import CommandError, add_command
from pmem2.cli._output import check_output_path, with_filename
from pmem2.cli._terminal import format_size

if TYPE_CHECKING:
    import argparse

    from pmem2.cli._command import Commands

HELP = """
Writes to a file of 16 MiB in several ways, kills a process that is writing to it, opens the file again, and checks
that all durable data is there. Removes the file at the end.

examples:
  pmem2 demo                      use a file in the current directory
  pmem2 demo /mnt/pmem            use a file on a file system with DAX
  pmem2 demo /mnt/pmem/new        use a new file with this name"""

SIZE = 16 * 1024 * 1024
GREETING = b"hello, persistent memory"
POINT = struct.Struct("<dd8s")
COUNTER, RECORDS = 4096, 8192
RECORD = struct.Struct("<QI52s")
SLOTS = (SIZE - RECORDS) // RECORD.size


def make_record(number: int) -> bytes:
    """Return record *number*, with a checksum of its text."""
    text = f"this is record {number}".encode().ljust(52)
    return RECORD.pack(number, zlib.crc32(text), text)


def record_offset(number: int) -> int:
    """Return the offset of record *number*."""
    return RECORDS + number % SLOTS * RECORD.size


def append(m: pmem2.Map) -> int:
    """Append a record and return the new count: the record becomes durable first, then the counter."""
    number = m.load_u64(COUNTER)
    m.memcpy(record_offset(number), make_record(number))
    return m.fetch_add_u64(COUNTER, 1, persist=True) + 1


def append_forever(path: str) -> None:  # pragma: no cover: runs in the child process
    """Append records until the process is killed."""
    with pmem2.open(path) as m:
        while True:
            print(append(m), flush=True)


def kill_mid_write(path: Path) -> int:
    """Kill a child process once it has reported 1,000 appended records; return the last count that it reported."""
    code = f"from pmem2.cli.demo import append_forever; append_forever({os.fspath(path)!r})"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        assert child.stdout is not None
        reported = 0
        try:
            for line in child.stdout:
                reported = int(line) if line.endswith("\n") else reported
                if reported == 1000:
                    child.kill()
        finally:
            child.kill()  # the child has its own session, so Ctrl-C does not reach it
    if reported < 1000:
        raise CommandError(f"the child process ended before it was killed; it reported {reported} records")
    return reported


def count_damaged(m: pmem2.Map, count: int) -> int:
    """Return how many of the first *count* records differ from the appended ones."""
    return sum(m[record_offset(n) : record_offset(n) + RECORD.size] != make_record(n) for n in range(count))


def run_demo(path: Path) -> int:
    """Run the demonstration on the new file at *path* and return the exit status."""
    with pmem2.open(path) as m:
        print(f"created  {path}, {SIZE >> 20} MiB, allocated on disk")
        print(f"mapped   with {m.granularity.name} granularity: {explain_granularity(m.granularity)}")

        m.memcpy(0, GREETING)
        print(f"wrote    {GREETING.decode()!r} with memcpy: durable when the call returns")

        with m.view(64, POINT.size) as view:
            POINT.pack_into(view, 0, 52.52, 13.405, b"Berlin")
        m.persist(64, POINT.size)
        print("wrote    a struct through a view (a plain store); persist() made its 24 bytes durable")

        for _ in range(3):
            m.fetch_add_u64(128, 1, persist=True)
        print("wrote    a counter, three times, with fetch_add_u64: an atomic update of 8 bytes")

    reported = kill_mid_write(path)
    print(f"killed   a child process mid-write (SIGKILL) after it reported {reported:,} records")

    with pmem2.open(path, "r") as m:
        with m.view(64, POINT.size) as view:
            latitude, longitude, name = POINT.unpack(view)
        city = name.rstrip(bytes(1)).decode()
        count = m.load_u64(COUNTER)
        damaged = count_damaged(m, count)
        print(f"reopened the file: {m[: len(GREETING)].decode()!r}; {city} at {latitude}, {longitude};")
        print(f"         the counter is {m.load_u64(128)}; {count:,} records, {damaged} of them damaged")
        lost = m[: len(GREETING)] != GREETING or m.load_u64(128) != 3 or count < reported or damaged > 0
    print("FAILED: durable data is lost" if lost else "all durable data is there")
    return int(lost)


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "demo", "write, kill a process mid-write, verify the data", HELP)
    parser.add_argument("path", metavar="PATH", nargs="?", default=".", help="a directory or a new file (default: .)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration on a new file and remove the file at the end."""
    path = Path(check_output_path(arguments.path))
    if path.is_dir():
        path /= f"pmem2-demo-{secrets.token_hex(4)}"
    try:
        pmem2.open(path, "x+", size=SIZE).close()
    except FileExistsError:
        raise CommandError(f"{path} exists: name a new file or a directory") from None
    except OSError as error:
        if error.filename is None:
            raise
        raise with_filename(error, f"cannot create a file of {format_size(SIZE)}", arguments.path) from None
    try:
        return run_demo(path)
    finally:
        path.unlink(missing_ok=True)
