# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the API tests: a map and sources of two pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.values import CONTENT

import pmem2


@pytest.fixture
def small_map(path: Path) -> Iterator[pmem2.Map]:
    """A map of a file that contains CONTENT."""
    with pmem2.open(path) as map:
        yield map


@pytest.fixture
def anonymous_source() -> Iterator[pmem2.Source]:
    """A source of anonymous memory, as large as CONTENT."""
    with pmem2.Source.from_anon(len(CONTENT)) as source:
        yield source


@pytest.fixture
def writable_source(path: Path) -> Iterator[pmem2.Source]:
    """A source of a file that contains CONTENT."""
    with pmem2.Source.from_path(path) as source:
        yield source
