# SPDX-License-Identifier: BSD-3-Clause
"""Our own examples: their classes in one process, in two processes, and their command lines."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from support.values import WITHOUT_MSYNC

import pmem2
from examples.importing import EXAMPLES, import_example
from pmem2.testing import explore

SIZE = 1 << 16


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pmem2.Map]:
    """A map of zeros, without msync, which would take most of the time of these tests."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", WITHOUT_MSYNC)
    with pmem2.open(tmp_path / "memory", "w+", size=SIZE) as map:
        yield map


@pytest.fixture
def same_memory(memory: pmem2.Map, tmp_path: Path) -> Iterator[pmem2.Map]:
    """A second map of the same file, as in another process."""
    with pmem2.open(tmp_path / "memory") as map:
        yield map


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    """Start an example."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_process(name: str, *arguments: str) -> tuple[int, str, str]:
    """Run an example in a process; return its status, its output and its errors."""
    with start(name, *arguments) as process:
        output, error = process.communicate(timeout=60)
    return process.returncode, output, error


def run(name: str, *arguments: str) -> tuple[int, str, str]:
    """Run an example in this process; return its status, its output and its errors."""
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as error:
        status: int = import_example(name).main([name, *arguments])
    return status, output.getvalue(), error.getvalue()


# ---- append_queue.py


def test_queue_keeps_order(memory: pmem2.Map, same_memory: pmem2.Map) -> None:
    """The consumer takes records in the order of the producer, also when the ring wraps around."""
    queue = import_example("append_queue")
    producer, consumer = queue.AppendQueue(memory), queue.AppendQueue(same_memory)
    expected: list[bytes] = []
    for number in range(1000):
        record = bytes([number % 256]) * (number * 37 % 301)
        producer.put(record)
        expected.append(record)
        if number % 3 == 2:
            assert list(consumer.take_all()) == expected
            expected.clear()
    assert memory.load_u64(queue.TAIL) > 2 * SIZE


def test_queue_redelivers(memory: pmem2.Map, same_memory: pmem2.Map) -> None:
    """A record stays in the queue until the consumer asks for the next one."""
    queue = import_example("append_queue")
    for text in (b"first", b"second"):
        queue.AppendQueue(memory).put(text)
    taking = queue.AppendQueue(memory).take_all()
    assert next(taking) == b"first"
    assert next(taking) == b"second"
    assert list(queue.AppendQueue(same_memory).take_all()) == [b"second"]
    assert queue.AppendQueue(same_memory).first() is None


def test_queue_full(memory: pmem2.Map) -> None:
    """A record that does not fit changes nothing; it fits when others are taken."""
    queue = import_example("append_queue").AppendQueue(memory)
    half = bytes(SIZE // 2)
    queue.put(half)
    with pytest.raises(ValueError, match="full"):
        queue.put(half)
    assert list(queue.take_all()) == [half]
    queue.put(half)
    assert queue.first() == half


def test_queue_of_two_processes(tmp_path: Path) -> None:
    """A process takes the records of processes that have ended."""
    path = str(tmp_path / "queue")
    assert run_process("append_queue", path, "put", "one", "two") == (0, "", "")
    assert run("append_queue", path, "put", "three") == (0, "", "")
    assert run_process("append_queue", path, "take") == (0, "one\ntwo\nthree\n", "")
    assert run("append_queue", path, "take") == (0, "", "")


# ---- table.py


def test_table_is_mapping(memory: pmem2.Map, same_memory: pmem2.Map) -> None:
    """A table behaves like a dict, and another map of the file sees the same."""
    table = import_example("table")
    writer, reader = table.Table(memory), table.Table(same_memory)
    expected: dict[bytes, bytes] = {}
    for number in range(300):
        key, value = b"%d" % (number * 7 % 40), b"v" * (number % 60)
        if number % 5 == 4 and key in expected:
            del writer[key], expected[key]
        else:
            writer[key] = expected[key] = value
        assert dict(reader) == expected
    assert len(reader) == len(expected)
    assert b"missing" not in reader
    with pytest.raises(KeyError):
        del writer[b"missing"]


def test_table_full(memory: pmem2.Map) -> None:
    """A full table refuses new records and keeps the old ones."""
    table = import_example("table").Table(memory)
    table[b"key"] = b"old"
    with pytest.raises(ValueError, match="full"):
        table[b"key"] = bytes(SIZE)
    with pytest.raises(ValueError, match="full"):
        table.update((b"%d" % number, bytes(number)) for number in range(SIZE))
    assert table[b"key"] == b"old"
    assert [len(table[b"%d" % number]) for number in range(len(table) - 1)] == list(range(len(table) - 1))
    assert len(table) > 100


def test_table_commands(tmp_path: Path) -> None:
    """A command reads the values that another command has set."""
    path = str(tmp_path / "table")
    assert run("table", path, "set", "city", "Berlin") == (0, "", "")
    assert run("table", path, "set", "city", "Bern") == (0, "", "")
    assert run("table", path, "set", "river", "Aare") == (0, "", "")
    assert run("table", path, "list") == (0, "city = Bern\nriver = Aare\n", "")
    assert run("table", path, "del", "river") == (0, "", "")
    assert run("table", path, "get", "river") == (1, "", "no such key: b'river'\n")


# ---- shared_header.py


def test_header_shows_whole_messages(memory: pmem2.Map, same_memory: pmem2.Map) -> None:
    """A reader sees whole messages, and a new writer continues the numbering."""
    header = import_example("shared_header")
    assert header.is_new(same_memory)  # so a reader waits
    header.Writer(memory)
    assert not header.is_new(same_memory)
    assert header.latest(same_memory) == (0, b"")
    for number in range(1, 50):
        message = bytes([number]) * (number * 5 % header.MAX_LENGTH)
        header.Writer(memory).publish(message)
        assert header.latest(same_memory) == (number, message)
    with pytest.raises(ValueError, match="at most"):
        header.Writer(memory).publish(bytes(SIZE))
    assert header.latest(same_memory)[0] == 49


def test_header_reader_process(memory: pmem2.Map, tmp_path: Path) -> None:
    """A polling process sees published messages in order, up to the last one."""
    header = import_example("shared_header")
    writer = header.Writer(memory)
    writer.publish(b"begin")
    with start("shared_header", str(tmp_path / "memory"), "read") as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "1 begin\n"
        for number in range(2, 200):
            writer.publish(b"message %d" % number)
        writer.publish(header.END)
        output, error = reader.communicate(timeout=60)
    assert (reader.returncode, error) == (0, "")
    lines = [line.split(" ", 1) for line in output.splitlines()]
    assert lines.pop() == ["200", "end"]
    assert [text for _, text in lines] == [f"message {number}" for number, _ in lines]
    assert [int(number) for number, _ in lines] == sorted({int(number) for number, _ in lines})


def test_header_needs_space(tmp_path: Path) -> None:
    """A small file is refused."""
    path = tmp_path / "small"
    path.write_bytes(bytes(100))
    status, _, error = run("shared_header", str(path), "read")
    assert (status, error) == (1, f"{path} has 100 bytes, but needs 576\n")


# ---- numpy_array.py


def test_array_saves_changed_rows(memory: pmem2.Map, same_memory: pmem2.Map) -> None:
    """Changed rows are in memory, and after a save no row counts as changed."""
    pytest.importorskip("numpy")
    matrix = import_example("numpy_array").Matrix(memory)
    matrix[2] = (1.0, 2.0, 3.0, 4.0)
    matrix[-1] = (5.0, 6.0, 7.0, 8.0)
    assert matrix.changed == {2, len(matrix.array) - 1}
    matrix.save()
    assert not matrix.changed
    matrix.close()
    with same_memory.view() as view, view.cast("d") as numbers:
        assert numbers[8:12].tolist() == [1.0, 2.0, 3.0, 4.0]
        assert numbers[-4:].tolist() == [5.0, 6.0, 7.0, 8.0]


def test_array_commands(tmp_path: Path) -> None:
    """A command shows the rows that another command has set."""
    pytest.importorskip("numpy")
    path = str(tmp_path / "array")
    assert run("numpy_array", path, "set", "3", "1", "2", "3", "4.5") == (0, "3 1.0 2.0 3.0 4.5\n", "")
    assert run("numpy_array", path, "show") == (0, "3 1.0 2.0 3.0 4.5\n", "")
    status, output, error = run("numpy_array", path, "set", "9999", "1", "2", "3", "4")
    assert (status, output) == (1, "")
    assert "9999" in error


@pytest.mark.parametrize("name", ["append_queue", "numpy_array", "shared_header", "table"])
def test_usage(name: str) -> None:
    """Wrong usage prints the usage."""
    if name == "numpy_array":
        pytest.importorskip("numpy")
    status, output, error = run(name, "file", "nonsense")
    assert (status, output) == (1, "")
    assert error.startswith("usage: ")


FOREIGN = [
    b"another program's data\n" * 1000,
    bytes(1024) + b"a disk image begins with zeros" + bytes(SIZE),
    b"PMQUEUE\n" + (2).to_bytes(8, sys.byteorder) + bytes(4096),
]


@pytest.mark.parametrize("content", FOREIGN, ids=["text", "zeros-first", "other-version"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("append_queue", ["take"]),
        ("append_queue", ["put", "text"]),
        ("table", ["set", "key", "value"]),
        ("table", ["list"]),
        ("shared_header", ["write", "text"]),
        ("shared_header", ["read"]),
    ],
)
def test_foreign_file_is_refused(name: str, arguments: list[str], content: bytes, tmp_path: Path) -> None:
    """A file of another program stops the example with one line, and is unchanged."""
    path = tmp_path / "foreign"
    if name == "shared_header" and content.startswith(bytes(1024)):
        content = content[600:]  # it uses the first 576 bytes only, as those of a device
    path.write_bytes(content)
    status, output, error = run(name, str(path), *arguments)
    assert (status, output) == (1, "")
    assert re.fullmatch(r"not a (queue|table|shared header): magic, version and size are \(b'.*', \d+, \d+\)\n", error)
    assert path.read_bytes() == content


def test_new_header_survives() -> None:
    """Each example makes the header of a map of zeros, also if the power fails while it does."""
    for name, kind in (("append_queue", "AppendQueue"), ("table", "Table"), ("shared_header", "Writer")):
        make = getattr(import_example(name), kind)
        for granularity in pmem2.Granularity:
            report = explore(make, discard, size=1024, recover=make, granularity=granularity)
            assert report.exhaustive


def discard(map: pmem2.Map) -> None:
    """Accept every map."""
