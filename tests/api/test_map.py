# SPDX-License-Identifier: BSD-3-Clause
"""Making maps: sources, ranges, protections, granularity and properties."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.values import CONTENT, PAGE, SIZE

import pmem2
from pmem2 import Config, Granularity, Map, Protection, Sharing, Source

READ, WRITE = Protection.READ, Protection.WRITE
LENGTH = len(CONTENT)


def test_map_and_source_map_agree(path: Path) -> None:
    """`Map(source, config)` and `source.map(config)` make the same map, and the default config is `Config()`."""
    with Source.from_path(path) as source, Map(source) as one, source.map() as two:
        assert one.config == two.config == Config()
        assert one[:] == two[:] == CONTENT
        with Map(source, Config(offset=PAGE)) as three, Map(source=source, config=Config(length=PAGE)) as four:
            assert three[:] == CONTENT[PAGE:]
            assert four[:] == CONTENT[:PAGE]


@pytest.mark.parametrize("wrong", [None, 0, "path", Path("path"), Config(), Source, object()])
def test_source_of_wrong_type(wrong: Source) -> None:
    """Map and Map.from_existing raise TypeError for a source that is not a Source."""
    with pytest.raises(TypeError, match="Source"):
        Map(wrong)
    with pytest.raises(TypeError, match="Source"):
        Map.from_existing(wrong, bytearray(8), Granularity.PAGE)


@pytest.mark.parametrize("wrong", [None, 0, {}, "PAGE", Config, Granularity.PAGE])
def test_config_of_wrong_type(anonymous_source: Source, wrong: Config) -> None:
    """Map and Source.map raise TypeError for a config that is not a Config."""
    with pytest.raises(TypeError, match="Config"):
        Map(anonymous_source, wrong)
    with pytest.raises(TypeError, match="Config"):
        anonymous_source.map(wrong)


def test_map_outlives_source_and_file(path: Path) -> None:
    """A map stays usable after its source is closed and its file is unlinked."""
    with Source.from_path(path) as source:
        map = source.map()
    path.unlink()
    with map:
        map.memcpy(0, b"still here")
        assert map[:10] == b"still here"


@pytest.mark.parametrize("size", [0, PAGE])
@pytest.mark.parametrize("offset", [1, 17, PAGE - 1, PAGE + 1, 2**63 - 1])
def test_unaligned_offset_before_other_errors(path: Path, size: int, offset: int) -> None:
    """An unaligned offset raises OffsetUnalignedError even if the source is empty or ends before the offset."""
    os.truncate(path, size)
    with Source.from_path(path) as source, pytest.raises(pmem2.OffsetUnalignedError):
        source.map(Config(offset=offset))


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE + 1, 2**64 - 1])
def test_unaligned_length(path: Path, length: int) -> None:
    """A length that is not a multiple of the alignment raises LengthUnalignedError."""
    with Source.from_path(path) as source, pytest.raises(pmem2.LengthUnalignedError):
        source.map(Config(length=length))


@pytest.mark.parametrize("offset", [0, PAGE, 2**63 - PAGE])
@pytest.mark.parametrize("length", [None, PAGE])
def test_empty_source_before_range_error(path: Path, offset: int, length: int | None) -> None:
    """An empty source raises SourceEmptyError for every aligned offset and length."""
    os.truncate(path, 0)
    with Source.from_path(path) as source, pytest.raises(pmem2.SourceEmptyError):
        source.map(Config(offset=offset, length=length))


RANGES_OUTSIDE_SOURCE = [
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


@pytest.mark.parametrize(("offset", "length"), RANGES_OUTSIDE_SOURCE)
def test_range_past_the_end(path: Path, offset: int, length: int | None) -> None:
    """A range that does not lie inside the source raises MapRangeError, also if it starts exactly at the end."""
    with Source.from_path(path) as source, pytest.raises(pmem2.MapRangeError) as caught:
        source.map(Config(offset=offset, length=length))
    assert caught.value.code is pmem2.ErrorCode.MAP_RANGE


def test_file_ends_inside_page(path: Path) -> None:
    """Without a length a map ends at the last byte of the file, also inside a page."""
    os.truncate(path, PAGE + 3)
    with pmem2.open(path) as map:
        assert map.size == PAGE + 3
        assert map[-1] == CONTENT[PAGE + 2]
        with pytest.raises(IndexError):
            _ = map[PAGE + 3]


@pytest.mark.parametrize("protection", [WRITE, READ | WRITE])
def test_write_protection_of_readonly_source(path: Path, protection: Protection) -> None:
    """A read-only source cannot be mapped for writing, unless the map is PRIVATE."""
    with Source.from_path(path, writable=False) as source:
        with pytest.raises(pmem2.NoAccessError):
            source.map(Config(protection=protection))
        with source.map(Config(protection=protection, sharing=Sharing.PRIVATE)) as map:
            assert map.protection == protection


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("sharing", list(Sharing))
def test_default_protection(path: Path, writable: bool, sharing: Sharing) -> None:
    """The default protection is READ|WRITE, or READ for a read-only source that is mapped SHARED."""
    with Source.from_path(path, writable=writable) as source, source.map(Config(sharing=sharing)) as map:
        assert map.protection == (READ if sharing is Sharing.SHARED and not writable else READ | WRITE)
        assert map.config.protection is None
        assert map.sharing is sharing


def test_properties(path: Path) -> None:
    """The properties report address, size, granularity, protection, sharing and config of a map."""
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


@pytest.mark.parametrize("required", list(Granularity))
def test_required_granularity(source: Source, granularity: Granularity, required: Granularity) -> None:
    """A map has the best granularity of its source, and requiring a better one raises an error."""
    config = Config(required_granularity=required)
    if granularity <= required:
        with source.map(config) as map:
            assert map.granularity is granularity
    else:
        with pytest.raises(pmem2.GranularityNotSupportedError):
            source.map(config)


def test_attributes_are_read_only(small_map: Map) -> None:
    """Setting a property or adding an attribute raises AttributeError."""
    names = ("address", "size", "granularity", "protection", "sharing", "config", "closed", "color")
    for name in names:
        with pytest.raises(AttributeError):
            setattr(small_map, name, 0)


def test_equality_is_identity(small_map: Map, path: Path) -> None:
    """A map is equal only to itself, and is hashable."""
    with pmem2.open(path) as other:
        assert small_map != other
        assert len({small_map, other, small_map}) == 2


def test_repr(path: Path) -> None:
    """The repr shows size, address and granularity, and shows when the map is closed."""
    with pmem2.open(path) as map:
        assert str(LENGTH) in repr(map)
        assert f"{map.address:#x}" in repr(map)
        assert map.granularity.name in repr(map)
    assert "closed" in repr(map)


def test_private_stores_stay_private(path: Path) -> None:
    """Stores to a PRIVATE map are invisible to other maps and to the file."""
    with Source.from_path(path) as source, source.map(Config(sharing=Sharing.PRIVATE)) as one:
        with source.map(Config(sharing=Sharing.PRIVATE)) as two, source.map() as shared:
            one.memcpy(0, b"mine")
            one.persist()
            assert one[:4] == b"mine"
            assert two[:] == shared[:] == path.read_bytes() == CONTENT


def test_many_maps_in_sequence(source: Source) -> None:
    """1,100 maps made and closed one after the other exhaust no resource."""
    for number in range(1100):
        with source.map(Config(length=PAGE)) as map:
            map.store_u64(0, number)
    with source.map() as map:
        assert map.size == SIZE
        assert map.load_u64(0) == 1099
