# SPDX-License-Identifier: BSD-3-Clause
"""Allocating and clearing files: a failure loses nothing, on every kind of file system, and signals do not wait."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.filesystems import loop_filesystem, run_or_skip
from support.values import MIB, PAGE

import pmem2
from pmem2 import _files

SIZES = {"ext2": 8 * MIB, "ext4": 16 * MIB, "xfs": 320 * MIB, "btrfs": 150 * MIB}


@pytest.fixture(params=["ext2", "ext4", "xfs", "btrfs", "tmpfs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on each file system: ext2 has no fallocate, tmpfs cannot clear a range, btrfs copies on write."""
    if request.param == "tmpfs":
        yield request.getfixturevalue("small_disk")
        return
    with loop_filesystem(tmp_path, request.param, SIZES[request.param]) as point:
        yield point


def free_space(folder: Path) -> int:
    """Return how many bytes are free."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def test_truncating_clears(folder: Path) -> None:
    """`w+` makes an existing file zero, whether it becomes shorter or longer, and all of it is allocated."""
    path = folder / "file"
    for before, size in ((8 * PAGE, 3 * PAGE + 5), (3 * PAGE + 5, 8 * PAGE), (PAGE, PAGE)):
        path.write_bytes(bytes([7]) * before)
        with pmem2.open(path, "w+", size=size) as map:
            assert map[:] == bytes(size)
        assert path.stat().st_size == size
        assert path.stat().st_blocks * 512 >= size


def test_full_disk_keeps_file(folder: Path) -> None:
    """On a full disk `w+` leaves the file as it was, and `x+` no file."""
    path, too_much = folder / "file", free_space(folder) + 64 * MIB
    path.write_bytes(bytes([7]) * 4 * PAGE)
    with pytest.raises(OSError, match="No space left"):
        pmem2.open(path, "w+", size=too_much)
    assert path.read_bytes() == bytes([7]) * 4 * PAGE
    with pytest.raises(OSError, match="No space left"):
        pmem2.open(folder / "other", "x+", size=too_much)
    assert not (folder / "other").exists()


@pytest.mark.parametrize("folder", ["btrfs"], indirect=True)
def test_snapshot_on_full_disk(folder: Path) -> None:
    """Where clearing a file with a snapshot needs new space and there is none, `w+` changes nothing."""
    path = folder / "file"
    size = free_space(folder) * 55 // 100 // PAGE * PAGE
    with pmem2.open(path, "w+", size=size) as map:
        map.memset(0, 7, size)
    run_or_skip("cp", "--reflink=always", path, folder / "snapshot")
    with pytest.raises(OSError, match="No space left"):
        pmem2.open(path, "w+", size=size)
    with pmem2.open(path, "r") as map:
        assert map.size == size
        assert map[:: size // 64].strip(b"\7") == b""


def test_unlinked_file(tmp_path: Path) -> None:
    """`w+` and `a+` on /proc/self/fd/N use that file, whose folder may be gone too, and create no other."""
    folder = tmp_path / "gone"
    folder.mkdir()
    with open(folder / "file", "w+b", buffering=0) as file:
        file.write(b"before")
        (folder / "file").unlink()
        folder.rmdir()
        path = f"/proc/self/fd/{file.fileno()}"
        with pmem2.open(path, "w+", size=2 * PAGE) as map:
            map[0:5] = b"hello"
            assert os.pread(file.fileno(), 3 * PAGE, 0) == b"hello" + bytes(2 * PAGE - 5)
        with pmem2.open(path, "a+", size=3 * PAGE) as map:
            assert map[:] == b"hello" + bytes(3 * PAGE - 5)
    assert os.listdir(tmp_path) == []


def test_pieces() -> None:
    """A range is worked on in pieces that touch each other and grow while they are fast."""
    done: list[tuple[int, int]] = []

    def call(_file: int, offset: int, length: int) -> int:
        done.append((offset, length))
        return 0

    first = _files.FIRST_PIECE
    assert _files.call_in_pieces(call, 0, 100, 8 * first) == 0
    assert done[0] == (100, first)
    assert [offset + length for offset, length in done] == [*(offset for offset, _ in done[1:]), 100 + 8 * first]
    assert max(length for _, length in done) > first


def test_slow_pieces_shrink() -> None:
    """A piece that takes long is followed by a smaller one."""
    lengths: list[int] = []

    def call(_file: int, _offset: int, length: int) -> int:
        lengths.append(length)
        time.sleep(0 if len(lengths) < 3 else 1.5 * _files.PIECE_TIME)
        return 0

    _files.call_in_pieces(call, 0, 0, 10 * _files.FIRST_PIECE)
    assert lengths[3] < lengths[2]


def test_error_ends_pieces() -> None:
    """The first error is returned, and nothing more is done."""
    codes = [0, -5, 0]
    assert _files.call_in_pieces(lambda *_: codes.pop(0), 0, 0, 100 * MIB) == -5
    assert codes == [0]


def test_signals_between_pieces() -> None:
    """A signal handler runs after the piece during which the signal came; what it raises ends the allocation."""
    done = []

    def call(_file: int, offset: int, _length: int) -> int:
        done.append(offset)
        os.kill(os.getpid(), signal.SIGUSR1)
        return 0

    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _files.call_in_pieces(call, 0, 0, 100 * MIB)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done == [0]
