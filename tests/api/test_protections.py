# SPDX-License-Identifier: BSD-3-Clause
"""Protections: which operations need READ, WRITE or both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.map_calls import DURABILITY_CALLS, READ_MODIFY_WRITES, READS, WRITES, map_with_protection
from support.values import CONTENT

from pmem2 import Map, Protection

READ, WRITE, EXEC, NONE = Protection.READ, Protection.WRITE, Protection.EXEC, Protection.NONE


PROTECTIONS = [NONE, READ, WRITE, READ | WRITE, EXEC, READ | EXEC, WRITE | EXEC, READ | WRITE | EXEC]


@pytest.fixture(params=PROTECTIONS, ids=str)
def protected_map(request: pytest.FixtureRequest, path: Path, exec_file: Path) -> Iterator[Map]:
    """A map of each protection in turn."""
    with map_with_protection(path, Protection(request.param)) as map:
        assert map.protection == request.param
        yield map


@pytest.mark.parametrize("name", READS)
def test_reading_needs_read(protected_map: Map, name: str) -> None:
    """Reading a map without READ raises TypeError that names READ."""
    if protected_map.protection & READ:
        READS[name](protected_map)
    else:
        with pytest.raises(TypeError, match="READ"):
            READS[name](protected_map)


@pytest.mark.parametrize("name", WRITES)
def test_writing_needs_write(protected_map: Map, path: Path, name: str) -> None:
    """Writing to a map without WRITE raises TypeError that names WRITE, and a map without READ can be written to."""
    if protected_map.protection & WRITE:
        WRITES[name](protected_map)
    else:
        with pytest.raises(TypeError, match="WRITE"):
            WRITES[name](protected_map)
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", READ_MODIFY_WRITES)
def test_read_modify_write_needs_both(protected_map: Map, path: Path, name: str) -> None:
    """Atomic read-modify-write operations need READ and WRITE."""
    if protected_map.protection & (READ | WRITE) == READ | WRITE:
        READ_MODIFY_WRITES[name](protected_map)
    else:
        with pytest.raises(TypeError, match=r"READ|WRITE"):
            READ_MODIFY_WRITES[name](protected_map)
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", DURABILITY_CALLS)
def test_durability_needs_either(protected_map: Map, name: str) -> None:
    """A durability call raises TypeError on a map that has neither READ nor WRITE."""
    if protected_map.protection & (READ | WRITE):
        DURABILITY_CALLS[name](protected_map)
    else:
        with pytest.raises(TypeError, match="neither READ nor WRITE"):
            DURABILITY_CALLS[name](protected_map)


def test_stores_without_read(path: Path) -> None:
    """Stores to a map without READ reach the file."""
    with map_with_protection(path, WRITE) as map:
        map[0:4] = b"blue"
        map[10:2:-2] = b"4321"
        map.memcpy(16, b"green")
        map.persist()
    expected = bytearray(CONTENT)
    expected[0:4], expected[10:2:-2], expected[16:21] = b"blue", b"4321", b"green"
    assert path.read_bytes() == expected
