# SPDX-License-Identifier: BSD-3-Clause
"""Maps: how they are made and refused, and everything that can be done to their bytes."""

from __future__ import annotations

import gc
import itertools
import math
import mmap
import os
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Callable, Literal

import pytest
from support.children import RunChild
from support.values import CONTENT, ON_PYPY, PAGE, SIZE, Index, no_integer, no_size

import pmem2
from pmem2 import Config, Granularity, Map, MemFlag, Protection, Sharing, Source

READ, WRITE, EXEC, NONE = Protection.READ, Protection.WRITE, Protection.EXEC, Protection.NONE
LENGTH = len(CONTENT)


@pytest.fixture
def small(path: Path) -> Iterator[Map]:
    """A map of that file."""
    with pmem2.open(path) as map:
        yield map


@pytest.fixture
def anonymous() -> Iterator[Source]:
    """A source of anonymous memory."""
    with Source.from_anon(LENGTH) as source:
        yield source


def protected(path: Path, protection: Protection) -> Map:
    """Return a map of a file, made with a protection."""
    with Source.from_path(path) as source:
        return Map(source, Config(protection=protection))


# ---- making one


def test_made_by_the_class_or_by_the_source(path: Path) -> None:
    """`Map(source, config)` and `source.map(config)` are the same; without a config it is Config()."""
    with Source.from_path(path) as source, Map(source) as one, source.map() as two:
        assert one.config == two.config == Config()
        assert one[:] == two[:] == CONTENT
        with Map(source, Config(offset=PAGE)) as three, Map(source=source, config=Config(length=PAGE)) as four:
            assert three[:] == CONTENT[PAGE:]
            assert four[:] == CONTENT[:PAGE]


@pytest.mark.parametrize("wrong", [None, 0, "path", Path("path"), Config(), Source, object()])
def test_no_source(wrong: Source) -> None:
    """Anything but a Source is a TypeError."""
    with pytest.raises(TypeError, match="Source"):
        Map(wrong)
    with pytest.raises(TypeError, match="Source"):
        Map.from_existing(wrong, bytearray(8), Granularity.PAGE)


@pytest.mark.parametrize("wrong", [None, 0, {}, Config, Granularity.PAGE])
def test_no_config(anonymous: Source, wrong: Config) -> None:
    """Anything but a Config is a TypeError."""
    with pytest.raises(TypeError, match="Config"):
        Map(anonymous, wrong)


def test_source_and_descriptor_are_not_needed_afterwards(path: Path) -> None:
    """A map lives on when its source is closed and its file unlinked."""
    with Source.from_path(path) as source:
        map = source.map()
    path.unlink()
    with map:
        map.memcpy(0, b"still here")
        assert map[:10] == b"still here"


@pytest.mark.parametrize("size", [0, PAGE])
@pytest.mark.parametrize("offset", [1, 17, PAGE - 1, PAGE + 1, 2**63 - 1])
def test_unaligned_comes_first(path: Path, size: int, offset: int) -> None:
    """An unaligned offset is told first, also of an empty source and past the end."""
    os.truncate(path, size)
    with Source.from_path(path) as source, pytest.raises(pmem2.OffsetUnalignedError):
        source.map(Config(offset=offset))


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE + 1, 2**64 - 1])
def test_unaligned_length(path: Path, length: int) -> None:
    """A length that is no multiple of the alignment is a LengthUnalignedError."""
    with Source.from_path(path) as source, pytest.raises(pmem2.LengthUnalignedError):
        source.map(Config(length=length))


@pytest.mark.parametrize("offset", [0, PAGE, 2**63 - PAGE])
@pytest.mark.parametrize("length", [None, PAGE])
def test_then_empty(path: Path, offset: int, length: int | None) -> None:
    """An empty source is told next, whatever is wanted of it."""
    os.truncate(path, 0)
    with Source.from_path(path) as source, pytest.raises(pmem2.SourceEmptyError):
        source.map(Config(offset=offset, length=length))


RANGES = [
    (2 * PAGE, None),
    (2 * PAGE, PAGE),
    (3 * PAGE, None),
    (2**63 - PAGE, None),
    (2**63 - PAGE, PAGE),
    (0, 3 * PAGE),
    (PAGE, 2 * PAGE),
    (0, 2**63),
    (PAGE, 2**64 - PAGE),
    (PAGE, 2**64 - 2 * PAGE),
]


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_then_the_range(path: Path, offset: int, length: int | None) -> None:
    """A range that does not lie inside, an offset exactly at the end included, is a MapRangeError."""
    with Source.from_path(path) as source, pytest.raises(pmem2.MapRangeError) as caught:
        source.map(Config(offset=offset, length=length))
    assert caught.value.code is pmem2.ErrorCode.MAP_RANGE


def test_part_of_a_page(path: Path) -> None:
    """Without a length all of the file is mapped, to its last byte."""
    os.truncate(path, PAGE + 3)
    with pmem2.open(path) as map:
        assert map.size == PAGE + 3
        assert map[-1] == CONTENT[PAGE + 2]
        with pytest.raises(IndexError):
            _ = map[PAGE + 3]


@pytest.mark.parametrize("protection", [WRITE, READ | WRITE])
def test_writing_what_may_only_be_read(path: Path, protection: Protection) -> None:
    """A source that is open for reading cannot be mapped for writing, unless PRIVATE."""
    with Source.from_path(path, writable=False) as source:
        with pytest.raises(pmem2.NoAccessError):
            source.map(Config(protection=protection))
        with source.map(Config(protection=protection, sharing=Sharing.PRIVATE)) as map:
            assert map.protection == protection


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("sharing", list(Sharing))
def test_protection_unless_told(path: Path, writable: bool, sharing: Sharing) -> None:
    """Without a protection it is what the descriptor allows: READ for a read-only one mapped SHARED."""
    with Source.from_path(path, writable=writable) as source, source.map(Config(sharing=sharing)) as map:
        assert map.protection == (READ if sharing is Sharing.SHARED and not writable else READ | WRITE)
        assert map.config.protection is None
        assert map.sharing is sharing


def test_properties(path: Path) -> None:
    """A map tells where it is, how large, how granular, and what it was made with."""
    config = Config(offset=PAGE, length=PAGE, protection=READ)
    with Source.from_path(path) as source, source.map(config) as map:
        assert map.address > 0
        assert map.address % PAGE == 0
        assert type(map.address) is int
        assert map.size == len(map) == PAGE
        assert isinstance(map.granularity, Granularity)
        assert map.protection == READ
        assert isinstance(map.protection, Protection)
        assert map.sharing is Sharing.SHARED
        assert map.config is config
        assert map.closed is False


def test_granularity(source: Source, granularity: Granularity) -> None:
    """A map has the best granularity there is, which may be better than what is required."""
    with source.map(Config(required_granularity=Granularity.PAGE)) as map:
        assert map.granularity is granularity


def test_attributes_cannot_be_set(small: Map) -> None:
    """The properties cannot be set, and no attribute be added."""
    names = ("address", "size", "granularity", "protection", "sharing", "config", "closed", "color")
    for name in names:
        with pytest.raises(AttributeError):
            setattr(small, name, 0)


def test_identity(small: Map, path: Path) -> None:
    """A map is equal to itself only, and hashable."""
    with pmem2.open(path) as other:
        assert small != other
        assert len({small, other, small}) == 2


def test_repr(path: Path) -> None:
    """What is printed says how large it is, where, and whether it is closed."""
    with pmem2.open(path) as map:
        assert str(LENGTH) in repr(map)
        assert f"{map.address:#x}" in repr(map)
        assert map.granularity.name in repr(map)
    assert "closed" in repr(map)


def test_private(path: Path) -> None:
    """What is stored in a PRIVATE map is seen by nobody else."""
    with Source.from_path(path) as source, source.map(Config(sharing=Sharing.PRIVATE)) as one:
        with source.map(Config(sharing=Sharing.PRIVATE)) as two, source.map() as shared:
            one.memcpy(0, b"mine")
            one.persist()
            assert one[:4] == b"mine"
            assert two[:] == shared[:] == path.read_bytes() == CONTENT


# ---- indexes and slices


