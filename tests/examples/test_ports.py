# SPDX-License-Identifier: BSD-3-Clause
"""The examples and PMDK's C programs, in turn on the same file: the same output, the same bytes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

PORTS = Path(__file__).parents[2] / "examples"
C_SOURCES = Path("/usr/share/doc/libpmem2-dev/examples")
MIB = 1 << 20


@attrs.frozen
class Outcome:
    """How a program ended, what it printed, and what it left in its files."""

    status: int
    output: str
    files: tuple[bytes, ...]
    complaint: str = attrs.field(eq=False)  # libpmem2's own words differ from ours
    said: str = attrs.field(eq=False)


class Programs:
    """An example, in C and in Python."""

    def __init__(self, name: str, folder: Path) -> None:
        """Compile the C program."""
        self.folder = folder
        self.c = [str(folder / f"{name}.out")]
        self.python = [sys.executable, str(PORTS / f"{name}.py")]
        source = C_SOURCES / name / f"{name}.c"
        if not source.exists() or shutil.which("cc") is None:
            pytest.skip("needs a C compiler and the examples of libpmem2-dev, which are installed with documentation")
        (folder / "ex_common.h").touch()  # Debian leaves it out; nothing of it is needed
        # log.c leaves the header of close() out, which compilers of today refuse
        options = ["-w", "-include", "unistd.h", f"-I{folder}", "-lpmem2", "-lpthread"]
        subprocess.run(["cc", str(source), "-o", self.c[0], *options], check=True)

    def run(self, program: list[str], arguments: tuple[str, ...], files: list[Path]) -> Outcome:
        """Run one of them."""
        done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False, cwd=self.folder)
        assert done.returncode >= 0, done.stderr
        output = re.sub(r"\d+\.\d+", "TIME", done.stdout)
        content = tuple(file.read_bytes() for file in files)
        return Outcome(done.returncode, output, content, done.stderr, done.stdout)

    def both(self, *arguments: str, sizes: tuple[int, ...] = (MIB,)) -> Outcome:
        """Run both on files alike, assert that they agree, and return the outcome; the files stay."""
        outcomes = []
        for program in (self.c, self.python):
            files = [self.folder / f"file{number}" for number in range(len(sizes))]
            for file, size in zip(files, sizes):
                kept = self.folder / f"{file.name}.kept"
                if kept.exists():
                    shutil.copy(kept, file)
                else:
                    file.write_bytes(bytes(size))
            outcomes.append(self.run(program, arguments, files))
        for file in files:
            shutil.copy(file, f"{file}.kept")
        c, python = outcomes
        assert c == python, (c.complaint, python.complaint)
        assert bool(c.complaint) == bool(python.complaint)
        return python


@pytest.fixture
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> Programs:
    """The programs of a name."""
    name: str = request.param
    return Programs(name, tmp_path)


def port(name: str) -> pytest.MarkDecorator:
    """Run a test with the programs of that name."""
    return pytest.mark.parametrize("programs", [name], indirect=True)


@port("basic")
def test_basic(programs: Programs) -> None:
    """Both write the greeting and nothing else."""
    done = programs.both("file0")
    assert (done.status, done.output) == (0, "")
    assert done.files[0].rstrip(b"\0") == b"hello, persistent memory"


@port("basic")
@pytest.mark.parametrize("arguments", [(), ("file0", "more"), ("missing",)])
def test_basic_refuses(programs: Programs, arguments: tuple[str, ...]) -> None:
    """Both refuse wrong usage and a file that does not exist."""
    assert programs.both(*arguments).status == 1


@port("basic")
def test_basic_refuses_an_empty_file(programs: Programs) -> None:
    """Both refuse an empty file, and say which function did."""
    done = programs.both("file0", sizes=(0,))
    assert done.status == 1
    assert done.complaint.startswith("pmem2_map_new: ")


@port("basic")
@pytest.mark.parametrize("size", [1, 10, 24, 25])
def test_basic_of_a_small_file(programs: Programs, size: int) -> None:
    """Both write as much of the greeting as there is room for."""
    done = programs.both("file0", sizes=(size,))
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
    """Both show the same bytes, of any place."""
    (programs.folder / "file0.kept").write_bytes(bytes(range(256)) * 32)
    done = programs.both("file0", offset, length)
    assert done.status == status


@port("advanced")
def test_advanced_of_more_than_there_is(programs: Programs) -> None:
    """The C program dies of a length that wraps; ours says what is wrong."""
    (programs.folder / "file0").write_bytes(bytes(4096))
    done = programs.run(programs.python, ("file0", "5", "-1"), [])
    assert done.status == 1
    assert done.complaint.startswith("length must be at most")


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


@port("log")
def test_log(programs: Programs) -> None:
    """One goes on where the other ended, whatever the commands."""
    for commands in LOG:
        done = programs.both("file0", *commands)
    assert done.output == "End of file.1819202112345678kept\n"


@port("log")
def test_log_help(programs: Programs) -> None:
    """Both explain themselves, to whoever asks and to whoever does not."""
    assert programs.both("help").status == 0
    assert programs.both().status == 1


@port("log")
@pytest.mark.parametrize("size", [0, 4096, MIB - 4096])
def test_log_needs_space(programs: Programs, size: int) -> None:
    """Both refuse a small file."""
    assert programs.both("file0", "dump", sizes=(size,)).status != 0


@port("log")
@pytest.mark.parametrize("missing", [0, 1, 3, -1])
def test_log_full(programs: Programs, missing: int) -> None:
    """Both see that the log is full, nearly full, or longer than the file."""
    used = MIB - 24 - missing
    header = b"PMEM2_LOG\0".ljust(16, b"\0") + used.to_bytes(8, sys.byteorder)
    (programs.folder / "file0.kept").write_bytes(header.ljust(MIB, b"."))
    assert programs.both("file0", "append", "ab").status == (0 if missing == 3 else 1)


@port("map_multiple_files")
@pytest.mark.parametrize("sizes", [(4096,), (8192, 4096, 3 * 4096), (2 * MIB, 4 * MIB)])
def test_map_multiple_files(programs: Programs, sizes: tuple[int, ...]) -> None:
    """Both fill all files with dashes."""
    done = programs.both(*(f"file{number}" for number in range(len(sizes))), sizes=sizes)
    assert done.files == tuple(b"-" * size for size in sizes)


EMPTIED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import map_multiple_files
map_multiple_files.check = lambda sources: os.truncate("file1", 0)
sys.exit(map_multiple_files.main(["", "file0", "file1"]))
"""


