# SPDX-License-Identifier: BSD-3-Clause
"""pmem2.open in mode "a+": open a file or create it, and let it grow."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.values import PAGE, rounds

import pmem2


def blocks(path: Path) -> int:
    """Return the bytes that a file occupies on disk."""
    return os.stat(path).st_blocks * 512


def test_missing_file_is_created(tmp_path: Path) -> None:
    """A file that does not exist is created, zero and really allocated."""
    path = tmp_path / "new"
    with pmem2.open(path, "a+", size=4 * PAGE) as map:
        assert (len(map), map[:]) == (4 * PAGE, bytes(4 * PAGE))
        assert map.protection == pmem2.Protection.READ | pmem2.Protection.WRITE
        assert map.sharing is pmem2.Sharing.SHARED
        map[0] = 1
    assert path.read_bytes()[0] == 1
    assert blocks(path) >= 4 * PAGE
    assert os.listdir(tmp_path) == ["new"]


@pytest.mark.parametrize("size", [None, 1, 2 * PAGE])
def test_existing_file_keeps_contents(tmp_path: Path, size: int | None) -> None:
    """A file that is as large as *size*, or larger, stays as it is."""
    path = tmp_path / "old"
    path.write_bytes(b"kept" * (PAGE // 2))
    with pmem2.open(path, "a+", size=size) as map:
        assert map[:] == b"kept" * (PAGE // 2)


def test_smaller_file_grows(tmp_path: Path) -> None:
    """A smaller file grows: its contents stay, and the new bytes are zero and really allocated."""
    path = tmp_path / "old"
    path.write_bytes(b"abc")
    with pmem2.open(path, "a+", size=8 * PAGE) as map:
        assert map[:] == b"abc" + bytes(8 * PAGE - 3)
    assert blocks(path) >= 8 * PAGE


def test_size_is_needed_once(tmp_path: Path) -> None:
    """A file that is empty or does not exist needs a size; nothing is created without one."""
    path = tmp_path / "new"
    with pytest.raises(ValueError, match="needs a size"):
        pmem2.open(path, "a+")
    assert not path.exists()
    path.touch()
    with pytest.raises(ValueError, match="needs a size"):
        pmem2.open(path, "a+")
    with pytest.raises(ValueError, match="size must be >= 1"):
        pmem2.open(path, "a+", size=0)


def test_link_creates_its_target(tmp_path: Path) -> None:
    """A symbolic link to a file that does not exist creates that file, as open(2) does."""
    (tmp_path / "link").symlink_to("target")
    pmem2.open(tmp_path / "link", "a+", size=PAGE).close()
    assert (tmp_path / "target").stat().st_size == PAGE
    assert (tmp_path / "link").is_symlink()


def test_failure_creates_nothing(tmp_path: Path) -> None:
    """A file that cannot be allocated or mapped is not created; a folder that does not exist is named."""
    with pytest.raises(OSError, match="allocate"):
        pmem2.open(tmp_path / "new", "a+", size=1 << 60)
    with pytest.raises(FileNotFoundError) as missing:
        pmem2.open(tmp_path / "folder" / "new", "a+", size=PAGE)
    assert missing.value.filename == str(tmp_path / "folder" / "new")
    with pytest.raises(pmem2.MapRangeError):
        pmem2.open(tmp_path / "new", "a+", size=PAGE, config=pmem2.Config(offset=PAGE))
    with pytest.raises(pmem2.OffsetUnalignedError):
        pmem2.open(tmp_path / "new", "a+", size=PAGE, config=pmem2.Config(offset=5))
    assert os.listdir(tmp_path) == []


def test_failure_grows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be mapped as required keeps its size."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "PAGE")
    path = tmp_path / "old"
    path.write_bytes(b"abc")
    for config, error in (
        (pmem2.Config(required_granularity=pmem2.Granularity.BYTE), pmem2.GranularityNotSupportedError),
        (pmem2.Config(offset=4 * PAGE), pmem2.MapRangeError),
    ):
        with pytest.raises(error):
            pmem2.open(path, "a+", size=2 * PAGE, config=config)
        assert path.read_bytes() == b"abc"


def test_folder_without_unnamed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file needs a name from the beginning, it is created with that name."""
    monkeypatch.setattr("pmem2._open.create_unnamed", lambda path: None)
    with pmem2.open(tmp_path / "new", "a+", size=PAGE) as map:
        assert map[:] == bytes(PAGE)
    assert blocks(tmp_path / "new") >= PAGE


def test_lost_race_opens_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another process creates first is opened, with its contents."""

    def lose(source: pmem2.Source, path: str) -> int:
        Path(path).write_bytes(b"other" + bytes(PAGE))
        return -errno.EEXIST

    monkeypatch.setattr("pmem2._open.link_source", lose)
    with pmem2.open(tmp_path / "new", "a+", size=PAGE) as map:
        assert map[:5] == b"other"


def test_path_with_a_nul(tmp_path: Path) -> None:
    """A path that contains a NUL is a ValueError in every mode."""
    for mode in ("x+", "w+", "a+"):
        with pytest.raises(ValueError, match=r"null|NUL"):
            pmem2.open(f"{tmp_path}/a\0b", mode, size=PAGE)  # type: ignore[arg-type, call-overload, unused-ignore]


START = """
import sys
import pmem2
path, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    sys.stdin.readline()
    with pmem2.open(f"{path}{number}", "a+", size=4096) as map:
        assert len(map) == 4096
        map.fetch_add_u64(0, 1)
    print(number, flush=True)
"""


def test_processes_create_at_once(tmp_path: Path) -> None:
    """Two processes that start at the same moment both open the same file; weekly, thousands of times."""
    count = rounds(100)
    command = [sys.executable, "-c", START, str(tmp_path / "file"), str(count)]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for number in range(count):
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == f"{number}\n"
        with pmem2.open(tmp_path / f"file{number}", "r") as map:
            assert map.load_u64(0) == 2
        (tmp_path / f"file{number}").unlink()
    for child in children:
        assert child.stdout is not None
        child.communicate()
        assert child.returncode == 0


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="the system has no O_DIRECT")
def test_direct_descriptor_works(path: str) -> None:
    """A descriptor that was opened with O_DIRECT reads and writes unaligned ranges."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    except OSError:
        pytest.skip("the file system has no O_DIRECT")
    with pmem2.Source.from_fd(fd) as source:
        os.close(fd)
        before = source.pread_mcsafe(9, 1)
        source.pwrite_mcsafe(b"abc", 5)
        assert source.pread_mcsafe(9, 1) == before[:4] + b"abc" + before[7:]
        source.map().close()