NUMBERS = [None, 0, 1, 2, 7, 63, 64, LENGTH - 1, LENGTH, LENGTH + 1, 2**63, 2**70, -1, -2, -64, -LENGTH, -LENGTH - 1]
NUMBERS += [-(2**63), -(2**70)]
STEPS = [None, 1, 2, 3, 63, 64, LENGTH - 1, LENGTH, 2**70, -1, -2, -7, -LENGTH, -(2**70)]
SLICES = [slice(*key) for key in itertools.product(NUMBERS, NUMBERS, [None, -1, 3])]
SLICES += [slice(*key) for key in itertools.product([None, 5, -5], [None, 5, -5, LENGTH], STEPS)]


def test_every_index(small: Map) -> None:
    """Every index, negative ones counted from the end, is an int, as of a bytearray."""
    assert [small[i] for i in range(-LENGTH, LENGTH)] == list(CONTENT) * 2
    assert type(small[0]) is int


@pytest.mark.parametrize("index", [LENGTH, LENGTH + 1, -LENGTH - 1, 2**63, 2**64, 2**64 - 1, 2**70, -(2**63), -(2**70)])
def test_index_outside(small: Map, index: int) -> None:
    """An index outside is an IndexError, to read and to write."""
    with pytest.raises(IndexError):
        _ = small[index]
    with pytest.raises(IndexError):
        small[index] = 0
    assert small[:] == CONTENT


@pytest.mark.parametrize("wrong", [1.0, "1", b"1", None, (1, 2), [1], object(), ...])
def test_no_index(small: Map, wrong: int) -> None:
    """What is neither an integer nor a slice is a TypeError, to read and to write."""
    with pytest.raises(TypeError):
        _ = small[wrong]
    with pytest.raises(TypeError):
        small[wrong] = 0
    assert small[:] == CONTENT


def test_any_integer_is_an_index(small: Map) -> None:
    """What can be an index of a bytearray can be one of a map: a bool, too."""
    assert small[Index(7)] == CONTENT[7]
    assert small[True] == CONTENT[1]
    assert small[Index(2) : Index(5)] == CONTENT[2:5]
    small[Index(7)] = Index(0)
    assert small[7] == 0


def test_every_slice(small: Map) -> None:
    """Slices clip, count from the end, step, and run backwards as those of a bytearray, and are bytes."""
    for key in SLICES:
        assert small[key] == CONTENT[key], key
    assert type(small[0:1]) is bytes
    assert type(small[::2]) is bytes
    assert type(small[0:0]) is bytes


def test_slices_are_copies(small: Map) -> None:
    """A slice does not change when the map does."""
    before, gaps = small[:], small[::2]
    small.memset(0, 0, LENGTH)
    assert before == CONTENT
    assert gaps == CONTENT[::2]


@pytest.mark.parametrize("key", [slice(1.0), slice("1"), slice(0, 1, 1.0), slice(0, 1, "1")])
def test_slice_of_no_numbers(small: Map, key: slice) -> None:
    """A slice of what is no integer is a TypeError, to read and to write."""
    with pytest.raises(TypeError):
        _ = small[key]
    with pytest.raises(TypeError):
        small[key] = b""


def test_step_of_nothing(small: Map) -> None:
    """A step of 0 is a ValueError, to read and to write."""
    with pytest.raises(ValueError, match="zero"):
        _ = small[::0]
    with pytest.raises(ValueError, match="zero"):
        small[::0] = b""


def test_iterated(small: Map) -> None:
    """A map is a sequence of its bytes."""
    assert list(iter(small)) == list(CONTENT)
    assert list(reversed(small)) == list(CONTENT[::-1])


@pytest.mark.parametrize("index", [0, 1, 5, LENGTH - 1, -1, -2, -LENGTH])
@pytest.mark.parametrize("value", [0, 1, 127, 128, 255])
def test_byte_stored(small: Map, index: int, value: int) -> None:
    """An item is stored as in a bytearray, and nothing else is."""
    expected = bytearray(CONTENT)
    small[index] = expected[index] = value
    assert small[:] == expected


