# SPDX-License-Identifier: BSD-3-Clause
"""`close(defer=True)`: never refuses; the last view or operation unmaps."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import pmem2
from safety.process_state import collect_garbage, count_mappings


def test_unused_map_is_unmapped(source: pmem2.Source, file: Path) -> None:
    """Without views and operations the memory is unmapped at once."""
    map = source.map()
    assert map.close(defer=True) is True
    assert map.close(defer=True) is True
    assert count_mappings(file) == 0


def test_last_view_unmaps(source: pmem2.Source, file: Path) -> None:
    """Views stay usable, the map does not, and the last view unmaps."""
    map = source.map()
    first, second = map.view(), map.view(8, 8)
    map[0] = 7
    assert map.close(defer=True) is False
    assert map.closed
    for use in (lambda: map[0], lambda: map.persist(0, 1), map.view):
        with pytest.raises(ValueError, match="closed"):
            use()
    map.close()
    assert first[0] == 7
    first.release()
    del first
    collect_garbage()
    assert second[0] == 0
    assert count_mappings(file) == 1
    second.release()
    del second
    collect_garbage()
    assert count_mappings(file) == 0
    assert map.close(defer=True) is True


def test_view_outlives_dropped_map(source: pmem2.Source, file: Path) -> None:
    """A map that is closed with defer and dropped is unmapped by its last view too."""
    map = source.map()
    other = map.view()
    assert map.close(defer=True) is False
    del map
    collect_garbage()
    other[0] = 3
    assert source.pread_mcsafe(1) == b"\x03"
    assert count_mappings(file) == 1
    other.release()
    del other
    collect_garbage()
    assert count_mappings(file) == 0


def test_map_in_a_reservation() -> None:
    """The place in a reservation is free again once the last view is gone."""
    with pmem2.Source.from_anon(4096) as source, pmem2.VMReservation(4096) as reservation:
        config = pmem2.Config(reservation=reservation)
        map = source.map(config)
        view = map.view()
        map.close(defer=True)
        assert list(reservation) == []
        with pytest.raises(pmem2.MappingExistsError):
            source.map(config)
        view.release()
        del view
        collect_garbage()
        source.map(config).close()


def test_defer_under_load(source: pmem2.Source, file: Path) -> None:
    """Threads that index, copy and view while the map is closed get a result or ValueError; nothing stays mapped."""
    for _ in range(20):
        map = source.map()
        started = threading.Barrier(4)

        def work(map: pmem2.Map = map, started: threading.Barrier = started) -> None:
            started.wait()
            try:
                while True:
                    assert map[0:8:2] == bytes(4)
                    map.view(0, 8).release()
                    map.memcpy(0, map)
            except ValueError:
                pass

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait()
        map.close(defer=True)
        for thread in threads:
            thread.join()
        del map, work
    collect_garbage()
    assert count_mappings(file) == 0
