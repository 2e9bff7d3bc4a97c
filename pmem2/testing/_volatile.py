# SPDX-License-Identifier: BSD-3-Clause
"""VolatileMap: a Map of ordinary memory that reports the granularity under test."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

from pmem2._config import Config
from pmem2._map import Map
from pmem2._source import Source

if TYPE_CHECKING:
    from pmem2._enums import Granularity


class VolatileMap(Map):  # type: ignore[misc] # final for users: a subclass must override every access to the memory
    """The base class of the maps that workloads and checks receive."""

    __slots__ = ()

    def __init__(self, size: int, granularity: Granularity) -> None:
        """Map *size* zero bytes of anonymous memory."""
        with Source.from_anon(size) as source:
            super().__init__(source, Config(required_granularity=granularity))

    @property
    def granularity(self) -> Granularity:
        """The granularity under test."""
        granularity = self._config.required_granularity
        assert granularity is not None
        return granularity

    def deep_flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Persist the range: libpmem2 refuses a deep flush of anonymous memory."""
        self.persist(offset, length)

    def __del__(self) -> None:
        """Do not warn: the explorer closes its maps, users need not."""