@pytest.mark.parametrize("value", [-1, 256, 2**31, 2**63, 2**64, -(2**63), 2**70])
def test_no_byte(small: Map, value: int) -> None:
    """A value that is no byte is a ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 # whoever says it
        small[0] = value
    assert small[:] == CONTENT


@pytest.mark.parametrize("wrong", [True, False, 1.0, "1", b"1", bytearray(b"1"), None, [1], memoryview(b"1")])
def test_item_of_a_wrong_type(small: Map, wrong: int) -> None:
    """A bool, a float, bytes, or anything else that is no integer is a TypeError."""
    with pytest.raises(TypeError):
        small[0] = wrong
    assert small[:] == CONTENT


def test_every_slice_stored(small: Map) -> None:
    """A slice of any step is stored as in a bytearray of fixed size, and nothing else is."""
    expected = bytearray(CONTENT)
    for number, key in enumerate(SLICES):
        data = bytes((number + i) % 251 for i in range(len(expected[key])))
        if len(data) or key.step not in (None, 1):
            expected[key] = data
        small[key] = data
        assert small[:] == expected, key


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16])
@pytest.mark.parametrize("start", range(9))
def test_short_slices_stored(small: Map, start: int, length: int) -> None:
    """Short slices, aligned and not, which are stored in their own way, are stored right."""
    expected = bytearray(CONTENT)
    small[start : start + length] = expected[start : start + length] = b"\xee" * length
    assert small[:] == expected


@pytest.mark.parametrize("key", [slice(0, 4), slice(None, None, 2), slice(9, 1, -1), slice(5, 5), slice(LENGTH, None)])
@pytest.mark.parametrize("difference", [-1, 1, 100])
def test_slice_of_another_length(small: Map, key: slice, difference: int) -> None:
    """Data of another length than the slice is a ValueError, and nothing is stored."""
    length = len(CONTENT[key]) + difference
    if length < 0:
        length = 200
    with pytest.raises(ValueError, match="bytes"):
        small[key] = bytes(length)
    assert small[:] == CONTENT


@pytest.mark.parametrize("wrong", [[1, 2], (1, 2), 2, True, 2.0, "12", None, {1, 2}, object(), Index(2), range(2)])
@pytest.mark.parametrize("key", [slice(0, 2), slice(0, 4, 2)])
def test_slice_of_a_wrong_type(small: Map, wrong: bytes, key: slice) -> None:
    """A list, an int, or anything else that has no buffer is a TypeError."""
    with pytest.raises(TypeError):
        small[key] = wrong
    assert small[:] == CONTENT


def test_deleted(small: Map) -> None:
    """Nothing can be deleted from a map: it has a fixed size."""
    with pytest.raises((TypeError, AttributeError)):
        del small[0]  # type: ignore[attr-defined] # that is the question
    with pytest.raises((TypeError, AttributeError)):
        del small[0:2]  # type: ignore[attr-defined] # that is the question
    assert small[:] == CONTENT


# ---- data of every kind


KINDS = ["bytes", "bytearray", "memoryview", "part", "array", "two dimensions", "mmap", "view", "cast view"]
EIGHT = b"\1\2\3\4\5\6\7\x80"


@pytest.fixture(params=KINDS)
def data(request: pytest.FixtureRequest, anonymous: Source) -> Iterator[memoryview]:
    """Eight bytes, in every kind of buffer (those that are no memoryview are called so for the types)."""
    simple: dict[str, object] = {
        "bytes": EIGHT,
        "bytearray": bytearray(EIGHT),
        "memoryview": memoryview(EIGHT),
        "part": memoryview(b"<" + EIGHT + b">")[1:9],
        "array": array("H", EIGHT),
        "two dimensions": memoryview(EIGHT).cast("B", (2, 4)),
    }
    kind = str(request.param)
    if kind in simple:
        yield simple[kind]  # type: ignore[misc] # see above
    elif kind == "mmap":
        with closing(mmap.mmap(-1, 8)) as memory:
            memory[:] = EIGHT
            yield memory  # type: ignore[misc] # see above
    else:
        with anonymous.map() as map:
            map[8:16] = EIGHT
            with map.view(8, 8) as view, view.cast("Q" if kind == "cast view" else "B") as cast:
                yield cast


def test_slice_of_every_kind(small: Map, data: memoryview) -> None:
    """A slice takes the bytes of any contiguous buffer, whatever its items are."""
    small[3:11] = data
    assert small[:] == CONTENT[:3] + EIGHT + CONTENT[11:]
    small[20:4:-2] = data
    assert small[20:4:-2] == EIGHT


@pytest.mark.parametrize("copy", [Map.memcpy, Map.memmove])
def test_copies_of_every_kind(small: Map, data: memoryview, copy: Callable[[Map, int, memoryview], None]) -> None:
    """A copy takes the bytes of any contiguous buffer, whatever its items are."""
    copy(small, 3, data)
    assert small[:] == CONTENT[:3] + EIGHT + CONTENT[11:]


def test_pieces_of_every_kind(small: Map, data: memoryview) -> None:
    """The pieces of memcpy_many are of any kind too."""
    small.memcpy_many([(3, data), (LENGTH - 8, data)])
    assert small[:] == CONTENT[:3] + EIGHT + CONTENT[11 : LENGTH - 8] + EIGHT


@pytest.mark.parametrize("wrong", ["12345678", 8, None, [1, 2], 1.0, object(), Index(8), True])
def test_no_data(small: Map, wrong: bytes) -> None:
    """A string, a number, or anything else that has no buffer is a TypeError."""
    with pytest.raises(TypeError):
        small.memcpy(0, wrong)
    with pytest.raises(TypeError):
        small.memmove(0, wrong)
    with pytest.raises(TypeError):
        small.memcpy_many([(0, b"first"), (8, wrong)])
    assert small[:] == CONTENT


def test_data_with_gaps(small: Map) -> None:
    """A buffer that is not C-contiguous is a BufferError, and nothing is stored."""
    for gaps in (memoryview(CONTENT)[:8:2], memoryview(CONTENT)[7::-1]):
        with pytest.raises(BufferError):
            small.memcpy(0, gaps)
        with pytest.raises(BufferError):
            small.memmove(0, gaps)
        with pytest.raises(BufferError):
            small.memcpy_many([(0, b"first"), (8, gaps)])
        with pytest.raises(BufferError):
            small[0 : len(gaps)] = gaps
        with pytest.raises(BufferError):
            small[0 : 2 * len(gaps) : 2] = gaps
    assert small[:] == CONTENT


def test_map_as_data(small: Map) -> None:
    """A Map is data too, on every interpreter: of copies, of slices, and of itself."""
    with Source.from_anon(8) as source, source.map() as other:
        other[:] = EIGHT
        small.memcpy(0, other)
        small.memmove(8, other)
        small.memcpy_many([(16, other), (24, other)])
        small[32:40] = other
        small[40:56:2] = other
    assert small[:40] == EIGHT * 5
    assert small[40:56:2] == EIGHT
    before = small[:]
    small.memmove(0, small)
    small[:] = small
    small[::-1] = small
    assert small[:] == before[::-1]


def test_map_that_is_no_data(small: Map, path: Path) -> None:
    """A Map that is too large, closed, or not readable is refused as any data is."""
    with Source.from_anon(LENGTH + 1) as source, source.map() as large:
        with pytest.raises(ValueError, match="outside"):
            small.memcpy(0, large)
        with pytest.raises(ValueError, match="bytes"):
            small[:] = large
    with pytest.raises(ValueError, match="closed"):
        small.memcpy(0, large)
    with pytest.raises(ValueError, match="closed"):
        small[:] = large
    with protected(path, WRITE) as unreadable:
        with pytest.raises(TypeError, match="READ"):
            small.memcpy(0, unreadable)
        with pytest.raises(TypeError, match="READ"):
            small[:] = unreadable
    assert small[:] == CONTENT


@pytest.mark.parametrize(("source", "target"), [(0, 0), (0, 1), (1, 0), (0, 64), (64, 0), (5, 300), (300, 5)])
@pytest.mark.parametrize("length", [0, 1, 8, 255, 256, 257, 5000])
def test_overlapping(small: Map, source: int, target: int, length: int) -> None:
    """memmove takes a view of the very map, which may overlap."""
    expected = bytearray(CONTENT)
    expected[target : target + length] = expected[source : source + length]
    with small.view(source, length) as view:
        small.memmove(target, view)
    assert small[:] == expected


@pytest.mark.parametrize("target", [0, 3, 8, 13, 200])
def test_overlapping_slices(small: Map, target: int) -> None:
    """A slice takes a view of the very map, which may overlap."""
    expected = bytearray(CONTENT)
    expected[target : target + 16] = CONTENT[8:24]
    with small.view(8, 16) as view:
        small[target : target + 16] = view
    assert small[:] == expected


def test_overlapping_slice_with_gaps(small: Map) -> None:
    """A slice with gaps takes a view of the very map, as it was before."""
    with small.view(0, 16) as view:
        small[0:32:2] = view
    assert small[0:32:2] == CONTENT[:16]


# ---- views


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 1), (1, 5), (5, LENGTH - 5), (LENGTH, 0), (0, LENGTH)])
def test_view(small: Map, offset: int, length: int) -> None:
    """A view is the memory itself, of a range: bytes that are written through it are in the map, and the reverse."""
    with small.view(offset, length) as view:
        assert type(view) is memoryview
        assert (view.nbytes, view.format, view.itemsize, view.ndim) == (length, "B", 1, 1)
        assert not view.readonly
        assert view == CONTENT[offset : offset + length]
        if length:
            view[0] ^= 0xFF
            assert small[offset] == CONTENT[offset] ^ 0xFF
            small[offset] = 7
            assert view[0] == 7


def test_view_of_the_rest(small: Map) -> None:
    """Without a length a view goes to the end, and without an offset it begins at 0; keywords and any integer do."""
    with small.view() as whole, small.view(100) as rest, small.view(length=Index(3), offset=Index(2)) as part:
        assert whole == CONTENT
        assert rest == CONTENT[100:]
        assert part == CONTENT[2:5]
    with small.view(LENGTH) as nothing, small.view(LENGTH, None) as nothing_either:
        assert nothing.nbytes == nothing_either.nbytes == 0


RANGES_OUTSIDE = [
    (0, LENGTH + 1),
    (1, LENGTH),
    (LENGTH, 1),
    (LENGTH + 1, 0),
    (LENGTH + 1, None),
    (2**63, None),
    (2**64 - 1, None),
    (2**64 - 1, 1),
    (2**64 - 1, 2**64 - 1),
    (1, 2**64 - 1),
    (0, 2**63),
    (LENGTH, 2**64 - LENGTH),
]
range_outside = pytest.mark.parametrize(("offset", "length"), RANGES_OUTSIDE)


@range_outside
def test_view_outside(small: Map, offset: int, length: int | None) -> None:
    """A range outside the map is a ValueError."""
    with pytest.raises(ValueError, match="outside"):
        small.view(offset, length)


def test_view_of_a_read_only_map(path: Path) -> None:
    """A view of a map without WRITE is read-only."""
    with pmem2.open(path, "r") as map, map.view(1, 3) as view:
        assert view.readonly
        assert view == CONTENT[1:4]
        with pytest.raises(TypeError):
            view[0] = 0


def test_view_of_a_read_only_map_cannot_kill(path: Path, run_child: RunChild) -> None:
    """Nothing made from a read-only view, but for its `obj`, writes to memory where that is a SIGSEGV."""
    child = run_child(
        """
        import sys, pmem2
        with pmem2.open(sys.argv[1], "r") as map, map.view() as view:
            for way in (view, memoryview(view), view.cast("Q")):
                try:
                    way[0] = 1
                except TypeError:
                    pass
                try:
                    way[0] = b"1"
                except TypeError:
                    pass
        """,
        str(path),
    )
    assert child.returncode >= 0
    assert path.read_bytes() == CONTENT


def test_view_cast(small: Map) -> None:
    """A view can be cast to other items."""
    with small.view(8, 16) as view, view.cast("Q") as words:
        words[1] = 2**64 - 1
        assert words[0] == int.from_bytes(CONTENT[8:16], sys.byteorder)
    assert small[8:32] == CONTENT[8:16] + b"\xff" * 8 + CONTENT[24:32]


def test_live_view_keeps_the_map_open(path: Path) -> None:
    """close() refuses with BufferError while a view, or a slice of one, is alive, `with` too; the map stays open."""
    map = pmem2.open(path)
    view = map.view()
    part = view[3:5]
    with pytest.raises(BufferError, match="view"):
        map.close()
    view.release()
    with pytest.raises(BufferError, match="view"), map:
        pass
    assert not map.closed
    assert part == map[3:5] == CONTENT[3:5]
    part.release()
    map.close()
    assert map.closed


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 688 is of Python 3.12")
def test_memoryview_of_a_map(small: Map, path: Path) -> None:
    """`memoryview(m)` is a view of the whole map, and so is what takes any buffer."""
    with memoryview(small) as view:  # type: ignore[arg-type, unused-ignore] # only from 3.12
        assert view == CONTENT
        view[0] = 42
        with pytest.raises(BufferError):
            small.close()
    assert small[0] == 42
    assert bytes(small) == small[:]  # type: ignore[call-overload, unused-ignore] # only from 3.12
    with pmem2.open(path, "r") as read_only, memoryview(read_only) as view:  # type: ignore[arg-type, unused-ignore]
        assert view.readonly


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="PEP 688 is of Python 3.12")
def test_no_memoryview_of_a_map(small: Map) -> None:
    """Before Python 3.12 a Map is no buffer."""
    with pytest.raises(TypeError):
        memoryview(small)  # type: ignore[arg-type, unused-ignore] # that is the question


# ---- durability


def durable_in_every_way(map: Map, offset: int, length: int | None) -> list[Callable[[], None]]:
    """Return everything that makes a range durable."""
    calls: list[Callable[[], None]] = [
        lambda: map.persist(offset, length),
        lambda: map.flush(offset, length),
        lambda: map.deep_flush(offset, length),
        lambda: map.persist(offset=offset, length=length),
        lambda: map.flush(offset=offset, length=length),
        lambda: map.deep_flush(offset=offset, length=length),
    ]
    if length is not None:
        known: int = length
        calls += [
            lambda: map.persist_many([(0, 1), (offset, known)]),
            lambda: map.flush_many([(0, 1), (offset, known)]),
        ]
    return calls


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, 1), (0, LENGTH), (0, None), (LENGTH, 0), (LENGTH, None), (1, LENGTH - 1), (5, 7)]
)
def test_durable(small: Map, offset: int, length: int | None) -> None:
    """Any range inside the map can be made durable; nothing is returned, nothing changed."""
    for call in durable_in_every_way(small, offset, length):
        assert call() is None
    small.drain()
    assert small[:] == CONTENT


def test_durable_on_every_granularity(source: Source, granularity: Granularity) -> None:
    """What has been stored and made durable is the same, whatever the granularity."""
    with source.map() as map:
        map[0:5] = b"plain"
        map.persist(0, 5)
        map[8:13] = b"plain"
        map.flush(8, 5)
        map.drain()
        map.persist_many([(0, 5), (PAGE, PAGE)])
        map.flush_many([(8, 5), (3 * PAGE, PAGE)])
        map.memcpy(16, b"copied")
        map.memset(32, 7, 300)
        map.memcpy_many([(400, b"one"), (5000, b"two")])
        map.store_u64(8000, 5, persist=True)
        assert map.granularity is granularity
        assert map[:22] == b"plain\0\0\0plain\0\0\0copied"
        assert map[32:333] == b"\7" * 300 + b"\0"
        assert map[400:403] + map[5000:5003] == b"onetwo"
        assert map.load_u64(8000) == 5


@range_outside
def test_durable_outside(small: Map, offset: int, length: int | None) -> None:
    """A range outside the map is a ValueError, for deep_flush too."""
    for call in durable_in_every_way(small, offset, length):
        with pytest.raises(ValueError, match="outside"):
            call()


NAMED: dict[str, Callable[[Map, int], object]] = {
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
    "view, offset": lambda m, n: m.view(n, 1),
    "view, length": lambda m, n: m.view(0, n),
    "view, offset only": Map.view,
    "memcpy, offset": lambda m, n: m.memcpy(n, b"1"),
    "memcpy, offset, not of bytes": lambda m, n: m.memcpy(n, bytearray(b"1")),
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
every_number = pytest.mark.parametrize("name", NAMED)
with_flags = pytest.mark.parametrize(
    "call",
    [
        lambda m, n: m.memcpy(0, b"1", n),
        lambda m, n: m.memcpy(0, bytearray(b"1"), flags=n),
        lambda m, n: m.memmove(0, b"1", n),
        lambda m, n: m.memset(0, 1, 1, n),
    ],
    ids=["memcpy", "memcpy, not of bytes", "memmove", "memset"],
)


@every_number
@no_integer
def test_no_number(small: Map, name: str, wrong: int) -> None:
    """A bool, a float, or what is no integer is a TypeError wherever a number is meant, and nothing is stored."""
    with pytest.raises(TypeError):
        NAMED[name](small, wrong)
    assert small[:] == CONTENT


@every_number
@no_size
def test_impossible_number(small: Map, name: str, outside: int) -> None:
    """A negative number, or one that C cannot express, is a ValueError wherever a number is meant."""
    with pytest.raises(ValueError):  # noqa: PT011 # whoever says it
        NAMED[name](small, outside)
    assert small[:] == CONTENT


@pytest.mark.parametrize(
    "name", [name for name in NAMED if "length" not in name.split(", ")[1:] or "many" in name or "memset" in name]
)
def test_none_is_no_number(small: Map, name: str) -> None:
    """`None` is a TypeError, but for a length that may be the rest of the map."""
    with pytest.raises(TypeError):
        NAMED[name](small, None)  # type: ignore[arg-type] # that is the question
    assert small[:] == CONTENT


def test_any_integer_is_a_number(small: Map) -> None:
    """Whatever has an __index__ is a number."""
    one, eight = Index(1), Index(8)
    small.persist(one, eight)
    small.flush(one, eight)
    small.deep_flush(one, eight)
    small.persist_many([(one, eight)])
    small.memcpy(one, b"1", Index(0))
    small.memset(Index(2), Index(50), one)
    small.memcpy_many([(Index(3), b"3")])
    assert small[:5] == b"\x00123\x04"
    small.store_u64(eight, Index(5))
    assert small.compare_exchange_u64(eight, Index(5), Index(6)) == (True, 5)
    assert small.fetch_add_u64(eight, one) == 6
    assert small.load_u64(eight) == 7


# ---- many ranges


def pairs(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield ranges, once."""
    yield from ranges


