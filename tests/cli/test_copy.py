# SPDX-License-Identifier: BSD-3-Clause
"""`pmem2 copy`: content, holes, permissions, errors, and no file left behind."""

from __future__ import annotations

import os
import re
import resource
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest
from support.copying import copy_error, run_copy, without_tmpfs_warning
from support.terminal import block_imports, terminal_output
from support.values import CONTENT, PAGE

import pmem2
from pmem2.cli import _output, _terminal, copy, main


@contextmanager
def after_each_chunk(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> Iterator[None]:
    """Run *action* after each copied chunk."""

    @contextmanager
    def progress(_what: str, _total: int, _quiet: bool) -> Iterator[Callable[[int], object]]:
        yield lambda _done: action()

    with monkeypatch.context() as patch:
        patch.setattr(copy, "progress", progress)
        yield


@pytest.mark.parametrize("verify", [[], ["--verify"]])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 * 4096 + 5])
def test_copy(
    tmp_path: Path,
    target: Path,
    size: int,
    verify: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A copy of any size has the same content; without a terminal nothing is printed."""
    monkeypatch.setattr(copy, "CHUNK", 4096)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    assert run_copy(*verify, source, target) == 0
    assert target.read_bytes() == source.read_bytes()
    output, error = capsys.readouterr()
    assert (output, without_tmpfs_warning(error)) == ("", "")


def test_every_granularity(path: Path, target: Path, granularity: object) -> None:
    """The copy is the same on every granularity."""
    assert run_copy("--verify", path, target) == 0
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("mode", "umask", "expected"), [(0o640, 0o022, 0o640), (0o777, 0o027, 0o750), (0o4755, 0, 0o755)]
)
def test_permissions_of_new_file(path: Path, target: Path, mode: int, umask: int, expected: int) -> None:
    """A new file gets the permissions of the source less the umask, as with cp."""
    path.chmod(mode)
    before = os.umask(umask)
    try:
        assert run_copy(path, target) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == expected


def test_replacement_is_atomic(path: Path, target: Path) -> None:
    """A replaced file keeps its permissions; a reader that has it open sees the old content."""
    target.write_bytes(b"before")
    target.chmod(0o4600)
    with open(target, "rb") as before:
        assert run_copy(path, target) == 0
        assert before.read() == b"before"
    assert target.read_bytes() == CONTENT
    assert stat.S_IMODE(target.stat().st_mode) == 0o4600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owner_stays(path: Path, target: Path) -> None:
    """A replaced file keeps its owner."""
    target.touch()
    os.chown(target, 1234, 5678)
    assert run_copy(path, target) == 0
    assert (target.stat().st_uid, target.stat().st_gid) == (1234, 5678)


def test_symlink_stays(path: Path, target: Path) -> None:
    """The target of a symbolic link is replaced, not the link."""
    real = target.parent / "real"
    real.write_bytes(b"before")
    target.symlink_to(real)
    assert run_copy(path, target) == 0
    assert target.is_symlink()
    assert real.read_bytes() == CONTENT


def test_into_directory(path: Path, target: Path) -> None:
    """A copy into a directory gets the name of the source."""
    assert run_copy(path, target.parent) == 0
    assert (target.parent / path.name).read_bytes() == CONTENT
    assert run_copy(path, target.parent) == 0
    link = path.parent / "link"
    link.symlink_to(path)
    assert run_copy(link, target.parent) == 0
    assert sorted(os.listdir(target.parent)) == sorted(["link", path.name])


def test_relative_name(path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without a directory is in the current directory."""
    monkeypatch.chdir(target.parent)
    assert run_copy(path, target.name) == 0
    assert target.read_bytes() == CONTENT


def test_unsupported_sources(tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory, a FIFO, another device and a missing file each cause one line and no file."""
    os.mkfifo(tmp_path / "fifo")
    for source, message in (
        (tmp_path, "neither a regular file nor a DAX device"),
        (tmp_path / "fifo", "neither a regular file nor a DAX device"),
        ("/dev/zero", "neither a regular file nor a DAX device"),
        (tmp_path / "missing", f"{tmp_path / 'missing'}: No such file or directory"),
    ):
        assert message.split(": ")[-1].split(" nor ")[0] in copy_error(capsys, source, target)
    assert not target.exists()


def test_unsupported_destinations(path: Path, tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A FIFO, another device and an invalid path each cause one line."""
    os.mkfifo(tmp_path / "fifo")
    for destination, message in (
        (tmp_path / "fifo", "exists and is neither a regular file nor a DAX device"),
        ("/dev/null", "exists and is neither a regular file nor a DAX device"),
        (tmp_path / "missing/copy", f"{tmp_path / 'missing/copy'}: cannot be created: No such file or directory"),
        (f"{target}/", f"{target}/ is not a directory"),
        ("", "the path is empty"),
    ):
        assert message in copy_error(capsys, path, destination)


@pytest.mark.parametrize("verify", [[], ["--verify"]])
@pytest.mark.parametrize("path", ["/proc/self/limits", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/version"])
def test_source_with_wrong_size(target: Path, path: str, verify: list[str]) -> None:
    """A file of the kernel, whose size is a guess, is copied to its end, as cp does."""
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    assert run_copy(*verify, path, target) == 0
    assert target.read_bytes() == Path(path).read_bytes() != b""


def test_source_that_cannot_be_read(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the kernel that seems empty and cannot be read is an error, not an empty copy."""
    assert copy_error(capsys, "/proc/self/mem", target) == (
        "pmem2: /proc/self/mem: cannot be copied to a temporary file: Input/output error"
    )
    assert not target.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_read_only_file_system(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the path that the user gave."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs")
    try:
        for arguments in (["copy", str(path), f"{folder}/copy"], ["bench", str(folder)], ["demo", str(folder)]):
            assert main(arguments) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"pmem2: {arguments[-1]}: ")
            assert line.endswith(": Read-only file system")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_remove_if_exists(tmp_path: Path) -> None:
    """A hidden file that cannot be removed is an error; a missing one is not."""
    _output.remove_if_exists(str(tmp_path / "missing"))
    with pytest.raises(OSError, match=r"directory|permitted"):
        _output.remove_if_exists(str(tmp_path))


def test_onto_itself(path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is not copied onto itself, whatever its name."""
    os.link(path, target)
    for destination in (path, path.parent, target):
        assert "are the same file" in copy_error(capsys, path, destination)
    assert path.read_bytes() == CONTENT


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every file")
def test_protected_file(path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without write permission is not replaced, even in a writable directory."""
    target.write_bytes(b"before")
    target.chmod(0o444)
    assert "Permission denied" in copy_error(capsys, path, target)
    assert target.read_bytes() == b"before"


def test_permission_denied(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same where root runs the tests: os.access refuses."""
    target.write_bytes(b"before")
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert copy_error(capsys, path, target) == f"pmem2: {target}: Permission denied"
    assert target.read_bytes() == b"before"


def test_full_disk(file: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a full disk the old file stays, and no other file."""
    file.write_bytes(bytes([7]) * 32 * PAGE)
    target = small_disk / "copy"
    target.write_bytes(b"before")
    assert copy_error(capsys, file, target) == (
        f"pmem2: {target}: cannot allocate {32 * PAGE // 1024} KiB: No space left on device"
    )
    assert os.listdir(small_disk) == ["copy"]
    assert target.read_bytes() == b"before"


def test_file_size_limit(path: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file size limit of the process is an error that names the file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, before[1]))
    try:
        message = copy_error(capsys, path, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert message == f"pmem2: {target}: cannot allocate 8 KiB: File too large"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("exists", [False, True])
def test_signal_leaves_old_file(
    path: Path,
    target: Path,
    exists: bool,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A signal during the copy leaves the old file, and no other file."""
    monkeypatch.setattr(copy, "CHUNK", PAGE)
    if exists:
        target.write_bytes(b"before")
    before = signal.signal(number, signal.SIG_DFL)  # a background job may ignore it
    try:
        with after_each_chunk(monkeypatch, lambda: os.kill(os.getpid(), number)):
            assert run_copy(path, target) == 128 + number
    finally:
        signal.signal(number, before)
    assert capsys.readouterr() == ("", "")
    assert target.exists() == exists
    assert not exists or target.read_bytes() == b"before"


def test_source_shrinks(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Truncating the source during the copy is an error and does not kill the process."""
    monkeypatch.setattr(copy, "CHUNK", PAGE)
    with after_each_chunk(monkeypatch, lambda: os.truncate(path, PAGE)):
        assert "4096" in copy_error(capsys, path, target)
    assert not target.exists()


def test_verify_finds_difference(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy that differs from its source is not renamed to its destination."""
    monkeypatch.setattr(copy, "CHUNK", PAGE)

    def spoil(fd: int, *_rest: int) -> None:
        os.pwrite(fd, b"!", PAGE + 123)

    monkeypatch.setattr(os, "posix_fadvise", spoil)
    assert f"{target} differs at byte {PAGE + 123}" in copy_error(capsys, "--verify", path, target)
    assert not target.exists()


def test_progress(path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows the progress of both steps, and a summary at the end."""
    block_imports(monkeypatch, "rich.console")
    monkeypatch.setattr(_terminal, "PROGRESS_DELAY", 0)
    with terminal_output(monkeypatch, "stderr") as printed:
        assert run_copy("--verify", path, target) == 0
    for what in ("copying", "verifying"):
        assert f"{what}: 100 %, 8 KiB of 8 KiB" in printed[0]
    assert re.search(rf"[\r\n]copied 8 KiB to {target} in \S+ [mµn]?s, \S+ .?B/s(, durable)?, verified\n", printed[0])


def test_summary_of_holes(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The summary names the holes; nothing was copied, so there is no speed."""
    source = tmp_path / "hole"
    source.touch()
    os.truncate(source, 64 * PAGE)
    monkeypatch.setattr(copy, "warn_if_volatile", lambda _path: False)
    with terminal_output(monkeypatch, "stderr") as printed:
        assert run_copy(source, target) == 0
    assert re.fullmatch(rf"copied 256 KiB to {target} in \S+ .?s, 256 KiB of holes, durable\n", printed[0])


def test_quiet(path: Path, target: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --quiet, a terminal shows neither progress nor summary nor a warning, but errors."""
    with terminal_output(monkeypatch, "stderr") as printed, open(target, "w+b") as file:
        for destination in (target, small_disk / "copy", f"/proc/self/fd/{file.fileno()}"):
            assert run_copy("--quiet", "--verify", path, destination) == 0
        assert run_copy("-q", path, path) == 1
    assert printed == [f"pmem2: {path} and {path} are the same file\n"]


def test_tmpfs_warning(path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy on tmpfs works, with a warning, and the summary does not call it durable."""
    with terminal_output(monkeypatch, "stderr") as printed:
        assert run_copy(path, small_disk / "copy") == 0
    assert f"pmem2: {small_disk}/copy is on tmpfs, in memory: a power failure or a restart loses it\n" in printed[0]
    assert printed[0].splitlines()[-1].startswith(f"copied 8 KiB to {small_disk}/copy in ")
    assert "durable" not in printed[0]


def test_source_grows(tmp_path: Path) -> None:
    """Bytes that are appended to a source after a hole are not copied."""
    file = tmp_path / "hole"
    file.touch()
    os.truncate(file, 16 * PAGE)
    with pmem2.Source.from_path(file) as source:
        reader = copy.Reader(source)
        with open(file, "ab") as end:
            end.write(bytes(PAGE))
        assert all(offset + length <= 16 * PAGE for offset, length in reader.data_ranges())
        assert all(length > 0 for _, length in reader.data_ranges())


def test_describe_lost() -> None:
    """The lost ranges are merged and listed by offset."""
    assert copy.describe_lost([(4096, 4096), (8192, 4096), (0, 1)]) == "bad blocks: lost 1 at 0, 8192 at 4096 (bytes)"
