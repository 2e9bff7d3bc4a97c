# SPDX-License-Identifier: BSD-3-Clause
"""FUSE: short reads, files that cannot be mapped or report a wrong size, no fallocate, failing writes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.filesystems import fuse

import pmem2
from pmem2.cli import main as pmem2_command

CONTENT = bytes(range(250)) * 20
ODD = ("direct", "short", "larger", "unknown", "cached-larger")


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file system, mounted once for all tests: each has its own files."""
    with fuse(tmp_path_factory.mktemp("fuse")) as point:
        yield point


def make(folder: Path, name: str) -> Path:
    """Create a file with content."""
    path = folder / name
    path.write_bytes(CONTENT)
    return path


def test_map(mounted: Path) -> None:
    """A file can be created, mapped, persisted, cleared and grown, although there is no fallocate."""
    path = mounted / "file"
    with pmem2.open(path, "x+", size=5000) as map:
        assert map[:] == bytes(5000)
        map.memcpy(0, b"old")
    with pmem2.open(path, "w+", size=9000) as map:
        assert map[:] == bytes(9000)
        map.persist_many([(0, 1), (8000, 1)])
        map.memcpy(0, b"kept")
    with pmem2.open(path, "a+", size=20000) as map:
        assert map[:] == b"kept" + bytes(19996)
    assert path.read_bytes() == b"kept" + bytes(19996)


def test_direct_io(mounted: Path) -> None:
    """A file with direct_io cannot be mapped, and the error says why; private maps and mcsafe work."""
    path = make(mounted, "direct")
    with pytest.raises(OSError, match=r"No such device; .*FUSE with direct_io") as caught:
        pmem2.open(path)
    assert caught.value.errno == errno.ENODEV
    with pmem2.Source.from_path(path) as source:
        source.pwrite_mcsafe(b"new", 10)
        assert source.pread_mcsafe(20) == CONTENT[:10] + b"new" + CONTENT[13:20]
    with pytest.raises(OSError, match="direct_io"):
        pmem2.open(path, "w+", size=100)
    assert path.stat().st_size == len(CONTENT)


def test_short_reads(mounted: Path) -> None:
    """mcsafe repeats a read that returns less."""
    with pmem2.Source.from_path(make(mounted, "short")) as source:
        assert source.pread_mcsafe(len(CONTENT)) == CONTENT
        assert source.pread_mcsafe(333, 77) == CONTENT[77:410]


@pytest.mark.parametrize("name", ["larger-read", "cached-larger-read"])
def test_size_too_large(mounted: Path, name: str) -> None:
    """A read past the true end of a file raises, whatever its size."""
    with pmem2.Source.from_path(make(mounted, name)) as source:
        assert source.size > len(CONTENT)
        assert source.pread_mcsafe(len(CONTENT)) == CONTENT
        for offset in (0, 4000, len(CONTENT)):
            with pytest.raises(pmem2.LengthOutOfRangeError):
                source.pread_mcsafe_into(bytearray(len(CONTENT) + 1 - offset), offset)


@pytest.mark.parametrize("destination", ["outside", "copied", "direct-copied"])
@pytest.mark.parametrize("name", ODD)
def test_copy(mounted: Path, tmp_path: Path, name: str, destination: str) -> None:
    """`pmem2 copy` reads to the true end of a file, and writes to any."""
    source = make(mounted, f"{name}-to-copy")
    target = tmp_path / name if destination == "outside" else mounted / destination
    assert pmem2_command(["copy", "--verify", str(source), str(target)]) == 0
    assert target.read_bytes() == CONTENT


def test_info(mounted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pmem2 info` says why a file and a folder cannot be mapped."""
    assert pmem2_command(["info", str(make(mounted, "direct-info")), str(mounted)]) == 0
    output = capsys.readouterr().out
    assert "direct_io" in output
    assert "cannot create unnamed files (O_TMPFILE)" in output


def test_failing_write(mounted: Path) -> None:
    """After a write has failed, no map of that source persists, also when writes work again."""
    broken = mounted / "broken"
    with pmem2.Source.from_path(make(mounted, "failing")) as source, source.map() as map, source.map() as other:
        map[0:4] = b"lost"
        broken.touch()
        try:
            with pytest.raises(OSError, match="write the data to a new file"):
                map.persist()
        finally:
            broken.unlink()
        for later in (map, other):
            with pytest.raises(OSError, match="Input/output error"):
                later.persist()


def test_signal_during_allocation(mounted: Path) -> None:
    """SIGTERM ends a program that allocates a file with slow writes."""
    code = "import sys, pmem2; print('starts', flush=True); pmem2.open(sys.argv[1], 'w+', size=1 << 30)"
    program = [sys.executable, "-c", code, str(mounted / "slow")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        assert child.wait(60) == -signal.SIGTERM
        assert time.monotonic() - begin < 10
    os.unlink(mounted / "slow")
