# SPDX-License-Identifier: BSD-3-Clause
"""Map.from_existing: maps of memory that another object owns."""

from __future__ import annotations

import gc
import mmap
from array import array
from contextlib import closing
from pathlib import Path

import pytest
from support.map_calls import WRITES
from support.values import ALL_GRANULARITIES, CONTENT, ON_PYPY, PAGE

import pmem2
from pmem2 import Config, Granularity, Map, Protection, Sharing, Source

READ, WRITE = Protection.READ, Protection.WRITE
LENGTH = len(CONTENT)


def test_mmap(path: Path) -> None:
    """A map of an mmap uses the same memory, and PAGE granularity works by msync."""
    with path.open("r+b") as file, closing(mmap.mmap(file.fileno(), 0)) as memory, Source.from_fd(file) as source:
        with Map.from_existing(source, memory, Granularity.PAGE) as map:
            assert map.granularity is Granularity.PAGE
            assert map.protection == READ | WRITE
            assert map.sharing is Sharing.SHARED
            assert map.config == Config(required_granularity=Granularity.PAGE)
            assert map.size == len(map) == LENGTH
            assert map.address % PAGE == 0
            assert map[:] == CONTENT
            map.memcpy(5, b"copied")
            map[100:106] = b"stored"
            map.persist(100, 6)
            map.flush()
            map.drain()
            map.deep_flush()
            map.persist_many([(0, 1), (PAGE, PAGE)])
            map.memset(PAGE, 0, 8)
            map.memcpy_many([(200, b"one"), (300, b"two")])
            map.store_u64(LENGTH - 8, 1, persist=True)
            assert memory[5:11] == b"copied"
            assert path.read_bytes() == map[:] == memory[:]
            with map.view() as view, pytest.raises(BufferError):
                map.close()
            view.release()
        assert map.closed
        assert path.read_bytes()[100:106] == b"stored"


@pytest.mark.parametrize("granularity", ALL_GRANULARITIES)
@pytest.mark.parametrize("as_int", [True, False])
def test_bytearray(anonymous_source: Source, granularity: Granularity, as_int: bool) -> None:
    """A map of a bytearray has the granularity that the caller passes, as an int too."""
    memory = bytearray(CONTENT)
    with Map.from_existing(anonymous_source, memory, int(granularity) if as_int else granularity) as map:  # type: ignore[arg-type]
        assert map.granularity is granularity
        assert map.config == Config(required_granularity=granularity)
        map.memcpy(3, b"copied")
        map.persist()
        assert map[:] == memory == CONTENT[:3] + b"copied" + CONTENT[9:]


@pytest.mark.parametrize("memory", [CONTENT, memoryview(bytearray(CONTENT)).toreadonly()])
def test_read_only_buffer(anonymous_source: Source, memory: bytes) -> None:
    """A read-only buffer makes a READ map."""
    with Map.from_existing(anonymous_source, memory, Granularity.BYTE) as map:
        assert map.protection == READ
        assert map[:] == CONTENT
        with map.view() as view:
            assert view.readonly
        for write in WRITES.values():
            with pytest.raises(TypeError, match="WRITE"):
                write(map)
        map.persist()


def test_part_of_buffer(anonymous_source: Source) -> None:
    """A slice of a memoryview of any item type makes a map of its bytes."""
    numbers = array("I", range(100))
    with memoryview(numbers)[10:20] as part, Map.from_existing(anonymous_source, part, Granularity.PAGE) as map:
        assert map.size == 40
        assert map[:] == numbers[10:20].tobytes()
        map[0:4] = b"\xff" * 4
        map.persist()
    assert numbers[9:12].tolist() == [9, 2**32 - 1, 11]


@pytest.mark.parametrize("memory", [b"", bytearray(), memoryview(b"1234")[4:]])
def test_empty_buffer(anonymous_source: Source, memory: bytes) -> None:
    """An empty buffer raises ValueError."""
    with pytest.raises(ValueError, match="empty"):
        Map.from_existing(anonymous_source, memory, Granularity.PAGE)


@pytest.mark.parametrize("granularity", [-1, 3, 999, 2**31, 2**32, 2**64, 2**70, -(2**31)])
def test_unknown_granularity(anonymous_source: Source, granularity: int) -> None:
    """An unknown granularity raises ValueError that shows the value."""
    with pytest.raises(ValueError, match=str(granularity)):
        Map.from_existing(anonymous_source, bytearray(8), granularity)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [True, 1.0, "PAGE", None])
def test_granularity_of_wrong_type(anonymous_source: Source, wrong: int) -> None:
    """A granularity that is a bool or not an integer raises TypeError."""
    with pytest.raises(TypeError, match="granularity"):
        Map.from_existing(anonymous_source, bytearray(8), wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["text", 8, None, [1], object()])
def test_buffer_of_wrong_type(anonymous_source: Source, wrong: bytes) -> None:
    """An object without a buffer raises TypeError."""
    with pytest.raises(TypeError):
        Map.from_existing(anonymous_source, wrong, Granularity.PAGE)


def test_buffer_not_contiguous(anonymous_source: Source) -> None:
    """A buffer that is not contiguous raises BufferError."""
    with memoryview(bytearray(16))[::2] as gaps, pytest.raises(BufferError):
        Map.from_existing(anonymous_source, gaps, Granularity.PAGE)


def test_memory_already_mapped(anonymous_source: Source) -> None:
    """Memory that is part of another map raises MapExistsError until that map is closed."""
    memory = bytearray(64)
    with Map.from_existing(anonymous_source, memory, Granularity.PAGE):
        for part in (memoryview(memory), memoryview(memory)[8:16]):
            with pytest.raises(pmem2.MapExistsError) as caught:
                Map.from_existing(anonymous_source, part, Granularity.PAGE)
            assert caught.value.code is pmem2.ErrorCode.MAP_EXISTS
    with Map.from_existing(anonymous_source, memory, Granularity.PAGE) as map:
        assert map.size == 64


def test_refused_buffer_is_released(anonymous_source: Source) -> None:
    """from_existing releases a buffer that it refuses before the exception reaches the caller."""
    with anonymous_source.map() as map:
        with pytest.raises(pmem2.MapExistsError), map.view() as view:
            Map.from_existing(anonymous_source, view, Granularity.PAGE)


@pytest.mark.skipif(ON_PYPY, reason="PyPy lets a bytearray be resized, and an mmap be closed, under an export")
def test_buffer_stays_exported(anonymous_source: Source) -> None:
    """The buffer cannot be resized or closed while a map of it is open."""
    memory = bytearray(64)
    with closing(mmap.mmap(-1, PAGE)) as mapping:
        with Map.from_existing(anonymous_source, mapping, Granularity.PAGE):
            with pytest.raises(BufferError):
                mapping.close()
    with Map.from_existing(anonymous_source, memory, Granularity.PAGE):
        with pytest.raises(BufferError):
            memory.append(1)
    memory.append(1)
    assert len(memory) == 65


def test_buffer_stays_alive(anonymous_source: Source) -> None:
    """The map keeps its buffer alive."""
    with Map.from_existing(anonymous_source, bytearray(b"kept" * 100_000), Granularity.PAGE) as map:
        gc.collect()
        other = bytearray(b"else" * 100_000)
        assert map[:] == b"kept" * 100_000
        assert len(other) == map.size
