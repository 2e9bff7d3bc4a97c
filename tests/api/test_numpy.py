# SPDX-License-Identifier: BSD-3-Clause
"""NumPy: arrays that share the memory of a map, arrays as data and as ranges, NumPy integers."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Callable, Literal

import pytest
from support.map_calls import OUTSIDE
from support.values import ALL_GRANULARITIES, CONTENT, PAGE, invalid_sizes, non_integers

import pmem2
from pmem2 import Map, Source

pytest.importorskip("numpy", reason="NumPy, an optional extra, is not installed")

import numpy as np

LENGTH = len(CONTENT)
WRONG_TYPE = (TypeError, DeprecationWarning)  # before NumPy 2.3, NumPy bools convert to int with that warning
READ, WRITE = pmem2.Protection.READ, pmem2.Protection.WRITE


@pytest.fixture
def small_map(path: Path) -> Iterator[Map]:
    """A map of a file that contains CONTENT; arrays in garbage are collected before it is closed."""
    with pmem2.open(path) as map:
        yield map
        gc.collect()


# ---- as_array


RECORD = [("id", "<u4"), ("name", "S3"), ("place", "<f8", (2,))]
DTYPES = ["u1", "b", "?", "<u4", ">u4", "u8", "f4", "f8", "c16", "S5", "U3", "V7", "M8[s]", RECORD, float, np.int16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_default_shape(small_map: Map, dtype: str) -> None:
    """Without a shape an array of any dtype has all whole items of the map."""
    array = small_map.as_array(dtype)
    kind = np.dtype(dtype)
    assert array.dtype == kind
    assert array.shape == (LENGTH // kind.itemsize,)
    assert array.tobytes() == CONTENT[: array.nbytes]
    assert array.flags.writeable
    assert array.ctypes.data == small_map.address


SHAPES: list[tuple[object, tuple[int, ...]]] = [
    (3, (3,)),
    (0, (0,)),
    ((), ()),
    ((5,), (5,)),
    ((2, 3), (2, 3)),
    ((2, 3, 4), (2, 3, 4)),
    ((0, 2**40), (0, 2**40)),
    ((2, 0), (2, 0)),
    (np.int64(4), (4,)),
    ((np.uint8(2), 2), (2, 2)),
    (LENGTH // 2, (LENGTH // 2,)),
]


@pytest.mark.parametrize(("shape", "expected"), SHAPES, ids=str)
def test_shape(small_map: Map, shape: int, expected: tuple[int, ...]) -> None:
    """A shape is a number or a tuple of numbers, and may be empty or contain 0."""
    array = small_map.as_array("<u2", shape)
    assert array.shape == expected
    assert array.flags.c_contiguous
    assert array.tobytes() == CONTENT[: array.nbytes]


@pytest.mark.parametrize("offset", [0, 1, 7, 8, PAGE, LENGTH - 16, LENGTH - 15, LENGTH - 1, LENGTH])
def test_offset(small_map: Map, offset: int) -> None:
    """An array begins at its offset and by default holds the whole items of the rest."""
    array = small_map.as_array("u8", offset=offset)
    assert array.shape == ((LENGTH - offset) // 8,)
    assert array.tobytes() == CONTENT[offset : offset + array.nbytes]
    if offset <= LENGTH - 16:
        pair = small_map.as_array(dtype="u8", shape=(2,), offset=np.int32(offset))
        assert pair.tobytes() == CONTENT[offset : offset + 16]


def test_array_shares_memory(small_map: Map) -> None:
    """An array and its map see each other's stores."""
    array = small_map.as_array("<u4", 4, 8)
    array[1] = 0x01020304
    assert small_map[12:16] == b"\4\3\2\1"
    small_map[8:12] = b"\1\0\0\0"
    assert array[0] == 1
    array[:] = 7
    assert small_map[:24] == CONTENT[:8] + b"\7\0\0\0" * 4


@pytest.mark.parametrize(
    ("shape", "offset"),
    [
        (LENGTH + 1, 0),
        (LENGTH, 1),
        (1, LENGTH),
        (0, LENGTH + 1),
        (None, LENGTH + 1),
        (None, 2**64 - 1),
        ((2**32, 2**32), 0),
        ((2**63, 2), 0),
        ((2**63, 2**63), 0),
        (2**64 - 1, 0),
        ((2**64 - 1, 2**64 - 1), 2**64 - 1),
    ],
)
def test_array_outside(small_map: Map, shape: int | None, offset: int) -> None:
    """An array that does not lie inside the map raises ValueError, however large it is."""
    with pytest.raises(ValueError):  # noqa: PT011 # Python or pmem2 raises it
        small_map.as_array("u1", shape, offset)