@port("map_multiple_files")
def test_map_multiple_files_tells_why_one_cannot_be_mapped(programs: Programs) -> None:
    """It is emptied when all was well: what was mapped before is unmapped, and nothing else is told."""
    for name in ("file0", "file1"):
        (programs.folder / name).write_bytes(bytes(4096))
    done = programs.run([sys.executable, "-c", EMPTIED, str(PORTS)], (), [])
    assert done.status == 1
    assert done.complaint.startswith("pmem2_map_new: ")
    assert "length is equal 0" in done.complaint


@port("map_multiple_files")
@pytest.mark.parametrize(("names", "size"), [((), 4096), (("file0",), 100), (("file0", "missing"), 4096)])
def test_map_multiple_files_refuses(programs: Programs, names: tuple[str, ...], size: int) -> None:
    """Both refuse to do without files, and files that are not whole pages."""
    done = programs.both(*names, sizes=(size,))
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
    """Both read a number as strtoull does, or refuse it in the same words."""
    done = programs.both("add", "file0", key, "1", sizes=(8192,))
    assert done.complaint == ("" if done.status == 0 else f"invalid argument {key}\n")


@port("redo")
@pytest.mark.parametrize("command", ["print", "dump", "check", "add"])
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({8: 1, 0: 1000}, "redo log of 1000 entries"),
        ({144: 10**6}, "pool of 1000000 nodes"),
        ({144: 2, 152 + 16: 1, 192 + 16: 0}, "check failed"),
    ],
)
def test_redo_of_a_damaged_pool(programs: Programs, command: str, words: dict[int, int], complaint: str) -> None:
    """The C program reads past the end, or goes round for ever; ours ends, and says what is wrong if it is asked."""
    content = bytearray(8192)
    for place, word in words.items():
        content[place : place + 8] = word.to_bytes(8, sys.byteorder)
    (programs.folder / "file0").write_bytes(content)
    done = programs.run(programs.python, (command, "file0"), [])
    if complaint != "check failed" or command == "check":
        assert done.status == 1
        assert complaint in done.complaint
        assert "Traceback" not in done.complaint
    else:
        assert (done.status, done.complaint) == (0, "")