def ranges(make: Callable[[], object]) -> Iterable[tuple[int, int]]:
    """Return what is made, whatever it is."""
    return make()  # type: ignore[return-value] # that is the question


FORMS: dict[str, Callable[[], object]] = {
    "list": lambda: [(0, 1), (PAGE, PAGE), (LENGTH, 0)],
    "list of lists": lambda: [[0, 1], [5, 6]],
    "list of both": lambda: [(0, 1), [5, 6]],
    "tuple of lists": lambda: ([0, 1], [5, 6]),
    "generator": lambda: pairs([(0, 1), (5, 6)]),
    "set": lambda: {(0, 1), (5, 6)},
    "dict": lambda: {5: 6, 0: 1}.items(),
    "nothing": list,
    "empty generator": lambda: pairs([]),
    "array of 2n": lambda: array("Q", [0, 1, PAGE, PAGE]),
    "empty array": lambda: array("Q"),
    "memoryview of 2n": lambda: memoryview(array("Q", [0, 1, 5, 6])),
    "many": lambda: [(n % LENGTH, 1) for n in range(10_000)],
}


@pytest.mark.parametrize("form", FORMS)
def test_many_ranges(small: Map, form: str) -> None:
    """The ranges may be any iterable of pairs, or a buffer of unsigned 64-bit integers."""
    small.persist_many(ranges(FORMS[form]))
    small.flush_many(ranges(FORMS[form]))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python knows __buffer__ from 3.12 on")
def test_data_that_raises_overflow_error(small: Map) -> None:
    """What a buffer raises comes through, the first time."""
    asked = []

    class Overflows:
        def __buffer__(self, flags: int) -> memoryview:
            asked.append(flags)
            raise OverflowError("mine")

    with pytest.raises(OverflowError, match="mine"):
        small.memcpy(0, Overflows())  # type: ignore[arg-type, unused-ignore] # before 3.12
    assert len(asked) == 1


