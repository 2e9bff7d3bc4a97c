# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of bad blocks, as far as a healthy medium goes: row 201."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import libpmem2

import pmem2
from pmem2 import ErrorCode


@pytest.mark.medium
def test_row_201_no_device_behind_a_file(source: pmem2.Source) -> None:
    """A file without a device of persistent memory behind it has a context without bad blocks, and it stays at that."""
    with source.bad_blocks() as context:
        assert list(context) == []
        assert list(context) == []
        assert not context.closed
    assert context.closed


@pytest.mark.medium
def test_row_201_no_device_of_the_library(raw_source: int) -> None:
    """libpmem2 makes a context for such a file, and says at once that there are no more bad blocks."""
    with libpmem2.badblocks(raw_source) as context:
        assert libpmem2.badblock_next(context) == ErrorCode.NO_BAD_BLOCK_FOUND


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_row_201_any_size(tmp_path: Path, size: int) -> None:
    """Neither the size of a file nor whether it is open for writing makes a difference."""
    path = tmp_path / "data"
    path.write_bytes(b"x" * size)
    for writable in (False, True):
        with pmem2.Source.from_path(path, writable=writable) as source, source.bad_blocks() as context:
            assert next(context, None) is None
    assert path.read_bytes() == b"x" * size
