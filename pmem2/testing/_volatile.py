# SPDX-License-Identifier: BSD-3-Clause
"""A map of memory that is as volatile as any, and says that it has the granularity which is explored."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

from pmem2._config import Config
from pmem2._map import Map
from pmem2._source import Source

if TYPE_CHECKING:
    from pmem2._enums import Granularity


class VolatileMap(Map):  # type: ignore[misc] # final to users: whoever derives has to know every way into the memory
    """A Map for workloads and checks."""

    __slots__ = ()

    def __init__(self, size: int, granularity: Granularity) -> None:
        """Map *size* bytes of zeros."""
        with Source.from_anon(size) as source:
            super().__init__(source, Config(required_granularity=granularity))

    @property
    def granularity(self) -> Granularity:
        """The granularity that is explored."""
        granularity = self._config.required_granularity
        assert granularity is not None
        return granularity

    def deep_flush(self, offset: SupportsIndex = 0, length: SupportsIndex | None = None) -> None:
        """Persist, as far as this memory can."""
        self.persist(offset, length)

    def __del__(self) -> None:
        """Say nothing: nobody was to close it."""
