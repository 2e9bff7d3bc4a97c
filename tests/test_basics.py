# SPDX-License-Identifier: BSD-3-Clause
"""The main job, once through."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmem2


@pytest.mark.medium
def test_what_was_persisted_is_in_the_file(tmp_path: Path, granularity: pmem2.Granularity) -> None:
    """What was stored and persisted is found again through another map and by reading the file."""
    path = tmp_path / "data"
    with pmem2.open(path, "w+", size=4096) as m:
        m.memcpy(0, b"hello")
        m[8:13] = b"world"
        m.persist(8, 5)
        assert m.granularity is granularity
    with pmem2.open(path, "r") as m:
        assert m[0:13] == b"hello\0\0\0world"
    assert path.read_bytes()[:13] == b"hello\0\0\0world"
