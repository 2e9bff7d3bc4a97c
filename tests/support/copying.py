# SPDX-License-Identifier: BSD-3-Clause
"""Run `pmem2 copy`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pmem2.cli import main
from pmem2.cli._extents import extents
from support.values import MIB, PAGE


def run_copy(*arguments: object) -> int:
    """Run `pmem2 copy`; return its status."""
    return main(["copy", *map(str, arguments)])


def without_tmpfs_warning(error: str) -> str:
    """Return what a command printed on standard error, without the warning that the tests run on tmpfs."""
    return "".join(line for line in error.splitlines(keepends=True) if " is on tmpfs, in memory: " not in line)


def copy_error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run `pmem2 copy`, which fails, and return its one line of error."""
    status = run_copy(*arguments)
    output, error = capsys.readouterr()
    assert (status, output) == (1, "")
    (line,) = without_tmpfs_warning(error).splitlines()
    return str(line)


def make_partly_allocated(path: Path) -> None:
    """Make a file of 4 MiB: a page of data, a hole, 1 MiB that is allocated but never written, and a hole."""
    with open(path, "w+b") as file:
        os.pwrite(file.fileno(), bytes([1]) * PAGE, 0)
        os.posix_fallocate(file.fileno(), 2 * MIB, MIB)
        file.truncate(4 * MIB)
    if not MIB < path.stat().st_blocks * 512 < 2 * MIB:
        pytest.skip("this file system has no holes")
    require_extents(path)


def require_extents(path: Path) -> None:
    """Skip the test if the file system does not list the extents of a file."""
    with open(path, "rb") as file:
        if not list(extents(file.fileno())):
            pytest.skip("this file system does not list the extents of files")
