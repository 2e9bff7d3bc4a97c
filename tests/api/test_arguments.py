# SPDX-License-Identifier: BSD-3-Clause
"""Integer parameters: every method of a map validates them alike."""

from __future__ import annotations

from typing import Callable

import pytest
from _pmem2 import lib
from support.values import CONTENT, Index, invalid_sizes, non_integers

from pmem2 import Map

INTEGER_PARAMETERS: dict[str, Callable[[Map, int], object]] = {
    "persist, offset": lambda m, n: m.persist(n, 1),
    "persist, length": lambda m, n: m.persist(0, n),
    "persist, offset only": Map.persist,
    "flush, offset": lambda m, n: m.flush(n, 1),
    "flush, length": lambda m, n: m.flush(0, n),
    "flush, offset only": Map.flush,
    "deep_flush, offset": lambda m, n: m.deep_flush(n, 1),
    "deep_flush, length": lambda m, n: m.deep_flush(0, n),
    "deep_flush, offset only": Map.deep_flush,
    "persist_many, offset": lambda m, n: m.persist_many([(0, 1), (n, 1)]),
    "persist_many, length": lambda m, n: m.persist_many([(0, 1), (0, n)]),
    "flush_many, offset": lambda m, n: m.flush_many([(0, 1), (n, 1)]),
    "flush_many, length": lambda m, n: m.flush_many([(0, 1), (0, n)]),
    "publish, offset": lambda m, n: m.publish(n, 1),
    "publish, length": lambda m, n: m.publish(0, n),
    "acquire, offset": lambda m, n: m.acquire(n, 1),
    "acquire, length": lambda m, n: m.acquire(0, n),
    "publish_many, offset": lambda m, n: m.publish_many([(0, 1), (n, 1)]),
    "acquire_many, length": lambda m, n: m.acquire_many([(0, 1), (0, n)]),
    "prefault, offset": lambda m, n: m.prefault(n, 1),
    "prefault, length": lambda m, n: m.prefault(0, n),
    "prefault, offset only": Map.prefault,
    "madvise, option": Map.madvise,
    "madvise, offset": lambda m, n: m.madvise(0, n, 1),
    "madvise, length": lambda m, n: m.madvise(0, 0, n),
    "view, offset": lambda m, n: m.view(n, 1),
    "view, length": lambda m, n: m.view(0, n),
    "view, offset only": Map.view,
    "memcpy, offset": lambda m, n: m.memcpy(n, b"1"),
    "memcpy, offset, bytearray": lambda m, n: m.memcpy(n, bytearray(b"1")),
    "memmove, offset": lambda m, n: m.memmove(n, b"1"),
    "memcpy_many, offset": lambda m, n: m.memcpy_many([(0, b"1"), (n, b"1")]),
    "memset, offset": lambda m, n: m.memset(n, 1, 1),
    "memset, value": lambda m, n: m.memset(0, n, 1),
    "memset, length": lambda m, n: m.memset(0, 1, n),
    "load_u64, offset": Map.load_u64,
    "store_u64, offset": lambda m, n: m.store_u64(n, 1),
    "store_u64, value": lambda m, n: m.store_u64(0, n),
    "compare_exchange_u64, offset": lambda m, n: m.compare_exchange_u64(n, 0, 1),
    "compare_exchange_u64, expected": lambda m, n: m.compare_exchange_u64(0, n, 1),
    "compare_exchange_u64, desired": lambda m, n: m.compare_exchange_u64(0, 0, n),
    "fetch_add_u64, offset": lambda m, n: m.fetch_add_u64(n, 1),
}
TAKES_MEMORY = ("persist, offset only", "flush, offset only", "deep_flush, offset only")
every_parameter = pytest.mark.parametrize("name", INTEGER_PARAMETERS)


@every_parameter
@non_integers
def test_integer_of_wrong_type(small_map: Map, name: str, wrong: int) -> None:
    """A bool, a float or another non-integer raises TypeError for every integer parameter and nothing is stored."""
    parameter = name.split(", ")[1].split()[0]
    is_memory = repr(wrong) == "b'1'" and name in TAKES_MEMORY  # but not memory of the map
    kind = ValueError if is_memory else TypeError
    with pytest.raises(kind, match=parameter):
        INTEGER_PARAMETERS[name](small_map, wrong)
    assert small_map[:] == CONTENT


@every_parameter
@invalid_sizes
def test_integer_out_of_range(small_map: Map, name: str, outside: int) -> None:
    """A negative number or one over 64 bits raises ValueError for every integer parameter and nothing is stored."""
    parameter = name.split(", ")[1].split()[0]
    with pytest.raises(ValueError, match=parameter):
        INTEGER_PARAMETERS[name](small_map, outside)
    assert small_map[:] == CONTENT


@pytest.mark.parametrize(
    "name",
    [name for name in INTEGER_PARAMETERS if "length" not in name.split(", ")[1:] or "many" in name or "memset" in name],
)
def test_none_instead_of_integer(small_map: Map, name: str) -> None:
    """None raises TypeError for every integer parameter, except a length that defaults to the rest of the map."""
    with pytest.raises(TypeError):
        INTEGER_PARAMETERS[name](small_map, None)  # type: ignore[arg-type] # wrong on purpose
    assert small_map[:] == CONTENT


def test_integer_objects(small_map: Map) -> None:
    """An object with `__index__` is accepted for every integer parameter."""
    one, eight = Index(1), Index(8)
    small_map.persist(one, eight)
    small_map.flush(one, eight)
    small_map.deep_flush(one, eight)
    small_map.persist_many([(one, eight)])
    if lib.HAS_CACHE_CONTROL:
        small_map.publish(one, eight)
        small_map.acquire(one, eight)
    small_map.memcpy(one, b"1", Index(0))  # type: ignore[arg-type]
    small_map.memset(Index(2), Index(50), one)
    small_map.memcpy_many([(Index(3), b"3")])
    assert small_map[:5] == b"\x00123\x04"
    small_map.store_u64(eight, Index(5))
    assert small_map.compare_exchange_u64(eight, Index(5), Index(6)) == (True, 5)
    assert small_map.fetch_add_u64(eight, one) == 6
    assert small_map.load_u64(eight) == 7
