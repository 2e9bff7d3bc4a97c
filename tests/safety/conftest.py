# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the safety tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import pmem2


@pytest.fixture
def reservation() -> Iterator[pmem2.VMReservation]:
    """A reservation of 4 MiB."""
    with pmem2.VMReservation(4 << 20) as reserved:
        yield reserved