@non_integers
def test_integer_of_wrong_type(small_map: Map, wrong: int) -> None:
    """An offset or dimension that is a bool or not an integer raises TypeError."""
    with pytest.raises(TypeError, match="offset"):
        small_map.as_array("u1", 1, wrong)
    with pytest.raises(TypeError, match="shape"):
        small_map.as_array("u1", (1, wrong))
    if repr(wrong) != "[1]":  # a list is a shape too
        with pytest.raises(TypeError, match="shape"):
            small_map.as_array("u1", wrong)


@invalid_sizes
def test_integer_out_of_range(small_map: Map, outside: int) -> None:
    """An offset or dimension that is negative or too large raises ValueError, so -1 is not a wildcard."""
    with pytest.raises(ValueError, match="offset"):
        small_map.as_array("u1", 1, outside)
    with pytest.raises(ValueError, match="shape"):
        small_map.as_array("u1", outside)
    with pytest.raises(ValueError, match="shape"):
        small_map.as_array("u1", (1, outside))


@pytest.mark.parametrize(
    "dtype", ["O", object, [("id", "u8"), ("thing", "O")], [("in", [("out", "O", (2,))])]], ids=str
)
def test_dtype_with_objects(small_map: Map, dtype: str) -> None:
    """A dtype that holds Python objects raises TypeError."""
    with pytest.raises(TypeError, match="objects"):
        small_map.as_array(dtype)


@pytest.mark.parametrize("dtype", ["S0", "V0", "U0", []], ids=str)
def test_dtype_of_size_zero(small_map: Map, dtype: str) -> None:
    """A dtype whose items have no bytes raises ValueError."""
    with pytest.raises(ValueError, match="size"):
        small_map.as_array(dtype)


@pytest.mark.parametrize("dtype", ["no such type", 5.0, ["x"]], ids=str)
def test_dtype_of_wrong_type(small_map: Map, dtype: str) -> None:
    """An invalid dtype raises NumPy's TypeError."""
    with pytest.raises(TypeError):
        small_map.as_array(dtype)


def test_array_is_read_only(path: Path) -> None:
    """An array of a map without WRITE is read-only."""
    with pmem2.open(path, "r") as map:
        array = map.as_array("u1")
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
        del array
        gc.collect()


def test_array_stays_read_only(path: Path) -> None:
    """An array of a map without WRITE cannot be made writable, because a store would be a SIGSEGV."""
    with pmem2.open(path, "r") as map:
        array = map.as_array("u4", (2, 3))
        with suppress(ValueError):
            array.flags.writeable = True
        writable = array.flags.writeable
        del array
        gc.collect()
    assert not writable


@pytest.mark.parametrize("protection", [WRITE, pmem2.Protection.NONE])
def test_array_needs_read(path: Path, protection: pmem2.Protection) -> None:
    """An array of a map without READ raises TypeError, also an empty one."""
    with Source.from_path(path) as source, source.map(pmem2.Config(protection=protection)) as map:
        for shape in (None, 1, 0):
            with pytest.raises(TypeError, match="READ"):
                map.as_array("u1", shape)


def test_array_of_closed_map(path: Path) -> None:
    """An array of a closed map raises ValueError."""
    with pmem2.open(path) as map:
        pass
    for shape in (None, 0, 1):
        with pytest.raises(ValueError, match="closed"):
            map.as_array("u1", shape)


def test_close_with_live_array(path: Path) -> None:
    """close() raises BufferError while an array or a slice of it is alive."""
    map = pmem2.open(path)
    array = map.as_array("u8")
    part = array[3:5]
    with pytest.raises(BufferError):
        map.close()
    del array
    gc.collect()
    with pytest.raises(BufferError):
        map.close()
    assert part.tobytes() == CONTENT[24:40]
    del part
    map.close()
    assert map.closed


# ---- arrays as data


