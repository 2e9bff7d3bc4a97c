# SPDX-License-Identifier: BSD-3-Clause
"""The guarantees of the examples in every state that a power failure could leave.

advanced.py has no test here because it only reads, map_multiple_files.py because it guarantees nothing before it ends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest

import pmem2
from examples.importing import EXAMPLES, import_example, import_script
from pmem2 import Granularity, MemFlag
from pmem2.cli import demo
from pmem2.testing import CrashConsistencyError, explore, explore_model

GRANULARITIES = [Granularity.BYTE, Granularity.CACHE_LINE, Granularity.PAGE]
BUDGET = 2000 if sys.implementation.name == "cpython" else 300
RECORDS = [b"first", b"the second record", b"", b"4th", b"fifth"]

# ---- ports of PMDK's examples


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_basic(granularity: Granularity) -> None:
    """The greeting is durable when greet() returns."""
    basic = import_example("basic")

    def workload(map: pmem2.Map) -> Iterator[None]:
        basic.greet(map)
        yield

    def check(map: pmem2.Map, acknowledged: list[None]) -> None:
        assert not acknowledged or map[: len(basic.GREETING)] == basic.GREETING

    explore(workload, check, size=4096, granularity=granularity)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_log(granularity: Granularity) -> None:
    """Appending one record or several, creating and emptying a log are atomic."""
    module = import_example("log")
    vars(module)["MINIMUM"] = 512

    class Model:
        """A log without a medium."""

        def __init__(self) -> None:
            self.content = b""

        def append(self, data: bytes) -> None:
            self.content += data

        def append_many(self, records: list[bytes]) -> None:
            self.content += b"".join(records)

        def rewind(self) -> None:
            self.content = b""

        def dump(self) -> bytes:
            return self.content

    report = explore_model(
        [
            lambda log: log.append(b"a first record"),
            lambda log: log.append_many([b"second", b"and a third, which needs more than one line of 64 bytes: " * 2]),
            lambda log: log.rewind(),
            lambda log: log.append(b"another"),
        ],
        module.Log,
        Model(),
        lambda log: log.dump(),
        size=module.MINIMUM,
        granularity=granularity,
        budget=1000,
    )
    assert report.images > 5


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_redo(granularity: Granularity) -> None:
    """Adding a node is atomic, and the list is never broken."""
    # The C program persists the pointer to the log instead of the log; the port does not, and no byte depends on it.
    module = import_example("redo")

    class Model:
        """A sorted list; of equal keys the newest comes first."""

        def __init__(self) -> None:
            self.nodes: list[tuple[int, int]] = []

        def add(self, key: int, value: int) -> None:
            index = sum(other < key for other, _ in self.nodes)
            self.nodes.insert(index, (key, value))

        def __iter__(self) -> Iterator[tuple[int, int, int, int, int]]:
            return ((0, 0, 0, key, value) for key, value in self.nodes)

        def check(self) -> None:
            """Do nothing: a list cannot break."""

    def view(pool: Model) -> list[tuple[int, int]]:
        pool.check()
        return [node[3:] for node in pool]

    report = explore_model(
        [
            lambda pool: pool.add(5, 50),
            lambda pool: pool.add(9, 90),
            lambda pool: pool.add(1, 10),
            lambda pool: pool.add(5, 51),
        ],
        module.Pool,
        Model(),
        view,
        size=module.MINIMUM,
        granularity=granularity,
        budget=BUDGET,
    )
    assert report.images > 10


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_ring_buffer(granularity: Granularity) -> None:
    """With one thread, entries leave in order, none is lost or repeated, and the ring wraps around."""
    module = import_example("ringbuf")
    size = 72

    class Ring:
        """A ring buffer of the example."""

        def __init__(self, map: pmem2.Map) -> None:
            self.ring = module.RingBuffer(map, size)

        def enqueue(self, entry: bytes) -> None:
            assert self.ring.enqueue(entry)

        def dequeue(self) -> None:
            assert self.ring.dequeue() is not None

        def take_all(self) -> list[bytes]:
            return list(iter(self.ring.dequeue, None))

    class Model(Ring):
        """A ring buffer without a medium."""

        def __init__(self) -> None:
            self.entries: list[bytes] = []

        def enqueue(self, entry: bytes) -> None:
            self.entries.append(entry)

        def dequeue(self) -> None:
            self.entries.pop(0)

        def take_all(self) -> list[bytes]:
            return self.entries

    model: Ring = Model()
    first, second, third = (bytes([number]) * size for number in (1, 2, 3))
    report = explore_model(
        [
            lambda ring: ring.enqueue(first),
            lambda ring: ring.enqueue(second),
            lambda ring: ring.dequeue(),
            lambda ring: ring.enqueue(third),
            lambda ring: ring.dequeue(),
        ],
        Ring,
        model,
        lambda ring: ring.take_all(),
        size=module.DATA + 3 * size,
        granularity=granularity,
        budget=BUDGET,
    )
    assert report.images > 10


unsafe_shutdown = import_example("unsafe_shutdown")


def write_texts(map: pmem2.Map, *texts: bytes) -> Iterator[bytes]:
    """Write texts as unsafe_shutdown.py does; yield each text when its file is closed."""
    with pmem2.Source.from_anon(map.size) as source:
        for text in texts:
            pool = unsafe_shutdown.Pool(map, source, "pool")
            if pool.interrupted:
                pool.recover()
            pool.write(text)
            pool.close()
            yield text


def open_text(map: pmem2.Map) -> bytes:
    """Recover as unsafe_shutdown.py does, and return the text."""
    with pmem2.Source.from_anon(map.size) as source:
        pool = unsafe_shutdown.Pool(map, source, "pool")
        if pool.interrupted:
            pool.recover()
        text = pool.read()
        assert isinstance(text, bytes)
        return text


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_unsafe_shutdown(granularity: Granularity) -> None:
    """Writing a text to an empty pool is atomic, also if the recovery is interrupted."""
    found = b""

    def recover(map: pmem2.Map) -> None:
        nonlocal found
        found = open_text(map)

    def check(map: pmem2.Map, acknowledged: list[bytes]) -> None:
        assert found in [b"a text of some length", *([] if acknowledged else [b"empty string"])]

    explore(
        lambda map: write_texts(map, b"a text of some length"),
        check,
        size=1024,
        recover=recover,
        granularity=granularity,
        budget=BUDGET,
    )


@pytest.mark.xfail(
    raises=CrashConsistencyError, reason="like the C program, the port overwrites the old text while it is valid"
)
def test_unsafe_shutdown_second_text() -> None:
    """Replacing a text is not safe: the flag calls it valid while it is overwritten."""

    def check(map: pmem2.Map, acknowledged: list[bytes]) -> None:
        assert open_text(map) in (b"empty string", b"a text of some length", b"other words, longer still")

    explore(lambda map: write_texts(map, b"a text of some length", b"other words, longer still"), check, size=1024)


# ---- data structures of the project


def test_demo() -> None:
    """The records that the counter of `pmem2 demo` covers are intact, and no acknowledged one is lost."""

    def workload(map: pmem2.Map) -> Iterator[int]:
        for _ in range(3):
            yield demo.append(map)

    def check(map: pmem2.Map, acknowledged: list[int]) -> None:
        count = map.load_u64(demo.COUNTER)
        assert count - len(acknowledged) in (0, 1)
        assert demo.count_damaged(map, count) == 0

    for granularity in GRANULARITIES:
        assert explore(workload, check, size=demo.record_offset(4), granularity=granularity).exhaustive


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_ledger(granularity: Granularity) -> None:
    """The ledger of the power-cut test loses no acknowledged record, also when it wraps around."""
    module = import_script(EXAMPLES.parent / "tools/nvdimm/ledger.py")
    vars(module)["MAX_DATA"] = 256

    def open_ledger(map: pmem2.Map) -> Any:  # noqa: ANN401 # the module is imported at run time
        ledger = module.Ledger.__new__(module.Ledger)
        ledger.name = "ledger"
        ledger.recover(map)
        return ledger

    def workload(map: pmem2.Map) -> Iterator[int]:
        ledger = open_ledger(map)
        for _ in range(6):
            ledger.append()
            yield ledger.last

    last = 0

    def recover(map: pmem2.Map) -> None:
        nonlocal last
        last = open_ledger(map).last

    def check(map: pmem2.Map, acknowledged: list[int]) -> None:
        assert last - len(acknowledged) in (0, 1)

    explore(workload, check, size=4096 + 512, recover=recover, granularity=granularity, budget=60)


# ---- our own examples


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_queue(granularity: Granularity) -> None:
    """The queue holds the records that were put and not removed, also when the ring wraps around."""
    queue = import_example("append_queue")

    def workload(map: pmem2.Map) -> Iterator[str]:
        writer = queue.AppendQueue(map)
        for record in RECORDS[:3]:
            writer.put(record)
            yield "put"
        for record in RECORDS[3:]:
            writer.remove_first()
            yield "taken"
            writer.put(record)
            yield "put"

    def check(map: pmem2.Map, acknowledged: list[str]) -> None:
        put, taken = acknowledged.count("put"), acknowledged.count("taken")
        found = list(queue.AppendQueue(map).take_all())
        assert found in (RECORDS[taken:put], RECORDS[taken : put + 1], RECORDS[taken + 1 : put])

    report = explore(
        workload, check, size=queue.DATA + 64, recover=queue.AppendQueue, granularity=granularity, budget=BUDGET
    )
    assert report.exhaustive or report.images == BUDGET
    assert report.images > len(RECORDS)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_queue_is_emptied(granularity: Granularity) -> None:
    """A consumer that is interrupted again and again skips no record, and repeats at most the first."""
    queue = import_example("append_queue")
    taken: list[bytes] = []

    def workload(map: pmem2.Map) -> None:
        for record in RECORDS[:3]:
            queue.AppendQueue(map).put(record)

    def take_all(map: pmem2.Map) -> None:
        taken[:] = queue.AppendQueue(map).take_all()

    def check(map: pmem2.Map) -> None:
        assert taken in [RECORDS[first:last] for last in range(4) for first in range(last + 1)]
        assert queue.AppendQueue(map).first() is None

    explore(workload, check, size=queue.DATA + 128, recover=take_all, granularity=granularity, budget=BUDGET)


def test_queue_of_two_processes() -> None:
    """Removing a record frees its space only when durable; another process's store is visible earlier."""
    queue = import_example("append_queue")
    first, second, third = (letter * 24 for letter in (b"A", b"B", b"C"))

    def setup(map: pmem2.Map) -> None:
        for record in (first, second):
            queue.AppendQueue(map).put(record)

    def workload(map: pmem2.Map) -> None:
        map.store_u64(queue.HEAD, 32)  # like remove_first in the other process, but not durable yet
        queue.AppendQueue(map).put(third)

    def check(map: pmem2.Map) -> None:
        assert list(queue.AppendQueue(map).take_all()) in ([first, second], [second], [second, third])

    for granularity in GRANULARITIES:
        explore(
            workload,
            check,
            size=queue.DATA + 64,
            setup=setup,
            recover=queue.AppendQueue,
            granularity=granularity,
            budget=BUDGET,
        )


