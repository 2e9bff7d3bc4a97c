# SPDX-License-Identifier: BSD-3-Clause
"""Real file systems for tests: mounted for one test, or skipped with the reason."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.compiled import BUILDS

OVERCOMMIT = Path("/proc/sys/vm/nr_overcommit_hugepages")
HUGE_PAGES = 16


def run_or_skip(*command: object) -> None:
    """Run a command; skip the test if it is missing or fails."""
    try:
        subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{' '.join(error.cmd)}: {error.stderr.strip()}")


@contextmanager
def mounted(point: Path, *arguments: object) -> Iterator[Path]:
    """Mount something at a folder or file for the block; *arguments* are those of mount."""
    run_or_skip("mount", *arguments, point)
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


@contextmanager
def loop_filesystem(folder: Path, kind: str, size: int) -> Iterator[Path]:
    """Make a file system of *size* bytes in a file in *folder*, and mount it for the block."""
    image, point = folder / f"{kind}.img", folder / kind
    image.touch()
    os.truncate(image, size)
    run_or_skip(f"mkfs.{kind}", "-q", image)
    point.mkdir()
    with mounted(point, "-o", "loop", image):
        yield point


@contextmanager
def hugetlbfs(folder: Path) -> Iterator[Path]:
    """Mount hugetlbfs for the block, with some huge pages that the kernel allocates on demand."""
    point = folder / "hugetlbfs"
    point.mkdir()
    with open(Path(os.environ[BUILDS]) / "hugetlbfs.lock", "w", encoding="ascii") as lock, ExitStack() as undo:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one test at a time changes the number of huge pages
        try:
            before = OVERCOMMIT.read_text(encoding="ascii")
            OVERCOMMIT.write_text(str(HUGE_PAGES), encoding="ascii")
        except OSError as error:
            pytest.skip(f"huge pages: {error}")
        undo.callback(OVERCOMMIT.write_text, before, encoding="ascii")
        yield undo.enter_context(mounted(point, "-t", "hugetlbfs", "none"))


@contextmanager
def fuse(folder: Path) -> Iterator[Path]:
    """Mount fuse_server.py for the block: a file system whose files behave as their names say."""
    point = folder / "fuse"
    point.mkdir()
    program = [sys.executable, "-S", str(Path(__file__).with_name("fuse_server.py")), str(point)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        if not server.stdout.readline():
            pytest.skip(server.stderr.read().strip())
        try:
            yield point
        finally:
            subprocess.run(["umount", "--lazy", str(point)], check=True)
            server.kill()  # if a failed test has left a file open
