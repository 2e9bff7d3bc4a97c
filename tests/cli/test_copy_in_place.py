# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 copy`: a DST that nothing can replace is overwritten, as cp does, and the command says so."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.copying import copy_error, make_partly_allocated, run_copy, without_tmpfs_warning
from support.filesystems import mounted, run_or_skip
from support.values import CONTENT, PAGE

USER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def written_in_place(capsys: pytest.CaptureFixture[str], source: Path, target: object) -> str:
    """Run `pmem2 copy`, which overwrites the target, and return the reason that it gives."""
    assert run_copy("--verify", source, target) == 0
    output, error = capsys.readouterr()
    start = f"pmem2: {target}: written in place, not atomically: "
    assert (output, error[: len(start)]) == ("", start)
    return without_tmpfs_warning(error)[len(start) :].strip()


@contextmanager
def as_other_user(folder: Path, mode: int) -> Iterator[None]:
    """Become another user for the block, in which *folder* has this mode."""
    folder.chmod(mode)
    os.setegid(USER)
    os.seteuid(USER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that another user may enter, with a file `source`."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        Path(name, "source").write_bytes(CONTENT)
        Path(name, "folder").mkdir()
        yield Path(name)


@pytest.mark.parametrize("before", [b"", b"before", bytes([9]) * 1100 * PAGE], ids=len)
def test_mount_point(tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str], before: bytes) -> None:
    """A mounted file is overwritten from its beginning to its end."""
    source, other = tmp_path / "source", tmp_path / "other"
    make_partly_allocated(source)
    other.write_bytes(before)
    target.touch()
    with mounted(target, "--bind", other):
        assert written_in_place(capsys, source, target) == "it cannot be replaced: Device or resource busy"
        assert target.read_bytes() == other.read_bytes() == source.read_bytes()
    assert target.read_bytes() == b""


def test_full_disk(file: Path, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a full disk the file stays as it was."""
    file.write_bytes(bytes([7]) * 32 * PAGE)
    other, target = small_disk / "other", tmp_path / "target"
    other.write_bytes(b"before")
    target.touch()
    with mounted(target, "--bind", other):
        assert run_copy(file, target) == 1
        assert capsys.readouterr().err.endswith(f"{target}: cannot allocate 128 KiB: No space left on device\n")
        assert target.read_bytes() == b"before"


def test_descriptor(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path in /proc is a file, whatever its name says: nothing is created under that name."""
    gone = tmp_path / "gone"
    with open(gone, "w+b", buffering=0) as file:
        gone.unlink()
        for name in (f"/proc/self/fd/{file.fileno()}", f"/dev/fd/{file.fileno()}"):
            file.truncate(5)
            assert run_copy(path, name) == 0
            assert "the path is a descriptor's" in capsys.readouterr().err
            assert os.pread(file.fileno(), 2 * len(CONTENT), 0) == CONTENT
    assert os.listdir(tmp_path) == [path.name]


def test_empty_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty SRC empties the file."""
    source = tmp_path / "source"
    source.touch()
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        file.write(b"before")
        assert run_copy(source, f"/proc/self/fd/{file.fileno()}") == 0
        assert os.fstat(file.fileno()).st_size == 0


def test_append_only_folder(path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a directory that keeps its files, the copy is made under its own name."""
    run_or_skip("chattr", "+a", target.parent)
    try:
        for _ in range(2):
            assert "is append-only" in written_in_place(capsys, path, target)
            assert target.read_bytes() == CONTENT
            target.write_bytes(b"before")
        assert os.listdir(target.parent) == [target.name]
    finally:
        run_or_skip("chattr", "-a", target.parent)


@needs_root
def test_sticky_folder(public: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another user's file in a sticky directory is overwritten, and keeps its owner."""
    target = public / "folder/copy"
    target.write_bytes(b"before")
    target.chmod(0o666)
    os.chown(target, 1234, 5678)
    with as_other_user(target.parent, 0o1777):
        assert written_in_place(capsys, public / "source", target) == "it cannot be replaced: Operation not permitted"
    assert target.read_bytes() == CONTENT
    assert (target.stat().st_uid, stat.S_IMODE(target.stat().st_mode)) == (1234, 0o666)


@needs_root
def test_protected_folder(public: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a directory without write permission, a file is overwritten, and a new one is an error."""
    source, target, other = public / "source", public / "folder/copy", public / "folder/other"
    target.write_bytes(b"before")
    target.chmod(0o666)
    with as_other_user(target.parent, 0o755):
        assert written_in_place(capsys, source, target) == "it cannot be replaced: Permission denied"
        assert copy_error(capsys, source, other) == f"pmem2: {other}: cannot be created: Permission denied"
    assert target.read_bytes() == CONTENT


@needs_root
def test_unreadable_folder(public: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that can be written but not read takes a copy, which succeeds."""
    with as_other_user(public / "folder", 0o733):
        assert run_copy("--verify", public / "source", public / "folder/copy") == 0
    output, error = capsys.readouterr()
    assert (output, without_tmpfs_warning(error)) == ("", "")
    assert os.listdir(public / "folder") == ["copy"]


def test_removed_working_directory(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a working directory, absolute paths work, and an error names the relative path."""
    gone, before = tmp_path / "gone", os.getcwd()
    gone.mkdir()
    os.chdir(gone)
    try:
        gone.rmdir()
        assert run_copy(path, tmp_path / "copy") == 0
        assert copy_error(capsys, path, "copy") == "pmem2: copy: cannot be created: No such file or directory"
    finally:
        os.chdir(before)


def test_loop_of_links(path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A symbolic link to itself is an error; one to a new file creates that file."""
    target.symlink_to(target)
    assert copy_error(capsys, path, target) == f"pmem2: {target}: Too many levels of symbolic links"
    target.unlink()
    target.symlink_to("other")
    assert run_copy(path, target) == 0
    assert (target.parent / "other").read_bytes() == CONTENT
