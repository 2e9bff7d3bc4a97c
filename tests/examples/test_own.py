# SPDX-License-Identifier: BSD-3-Clause
"""Our own examples: what they promise, within a process, between two, and from the command line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pmem2

FOLDER = Path(__file__).parents[2] / "examples"
SIZE = 1 << 16


def example(name: str) -> ModuleType:
    """Return an example as a module."""
    return script(FOLDER / f"{name}.py")


def script(path: Path) -> ModuleType:
    """Return a program as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pmem2.Map]:
    """A map of zeros; without msync, which would take most of the time of these tests."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE")
    with pmem2.open(tmp_path / "memory", "w+", size=SIZE) as map:
        yield map


@pytest.fixture
def again(memory: pmem2.Map, tmp_path: Path) -> Iterator[pmem2.Map]:
    """The same memory, as another process maps it."""
    with pmem2.open(tmp_path / "memory") as map:
        yield map


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    """Start an example."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(name: str, *arguments: str) -> tuple[int, str, str]:
    """Run an example; return its status and what it printed."""
    with start(name, *arguments) as process:
        output, complaint = process.communicate(timeout=60)
    return process.returncode, output, complaint


# ---- append_queue.py


def test_queue_keeps_the_order_through_many_rounds(memory: pmem2.Map, again: pmem2.Map) -> None:
    """What one end puts the other takes, in order, whatever the lengths, and however often the ring goes round."""
    queue = example("append_queue")
    producer, consumer = queue.AppendQueue(memory), queue.AppendQueue(again)
    expected: list[bytes] = []
    for number in range(1000):
        record = bytes([number % 256]) * (number * 37 % 301)
        producer.put(record)
        expected.append(record)
        if number % 3 == 2:
            assert list(consumer.take_all()) == expected
            expected.clear()
    assert memory.load_u64(queue.TAIL) > 2 * SIZE


def test_queue_delivers_again_what_was_not_dealt_with(memory: pmem2.Map, again: pmem2.Map) -> None:
    """A record stays until the next one is asked for."""
    queue = example("append_queue")
    for text in (b"first", b"second"):
        queue.AppendQueue(memory).put(text)
    taking = queue.AppendQueue(memory).take_all()
    assert next(taking) == b"first"
    assert next(taking) == b"second"
    assert list(queue.AppendQueue(again).take_all()) == [b"second"]
    assert queue.AppendQueue(again).first() is None


