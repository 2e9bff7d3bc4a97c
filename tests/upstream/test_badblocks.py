# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of bad blocks on a healthy medium: pmem2_badblock_mocks; tests/hardware has those on a damaged one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import libpmem2

import pmem2
from pmem2 import ErrorCode


@pytest.mark.upstream("pmem2_badblock_mocks/TEST0")
@pytest.mark.medium
def test_iterate_ordinary_file(source: pmem2.Source) -> None:
    """A context of an ordinary file has no bad blocks and stays exhausted."""
    with source.bad_blocks() as context:
        assert list(context) == []
        assert list(context) == []
        assert not context.closed
    assert context.closed


@pytest.mark.upstream("pmem2_badblock_mocks/TEST0")
@pytest.mark.libpmem2
@pytest.mark.medium
def test_library_iterates_ordinary_file(raw_source: int) -> None:
    """libpmem2 makes a context for an ordinary file and reports no bad blocks."""
    with libpmem2.badblocks(raw_source) as context:
        assert libpmem2.badblock_next(context) == ErrorCode.NO_BAD_BLOCK_FOUND


@pytest.mark.upstream("pmem2_badblock_mocks/TEST0")
@pytest.mark.parametrize("size", [0, 1, 5000])
def test_iterate_files_of_any_size(tmp_path: Path, size: int) -> None:
    """The size of a file and its access mode do not matter."""
    path = tmp_path / "data"
    path.write_bytes(b"x" * size)
    for writable in (False, True):
        with pmem2.Source.from_path(path, writable=writable) as source, source.bad_blocks() as context:
            assert next(context, None) is None
    assert path.read_bytes() == b"x" * size
