# SPDX-License-Identifier: BSD-3-Clause
"""VolatileMap: a Map of ordinary memory that reports the granularity under test."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

from pmem2._config import Config
from pmem2._map import Map
from pmem2._slices import as_slice, slice_span
from pmem2._source import Source

if TYPE_CHECKING:
    from pmem2._buffers import Memory
    from pmem2._enums import Granularity
    from pmem2._slices import Slice


class VolatileMap(Map):  # type: ignore[misc] # final for users: a subclass must override every access to the memory
    """The base class of the maps that workloads and checks receive."""

    __slots__ = ()

    def __init__(self, size: int, granularity: Granularity) -> None:
        """Map *size* zero bytes of anonymous memory."""
        with Source.from_anon(size) as source:
            super().__init__(source, Config(required_granularity=granularity))

    def _internal_view(self) -> None:
        """Index in C: these maps are made in great numbers, and share their memory."""

    def _key_span(self, key: SupportsIndex | Slice) -> tuple[int, int, int]:
        """Return offset and length of the range that an index or a slice touches, and its step."""
        part = as_slice(key)
        return (self._index(key), 1, 1) if part is None else slice_span(part, self._size)

    @property
    def granularity(self) -> Granularity:
        """The granularity under test."""
        granularity = self._config.required_granularity
        assert granularity is not None
        return granularity

    def deep_flush(self, offset: SupportsIndex | Memory = 0, length: SupportsIndex | None = None) -> None:
        """Persist the range: libpmem2 refuses a deep flush of anonymous memory."""
        self.persist(*self._span(offset, length))

    def __del__(self) -> None:
        """Do not warn: the explorer closes its maps, users need not."""