def test_queue_full(memory: pmem2.Map) -> None:
    """A record for which there is no room changes nothing, and finds room when others were taken."""
    queue = example("append_queue").AppendQueue(memory)
    half = bytes(SIZE // 2)
    queue.put(half)
    with pytest.raises(ValueError, match="full"):
        queue.put(half)
    assert list(queue.take_all()) == [half]
    queue.put(half)
    assert queue.first() == half


def test_queue_of_two_processes(tmp_path: Path) -> None:
    """Another process takes what a killed one has put."""
    path = str(tmp_path / "queue")
    assert run("append_queue", path, "put", "one", "two") == (0, "", "")
    assert run("append_queue", path, "put", "three") == (0, "", "")
    assert run("append_queue", path, "take") == (0, "one\ntwo\nthree\n", "")
    assert run("append_queue", path, "take") == (0, "", "")


# ---- table.py


def test_table_is_a_mapping(memory: pmem2.Map, again: pmem2.Map) -> None:
    """It does what a dict does, and another process sees it."""
    table = example("table")
    mine, theirs = table.Table(memory), table.Table(again)
    shadow: dict[bytes, bytes] = {}
    for number in range(300):
        key, value = b"%d" % (number * 7 % 40), b"v" * (number % 60)
        if number % 5 == 4 and key in shadow:
            del mine[key], shadow[key]
        else:
            mine[key] = shadow[key] = value
        assert dict(theirs) == shadow
    assert len(theirs) == len(shadow)
    assert b"missing" not in theirs
    with pytest.raises(KeyError):
        del mine[b"missing"]


def test_table_full(memory: pmem2.Map) -> None:
    """A full table refuses, and is as it was."""
    table = example("table").Table(memory)
    table[b"key"] = b"old"
    with pytest.raises(ValueError, match="full"):
        table[b"key"] = bytes(SIZE)
    with pytest.raises(ValueError, match="full"):
        table.update((b"%d" % number, bytes(number)) for number in range(SIZE))
    assert table[b"key"] == b"old"
    assert [len(table[b"%d" % number]) for number in range(len(table) - 1)] == list(range(len(table) - 1))
    assert len(table) > 100


def test_table_from_the_command_line(tmp_path: Path) -> None:
    """What one process sets another one gets."""
    path = str(tmp_path / "table")
    assert run("table", path, "set", "city", "Berlin") == (0, "", "")
    assert run("table", path, "set", "city", "Bern") == (0, "", "")
    assert run("table", path, "set", "river", "Aare") == (0, "", "")
    assert run("table", path, "list") == (0, "city = Bern\nriver = Aare\n", "")
    assert run("table", path, "del", "river") == (0, "", "")
    assert run("table", path, "get", "river") == (1, "", "no such key: b'river'\n")


# ---- shared_header.py


def test_header_never_shows_half_a_message(memory: pmem2.Map, again: pmem2.Map) -> None:
    """A reader sees each message whole, and a writer goes on where the last one ended."""
    header = example("shared_header")
    assert header.latest(again) == (0, b"")
    for number in range(1, 50):
        message = bytes([number]) * (number * 5 % header.LONGEST)
        header.Writer(memory).publish(message)
        assert header.latest(again) == (number, message)
    with pytest.raises(ValueError, match="at most"):
        header.Writer(memory).publish(bytes(SIZE))
    assert header.latest(again)[0] == 49


def test_header_reader_waits_in_another_process(memory: pmem2.Map, tmp_path: Path) -> None:
    """A process that polls sees what this one publishes, in order, up to the end."""
    header = example("shared_header")
    writer = header.Writer(memory)
    writer.publish(b"begin")
    with start("shared_header", str(tmp_path / "memory"), "read") as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "1 begin\n"
        for number in range(2, 200):
            writer.publish(b"message %d" % number)
        writer.publish(header.END)
        output, complaint = reader.communicate(timeout=60)
    assert (reader.returncode, complaint) == (0, "")
    lines = [line.split(" ", 1) for line in output.splitlines()]
    assert lines.pop() == ["200", "end"]
    assert [text for _, text in lines] == [f"message {number}" for number, _ in lines]
    assert [int(number) for number, _ in lines] == sorted({int(number) for number, _ in lines})


def test_header_needs_space(tmp_path: Path) -> None:
    """A file that is too small is refused."""
    path = tmp_path / "small"
    path.write_bytes(bytes(100))
    status, _, complaint = run("shared_header", str(path), "read")
    assert (status, complaint) == (1, f"{path} has 100 bytes, and 576 are needed\n")


# ---- numpy_array.py


def test_array_saves_the_changed_rows(memory: pmem2.Map, again: pmem2.Map) -> None:
    """What was set is in the memory, and after a save nothing is left to be saved."""
    pytest.importorskip("numpy")
    matrix = example("numpy_array").Matrix(memory)
    matrix[2] = (1.0, 2.0, 3.0, 4.0)
    matrix[-1] = (5.0, 6.0, 7.0, 8.0)
    assert matrix.changed == {2, len(matrix.array) - 1}
    matrix.save()
    assert not matrix.changed
    matrix.close()
    with again.view() as view, view.cast("d") as numbers:
        assert numbers[8:12].tolist() == [1.0, 2.0, 3.0, 4.0]
        assert numbers[-4:].tolist() == [5.0, 6.0, 7.0, 8.0]


def test_array_from_the_command_line(tmp_path: Path) -> None:
    """What one process sets another one shows."""
    pytest.importorskip("numpy")
    path = str(tmp_path / "array")
    assert run("numpy_array", path, "set", "3", "1", "2", "3", "4.5") == (0, "3 1.0 2.0 3.0 4.5\n", "")
    assert run("numpy_array", path, "show") == (0, "3 1.0 2.0 3.0 4.5\n", "")
    status, output, complaint = run("numpy_array", path, "set", "9999", "1", "2", "3", "4")
    assert (status, output) == (1, "")
    assert "9999" in complaint


@pytest.mark.parametrize("name", ["append_queue", "numpy_array", "shared_header", "table"])
def test_usage(name: str) -> None:
    """Who uses an example wrongly is told how to use it."""
    if name == "numpy_array":
        pytest.importorskip("numpy")
    status, output, complaint = run(name, "file", "nonsense")
    assert (status, output) == (1, "")
    assert complaint.startswith("usage: ")
