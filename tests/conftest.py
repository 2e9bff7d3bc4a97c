# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: files to map, forced granularities, and children that are allowed to die."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

import pmem2

SIZE = 16 * 1024 * 1024


class RunChild(Protocol):
    """Run Python in a child process."""

    def __call__(self, code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run *code* with `sys.argv[1:]` set to *arguments*; return its exit status and what it printed."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 16 MiB, all of it a hole."""
    path = tmp_path / "testfile"
    path.touch()
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def source(file: Path) -> Iterator[pmem2.Source]:
    """A writable source of that file."""
    with pmem2.Source.from_path(file) as opened:
        yield opened


@pytest.fixture
def map(source: pmem2.Source) -> Iterator[pmem2.Map]:
    """A map of the whole of that source."""
    with source.map() as mapped:
        yield mapped


@pytest.fixture(params=list(pmem2.Granularity), ids=lambda g: g.name.lower())
def granularity(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> pmem2.Granularity:
    """Each granularity in turn, forced upon every shared map of a file, as upstream's tests do."""
    forced = pmem2.Granularity(request.param)
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", forced.name)
    return forced


@pytest.fixture
def run_child() -> RunChild:
    """Run Python in a child process, which may die: a negative returncode is a signal."""

    def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
