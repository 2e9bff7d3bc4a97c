# SPDX-License-Identifier: BSD-3-Clause
"""Filters of system calls, as containers and service managers set them: pmem2 does without a call, or raises."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from support.children import RunChild

if platform.machine() != "x86_64":
    pytest.skip("the numbers of the system calls are those of x86-64", allow_module_level=True)

PROGRAM = """
import ctypes, errno, os, struct, sys, threading
import pmem2

libc = ctypes.CDLL(None, use_errno=True)
folder = sys.argv[1]

def step(code, value, if_true=0, if_false=0):
    return struct.pack("HBBI", code, if_true, if_false, value)

def deny(error, number, argument=0, flag=0):
    load, equal, any_bit, result = 0x20, 0x15, 0x45, 6
    steps = [step(load, 0), step(equal, number, 0, 3 if flag else 1)]
    if flag:
        steps += [step(load, 16 + 8 * argument), step(any_bit, flag, 0, 1)]
    steps += [step(result, 0x50000 | error), step(result, 0x7fff0000)]
    code = ctypes.create_string_buffer(b"".join(steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):  # no new privileges; filter
        raise SystemExit(f"cannot filter: {os.strerror(ctypes.get_errno())}")

def use_all():
    for mode in ("x+", "w+", "a+"):
        pmem2.open(f"{folder}/{mode}", mode, size=1 << 20).close()
    with pmem2.Source.from_path(f"{folder}/w+") as source, pmem2.VMReservation(1 << 20) as reservation:
        with source.map(pmem2.Config(reservation=reservation)) as map:
            map.memcpy(0, b"x")
            map.persist_many([(0, 1), (1 << 19, 1)])
            map.memcpy_many([(0, b"x"), (1 << 19, b"x")])
        source.pwrite_mcsafe(source.pread_mcsafe(10))
        source.bad_blocks().close()

def use_all_without(name, *filter):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    for mode in ("x+", "a+"):
        if os.path.exists(f"{folder}/{mode}"):
            os.unlink(f"{folder}/{mode}")
    open(f"{folder}/w+", "wb").write(b"old")
    try:
        deny(*filter)
        use_all()
        print(f"{name}: works", flush=True)
    except OSError as raised:
        print(f"{name}: {raised}", flush=True)

for name, *filter in CALLS:
    child = os.fork()
    if not child:
        try:
            use_all_without(name, *filter)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
"""


def outcomes(run_child: RunChild, folder: Path, calls: list[tuple[object, ...]]) -> dict[str, str]:
    """Use pmem2 under one filter after the other; return what happened.

    A filter is a name, an error and the number of a system call, perhaps also one of its arguments and a flag in it
    if only calls with that flag are denied.
    """
    child = run_child(f"CALLS = {calls!r}\n{PROGRAM}", str(folder))
    if "cannot filter" in child.stderr:
        pytest.skip(child.stderr.strip())
    return {name: result for name, _, result in (line.partition(": ") for line in child.stdout.splitlines())}


def test_optional_calls_denied(run_child: RunChild, tmp_path: Path) -> None:
    """Everything works without the system calls that filters deny most often."""
    calls: list[tuple[object, ...]] = [
        ("clone", 1, 56),
        ("clone like vfork", 1, 56, 0, 0x4000),
        ("a file without a name", 1, 257, 2, 0o20000000),
        ("linkat", 1, 265),
        ("sync_file_range", 1, 277),
        ("sync_file_range, unknown", 38, 277),
        ("mremap", 1, 25),
        ("madvise", 1, 28),
        ("syncfs", 1, 306),
        ("ioctl", 1, 16),
    ]
    assert outcomes(run_child, tmp_path, calls) == {str(name): "works" for name, *_ in calls}


def test_needed_calls_denied(run_child: RunChild, tmp_path: Path) -> None:
    """Without a system call that allocation or durability needs, an error says what failed."""
    found = outcomes(run_child, tmp_path, [("fallocate", 1, 285), ("fsync", 38, 74), ("msync", 38, 26)])
    for name, text in {
        "fallocate": "[Errno 1] cannot allocate 1048576 bytes: ",
        "fsync": "[Errno 38] cannot make the new file durable: ",
        "msync": "[Errno 38] cannot copy 1 bytes at 0 of ",
    }.items():
        assert found[name].startswith(text)
