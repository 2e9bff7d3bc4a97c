# SPDX-License-Identifier: BSD-3-Clause
"""Ports of PMDK's examples: the C and the Python program print the same output and write the same bytes."""

from __future__ import annotations

import io
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import attrs
import pytest
from support.compiled import compile_c, libpmem2_flags
from support.values import WITHOUT_MSYNC

from examples.importing import EXAMPLES, import_example

C_SOURCES = Path("/usr/share/doc/libpmem2-dev/examples")
MIB = 1 << 20


@attrs.frozen
class Outcome:
    """The exit status of a program, its output, and the content of its files."""

    status: int
    stdout: str = attrs.field(eq=lambda text: re.sub(r"\d+\.\d+", "TIME", text))
    stderr: str = attrs.field(eq=False)  # error texts of libpmem2 and pmem2 differ
    files: tuple[bytes, ...] = ()


class Programs:
    """One example in C, which runs in a process, and in Python, which runs in this process."""

    def __init__(self, name: str, folder: Path) -> None:
        """Compile the C program and import the port."""
        source = C_SOURCES / name / f"{name}.c"
        if not source.exists():
            pytest.skip("needs the examples of libpmem2-dev, which are installed with its documentation")
        if name == "redo" and platform.machine().startswith("ppc"):
            pytest.skip("the C program leaves 128 bytes between the parts of its pool on POWER, and the port 64")
        # Debian omits ex_common.h, and the programs do not need it
        text = source.read_text(encoding="utf-8").replace("#include <ex_common.h>", "")
        # log.c does not include the header of close(), and today's compilers require it
        flags = ["-w", "-include", "unistd.h", *libpmem2_flags(), "-lpthread"]
        self.folder = folder
        self.c = compile_c(text, *flags)
        self.port = import_example(name)

    def run_c(self, *arguments: str) -> Outcome:
        """Run the C program."""
        done = subprocess.run([self.c, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode >= 0, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    def run_port(self, *arguments: str) -> Outcome:
        """Run the Python program."""
        stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with redirect_stdout(stdout), redirect_stderr(io.StringIO()) as stderr:
            status: int = self.port.main([self.port.__name__, *arguments])
        stdout.seek(0)
        return Outcome(status, stdout.read(), stderr.getvalue())

    def run_both(self, *arguments: str, sizes: tuple[int, ...] = (MIB,)) -> Outcome:
        """Run both programs on equal files and return their outcome, which must be the same; keep the files."""
        outcomes = []
        for run in (self.run_c, self.run_port):
            files = [self.folder / f"file{number}" for number in range(len(sizes))]
            for file, size in zip(files, sizes):
                kept = self.folder / f"{file.name}.kept"
                if kept.exists():
                    shutil.copy(kept, file)
                else:
                    file.write_bytes(bytes(size))
            outcome = run(*arguments)
            outcomes.append(attrs.evolve(outcome, files=tuple(file.read_bytes() for file in files)))
        for file in files:
            shutil.copy(file, f"{file}.kept")
        c, port = outcomes
        assert c == port, (c.stderr, port.stderr)
        assert bool(c.stderr) == bool(port.stderr)
        return port


@pytest.fixture
def programs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Both programs of one example, and an empty directory as the current one."""
    monkeypatch.chdir(tmp_path)
    name: str = request.param
    return Programs(name, tmp_path)


@pytest.fixture
def no_msync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Avoid msync, which would take most of the time of a test with many runs."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", WITHOUT_MSYNC)


def port(name: str) -> pytest.MarkDecorator:
    """Run a test with both programs of one example."""
    return pytest.mark.parametrize("programs", [name], indirect=True)


@port("basic")
def test_basic(programs: Programs) -> None:
    """Both programs write the greeting and nothing else."""
    done = programs.run_both("file0")
    assert (done.status, done.stdout) == (0, "")
    assert done.files[0].rstrip(b"\0") == b"hello, persistent memory"


@port("basic")
@pytest.mark.parametrize("arguments", [(), ("file0", "more"), ("missing",)])
def test_basic_refuses(programs: Programs, arguments: tuple[str, ...]) -> None:
    """Both programs refuse wrong usage and a missing file."""
    assert programs.run_both(*arguments).status == 1


@port("basic")
def test_basic_refuses_empty_file(programs: Programs) -> None:
    """Both programs refuse an empty file and name the C function that failed."""
    done = programs.run_both("file0", sizes=(0,))
    assert done.status == 1
    assert done.stderr.startswith("pmem2_map_new: ")


@port("basic")
@pytest.mark.parametrize("size", [1, 10, 24, 25])
def test_basic_with_small_file(programs: Programs, size: int) -> None:
    """Both programs write the part of the greeting that fits."""
    done = programs.run_both("file0", sizes=(size,))
    assert (done.status, done.files) == (0, (b"hello, persistent memory\0"[:size],))


@port("advanced")
@pytest.mark.parametrize(
    ("offset", "length", "status"),
    [
        ("0", "16", 0),
        ("4090", "40", 0),
        ("8191", "1", 0),
        ("0", "0", 0),
        ("5", "0", 0),
        ("7x", "3", 0),
        (" \v+7", "3", 0),
        ("4294967296", "3", 0),
        ("99999999999999999999", "3", 1),
        ("-4294967289", "4294967299", 0),
        ("\u0663", "2", 0),
        ("x", "y", 0),
        ("0", "8193", 1),
        ("8192", "1", 1),
        ("-1", "1", 1),
    ],
)
def test_advanced(programs: Programs, offset: str, length: str, status: int) -> None:
    """Both programs print the same bytes for any offset and length."""
    (programs.folder / "file0.kept").write_bytes(bytes(range(256)) * 32)
    done = programs.run_both("file0", offset, length)
    assert done.status == status


@port("advanced")
def test_advanced_length_overflow(programs: Programs) -> None:
    """A length that wraps around kills the C program; the port reports it."""
    (programs.folder / "file0").write_bytes(bytes(4096))
    done = programs.run_port("file0", "5", "-1")
    assert done.status == 1
    assert done.stderr.startswith("length must be <=")


LOG = [
    ("append", "Hello"),
    ("append", "one", "append", "two", "dump"),
    ("appendv", "3", "a", "bc", "", "dump"),
    ("dump", "rewind", "dump"),
    ("append", "End of file.", "dump"),
    ("appendv", "2", "only"),
    ("appendv", "0", "x"),
    ("appendv", "x", "x"),
    ("appendv", "0x", "x"),
    ("appendv", "18446744073709551616", "x"),
    ("appendv", "0x2", "18", "19"),
    ("appendv", " +02z", "20", "21"),
    ("appendv", "08", "22"),
    ("appendv", "010", "1", "2", "3", "4", "5", "6", "7", "8", "dump"),
    ("append",),
    ("nonsense",),
    ("append", "kept", "nonsense", "append", "not reached"),
    ("dump",),
]


@pytest.mark.usefixtures("no_msync")
@port("log")
def test_log(programs: Programs) -> None:
    """Each program continues the log of the other, whatever the commands."""
    for commands in LOG:
        done = programs.run_both("file0", *commands)
    assert done.stdout == "End of file.1819202112345678kept\n"


@port("log")
def test_log_help(programs: Programs) -> None:
    """Both programs print their help, on request and on wrong usage."""
    assert programs.run_both("help").status == 0
    assert programs.run_both().status == 1


@port("log")
@pytest.mark.parametrize("size", [0, 4096, MIB - 4096])
def test_log_needs_space(programs: Programs, size: int) -> None:
    """Both programs refuse a small file."""
    assert programs.run_both("file0", "dump", sizes=(size,)).status != 0


@port("log")
@pytest.mark.parametrize("missing", [0, 1, 3, -1])
def test_log_full(programs: Programs, missing: int) -> None:
    """Both programs detect a log that is full, nearly full, or longer than the file."""
    used = MIB - 24 - missing
    header = b"PMEM2_LOG\0".ljust(16, b"\0") + used.to_bytes(8, sys.byteorder)
    (programs.folder / "file0.kept").write_bytes(header.ljust(MIB, b"."))
    assert programs.run_both("file0", "append", "ab").status == (0 if missing == 3 else 1)


@port("map_multiple_files")
@pytest.mark.parametrize("sizes", [(4096,), (8192, 4096, 3 * 4096), (2 * MIB, 4 * MIB)])
def test_map_multiple_files(programs: Programs, sizes: tuple[int, ...]) -> None:
    """Both programs fill all files with dashes."""
    done = programs.run_both(*(f"file{number}" for number in range(len(sizes))), sizes=sizes)
    assert done.files == tuple(b"-" * size for size in sizes)


@port("map_multiple_files")
def test_map_multiple_files_reports_cause(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file becomes empty after the checks, all maps are released and the error names the cause."""
    for name in ("file0", "file1"):
        (programs.folder / name).write_bytes(bytes(4096))
    monkeypatch.setattr(programs.port, "check", lambda _sources: os.truncate("file1", 0))
    done = programs.run_port("file0", "file1")
    assert done.status == 1
    assert done.stderr.startswith("pmem2_map_new: ")
    assert "length is equal 0" in done.stderr


@port("map_multiple_files")
@pytest.mark.parametrize(("names", "size"), [((), 4096), (("file0",), 100), (("file0", "missing"), 4096)])
def test_map_multiple_files_refuses(programs: Programs, names: tuple[str, ...], size: int) -> None:
    """Both programs refuse to run without files, with a missing file, and with partial pages."""
    done = programs.run_both(*names, sizes=(size,))
    assert done.status == 1
    assert not any(done.files[0])


REDO = [
    ("print",),
    ("dump",),
    ("check",),
    ("add",),
    ("add", "1", "10"),
    ("add", "2", "20", "3", "30", "0", "0"),
    ("add", "7", "70"),
    ("check",),
    ("add", "2", "21", "0x10", "160", "-1", "1"),
    ("add", "5"),
    ("add", "5", "6", "seven", "8"),
    ("print", "more"),
    ("nonsense",),
    ("print",),
    ("dump",),
    ("check",),
]


@port("redo")
@pytest.mark.parametrize(
    "key",
    [
        *("010", "08", "0", "0x", "0X1f", "0xg", "0b1", "0o7", "1_000", "x", "", " ", " 7", "7 ", "+7", "-010", "--1"),
        *(sign + str(2**64 - less) for sign in ("", "-") for less in (0, 1)),
        "\u0663",
    ],
)
def test_redo_reads_numbers(programs: Programs, key: str) -> None:
    """Both programs read numbers as strtoull does, and refuse the rest with the same text."""
    done = programs.run_both("add", "file0", key, "1", sizes=(8192,))
    assert done.stderr == ("" if done.status == 0 else f"invalid argument {key}\n")


@port("redo")
@pytest.mark.parametrize("command", ["print", "dump", "check", "add"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({8: 1, 0: 1000}, "redo log of 1000 entries"),
        ({144: 10**6}, "pool of 1000000 nodes"),
        ({144: 2, 152 + 16: 1, 192 + 16: 0}, "check failed"),
    ],
)
def test_redo_with_damaged_pool(programs: Programs, command: str, words: dict[int, int], message: str) -> None:
    """The C program reads out of bounds or loops; the port ends, and reports the damage on `check`."""
    content = bytearray(8192)
    for offset, word in words.items():
        content[offset : offset + 8] = word.to_bytes(8, sys.byteorder)
    (programs.folder / "file0").write_bytes(content)
    done = programs.run_port(command, "file0")
    if message != "check failed" or command == "check":
        assert done.status == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert (done.status, done.stderr) == (0, "")


@pytest.mark.usefixtures("no_msync")
@port("redo")
def test_redo(programs: Programs) -> None:
    """Each program continues the list of the other, down to stale log entries."""
    for command, *rest in REDO:
        done = programs.run_both(command, "file0", *rest, sizes=(8192,))
    assert done.status == 0
    keys = [line.split()[0] for line in programs.run_both("print", "file0", sizes=(8192,)).stdout.splitlines()]
    assert keys == ["0", "1", "2", "2", "3", "5", "7", "16", str(2**64 - 1)]


@port("redo")
@pytest.mark.parametrize("apply", [0, 1])
def test_redo_after_interruption(programs: Programs, apply: int) -> None:
    """A complete redo log is applied at the next start, an incomplete one is dropped."""
    words = [2, apply, *[0] * 6, 152, 11, 160, 12]
    log = b"".join(word.to_bytes(8, sys.byteorder) for word in words)
    (programs.folder / "file0.kept").write_bytes(log.ljust(8192, b"\0"))
    done = programs.run_both("add", "file0", sizes=(8192,))
    assert done.files[0][:64] == bytes(64)
    assert done.files[0][152] == 11 * apply


@port("redo")
@pytest.mark.parametrize("offset", [128, 152 + 8, 152 + 16, 152 + 40 + 16])
def test_redo_with_broken_list(programs: Programs, offset: int) -> None:
    """Both programs detect a broken list."""
    programs.run_both("add", "file0", "1", "10", "2", "20", sizes=(8192,))
    kept = programs.folder / "file0.kept"
    content = bytearray(kept.read_bytes())
    content[offset : offset + 8] = (
        (1).to_bytes(8, sys.byteorder) if offset == 152 + 8 else (77).to_bytes(8, sys.byteorder)
    )
    kept.write_bytes(content)
    assert programs.run_both("check", "file0", sizes=(8192,)).status == 1


@port("redo")
def test_redo_needs_space(programs: Programs) -> None:
    """Both programs refuse a small file."""
    assert programs.run_both("print", "file0", sizes=(4096,)).status == 1


@pytest.mark.usefixtures("no_msync")
@port("ringbuf")
def test_ringbuf(programs: Programs) -> None:
    """Each program continues the ring buffer of the other; only the times differ."""
    for operations in ("64", "1x", " +300"):
        done = programs.run_both("file0", "10000", operations)
        assert re.fullmatch(r"Time elapsed: \S+ seconds\nBandwidth: \S+ megabytes per second\n", done.stdout)
    entries = (MIB - 128) // 10000
    read, write = (int.from_bytes(done.files[0][offset : offset + 8], sys.byteorder) for offset in (64, 72))
    assert read == write == 365 % entries


@port("ringbuf")
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        *(("file0", size, "1") for size in ("0", "-1", str((2 << 20) + 1))),
        ("file0", "1", "x"),
        ("missing", "1", "1"),
    ],
)
def test_ringbuf_refuses(programs: Programs, arguments: tuple[str, ...]) -> None:
    """Both programs refuse wrong usage."""
    assert programs.run_both(*arguments).status == 1


