# SPDX-License-Identifier: BSD-3-Clause
"""The maps of the explorer override every public method of Map, or a list here says why not."""

from __future__ import annotations

import re

import pytest

from pmem2 import Map
from pmem2.testing._read_tracking import ReadTrackingMap
from pmem2.testing._recorder import RecordingMap
from pmem2.testing._volatile import VolatileMap

BOTH = {
    "__array__": "it calls view, which is overridden",
    "__buffer__": "it calls view, which is overridden",
    "__enter__": "it does not access the memory",
    "__exit__": "it calls close",
    "__len__": "it does not access the memory",
    "__reduce__": "it refuses to pickle a map",
    "__repr__": "it does not access the memory",
    "as_array": "it calls view, which is overridden",
    "closed": "it does not access the memory",
    "config": "it does not access the memory",
    "from_existing": "it returns another map",
    "madvise": "it changes no content",
    "prefault": "it changes no content",
    "protection": "it does not access the memory",
    "sharing": "it does not access the memory",
    "size": "it does not access the memory",
}
NOT_RECORDED = {
    **BOTH,
    "__contains__": "it calls find",
    "__getitem__": "it only reads",
    "find": "it only reads",
    "load_u64": "it only reads",
    "read_into": "it only reads",
}
NOT_TRACKED = {
    **BOTH,
    "__contains__": "it calls find",
    "__setitem__": "it only stores",
    "acquire": "it reads no content",
    "acquire_many": "it reads no content",
    "close": "it does not access the memory",
    "drain": "it reads no content",
    "flush": "it reads no content",
    "flush_many": "it reads no content",
    "memcpy": "it only stores; a map as the data calls _copied_handle, which is overridden",
    "memcpy_many": "as memcpy",
    "memmove": "as memcpy",
    "memset": "it only stores",
    "persist": "it reads no content",
    "persist_many": "it reads no content",
    "publish": "it reads no content",
    "publish_many": "it reads no content",
    "store_u64": "it only stores",
}
GENERATED = re.compile(
    "__(annot.*|attrs_.*|dict|doc|final|firstlineno|match_args|module|slots|static_attributes|weakref)__"
)
"""Attributes that Python and attrs add to a class."""


def public_names(kind: type) -> set[str]:
    """Return the methods, properties and operators of a class, without those that only `object` defines."""
    names = {name for base in kind.__mro__[:-1] for name in vars(base)}
    return {name for name in names if (name.startswith("__") or name[0] != "_") and not GENERATED.fullmatch(name)}


@pytest.mark.parametrize(("kind", "exempt"), [(RecordingMap, NOT_RECORDED), (ReadTrackingMap, NOT_TRACKED)])
def test_every_public_method_is_overridden(kind: type[Map], exempt: dict[str, str]) -> None:
    """Each public name of Map is either overridden or exempt, never both; a new method of Map fails this test."""
    overridden = {name for base in (kind, VolatileMap) for name in vars(base)}
    public = public_names(Map)
    assert public - overridden == exempt.keys() & public
    assert exempt.keys() <= public | {"__buffer__"}  # Map defines __buffer__ from Python 3.12 on