def test_many_ranges_of_two_columns(small: Map) -> None:
    """A buffer of n rows of two unsigned 64-bit integers is n ranges, and each is checked."""
    with memoryview(array("Q", [0, 1, 5, 6, PAGE, PAGE]).tobytes()).cast("Q", (3, 2)) as good:
        small.persist_many(good)
        small.flush_many(good)
    with memoryview(array("Q", [0, 1, 5, 6, PAGE, PAGE + 1]).tobytes()).cast("Q", (3, 2)) as bad:
        with pytest.raises(ValueError, match="outside"):
            small.persist_many(bad)
        with pytest.raises(ValueError, match="outside"):
            small.flush_many(bad)


NO_RANGES: dict[str, Callable[[], object]] = {
    "None": lambda: None,
    "int": lambda: 5,
    "strings": lambda: ["ab", "cd"],
    "bytes": lambda: b"12345678" * 2,
    "ints": lambda: [0, 1],
    "floats": lambda: [(0.0, 1.0)],
    "bools": lambda: [(False, True)],
    "None in a pair": lambda: [(0, None)],
    "a bool at the end": lambda: [(0, 1), (0, True)],
    "signed array": lambda: array("q", [0, 1]),
    "short items": lambda: array("I", [0, 1, 2, 3]),
    "array of floats": lambda: array("d", [0, 1]),
}


@pytest.mark.parametrize("form", NO_RANGES)
def test_no_ranges(small: Map, form: str) -> None:
    """What is not pairs of integers is a TypeError."""
    with pytest.raises(TypeError):
        small.persist_many(ranges(NO_RANGES[form]))
    with pytest.raises(TypeError):
        small.flush_many(ranges(NO_RANGES[form]))


BAD_RANGES: dict[str, Callable[[], object]] = {
    "one number": lambda: [(0,)],
    "three numbers": lambda: [(0, 1, 2)],
    "odd array": lambda: array("Q", [0, 1, 2]),
    "single item": lambda: array("Q", [0]),
    "outside": lambda: [(0, 1), (LENGTH, 1), (0, 1)],
    "array outside": lambda: array("Q", [0, 1, LENGTH, 1]),
    "array that wraps": lambda: array("Q", [1, 2**64 - 1]),
    "array past the end": lambda: array("Q", [LENGTH + 1, 0]),
    "negative": lambda: [(0, 1), (-1, 1)],
    "too large": lambda: [(0, 1), (0, 2**64)],
    "largest": lambda: [(0, 1), (2**64 - 1, 0)],
}


@pytest.mark.parametrize("form", BAD_RANGES)
def test_bad_ranges(small: Map, form: str) -> None:
    """A number without its partner, or one outside, is a ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 # whoever says it
        small.persist_many(ranges(BAD_RANGES[form]))
    with pytest.raises(ValueError):  # noqa: PT011 # whoever says it
        small.flush_many(ranges(BAD_RANGES[form]))


@pytest.mark.parametrize(
    ("items", "shape"), [("Q", (2, 3)), ("Q", (2, 1)), ("q", (3, 2)), ("I", (6, 2)), ("Q", (3, 1, 2))]
)
def test_ranges_of_other_dimensions(small: Map, items: Literal["Q", "q", "I"], shape: tuple[int, ...]) -> None:
    """A buffer that is no (n, 2) of unsigned 64-bit integers, and cannot be iterated, is no ranges."""
    with memoryview(bytes(48)[: math.prod(shape) * struct.calcsize(items)]).cast(items, shape) as columns:
        with pytest.raises((TypeError, ValueError)):
            small.persist_many(columns)
        with pytest.raises((TypeError, ValueError)):
            small.flush_many(columns)


def test_array_with_gaps(small: Map) -> None:
    """Numbers in a memoryview with gaps are no ranges, and are not read as if it had none."""
    numbers = array("Q", [0, LENGTH + 1, 1, LENGTH + 1, 5, LENGTH + 1, 6, LENGTH + 1])
    with memoryview(numbers)[::2] as gaps, pytest.raises(TypeError):
        small.persist_many(gaps)  # type: ignore[arg-type, unused-ignore] # that is the question


def test_ranges_that_raise(small: Map) -> None:
    """What an iterable raises comes through, and its buffer and the map are free again."""

    def failing() -> Iterator[tuple[int, int]]:
        yield 0, 1
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        small.persist_many(failing())
    numbers = array("Q", [0, 1])
    small.persist_many(numbers)
    numbers.append(1)
    with pytest.raises(ValueError, match="pairs"):
        small.persist_many(numbers)
    numbers.append(1)
    assert len(numbers) == 4


def test_ranges_that_close_the_map(path: Path) -> None:
    """An iterable that closes the map meanwhile gets a ValueError."""
    map = pmem2.open(path)

    def closing_it() -> Iterator[tuple[int, int]]:
        yield 0, 1
        map.close()
        yield 0, 1

    with pytest.raises(ValueError, match="closed"):
        map.persist_many(closing_it())


# ---- copies


BITS = range(64)


def exclusive(flags: int) -> bool:
    """Return whether flags exclude each other, as the contract has it."""
    pairs = (
        MemFlag.NONTEMPORAL | MemFlag.TEMPORAL,
        MemFlag.WC | MemFlag.WB,
        MemFlag.NONTEMPORAL | MemFlag.NOFLUSH,
        MemFlag.WC | MemFlag.NOFLUSH,
    )
    return any(flags & pair == pair for pair in pairs)


@pytest.mark.parametrize("length", [1, 300])
@pytest.mark.parametrize("flags", BITS)
def test_flags(small: Map, flags: int, length: int) -> None:
    """Of all 64 combinations those that exclude each other are a ValueError, and all others copy the same bytes."""
    data, expected = b"\xee" * length, bytearray(CONTENT)
    calls: list[tuple[int, Callable[[MemFlag], None]]] = [
        (0, lambda f: small.memcpy(0, data, f)),
        (1000, lambda f: small.memcpy(1000, bytearray(data), flags=f)),
        (2000, lambda f: small.memmove(2000, data, f)),
        (3000, lambda f: small.memmove(3000, data, flags=f)),
        (4000, lambda f: small.memset(4000, 0xEE, length, f)),
        (5000, lambda f: small.memset(offset=5000, value=0xEE, length=length, flags=f)),
    ]
    for place, call in calls:
        if exclusive(flags):
            with pytest.raises(ValueError, match="flags"):
                call(MemFlag(flags))
        else:
            expected[place : place + length] = data
            call(MemFlag(flags))
    small.drain()
    assert small[:] == expected


def test_how_many_flags_are_valid() -> None:
    """The four pairs leave 26 of the 64 combinations."""
    assert sum(not exclusive(flags) for flags in BITS) == 26


@with_flags
@pytest.mark.parametrize("flags", [0, 1, 3, 0x21, 26])
def test_flags_as_an_int(small: Map, call: Callable[[Map, int], None], flags: int) -> None:
    """Flags may be a plain int, or anything that is an integer."""
    if exclusive(flags):
        with pytest.raises(ValueError, match="flags"):
            call(small, flags)
    else:
        call(small, flags)


@with_flags
@pytest.mark.parametrize("flags", [64, 65, 2**31, 2**32, 2**63, 2**64, 2**70, -1, -64])
def test_unknown_flags(small: Map, call: Callable[[Map, int], None], flags: int) -> None:
    """Unknown bits, and negative numbers, are a ValueError, and nothing is stored."""
    with pytest.raises(ValueError, match="flags"):
        call(small, flags)
    assert small[:] == CONTENT


@with_flags
@pytest.mark.parametrize("flags", [True, False, 1.0, "1", None, b"1", [1]])
def test_no_flags(small: Map, call: Callable[[Map, int], None], flags: int) -> None:
    """A bool, a float, or what is no integer is a TypeError, and nothing is stored."""
    with pytest.raises(TypeError):
        call(small, flags)
    assert small[:] == CONTENT


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (LENGTH, 0), (0, LENGTH), (LENGTH - 1, 1), (1, 255), (7, 4096)])
def test_copied(small: Map, offset: int, length: int) -> None:
    """A copy stores its data, and nothing else."""
    data = bytes((7 * i) % 256 for i in range(length))
    small.memcpy(offset, data)
    assert small[:] == CONTENT[:offset] + data + CONTENT[offset + length :]
    small.memcpy(offset=offset, data=CONTENT[offset : offset + length])
    assert small[:] == CONTENT
    small.memmove(offset=offset, data=bytearray(data))
    assert small[:] == CONTENT[:offset] + data + CONTENT[offset + length :]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, LENGTH + 1), (1, LENGTH), (LENGTH, 1), (LENGTH + 1, 0), (2**63, 1), (2**64 - 1, 1)]
)
def test_copied_outside(small: Map, offset: int, length: int) -> None:
    """A copy that does not fit is a ValueError, and nothing is stored."""
    calls: list[Callable[[], None]] = [
        lambda: small.memcpy(offset, bytes(length)),
        lambda: small.memcpy(offset, bytearray(length)),
        lambda: small.memcpy(offset, bytes(length), MemFlag.NOFLUSH),
        lambda: small.memmove(offset, bytes(length)),
        lambda: small.memset(offset, 0, length),
        lambda: small.memcpy_many([(0, b"first"), (offset, bytes(length))]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="outside"):
            call()
    assert small[:] == CONTENT


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255])
@pytest.mark.parametrize(("offset", "length"), [(0, 0), (LENGTH, 0), (0, LENGTH), (LENGTH - 1, 1), (1, 255), (7, 4096)])
def test_set(small: Map, value: int, offset: int, length: int) -> None:
    """memset fills its range with one byte, and nothing else."""
    small.memset(offset, value, length)
    assert small[:] == CONTENT[:offset] + bytes([value]) * length + CONTENT[offset + length :]


@pytest.mark.parametrize("value", [256, 257, 2**31, 2**32, 2**63, -1, -256])
@pytest.mark.parametrize("length", [0, 1])
def test_set_to_no_byte(small: Map, value: int, length: int) -> None:
    """A value outside 0..255 is a ValueError, even where there is nothing to set."""
    with pytest.raises(ValueError, match="value"):
        small.memset(0, value, length)
    assert small[:] == CONTENT


@pytest.mark.parametrize("outside", [(0, 2**63), (1, 2**64 - 1), (2**64 - 1, 2**64 - 1), (LENGTH, 2**64 - LENGTH)])
def test_set_outside(small: Map, outside: tuple[int, int]) -> None:
    """A range that wraps is a ValueError."""
    with pytest.raises(ValueError, match="outside"):
        small.memset(outside[0], 0, outside[1])


def pieces(given: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yield pieces, once."""
    yield from given