ARRAYS: dict[str, Callable[[], np.ndarray[tuple[int, ...], np.dtype[np.generic]]]] = {
    "bytes": lambda: np.arange(6, dtype="u1"),
    "words": lambda: np.arange(6, dtype=">u8"),
    "table": lambda: np.arange(6, dtype="<f4").reshape(2, 3),
    "records": lambda: np.zeros(2, RECORD),
    "single": lambda: np.array(5, dtype="u4"),
    "empty": lambda: np.zeros((0, 5)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_array_as_data(small_map: Map, name: str) -> None:
    """Copies, pieces and slice assignment accept a contiguous array as data."""
    array = ARRAYS[name]()
    data = array.tobytes()
    end = 100 + len(data)
    small_map.memcpy(100, array)
    assert small_map[:] == CONTENT[:100] + data + CONTENT[end:]
    small_map.memmove(0, array)
    small_map.memcpy_many([(1000, array)])
    small_map[2000 : 2000 + len(data)] = array
    for offset in (0, 1000, 2000):
        assert small_map[offset : offset + len(data)] == data


@pytest.mark.parametrize("gaps", [np.arange(8)[::2], np.arange(8)[::-1], np.zeros((3, 2)).T], ids=["step", "back", "T"])
def test_data_not_contiguous(small_map: Map, gaps: bytes) -> None:
    """An array that is not C-contiguous raises BufferError as data, and nothing is stored."""
    with pytest.raises(BufferError):
        small_map.memcpy(0, gaps)
    with pytest.raises(BufferError):
        small_map.memmove(0, gaps)
    with pytest.raises(BufferError):
        small_map.memcpy_many([(0, b"first"), (0, gaps)])
    with pytest.raises(BufferError):
        small_map[0 : memoryview(gaps).nbytes] = gaps
    assert small_map[:] == CONTENT


def test_memmove_overlapping(small_map: Map) -> None:
    """memmove copies correctly from an overlapping array of the same map."""
    small_map.memmove(8, small_map.as_array("u8", 100))
    assert small_map[:808] == CONTENT[:8] + CONTENT[:800]


def test_mcsafe_with_arrays(path: Path) -> None:
    """A source reads into a writable contiguous array and writes a contiguous array."""
    with Source.from_path(path) as source:
        array = np.zeros((2, 4), "<u4")
        source.pread_mcsafe_into(array, 32)
        assert array.tobytes() == CONTENT[32:64]
        array += 1
        source.pwrite_mcsafe(array, 64)
        assert path.read_bytes()[64:96] == array.tobytes()
        array.flags.writeable = False
        with pytest.raises(TypeError):
            source.pread_mcsafe_into(array)
        with pytest.raises(BufferError):
            source.pread_mcsafe_into(np.zeros(8, "u1")[::2])


@pytest.mark.parametrize("granularity", ALL_GRANULARITIES)
def test_from_existing_array(granularity: pmem2.Granularity) -> None:
    """A map of an array is read-only if the array is, and a non-contiguous array raises BufferError."""
    array = np.arange(100, dtype="<u4").reshape(10, 10)
    with Source.from_anon(PAGE) as source:
        with Map.from_existing(source, array, granularity) as map:
            assert map.size == 400
            map[0:4] = b"\xff\0\0\0"
            map.persist()
            assert array[0, 0] == 255
            with pytest.raises(pmem2.MapExistsError):
                Map.from_existing(source, array[0], granularity)
        array.flags.writeable = False
        with Map.from_existing(source, array, granularity) as map:
            assert map.protection == READ
        with pytest.raises(BufferError):
            Map.from_existing(source, array[:, 0], granularity)
        with pytest.raises(ValueError, match="empty"):
            Map.from_existing(source, array[:0], granularity)


# ---- numpy.asarray(map)


def test_asarray_is_memory(small_map: Map) -> None:
    """numpy.asarray returns the memory of the map as bytes, on every version, and keeps the map open."""
    array = np.asarray(small_map)
    assert (array.dtype, array.shape) == (np.dtype("u1"), (LENGTH,))
    assert array.ctypes.data == small_map.address
    array[5] = 77
    assert small_map[5] == 77
    assert array.tobytes() == small_map[:]
    with pytest.raises(BufferError):
        small_map.close()
    copied = np.array(small_map)
    copied[5] = 1
    assert small_map[5] == 77


def test_asarray_converts(small_map: Map) -> None:
    """A dtype converts the bytes into a copy; `__array__` follows NumPy's protocol."""
    assert np.asarray(small_map, "u8").tolist() == list(small_map[:])
    assert np.shares_memory(small_map.__array__(), small_map.as_array("u1"))
    assert not np.shares_memory(small_map.__array__(copy=True), small_map.as_array("u1"))
    assert small_map.__array__(np.dtype("f4")).dtype == np.dtype("f4")
    assert np.shares_memory(small_map.__array__(copy=False), small_map.as_array("u1"))


def test_asarray_of_protected_map(path: Path) -> None:
    """A map without WRITE makes a read-only array; one without READ, or a closed one, makes none."""
    with pmem2.open(path, "r") as map:
        assert not np.asarray(map).flags.writeable
    with pytest.raises(ValueError, match="closed"):
        np.asarray(map)
    with Source.from_path(path) as source, source.map(pmem2.Config(protection=WRITE)) as map:
        with pytest.raises(TypeError, match="without READ"):
            np.asarray(map)


# ---- as_array: order, lists, pickles


def test_order(small_map: Map) -> None:
    """Order "F" lets the first index change fastest; the memory is the same."""
    array = small_map.as_array("<u2", (3, 4), 8, order="F")
    assert array.flags.f_contiguous
    assert array.ravel("K").tobytes() == CONTENT[8:32]
    array[1, 0] = 0x4142
    assert small_map[10:12] == b"BA"
    assert small_map.as_array("<u2", (3, 4), 8, "C")[0, 1] == 0x4142
    for order in ("A", "K", "f", None, 1):
        with pytest.raises(ValueError, match="order must be 'C' or 'F', got"):
            small_map.as_array("u1", order=order)  # type: ignore[call-overload]


def test_list_as_shape(small_map: Map) -> None:
    """A list of numbers is a shape."""
    assert small_map.as_array("u1", [2, 3]).shape == (2, 3)
    assert small_map.as_array("u1", []).shape == ()
    with pytest.raises(TypeError, match="shape"):
        small_map.as_array("u1", [2.0])  # type: ignore[list-item]


def test_pickled_array_is_copy(small_map: Map) -> None:
    """An array of a map is pickled as a copy of its bytes, which does not keep the map open."""
    array = small_map.as_array("u1", 16)
    for copied in (pickle.loads(pickle.dumps(array)), copy.deepcopy(array)):
        assert copied.tobytes() == CONTENT[:16]
        assert not np.shares_memory(copied, array)
    del array
    small_map.close()


# ---- arrays in place of an offset


def test_range_of_array(small_map: Map) -> None:
    """The range of an array begins at its first byte in memory and ends at its last."""
    array = small_map.as_array("<u4", (8, 8), 64)
    records = small_map.as_array(RECORD, 4, 1000)
    dates = small_map.as_array("M8[s]", 4, 512)
    cases = {
        (64, 256): array,
        (96, 32): array[1],
        (68, 228): array[:, 1],
        (64, 228): array[:, 0],
        (64, 0): array[0:0],
        (64, 24): array[0, 5::-1],
        (64, 4): array[0:1, 0:1],
        (68, 204): array.T[1:4, ::6],
        (1000, 4 * 23): records,
        (1004, 3 * 23 + 3): records["name"],  # type: ignore[call-overload]
        (512, 32): dates,
    }
    for expected, part in cases.items():
        assert small_map._span(part, None) == expected
        small_map.persist(part)
        small_map.flush(part)
        small_map.deep_flush(part)
    assert small_map._span(records[1], None) == (1023, 23)
    assert small_map._span(array[2, 3, ...], None) == (64 + 4 * 19, 4)
    assert small_map._span(np.broadcast_to(array[0, 0:1], (50, 50)), None) == (64, 4)
    del part, cases


def test_other_array(small_map: Map) -> None:
    """An array of other memory is a ValueError; a number of NumPy is a number."""
    for other in (np.zeros(8), np.array(8), small_map.as_array("u1").copy(), np.zeros(0)):
        with pytest.raises(ValueError, match="of other memory"):
            small_map.persist(other)
    small_map.persist(np.int64(LENGTH))
    with pytest.raises(WRONG_TYPE, match="offset"):
        small_map.persist(np.float32(1))  # type: ignore[call-overload, unused-ignore]


# ---- arrays as ranges


VALID = [[0, 1], [5, 6], [PAGE, PAGE], [LENGTH, 0]]
INVALID = [[0, 1], [5, 6], [PAGE, PAGE + 1], [LENGTH, 0]]


@pytest.mark.parametrize("dtype", ["u8", "<u8", ">u8", "i8", ">i8", "u4", "i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_two_column_ranges(small_map: Map, dtype: str, order: Literal["C", "F"]) -> None:
    """A two-column array of any integer type holds ranges, and each of them is checked."""
    small_map.persist_many(np.array(VALID, dtype, order=order))
    small_map.flush_many(np.array(VALID, dtype, order=order))
    with pytest.raises(ValueError, match=OUTSIDE):
        small_map.persist_many(np.array(INVALID, dtype, order=order))
    with pytest.raises(ValueError, match=OUTSIDE):
        small_map.flush_many(np.array(INVALID, dtype, order=order))


def test_strided_ranges(small_map: Map) -> None:
    """A strided array is read by its strides."""
    small_map.persist_many(np.array([[0, 1], [0, 2**40]] * 5, "u8")[::2])
    small_map.persist_many(np.array([[0, 2**40, 1], [5, 2**40, 6]], "u8")[:, ::2])
    small_map.persist_many(np.array([[1, 0], [6, 5]], "u8")[:, ::-1])
    with pytest.raises(ValueError, match=OUTSIDE):
        small_map.persist_many(np.array([[0, 1], [0, 2**40]] * 5, "u8")[1::2])


def test_flat_ranges(small_map: Map) -> None:
    """A flat array of 2n unsigned 64-bit integers holds n ranges, and an odd number raises ValueError."""
    small_map.persist_many(np.array(VALID, "u8").reshape(-1))
    small_map.persist_many(np.zeros(0, "u8"))
    small_map.persist_many(np.zeros((0, 2), "u8"))
    with pytest.raises(ValueError, match=OUTSIDE):
        small_map.persist_many(np.array(INVALID, "u8").reshape(-1))
    with pytest.raises(ValueError, match="pairs"):
        small_map.persist_many(np.zeros(3, "u8"))


@pytest.mark.parametrize("shape", [(2, 3), (3, 1), (2, 0)])
def test_rows_are_not_pairs(small_map: Map, shape: tuple[int, ...]) -> None:
    """Rows that are not pairs raise ValueError."""
    with pytest.raises(ValueError, match="unpack"):
        small_map.persist_many(np.zeros(shape, "u8"))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 2)),
        np.zeros((2, 2), "?"),
        np.zeros((2, 2), "U1"),
        np.zeros((2, 2), "O") + 0.5,
        np.zeros(4, "i8"),
        np.zeros((), "u8"),
        np.zeros((2, 2, 2), "u8"),
        np.zeros(2, "f8"),
        np.zeros(32, "u1"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_ranges_of_wrong_type(small_map: Map, wrong: list[tuple[int, int]]) -> None:
    """Arrays of floats, bools or another shape raise TypeError as ranges."""
    with pytest.raises(WRONG_TYPE):
        small_map.persist_many(wrong)
    with pytest.raises(WRONG_TYPE):
        small_map.flush_many(wrong)


def test_negative_ranges(small_map: Map) -> None:
    """A negative number in a signed array raises ValueError and is not taken for a large one."""
    with pytest.raises(ValueError, match="-1"):
        small_map.persist_many(np.array([[0, 1], [-1, 1]], "i8"))


# ---- NumPy integers


def test_numpy_integers(small_map: Map) -> None:
    """NumPy integers are accepted for integer parameters and as items."""
    small_map.persist(np.int64(0), np.uint8(200))
    small_map.memset(np.uint16(1), np.int8(7), np.uint64(2))
    assert small_map[np.int8(1)] == 7
    small_map[np.uint8(0)] = np.uint8(200)
    assert small_map[0:4] == b"\xc8\7\7\3"
    small_map.store_u64(np.int64(8), np.uint64(2**64 - 1))
    assert small_map.fetch_add_u64(8, np.int64(-1)) == 2**64 - 1
    with pytest.raises(ValueError, match=r"offset.*-1"):
        small_map.persist(np.int8(-1))


@pytest.mark.parametrize("wrong", [np.bool_(True), np.float64(1), np.zeros(2, "u8")], ids=repr)
def test_numpy_non_integers(small_map: Map, wrong: int) -> None:
    """NumPy bools, floats and arrays raise TypeError for integer parameters and as items."""
    with pytest.raises(WRONG_TYPE):
        small_map.persist(wrong, 1)
    with pytest.raises(WRONG_TYPE):
        small_map[0] = wrong


def test_copying_dates(map: pmem2.Map) -> None:
    """Arrays of dates, which no memoryview can describe, are copied as all others."""
    dates = np.array(["2026-11-28", "1970-01-01"], dtype="M8[s]")
    map.memcpy_many([(0, dates), (64, dates[:1])])
    assert map[0:16] == dates.tobytes()
    assert map[64:72] == dates.tobytes()[:8]
