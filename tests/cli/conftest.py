# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the tests of commands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """The path of a copy; its directory holds no hidden file afterwards."""
    folder = tmp_path / "target"
    folder.mkdir()
    yield folder / "copy"
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