@port("ringbuf")
def test_ringbuf_with_other_size(programs: Programs) -> None:
    """Both programs detect a ring buffer with another entry size or number of entries."""
    programs.run_both("file0", "100", "5")
    assert programs.run_both("file0", "200", "5").stderr == "entry size (100) different than provided (200)\n"
    (programs.folder / "file0.kept").write_bytes((programs.folder / "file0").read_bytes()[: MIB // 2])
    assert "number of entries" in programs.run_both("file0", "100", "5").stderr


TEXTS = [
    ("read",),
    ("write", "foobar"),
    ("read",),
    ("write", ""),
    ("read",),
    ("write",),
    ("write", "x" * 4096),
    ("read",),
]


@pytest.mark.usefixtures("no_msync")
@port("unsafe_shutdown")
@pytest.mark.parametrize(("known", "flags"), [(False, 0), (False, 3), *((True, flags) for flags in range(5))])
def test_unsafe_shutdown(programs: Programs, known: bool, flags: int) -> None:
    """Both programs write the same file, new or known, closed or not, and warn of the same."""
    words = flags.to_bytes(8, sys.byteorder) + (4096).to_bytes(8, sys.byteorder)
    header = (b"SHUTDOWN" if known else b"").ljust(16, b"\0") + words
    (programs.folder / "file0.kept").write_bytes(header.ljust(4096 - 9, b"\0") + b"leftovers")
    for command, *text in TEXTS:
        done = programs.run_both(command, "file0", *text, sizes=(4096,))
        assert "Unsafe shutdown count" in done.stderr or "device_usc" in done.stderr


@port("unsafe_shutdown")
@pytest.mark.parametrize("arguments", [(), ("read",), ("erase", "file0"), ("read", "missing")])
def test_unsafe_shutdown_refuses(programs: Programs, arguments: tuple[str, ...]) -> None:
    """Both programs refuse wrong usage and a missing file."""
    assert programs.run_both(*arguments).status == 1


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_short(example: Path) -> None:
    """Every example has fewer than 120 lines."""
    assert len(example.read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_script(example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every example runs as a script: without arguments it prints its usage and fails."""
    pytest.importorskip({"numpy_array": "numpy", "dask_array": "dask.array"}.get(example.stem, "pmem2"))
    monkeypatch.setattr("sys.argv", [str(example)])
    monkeypatch.syspath_prepend(EXAMPLES)
    with pytest.raises(SystemExit, match=r"^1$"):
        runpy.run_path(str(example), run_name="__main__")
    assert "usage" in "".join(capsys.readouterr()).lower()