@port("redo")
def test_redo(programs: Programs) -> None:
    """One goes on where the other ended: the list, and the stale entries of the log, are the same bytes."""
    for command, *rest in REDO:
        done = programs.both(command, "file0", *rest, sizes=(8192,))
    assert done.status == 0
    keys = [line.split()[0] for line in programs.both("print", "file0", sizes=(8192,)).output.splitlines()]
    assert keys == ["0", "1", "2", "2", "3", "5", "7", "16", str(2**64 - 1)]


@port("redo")
@pytest.mark.parametrize("apply", [0, 1])
def test_redo_of_an_interrupted_run(programs: Programs, apply: int) -> None:
    """What was logged is applied at the next start if it was whole, else forgotten."""
    words = [2, apply, *[0] * 6, 152, 11, 160, 12]
    log = b"".join(word.to_bytes(8, sys.byteorder) for word in words)
    (programs.folder / "file0.kept").write_bytes(log.ljust(8192, b"\0"))
    done = programs.both("add", "file0", sizes=(8192,))
    assert done.files[0][:64] == bytes(64)
    assert done.files[0][152] == 11 * apply


@port("redo")
@pytest.mark.parametrize("place", [128, 152 + 8, 152 + 16, 152 + 40 + 16])
def test_redo_of_a_broken_list(programs: Programs, place: int) -> None:
    """Both see a list that is not whole."""
    programs.both("add", "file0", "1", "10", "2", "20", sizes=(8192,))
    kept = programs.folder / "file0.kept"
    content = bytearray(kept.read_bytes())
    content[place : place + 8] = (1).to_bytes(8, sys.byteorder) if place == 152 + 8 else (77).to_bytes(8, sys.byteorder)
    kept.write_bytes(content)
    assert programs.both("check", "file0", sizes=(8192,)).status == 1


@port("redo")
def test_redo_needs_space(programs: Programs) -> None:
    """Both refuse a small file."""
    assert programs.both("print", "file0", sizes=(4096,)).status == 1


@port("ringbuf")
def test_ringbuf(programs: Programs) -> None:
    """What one leaves the other goes on with; only the times differ."""
    for operations in ("64", "1x", " +300"):
        done = programs.both("file0", "10000", operations)
        assert re.fullmatch(r"Time elapsed: \S+ seconds\nBandwidth: \S+ megabytes per second\n", done.said)
    entries = (MIB - 128) // 10000
    read, write = (int.from_bytes(done.files[0][place : place + 8], sys.byteorder) for place in (64, 72))
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
    """Both refuse wrong usage."""
    assert programs.both(*arguments).status == 1


@port("ringbuf")
def test_ringbuf_of_another_size(programs: Programs) -> None:
    """Both see that the ring buffer is another one."""
    programs.both("file0", "100", "5")
    assert programs.both("file0", "200", "5").complaint == "entry size (100) different than provided (200)\n"
    programs.folder.joinpath("file0.kept").write_bytes(programs.folder.joinpath("file0").read_bytes()[: MIB // 2])
    assert "number of entries" in programs.both("file0", "100", "5").complaint


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


@port("unsafe_shutdown")
@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("known", [False, True])
def test_unsafe_shutdown(programs: Programs, known: bool, flags: int) -> None:
    """Both leave the same file, new or known, closed or not, and complain of the same."""
    words = flags.to_bytes(8, sys.byteorder) + (4096).to_bytes(8, sys.byteorder)
    header = (b"SHUTDOWN" if known else b"").ljust(16, b"\0") + words
    (programs.folder / "file0.kept").write_bytes(header.ljust(4096 - 9, b"\0") + b"leftovers")
    for command, *text in TEXTS:
        done = programs.both(command, "file0", *text, sizes=(4096,))
        assert "Unsafe shutdown count" in done.complaint or "device_usc" in done.complaint


@port("unsafe_shutdown")
@pytest.mark.parametrize("arguments", [(), ("read",), ("erase", "file0"), ("read", "missing")])
def test_unsafe_shutdown_refuses(programs: Programs, arguments: tuple[str, ...]) -> None:
    """Both refuse wrong usage, and a file that does not exist."""
    assert programs.both(*arguments).status == 1


@pytest.mark.parametrize("example", sorted(PORTS.glob("*.py")), ids=lambda path: path.name)
def test_short(example: Path) -> None:
    """An example is one that can be read at once."""
    assert len(example.read_text(encoding="utf-8").splitlines()) < 120
