# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 copy`: holes and allocated space."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.copying import copy_error, make_partly_allocated, require_extents, run_copy
from support.values import CONTENT, MIB, PAGE

from pmem2.cli import copy


def test_holes_stay_holes(tmp_path: Path, target: Path) -> None:
    """The copy has holes where the source has them, and reads the same."""
    source = tmp_path / "source"
    with open(source, "wb") as file:
        for offset in (0, 8 * MIB, 9 * MIB + 4096):
            os.pwrite(file.fileno(), b"data" * 1024, offset)
        file.truncate(64 * MIB)
    if source.stat().st_blocks * 512 >= 64 * MIB:
        pytest.skip("this file system has no holes")
    assert run_copy("--verify", source, target) == 0
    assert target.stat().st_blocks <= source.stat().st_blocks + 16
    assert target.read_bytes() == source.read_bytes()


def test_sparse_file_without_data(tmp_path: Path, target: Path) -> None:
    """The copy of a file without data has no data either."""
    source = tmp_path / "source"
    source.touch()
    os.truncate(source, 1 << 40)
    assert run_copy(source, target) == 0
    assert (target.stat().st_size, target.stat().st_blocks) == (1 << 40, 0)


def allocated(path: Path) -> int:
    """Return how many bytes of the disk a file takes."""
    return path.stat().st_blocks * 512


def test_space_is_allocated(path: Path, target: Path) -> None:
    """The copy has disk space for all its data."""
    assert run_copy(path, target) == 0
    assert allocated(target) >= len(CONTENT)


@pytest.mark.parametrize("existing", [False, True])
def test_sparse_modes(tmp_path: Path, target: Path, existing: bool) -> None:
    """auto allocates what SRC has allocated, never all of it, always only what is not zero."""
    partly, full = tmp_path / "partly", tmp_path / "full"
    make_partly_allocated(partly)
    with open(full, "w+b") as file:
        os.pwrite(file.fileno(), bytes([1]) * PAGE, MIB)
        os.posix_fallocate(file.fileno(), 0, 4 * MIB)
    for source, mode, low, high in (
        (partly, "auto", MIB + PAGE, 2 * MIB),
        (partly, "never", 4 * MIB, 5 * MIB),
        (partly, "always", PAGE, MIB),
        (full, "auto", 4 * MIB, 5 * MIB),
        (full, "never", 4 * MIB, 5 * MIB),
        (full, "always", PAGE, MIB),
    ):
        if existing:
            target.write_bytes(b"before")
        assert run_copy("--verify", f"--sparse={mode}", source, target) == 0
        assert low <= allocated(target) <= high, (source, mode)
        assert target.read_bytes() == source.read_bytes()
        target.unlink()


def test_sparse_always(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--sparse=always makes holes of written zeros, and keeps every other byte."""
    monkeypatch.setattr(copy, "CHUNK", 8 * PAGE)
    source = tmp_path / "source"
    data = bytearray(32 * PAGE + 5)
    data[0], data[5 * PAGE - 1], data[7 * PAGE], data[-1] = 1, 2, 3, 4
    source.write_bytes(data)
    assert run_copy("--verify", "--sparse=always", source, target) == 0
    assert target.read_bytes() == data
    assert allocated(target) <= 8 * PAGE < allocated(source)


def test_sparse_on_full_disk(file: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --sparse=always nothing is allocated in advance, and a full disk is found while writing."""
    file.write_bytes(bytes([7]) * 32 * PAGE)
    target = small_disk / "copy"
    assert copy_error(capsys, "--sparse=always", file, target) == (
        f"pmem2: {target}: cannot be written: No space left on device"
    )
    assert os.listdir(small_disk) == []


def test_many_extents(tmp_path: Path, target: Path) -> None:
    """A file with more extents than one system call returns keeps all of them."""
    source = tmp_path / "source"
    with open(source, "w+b") as file:
        for number in range(200):
            os.posix_fallocate(file.fileno(), 3 * number * PAGE, PAGE)
    require_extents(source)
    assert run_copy(source, target) == 0
    assert target.stat().st_blocks >= source.stat().st_blocks - 8


def test_verify_skips_holes(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--verify reads what is data in one of the files, and not a terabyte of holes."""
    source = tmp_path / "source"
    with open(source, "wb") as file:
        os.pwrite(file.fileno(), b"data", 1 << 39)
        file.truncate(1 << 40)
    assert run_copy("--verify", source, target) == 0

    def spoil(fd: int, *_rest: int) -> None:
        os.pwrite(fd, b"!", 12345)

    monkeypatch.setattr(os, "posix_fadvise", spoil)
    target.unlink()
    assert run_copy("--verify", source, target) == 1