@pytest.mark.parametrize("kind", [list, tuple, set, pieces])
def test_pieces(small: Map, kind: Callable[[object], Iterable[tuple[int, bytes]]]) -> None:
    """The pieces may be any iterable of pairs, and all of them are copied."""
    small.memcpy_many(kind([(0, b"one"), (10, b"three"), (LENGTH - 3, b"two"), (LENGTH, b""), (20, b"")]))
    assert small[:] == b"one" + CONTENT[3:10] + b"three" + CONTENT[15 : LENGTH - 3] + b"two"


def test_no_pieces(small: Map) -> None:
    """No pieces are no copies."""
    small.memcpy_many([])
    small.memcpy_many(pieces([]))
    assert small[:] == CONTENT


def test_many_pieces(small: Map) -> None:
    """There may be many pieces."""
    small.memcpy_many((n, bytes([255 - n % 256])) for n in range(LENGTH))
    assert small[:] == bytes(255 - n for n in CONTENT)


@pytest.mark.parametrize(
    "wrong", [None, 5, b"ab", [0, 1], ["ab"], [(0, "text")], [(0, 1)], [("0", b"text")], [(0, None)]]
)
def test_pieces_of_a_wrong_type(small: Map, wrong: list[tuple[int, bytes]]) -> None:
    """What is not pairs of an offset and data is a TypeError."""
    with pytest.raises(TypeError):
        small.memcpy_many(wrong)
    assert small[:] == CONTENT


@pytest.mark.parametrize("wrong", [[(0,)], [(0, b"text", 0)], [()]])
def test_pieces_of_another_length(small: Map, wrong: list[tuple[int, bytes]]) -> None:
    """What is not two is a ValueError."""
    with pytest.raises(ValueError, match="unpack"):
        small.memcpy_many(wrong)


def test_all_pieces_are_checked_first(small: Map) -> None:
    """Whatever is wrong with the last piece, none is copied, and the buffers of the others are free again."""
    first = bytearray(b"first")
    wrong: list[tuple[type[Exception], tuple[int, bytes]]] = [
        (ValueError, (LENGTH, b"1")),
        (ValueError, (-1, b"1")),
        (ValueError, (2**64, b"1")),
        (TypeError, (True, b"1")),
        (TypeError, (0, "1")),  # type: ignore[list-item] # that is the question
        (BufferError, (0, memoryview(b"1234")[::2])),  # type: ignore[list-item, unused-ignore] # before 3.12
    ]
    for kind, piece in wrong:
        with pytest.raises(kind):
            small.memcpy_many([(0, first), (100, b"second"), piece])
        first.append(0)
    assert small[:] == CONTENT


# ---- 8-byte atomics


ORDER = sys.byteorder
TOP = 2**64 - 1


@pytest.mark.parametrize("offset", [0, 8, 64, PAGE - 8, LENGTH - 8])
@pytest.mark.parametrize("value", [0, 1, 255, 2**32, 2**63, TOP, 0x0102030405060708])
@pytest.mark.parametrize("persist", [False, True])
def test_stored(small: Map, offset: int, value: int, persist: bool) -> None:
    """8 bytes are stored in the order of the machine, and nothing else; loading returns them."""
    small.store_u64(offset, value, persist)
    expected = CONTENT[:offset] + value.to_bytes(8, ORDER) + CONTENT[offset + 8 :]
    assert small[:] == expected
    assert small.load_u64(offset) == value
    small.store_u64(offset=offset, value=value, persist=persist)
    assert small[:] == expected


def test_loaded(small: Map) -> None:
    """Every aligned 8 bytes can be loaded."""
    words = [small.load_u64(offset) for offset in range(0, LENGTH, 8)]
    assert words == [int.from_bytes(CONTENT[offset : offset + 8], ORDER) for offset in range(0, LENGTH, 8)]
    assert type(words[0]) is int


ATOMICS: dict[str, Callable[[Map, int], object]] = {
    "load": Map.load_u64,
    "store": lambda m, offset: m.store_u64(offset, 0),
    "store and persist": lambda m, offset: m.store_u64(offset, 0, persist=True),
    "exchange": lambda m, offset: m.compare_exchange_u64(offset, 0, 0),
    "add": lambda m, offset: m.fetch_add_u64(offset, 1),
}
every_atomic = pytest.mark.parametrize("name", ATOMICS)


@every_atomic
@pytest.mark.parametrize("offset", [1, 2, 4, 7, 9, 12, LENGTH - 9])
def test_unaligned(small: Map, name: str, offset: int) -> None:
    """An unaligned address is a ValueError, and nothing is stored."""
    with pytest.raises(ValueError, match="multiple of 8"):
        ATOMICS[name](small, offset)
    assert small[:] == CONTENT


@every_atomic
@pytest.mark.parametrize("offset", [LENGTH - 7, LENGTH - 1, LENGTH, LENGTH + 8, 2**63, 2**64 - 8, 2**64 - 1])
def test_atomic_outside(small: Map, name: str, offset: int) -> None:
    """8 bytes that do not lie inside the map are a ValueError."""
    with pytest.raises(ValueError, match="outside"):
        ATOMICS[name](small, offset)
    assert small[:] == CONTENT


def test_the_address_counts(anonymous: Source) -> None:
    """What must be aligned is the address, not the offset."""
    memory = memoryview(bytearray(64))
    for start in range(1, 9):
        with Map.from_existing(anonymous, memory[start:], Granularity.BYTE) as map:
            for offset in range(17):
                if (map.address + offset) % 8:
                    with pytest.raises(ValueError, match="multiple of 8"):
                        map.store_u64(offset, 0)
                else:
                    map.store_u64(offset, start)
                    assert memory[start + offset : start + offset + 8] == start.to_bytes(8, ORDER)


@pytest.mark.parametrize("value", [-1, 2**64, -(2**63), 2**70])
def test_no_word(small: Map, value: int) -> None:
    """A value that is not in 0..2**64-1 is a ValueError, and nothing is stored."""
    with pytest.raises(ValueError, match="value"):
        small.store_u64(0, value)
    with pytest.raises(ValueError, match="expected"):
        small.compare_exchange_u64(0, value, 0)
    with pytest.raises(ValueError, match="desired"):
        small.compare_exchange_u64(0, 0, value)
    assert small[:] == CONTENT


