# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 demo`: durable writes to a real file, a killed writer, and power failures found by the explorer."""

from __future__ import annotations

import os
import secrets
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pmem2
from pmem2._granularity import explain_granularity
from pmem2.cli._command import CommandError, add_command
from pmem2.cli._output import check_output_path, with_filename
from pmem2.cli._platform import VOLATILE, find_mount
from pmem2.cli._terminal import GREEN, RED, YELLOW, show_step
from pmem2.cli._text import format_size
from pmem2.testing import CrashConsistencyError, Report, explore
from pmem2.testing._errors import relative_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pmem2.cli._command import Commands

HELP = """
Writes to a file of 16 MiB in several ways. Checks its own code in every state that a power failure could leave, with
and without a call of persist: pmem2.testing does this without any hardware. Kills a process that is writing to the
file, opens the file again, and checks that all data is there. Removes the file at the end.

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
    offset = record_offset(number)
    m[offset : offset + RECORD.size] = make_record(number)
    m.persist(offset, RECORD.size)
    return m.fetch_add_u64(COUNTER, 1, persist=True) + 1


def append_without_persist(m: pmem2.Map) -> int:
    """Append a record and return the new count. Bug: the counter may become durable before the record."""
    number = m.load_u64(COUNTER)
    offset = record_offset(number)
    m[offset : offset + RECORD.size] = make_record(number)
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


def explore_append(append: Callable[[pmem2.Map], int]) -> Report:
    """Check every state that a power failure could leave while three records are appended.

    Raises:
        CrashConsistencyError: A record is damaged, or lost although `append` has returned.
    """

    def workload(m: pmem2.Map) -> Iterator[int]:
        for _ in range(3):
            yield append(m)

    def check(m: pmem2.Map, acknowledged: list[int]) -> None:
        count = m.load_u64(COUNTER)
        damaged = count_damaged(m, count)
        if damaged or count < len(acknowledged):  # no assert: python -O removes it
            raise AssertionError(f"{damaged} of {count} records are damaged, {len(acknowledged)} were acknowledged")

    return explore(workload, check, size=record_offset(4), granularity=pmem2.Granularity.CACHE_LINE)


def explore_both() -> bool:
    """Explore `append` with and without its persist; return whether the explorer finds the difference."""
    report = explore_append(append)
    show_step(
        "explored", f"append(): {report.images} states that a power failure can leave; none loses or damages a record"
    )
    try:
        explore_append(append_without_persist)
    except CrashConsistencyError as error:
        show_step("explored", "append() without its persist():")
        here = relative_path(__file__)
        what, *_table, fix = str(error).replace(here, os.path.basename(here)).splitlines()
        show_step("", what)
        for store in error.lost:
            place = f"{os.path.basename(store.filename)}:{store.lineno}"
            show_step("", f"lost: {store.length} bytes at {store.offset}, stored at {place}: {store.reason}")
        show_step("", fix)
        return True
    return False


def run_demo(path: Path) -> int:
    """Run the demonstration on the new file at *path* and return the exit status."""
    filesystem = find_mount(os.fspath(path)).filesystem
    with pmem2.open(path) as m:
        show_step("created", f"{path}, {format_size(SIZE)}, allocated on {filesystem}")
        if filesystem in VOLATILE:
            show_step(
                "warning", f"{filesystem} is in memory: nothing there survives a power failure or a restart", YELLOW
            )
        show_step("mapped", f"with {m.granularity.name} granularity: {explain_granularity(m.granularity)}")

        m.memcpy(0, GREETING)
        show_step("wrote", f"{GREETING.decode()!r} with memcpy: durable when the call returns")

        with m.view(64, POINT.size) as view:
            POINT.pack_into(view, 0, 52.52, 13.405, b"Berlin")
        m.persist(64, POINT.size)
        show_step("wrote", "a struct through a view (a plain store); persist() made its 24 bytes durable")

        for _ in range(3):
            m.fetch_add_u64(128, 1, persist=True)
        show_step("wrote", "a counter, three times, with fetch_add_u64: an atomic update of 8 bytes")

    found = explore_both()

    reported = kill_mid_write(path)
    show_step(
        "killed",
        f"a process in mid-write (SIGKILL) after it reported {reported:,} records; this proves nothing about power: "
        "what a process has stored survives its end in the page cache",
    )

    with pmem2.open(path, "r") as m:
        with m.view(64, POINT.size) as view:
            latitude, longitude, name = POINT.unpack(view)
        city = name.rstrip(bytes(1)).decode()
        count = m.load_u64(COUNTER)
        damaged = count_damaged(m, count)
        show_step(
            "reopened",
            f"the file: {m[: len(GREETING)].decode()!r}; {city} at {latitude}, {longitude}; the counter is "
            f"{m.load_u64(128)}; {count:,} records, {damaged:,} of them damaged",
        )
        lost = m[: len(GREETING)] != GREETING or m.load_u64(128) != 3 or count < reported or damaged > 0
    if lost or not found:
        show_step("FAILED", "durable data is lost" if lost else "the explorer does not find a missing persist", RED)
        return 1
    show_step("done", "all durable data is there", GREEN)
    return 0


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "demo", "write, explore power failures, kill a process in mid-write", HELP)
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