OPERATIONS = [(b"a", b"1"), (b"b", b"second"), (b"a", b"a longer value"), (b"b", None), (b"c", b""), (b"b", b"again")]


def apply(
    table: MutableMapping[bytes, bytes], operations: list[tuple[bytes, bytes | None]]
) -> Iterator[tuple[bytes, bytes | None]]:
    """Set and remove keys; yield each completed operation."""
    for key, value in operations:
        if value is None:
            del table[key]
        else:
            table[key] = value
        yield key, value


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_table(granularity: Granularity) -> None:
    """Each key has the value of its last acknowledged operation, or of the operation in progress."""
    table = import_example("table")

    def workload(map: pmem2.Map) -> Iterator[object]:
        return apply(table.Table(map), OPERATIONS)

    def check(map: pmem2.Map, acknowledged: list[object]) -> None:
        states = []
        for done in (len(acknowledged), len(acknowledged) + 1):
            state: dict[bytes, bytes] = {}
            list(apply(state, OPERATIONS[:done]))
            states.append(state)
        assert dict(table.Table(map)) in states

    report = explore(workload, check, size=1024, recover=table.Table, granularity=granularity, budget=BUDGET)
    assert report.images > len(OPERATIONS)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_header(granularity: Granularity) -> None:
    """The last message is whole, and was published or was being published."""
    header = import_example("shared_header")
    messages = [b"", b"message1", b"a second message"]

    def workload(map: pmem2.Map) -> Iterator[int]:
        writer = header.Writer(map)
        for message in messages[1:]:
            writer.publish(message)
            yield writer.number

    def publish_last(map: pmem2.Map) -> None:
        number, message = header.latest(map)
        if message != b"the last":
            assert message == messages[number]
            header.Writer(map).publish(b"the last")

    def check(map: pmem2.Map, acknowledged: list[int]) -> None:
        number, message = header.latest(map)
        assert message == b"the last"
        assert number - 1 in (len(acknowledged), len(acknowledged) + 1)

    report = explore(workload, check, size=header.SIZE, recover=publish_last, granularity=granularity, budget=BUDGET)
    assert report.images > len(messages)