@pytest.mark.parametrize("persist", [False, True])
def test_exchanged(small: Map, persist: bool) -> None:
    """compare_exchange stores if what is there is expected, and says whether, and what was there."""
    small.store_u64(8, 5)
    assert small.compare_exchange_u64(8, 4, TOP, persist) == (False, 5)
    assert small.load_u64(8) == 5
    assert small.compare_exchange_u64(8, 5, TOP, persist=persist) == (True, 5)
    assert small.load_u64(8) == TOP
    assert small.compare_exchange_u64(offset=8, expected=TOP, desired=0, persist=persist) == (True, TOP)
    assert small[:] == CONTENT[:8] + bytes(8) + CONTENT[16:]
    swapped, _ = small.compare_exchange_u64(8, 0, 1)
    assert swapped is True


@pytest.mark.parametrize("persist", [False, True])
@pytest.mark.parametrize(
    ("before", "delta", "after"),
    [
        (0, 0, 0),
        (0, 1, 1),
        (5, -1, 4),
        (0, -1, TOP),
        (TOP, 1, 0),
        (TOP, TOP, TOP - 1),
        (1, -(2**63), 2**63 + 1),
        (2**63, 2**63, 0),
        (7, TOP, 6),
    ],
)
def test_added(small: Map, before: int, delta: int, after: int, persist: bool) -> None:
    """fetch_add adds, wraps at 2**64, and returns what was there before; the delta may be negative."""
    small.store_u64(8, before)
    assert small.fetch_add_u64(8, delta, persist) == before
    assert small.load_u64(8) == after
    assert small.fetch_add_u64(offset=8, delta=0, persist=persist) == after
    assert small[:8] + small[16:] == CONTENT[:8] + CONTENT[16:]


@pytest.mark.parametrize("delta", [2**64, -(2**63) - 1, 2**70, -(2**70)])
def test_no_delta(small: Map, delta: int) -> None:
    """A delta that no 64 bits hold is a ValueError, and nothing is stored."""
    with pytest.raises(ValueError, match="delta"):
        small.fetch_add_u64(0, delta)
    assert small[:] == CONTENT


@no_integer
def test_delta_of_a_wrong_type(small: Map, wrong: int) -> None:
    """A delta that is no integer is a TypeError."""
    with pytest.raises(TypeError, match="delta"):
        small.fetch_add_u64(0, wrong)
    assert small[:] == CONTENT


# ---- protections


def copy_of(map: Map) -> None:
    """Take a map as the data of a copy."""
    with Source.from_anon(map.size) as source, source.map() as target:
        target.memcpy(0, map)


READING: dict[str, Callable[[Map], object]] = {
    "index": lambda m: m[0],
    "slice": lambda m: m[0:4],
    "slice with gaps": lambda m: m[0:4:2],
    "slice of nothing": lambda m: m[0:0],
    "view": lambda m: m.view(0, 4).release(),
    "view of nothing": lambda m: m.view(0, 0).release(),
    "load": lambda m: m.load_u64(0),
    "data": copy_of,
}
WRITING: dict[str, Callable[[Map], object]] = {
    "index": lambda m: m.__setitem__(0, 1),
    "slice": lambda m: m.__setitem__(slice(0, 4), b"1234"),
    "slice with gaps": lambda m: m.__setitem__(slice(0, 4, 2), b"12"),
    "slice of nothing": lambda m: m.__setitem__(slice(0, 0), b""),
    "memcpy": lambda m: m.memcpy(0, b"1234"),
    "memcpy of nothing": lambda m: m.memcpy(0, b""),
    "memmove": lambda m: m.memmove(0, bytearray(b"1234")),
    "memset": lambda m: m.memset(0, 1, 4),
    "memcpy_many": lambda m: m.memcpy_many([(0, b"1234")]),
    "memcpy_many of nothing": lambda m: m.memcpy_many([]),
    "store": lambda m: m.store_u64(0, 1),
    "store and persist": lambda m: m.store_u64(0, 1, persist=True),
}
BOTH: dict[str, Callable[[Map], object]] = {
    "exchange": lambda m: m.compare_exchange_u64(0, 0, 1),
    "add": lambda m: m.fetch_add_u64(0, 1),
}
DURABILITY: dict[str, Callable[[Map], object]] = {
    "persist": Map.persist,
    "persist nothing": lambda m: m.persist(0, 0),
    "flush": Map.flush,
    "drain": Map.drain,
    "deep_flush": Map.deep_flush,
    "persist_many": lambda m: m.persist_many([(0, 1)]),
    "persist_many of nothing": lambda m: m.persist_many([]),
    "flush_many": lambda m: m.flush_many([(0, 1)]),
}
PROTECTIONS = [NONE, READ, WRITE, READ | WRITE, EXEC, READ | EXEC, WRITE | EXEC, READ | WRITE | EXEC]


@pytest.fixture(params=PROTECTIONS, ids=str)
def guarded(request: pytest.FixtureRequest, path: Path, exec_file: Path) -> Iterator[Map]:
    """A map of each protection."""
    with protected(path, Protection(request.param)) as map:
        assert map.protection == request.param
        yield map


@pytest.mark.parametrize("name", READING)
def test_reading_needs_read(guarded: Map, name: str) -> None:
    """Reading a map made without READ is a TypeError that says so."""
    if guarded.protection & READ:
        READING[name](guarded)
    else:
        with pytest.raises(TypeError, match="READ"):
            READING[name](guarded)


@pytest.mark.parametrize("name", WRITING)
def test_writing_needs_write(guarded: Map, path: Path, name: str) -> None:
    """Writing to a map made without WRITE is a TypeError that says so; without READ it is none."""
    if guarded.protection & WRITE:
        WRITING[name](guarded)
    else:
        with pytest.raises(TypeError, match="WRITE"):
            WRITING[name](guarded)
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", BOTH)
def test_exchanging_needs_both(guarded: Map, path: Path, name: str) -> None:
    """What reads and writes needs READ and WRITE."""
    if guarded.protection & (READ | WRITE) == READ | WRITE:
        BOTH[name](guarded)
    else:
        with pytest.raises(TypeError, match=r"READ|WRITE"):
            BOTH[name](guarded)
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", DURABILITY)
def test_durability_needs_either(guarded: Map, name: str) -> None:
    """A durability call on a map made with neither READ nor WRITE is a TypeError that says so."""
    if guarded.protection & (READ | WRITE):
        DURABILITY[name](guarded)
    else:
        with pytest.raises(TypeError, match="neither READ nor WRITE"):
            DURABILITY[name](guarded)


def test_what_was_written_without_read(path: Path) -> None:
    """What is written to a map that cannot be read is in the file."""
    with protected(path, WRITE) as map:
        map[0:4] = b"blue"
        map[10:2:-2] = b"4321"
        map.memcpy(16, b"green")
        map.persist()
    expected = bytearray(CONTENT)
    expected[0:4], expected[10:2:-2], expected[16:21] = b"blue", b"4321", b"green"
    assert path.read_bytes() == expected


# ---- from_existing


def test_from_an_mmap(path: Path) -> None:
    """A Map is made of an mmap: the same memory, and PAGE works on it, as msync does."""
    with path.open("r+b") as file, closing(mmap.mmap(file.fileno(), 0)) as memory, Source.from_fd(file) as source:
        with Map.from_existing(source, memory, Granularity.PAGE) as map:
            assert map.granularity is Granularity.PAGE
            assert map.protection == READ | WRITE
            assert map.sharing is Sharing.SHARED
            assert map.config == Config(required_granularity=Granularity.PAGE)
            assert map.size == len(map) == LENGTH
            assert map.address % PAGE == 0
            assert map[:] == CONTENT
            map.memcpy(5, b"copied")
            map[100:106] = b"stored"
            map.persist(100, 6)
            map.flush()
            map.drain()
            map.deep_flush()
            map.persist_many([(0, 1), (PAGE, PAGE)])
            map.memset(PAGE, 0, 8)
            map.memcpy_many([(200, b"one"), (300, b"two")])
            map.store_u64(LENGTH - 8, 1, persist=True)
            assert memory[5:11] == b"copied"
            assert path.read_bytes() == map[:] == memory[:]
            with map.view() as view, pytest.raises(BufferError):
                map.close()
            view.release()
        assert map.closed
        assert path.read_bytes()[100:106] == b"stored"


