# SPDX-License-Identifier: BSD-3-Clause
"""CheckRunner: runs the recovery and the check on one image after the other, each with a fresh Map object."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable
from unittest import SkipTest

from pmem2.testing._callables import definition_of
from pmem2.testing._events import Event, Store
from pmem2.testing._read_tracking import ReadTrackingMap
from pmem2.testing._recorder import RecordingMap
from pmem2.testing._shadow import Shadow, bytes_at
from pmem2.testing._volatile import VolatileMap
from pmem2.testing._workload import record_recovery

if TYPE_CHECKING:
    from pmem2._enums import Granularity
    from pmem2._map import Map

Reads = Sequence[tuple[int, int]]
"""The ranges that were read, in order."""


class CheckFailed(Exception):  # internal: never leaves this package
    """A check or a recovery has rejected an image.

    Attributes:
        image: The image.
        acknowledged: How often the workload had yielded.
        reason: The exception that was raised.
        recovered: Whether the check has raised it, after the recovery.
    """

    def __init__(self, image: bytes, acknowledged: int, reason: BaseException, recovered: bool = True) -> None:
        """Hold the attributes."""
        super().__init__(reason)
        self.image = image
        self.acknowledged = acknowledged
        self.reason = reason
        self.recovered = recovered


class CheckRunner:
    """The memory for crash images, the recovery and the check."""

    def __init__(
        self,
        size: int,
        granularity: Granularity,
        check: Callable[[Map, int], object],
        recover: Callable[[Map], object] | None = None,
        lint: bool = False,
    ) -> None:
        """Map memory for images of *size* bytes.

        Args:
            size: The size.
            granularity: The granularity of the maps.
            check: Receives a map and the count of acknowledgements.
            recover: Receives the map before the check; `None` leaves the recovery to the check.
            lint: Whether to collect the stores of the check, if there is no *recover*.
        """
        self._size = size
        self._granularity = granularity
        self._check = check
        self._recover = recover
        self._lint = lint and recover is None
        self.check_stores: list[Store] = []
        self._closed = VolatileMap(size, granularity)
        self._closed.close()
        self._map_memory()

    def _map_memory(self) -> None:
        self._memory = VolatileMap(self._size, self._granularity)
        self._shadow = Shadow(self._memory._address, self._size)

    def run(self, image: bytearray, acknowledged: int) -> tuple[Reads, Sequence[Event]]:
        """Recover and check one image; return what was read, and what the recovery did if it has stored something.

        Raises:
            CheckFailed: The recovery or the check has raised an exception.
            TypeError: The check returned something.
            RuntimeError, BufferError: The recovery did what cannot be recorded.
        """
        if self._memory.closed:
            self._map_memory()
        bytes_at(self._memory._address, self._size)[:] = image
        map = self._new_map()
        recovered = False
        try:
            events = self._run_recovery(map)
            recovered = True
            result = self._check(map, acknowledged)
            if self._lint and isinstance(map, RecordingMap):
                self._collect_stores(map, image)
        except BaseException as reason:
            if reason is map.refusal or isinstance(reason, KeyboardInterrupt) or is_skip(reason):
                raise
            raise CheckFailed(bytes(image), acknowledged, reason, recovered) from reason
        finally:
            self._take_memory(map)
        if result is not None:
            raise TypeError(f"check returned {reprlib.repr(result)}; use assert")
        return map.reads, events

    def _new_map(self) -> ReadTrackingMap:
        if self._recover is None and not self._lint:
            return ReadTrackingMap(self._memory)
        self._shadow.load()
        return RecordingMap(self._memory, self._shadow)

    def _run_recovery(self, map: ReadTrackingMap) -> Sequence[Event]:
        if not isinstance(map, RecordingMap):
            return ()
        if self._recover is not None:
            record_recovery(map, self._recover)
        map.stop()
        return tuple(map.events) if any(isinstance(event, Store) for event in map.events) else ()

    def _collect_stores(self, map: RecordingMap, image: bytearray) -> None:
        stores = [event for event in map.events if isinstance(event, Store)]
        if not stores and not map.closed and bytes_at(map._address, self._size)[:] != image:
            stores = [Store(definition_of(self._check), 0, self._size, ())]  # through a view: the place is unknown
        self.check_stores += stores

    def _take_memory(self, map: ReadTrackingMap) -> None:
        """Close *map*. If a view of it is kept, leave it this memory, and map other memory for the next image."""
        if isinstance(map, RecordingMap):
            map.stop()
        if any(view() is not None for view in map.views):
            self._memory = self._closed
        map._handle = self._closed._handle

    def dispose(self) -> None:
        """Unmap the memory, at once or after the last view of it."""
        self._memory.close(defer=True)


def is_skip(error: BaseException) -> bool:
    """Whether an exception skips the test, in pytest or unittest."""
    kind = type(error)
    # pytest hides its class: the name avoids an import of pytest
    return isinstance(error, SkipTest) or (kind.__module__, kind.__name__) == ("builtins", "Skipped")
