# SPDX-License-Identifier: BSD-3-Clause
"""An object is initialised once, owns its C object alone, and cannot be copied or set from outside."""

from __future__ import annotations

import copy
import mmap
import pickle
from pathlib import Path
from typing import Callable

import pytest

import pmem2
from safety.process_state import collect_garbage, count_mappings

MIB = 1024 * 1024
PICKLERS: list[Callable[[object], object]] = [pickle.dumps, copy.copy, copy.deepcopy]


def test_second_init_is_refused(source: pmem2.Source, reservation: pmem2.VMReservation, file: Path) -> None:
    """A second __init__, of an open or a closed object, raises ValueError and changes nothing."""
    config = pmem2.Config(reservation=reservation, length=MIB)
    private = pmem2.Config(sharing=pmem2.Sharing.PRIVATE, length=4096)
    with source.map(config) as map:
        for other in (config, private):
            with pytest.raises(ValueError, match="already initialised"):
                map.__init__(source, other)
        assert (map.config, map.sharing, len(map)) == (config, pmem2.Sharing.SHARED, MIB)
        before = reservation.address
        with pytest.raises(ValueError, match="already initialised"):
            reservation.__init__(4096)
        assert (list(reservation), reservation.first(), reservation.address) == ([map], map, before)
        assert count_mappings(file) == 1
    with pytest.raises(ValueError, match="already initialised"):
        map.__init__(source)
    assert map.closed
    assert count_mappings(file) == 0


def test_second_init_keeps_memory(source: pmem2.Source) -> None:
    """A second __init__ does not release the existing memory of a map."""
    buffer = mmap.mmap(-1, 4096)
    map = pmem2.Map.from_existing(source, buffer, pmem2.Granularity.PAGE)
    del buffer
    with pytest.raises(ValueError, match="already initialised"):
        map.__init__(source)
    collect_garbage()
    map[0] = 42
    assert (map[0], map.size) == (42, 4096)
    map.close()


def test_init_after_failed_init(source: pmem2.Source) -> None:
    """An object whose __init__ raised can be initialised later."""
    map = pmem2.Map.__new__(pmem2.Map)
    with pytest.raises(pmem2.MapRangeError):
        map.__init__(source, pmem2.Config(length=source.size + 4096))
    map.__init__(source)
    assert len(map) == source.size
    map.close()
    reservation = pmem2.VMReservation.__new__(pmem2.VMReservation)
    with pytest.raises(pmem2.LengthUnalignedError):
        reservation.__init__(1)
    reservation.__init__(4096)
    assert reservation.size == 4096
    reservation.close()


def test_classes_that_refuse_calls() -> None:
    """Calling Source or BadBlockContext raises TypeError."""
    for kind in (pmem2.Source, pmem2.BadBlockContext):
        with pytest.raises(TypeError, match="make a"):
            kind()


def test_no_method_sets_fields(source: pmem2.Source, map: pmem2.Map, reservation: pmem2.VMReservation) -> None:
    """No object has a method that sets all its fields, because C uses them."""
    with source.bad_blocks() as context:
        for owner in (source, map, reservation, context):
            for name in ("__attrs_init__", "__setstate__"):
                assert not hasattr(owner, name)


@pytest.mark.parametrize("duplicate", PICKLERS)
def test_owners_cannot_be_copied(
    source: pmem2.Source, map: pmem2.Map, reservation: pmem2.VMReservation, duplicate: Callable[[object], object]
) -> None:
    """Copying or pickling an object that owns a C object raises TypeError with advice."""
    with source.bad_blocks() as context:
        for owner in (source, map, reservation, context):
            with pytest.raises(TypeError, match="open it there"):
                duplicate(owner)
    with pytest.raises(TypeError):
        duplicate(map.view())


def test_config_can_be_copied() -> None:
    """A Config without a reservation can be copied and pickled."""
    config = pmem2.Config(offset=4096, length=8192, sharing=pmem2.Sharing.PRIVATE)
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