@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("as_int", [True, False])
def test_from_a_bytearray(anonymous: Source, granularity: Granularity, as_int: bool) -> None:
    """A Map is made of a bytearray, with the granularity that the caller claims, as an int too."""
    memory = bytearray(CONTENT)
    with Map.from_existing(anonymous, memory, int(granularity) if as_int else granularity) as map:
        assert map.granularity is granularity
        assert map.config == Config(required_granularity=granularity)
        map.memcpy(3, b"copied")
        map.persist()
        assert map[:] == memory == CONTENT[:3] + b"copied" + CONTENT[9:]


@pytest.mark.parametrize("memory", [CONTENT, memoryview(bytearray(CONTENT)).toreadonly()])
def test_from_read_only_memory(anonymous: Source, memory: bytes) -> None:
    """Memory that is read-only makes a READ map."""
    with Map.from_existing(anonymous, memory, Granularity.BYTE) as map:
        assert map.protection == READ
        assert map[:] == CONTENT
        with map.view() as view:
            assert view.readonly
        for write in WRITING.values():
            with pytest.raises(TypeError, match="WRITE"):
                write(map)
        map.persist()


def test_from_part_of_memory(anonymous: Source) -> None:
    """A part of a memoryview, of any items, makes a Map of its bytes."""
    numbers = array("I", range(100))
    with memoryview(numbers)[10:20] as part, Map.from_existing(anonymous, part, Granularity.PAGE) as map:
        assert map.size == 40
        assert map[:] == numbers[10:20].tobytes()
        map[0:4] = b"\xff" * 4
        map.persist()
    assert numbers[9:12].tolist() == [9, 2**32 - 1, 11]


@pytest.mark.parametrize("memory", [b"", bytearray(), memoryview(b"1234")[4:]])
def test_from_no_memory(anonymous: Source, memory: bytes) -> None:
    """An empty buffer is a ValueError."""
    with pytest.raises(ValueError, match="empty"):
        Map.from_existing(anonymous, memory, Granularity.PAGE)


@pytest.mark.parametrize("granularity", [-1, 3, 999, 2**31, 2**32, 2**64, 2**70, -(2**31)])
def test_from_existing_of_an_unknown_granularity(anonymous: Source, granularity: int) -> None:
    """An unknown granularity is a ValueError."""
    with pytest.raises(ValueError, match=str(granularity)):
        Map.from_existing(anonymous, bytearray(8), granularity)


@pytest.mark.parametrize("wrong", [True, 1.0, "PAGE", None])
def test_from_existing_of_no_granularity(anonymous: Source, wrong: int) -> None:
    """A granularity that is no integer is a TypeError."""
    with pytest.raises(TypeError, match="granularity"):
        Map.from_existing(anonymous, bytearray(8), wrong)


@pytest.mark.parametrize("wrong", ["text", 8, None, [1], object()])
def test_from_no_buffer(anonymous: Source, wrong: bytes) -> None:
    """What is no buffer is a TypeError."""
    with pytest.raises(TypeError):
        Map.from_existing(anonymous, wrong, Granularity.PAGE)


def test_from_memory_with_gaps(anonymous: Source) -> None:
    """A buffer that is not contiguous is a BufferError."""
    with memoryview(bytearray(16))[::2] as gaps, pytest.raises(BufferError):
        Map.from_existing(anonymous, gaps, Granularity.PAGE)


def test_from_memory_that_a_map_has(anonymous: Source) -> None:
    """Memory that is part of another Map is a MapExistsError, until that one is closed."""
    memory = bytearray(64)
    with Map.from_existing(anonymous, memory, Granularity.PAGE):
        for part in (memoryview(memory), memoryview(memory)[8:16]):
            with pytest.raises(pmem2.MapExistsError) as caught:
                Map.from_existing(anonymous, part, Granularity.PAGE)
            assert caught.value.code is pmem2.ErrorCode.MAP_EXISTS
    with Map.from_existing(anonymous, memory, Granularity.PAGE) as map:
        assert map.size == 64


def test_refused_memory_is_free_at_once(anonymous: Source) -> None:
    """What from_existing has refused is not kept exported, not even while the error is being handled."""
    with anonymous.map() as map:
        with pytest.raises(pmem2.MapExistsError), map.view() as view:
            Map.from_existing(anonymous, view, Granularity.PAGE)


@pytest.mark.skipif(ON_PYPY, reason="PyPy lets a bytearray be resized, and an mmap be closed, under an export")
def test_memory_is_kept_exported(anonymous: Source) -> None:
    """The buffer cannot be resized or closed until the Map is closed, or gone."""
    memory = bytearray(64)
    with closing(mmap.mmap(-1, PAGE)) as mapping:
        with Map.from_existing(anonymous, mapping, Granularity.PAGE):
            with pytest.raises(BufferError):
                mapping.close()
    with Map.from_existing(anonymous, memory, Granularity.PAGE):
        with pytest.raises(BufferError):
            memory.append(1)
    memory.append(1)
    assert len(memory) == 65


def test_memory_is_kept_alive(anonymous: Source) -> None:
    """The buffer lives on although nobody else has it."""
    with Map.from_existing(anonymous, bytearray(b"kept" * 100_000), Granularity.PAGE) as map:
        gc.collect()
        other = bytearray(b"else" * 100_000)
        assert map[:] == b"kept" * 100_000
        assert len(other) == map.size


# ---- closed maps


CLOSED: dict[str, Callable[[Map], object]] = {
    **{f"read, {name}": call for name, call in READING.items() if name != "data"},
    **{f"write, {name}": call for name, call in WRITING.items()},
    **BOTH,
    **DURABILITY,
    "data": copy_of,
    "address": lambda m: m.address,
    "size": lambda m: m.size,
    "len": len,
    "index outside": lambda m: m[2**70],
    "store outside": lambda m: m.__setitem__(-(2**70), 0),
    "slice of another length": lambda m: m.__setitem__(slice(0, 4), b"1"),
    "range outside": lambda m: m.persist(2**64 - 1, 1),
    "unaligned": lambda m: m.load_u64(1),
    "iteration": lambda m: list(iter(m)),
    "enter": Map.__enter__,
}


def copy_of_closed(map: Map) -> None:
    """Take a closed map as the data of a copy."""
    with Source.from_anon(LENGTH) as source, source.map() as target:
        target.memcpy(0, map)


CLOSED["data"] = copy_of_closed


@pytest.mark.parametrize("name", CLOSED)
def test_closed(path: Path, name: str) -> None:
    """On a closed map everything is a ValueError that says so, `address`, `size` and `len` too."""
    with pmem2.open(path) as map:
        pass
    assert map.closed is True
    with pytest.raises(ValueError, match="closed"):
        CLOSED[name](map)


def test_closed_map_can_still_tell(path: Path) -> None:
    """The other properties of a closed map stay readable."""
    config = Config(length=PAGE)
    with Source.from_path(path) as source, source.map(config) as map:
        granularity = map.granularity
    assert map.granularity is granularity
    assert map.protection == READ | WRITE
    assert map.sharing is Sharing.SHARED
    assert map.config is config


def test_closed_twice(path: Path) -> None:
    """Closing a closed map does nothing, even where something else is mapped by now."""
    map = pmem2.open(path)
    map.close()
    with pmem2.open(path) as other:
        map.close()
        assert other[:] == CONTENT


def test_closed_by_with(path: Path) -> None:
    """`with` closes a map, whether or not the block fails, and what was stored is in the file."""
    with pytest.raises(KeyError), pmem2.open(path) as map:  # noqa: PT012 # the block is what is asked
        map[0] = 42
        raise KeyError
    assert map.closed
    assert path.read_bytes()[0] == 42


def test_many_maps_one_after_the_other(source: Source) -> None:
    """Maps that are closed leave nothing behind that would run out."""
    for number in range(1500):
        with source.map(Config(length=PAGE)) as map:
            map.store_u64(0, number)
    with source.map() as map:
        assert map.size == SIZE
        assert map.load_u64(0) == 1499
