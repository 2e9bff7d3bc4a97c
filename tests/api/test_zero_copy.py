# SPDX-License-Identifier: BSD-3-Clause
"""Zero copy: no call makes a temporary copy of large data."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Callable, cast

import pytest

import pmem2

if TYPE_CHECKING:
    from typing_extensions import Buffer

SIZE = 48 << 20
LIMIT = SIZE // 4
STATUS = Path("/proc/self/status")


def memory(name: str) -> int:
    """Return a size of this process in bytes: its memory, VmRSS, or the peak of it, VmHWM."""
    found = re.search(rf"{name}:\s*(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) * 1024


def use_up_free_memory() -> list[bytes]:
    """Return blocks of the size of the data, so many that the allocator had to get the last one from the system."""
    blocks = []
    grown = 0
    while grown < LIMIT:
        before = memory("VmRSS")
        blocks.append(b"x" * SIZE)
        grown = memory("VmRSS") - before
    return blocks


def peak_growth(work: Callable[[], object]) -> int:
    """Call *work* and return by how many bytes its peak exceeds the memory of the process before."""
    for _ in range(3):
        gc.collect()
    blocks = use_up_free_memory()  # else a copy could reuse memory that an earlier test freed
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current size
    before = memory("VmRSS")
    work()
    growth = memory("VmHWM") - before
    del blocks
    return growth


def as_array(data: bytearray) -> Buffer:
    """Return a NumPy array of the data."""
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    return cast("Buffer", numpy.frombuffer(data, "u1"))


BUFFER_KINDS: dict[str, Callable[[bytearray], Buffer]] = {
    "bytes": bytes,
    "bytearray": lambda data: data,
    "memoryview": memoryview,
    "array": as_array,
}


@pytest.fixture(params=BUFFER_KINDS)
def data(request: pytest.FixtureRequest) -> Buffer:
    """Data in each kind of buffer."""
    kind: str = request.param
    return BUFFER_KINDS[kind](bytearray(b"\x5a" * SIZE))


@pytest.fixture
def source(tmp_path: Path) -> Iterator[pmem2.Source]:
    """A file as large as the data."""
    path = tmp_path / "large"
    path.write_bytes(b"\xa5" * SIZE)
    with pmem2.Source.from_path(path) as source:
        yield source


def test_copies_are_detected(data: Buffer) -> None:
    """The measurement detects a single copy of the data, which the other tests rely on."""
    assert peak_growth(lambda: bytes(memoryview(data)[1:])) > LIMIT


def test_copy_into_map(source: pmem2.Source, data: Buffer) -> None:
    """Copies into a map read the data in place."""
    with pmem2.Map(source) as map:
        map.memset(0, 1, SIZE)  # touched pages of the map count as memory of the process

        def work() -> None:
            map.memcpy(0, data, pmem2.MemFlag.NODRAIN)
            map.memmove(0, data)
            map.memcpy_many([(0, data)])
            map[:] = data

        assert peak_growth(work) < LIMIT


def test_transfer_through_source(source: pmem2.Source, data: Buffer) -> None:
    """Transfers of a source use the caller's buffer in place."""
    target = bytearray(SIZE)

    def work() -> None:
        source.pwrite_mcsafe(data)
        source.pread_mcsafe_into(target)

    assert peak_growth(work) < LIMIT
    assert target == memoryview(data)


def test_views_of_map(source: pmem2.Source) -> None:
    """Making a view of a map and copying one map to another allocate no buffer."""
    with pmem2.Map(source) as map, pmem2.Map(source, pmem2.Config(sharing=pmem2.Sharing.PRIVATE)) as other:
        map.memset(0, 1, SIZE)
        other.memset(0, 1, SIZE)
        assert peak_growth(lambda: other.memcpy(0, map)) < LIMIT
        assert peak_growth(lambda: memoryview(map.view())[: SIZE // 2].release()) < LIMIT
