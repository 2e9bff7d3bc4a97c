# SPDX-License-Identifier: BSD-3-Clause
"""find, `in` and read_into: what bytearray and memoryview have under other names."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pmem2
from pmem2.testing import CrashConsistencyError, explore

CONTENT = b"abcabc\0" + bytes(range(256)) + b"tail"


@pytest.fixture
def filled() -> Iterator[pmem2.Map]:
    """Map memory that begins with CONTENT."""
    with pmem2.Source.from_anon(4096) as source, source.map() as map:
        map[: len(CONTENT)] = CONTENT
        yield map


INDEXES = st.one_of(st.integers(-4100, 4100), st.sampled_from([-(2**70), 2**70]))


@given(
    sub=st.one_of(st.binary(max_size=4), st.integers(0, 255), st.sampled_from([b"abc", b"tail", CONTENT])),
    start=INDEXES,
    end=st.none() | INDEXES,
)
def test_find_agrees_with_bytearray(sub: bytes | int, start: int, end: int | None) -> None:
    """A map finds bytes and subsequences where a bytearray of its content finds them."""
    with pmem2.Source.from_anon(4096) as source, source.map() as map:
        map[: len(CONTENT)] = CONTENT
        content = bytearray(map[:])
        assert map.find(sub, start, end) == content.find(sub, start, end)
        assert (sub in map) == (sub in content)


def test_find_takes_any_buffer(filled: pmem2.Map) -> None:
    """The searched bytes may come from any buffer, a view of the map included."""
    for sub in (bytearray(b"tail"), memoryview(b"tail"), array("B", b"tail"), filled.view(len(CONTENT) - 4, 4)):
        assert filled.find(sub) == len(CONTENT) - 4
        assert sub in filled
    del sub
    filled.close()


@pytest.mark.parametrize("sub", ["abc", None, 1.5, [1]])
def test_find_wrong_type(filled: pmem2.Map, sub: object) -> None:
    """Text and other types are a TypeError, also for `in`."""
    with pytest.raises(TypeError):
        filled.find(sub)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        sub in filled  # type: ignore[operator]  # noqa: B015


@pytest.mark.parametrize("byte", [-1, 256])
def test_find_no_byte(filled: pmem2.Map, byte: int) -> None:
    """A number that is no byte is a ValueError."""
    with pytest.raises(ValueError, match="must be"):
        filled.find(byte)
    with pytest.raises(ValueError, match="must be"):
        byte in filled  # noqa: B015


def test_find_needs_read(source: pmem2.Source) -> None:
    """A map without READ cannot be searched."""
    with source.map(pmem2.Config(protection=pmem2.Protection.WRITE)) as map:
        with pytest.raises(TypeError, match="without READ"):
            map.find(b"a")
        with pytest.raises(TypeError, match="without READ"):
            map.read_into(bytearray(1))


def test_read_into_fills_buffer(filled: pmem2.Map) -> None:
    """read_into copies as many bytes as the buffer has."""
    target = bytearray(b"?" * 5)
    filled.read_into(target)
    assert target == b"abcab"
    numbers = array("I", [0, 0])
    filled.read_into(numbers, 8)
    assert numbers.tobytes() == CONTENT[8:16]
    filled.read_into(bytearray(), 4096)


def test_read_into_wrong_target(filled: pmem2.Map) -> None:
    """A read-only buffer is a TypeError, a range outside a ValueError; the buffer stays as it is."""
    with pytest.raises(TypeError, match="writable"):
        filled.read_into(b"abc")
    target = bytearray(b"xy")
    for offset in (4095, 4097, -1, 2**64):
        with pytest.raises(ValueError, match=r"offset must be|beyond"):
            filled.read_into(target, offset)
    with pytest.raises(BufferError):
        filled.read_into(memoryview(bytearray(8))[::2])
    assert target == b"xy"


def test_search_in_an_exploration() -> None:
    """A check that searches and reads into a buffer sees lost stores, so no state is left out."""

    def workload(map: pmem2.Map) -> None:
        map.memcpy(64, b"data")
        map[128:132] = b"more"
        map.persist(0, 64)
        map.store_u64(0, 1, persist=True)

    def check_found(map: pmem2.Map) -> None:
        assert not map.load_u64(0) or map.find(b"more", 100, 200) == 128

    def check_read(map: pmem2.Map) -> None:
        target = bytearray(4)
        map.read_into(target, 128)
        assert not map.load_u64(0) or target == b"more"

    for check in (check_found, check_read):
        with pytest.raises(CrashConsistencyError):
            explore(workload, check, size=256)