def test_header_of_two_writers() -> None:
    """A writer continues after the durable number, even if its predecessor only stored a newer one."""
    header = import_example("shared_header")

    def workload(map: pmem2.Map) -> None:
        number = map.load_u64(header.NUMBER) + 1
        map.memcpy(header.slot_offset(number), len(b"two").to_bytes(8, "little") + b"two")
        map.store_u64(header.NUMBER, number)  # the first writer is killed here
        header.Writer(map).publish(b"three")

    def check(map: pmem2.Map) -> None:
        assert header.latest(map) in ((1, b"one"), (2, b"two"), (3, b"three"))

    for granularity in GRANULARITIES:
        explore(
            workload,
            check,
            size=header.SIZE,
            setup=lambda map: header.Writer(map).publish(b"one"),
            recover=header.Writer,
            granularity=granularity,
            budget=BUDGET,
        )


def test_array() -> None:
    """Saved rows are durable; in a row that is being saved, each number is the old or the new one."""
    pytest.importorskip("numpy")
    array = import_example("numpy_array")
    saves = [{0: 1.5, 2: 2.5}, {2: 3.5}, {1: 4.5, 3: 5.5}]

    def workload(map: pmem2.Map) -> Iterator[int]:
        matrix = array.Matrix(map)
        for save in saves:
            for row, number in save.items():
                matrix[row] = [number] * array.COLUMNS
            matrix.save()
            yield len(save)
        matrix.close()

    def check(map: pmem2.Map, acknowledged: list[int]) -> None:
        rows = dict.fromkeys(range(4), 0.0)
        for save in saves[: len(acknowledged)]:
            rows.update(save)
        in_progress = saves[len(acknowledged)] if len(acknowledged) < len(saves) else {}
        matrix = array.Matrix(map)
        for row, number in rows.items():
            assert set(matrix.array[row].tolist()) <= {number, in_progress.get(row, number)}
        matrix.close()

    for granularity in GRANULARITIES:
        explore(workload, check, size=4 * array.COLUMNS * 8, granularity=granularity, budget=BUDGET)


class UnflushedMap:
    """A map whose copies are not durable at return."""

    def __init__(self, map: pmem2.Map) -> None:
        """Wrap *map*."""
        self.map = map

    def __getattr__(self, name: str) -> object:
        """Return an attribute of the map."""
        return getattr(self.map, name)

    def __getitem__(self, key: slice) -> bytes:
        """Read from the map."""
        return self.map[key]

    def memcpy(self, offset: int, data: bytes) -> None:
        """Copy without a flush."""
        self.map.memcpy(offset, data, MemFlag.NOFLUSH)

    def publish(self, offset: int, length: int) -> None:
        """Publish nothing: publishing would flush."""

    def memcpy_many(self, pieces: list[tuple[int, bytes]]) -> None:
        """Copy without a flush."""
        for offset, data in pieces:
            self.memcpy(offset, data)


def test_proofs_can_fail() -> None:
    """The checks detect a queue, a table and a header that publish data before it is durable."""
    queue, table, header = import_example("append_queue"), import_example("table"), import_example("shared_header")

    def put(map: pmem2.Map) -> None:
        queue.AppendQueue(UnflushedMap(map)).put(b"record")

    def set_item(map: pmem2.Map) -> None:
        table.Table(UnflushedMap(map))[b"key"] = b"value"

    def publish(map: pmem2.Map) -> None:
        header.Writer(UnflushedMap(map)).publish(b"message")

    def check_queue(map: pmem2.Map) -> None:
        assert list(queue.AppendQueue(map).take_all()) in ([], [b"record"])

    def check_table(map: pmem2.Map) -> None:
        assert dict(table.Table(map)) in ({}, {b"key": b"value"})

    def check_header(map: pmem2.Map) -> None:
        assert header.latest(map) in ((0, b""), (1, b"message"))

    for workload, check in ((put, check_queue), (set_item, check_table), (publish, check_header)):
        with pytest.raises(CrashConsistencyError) as caught:
            explore(workload, check, size=1024)
        assert caught.value.lost
