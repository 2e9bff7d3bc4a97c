# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of granularity: pmem2_granularity, pmem2_granularity_detection and pmem2_integration.

The environment forces the granularities finer than PAGE; an ordinary file shows the errors of a PAGE medium.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _pmem2 import lib
from support import libpmem2
from support.values import needs_cache_line, without_map_sync

import pmem2

BYTE, CACHE_LINE, PAGE = pmem2.Granularity
FORCE = "PMEM2_FORCE_GRANULARITY"


@pytest.fixture
def ordinary(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Force no granularity; skip if the file is on DAX."""
    monkeypatch.delenv(FORCE, raising=False)
    with pmem2.Source.from_path(file) as source, source.map() as map:
        if map.granularity is not PAGE:
            pytest.skip("temporary files are on DAX here")


def raw_outcome(source: int, required: pmem2.Granularity) -> pmem2.Granularity | str:
    """Return the granularity of libpmem2's map, or its error message if it does not support the required one."""
    with libpmem2.config(required) as config:
        rc, pointer = libpmem2.map_new(config, source)
    if rc == lib.PMEM2_E_GRANULARITY_NOT_SUPPORTED:
        assert pointer == 0
        return libpmem2.errormsg()
    assert rc == 0
    granularity = pmem2.Granularity(libpmem2.map_granularity(pointer))
    assert libpmem2.map_delete(pointer) == (0, 0)
    return granularity


def outcome(source: pmem2.Source, required: pmem2.Granularity) -> pmem2.Granularity | str:
    """Return the granularity of the Map, or the exception's message if it does not support the required one."""
    try:
        with source.map(pmem2.Config(required_granularity=required)) as map:
            return map.granularity
    except pmem2.GranularityNotSupportedError as error:
        return str(error.strerror)


@pytest.mark.upstream("pmem2_granularity/TEST0")
def test_byte_on_byte_medium(source: pmem2.Source, raw_source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A BYTE medium satisfies BYTE."""
    monkeypatch.setenv(FORCE, "byte")
    assert raw_outcome(raw_source, BYTE) is BYTE
    assert outcome(source, BYTE) is BYTE


@pytest.mark.upstream("pmem2_granularity/TEST2")
@needs_cache_line
def test_byte_on_cache_line_medium(source: pmem2.Source, raw_source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CACHE_LINE medium refuses BYTE: libpmem2 names the missing eADR, the façade the available granularity."""
    monkeypatch.setenv(FORCE, "cache_line")
    assert "platform doesn't support eADR" in str(raw_outcome(raw_source, BYTE))
    message = outcome(source, BYTE)
    assert isinstance(message, str)
    assert "BYTE" in message
    assert "CACHE_LINE" in message


def check_ordinary_file_refused(source: pmem2.Source, raw_source: int, required: pmem2.Granularity) -> None:
    """Check that libpmem2 refuses an ordinary file for lack of DAX, and that the façade's message suggests PAGE."""
    raw_message = raw_outcome(raw_source, required)
    assert isinstance(raw_message, str)
    assert "fd doesn't point to DAX-enabled file or kernel doesn't support MAP_SYNC flag (Linux >= 4.15)" in raw_message
    message = outcome(source, required)
    assert isinstance(message, str)
    assert required.name in message
    assert "PAGE" in message
    assert "DAX" in message


@pytest.mark.upstream("pmem2_granularity/TEST4")
@pytest.mark.usefixtures("ordinary")
@without_map_sync
def test_byte_on_ordinary_file(source: pmem2.Source, raw_source: int) -> None:
    """An ordinary file refuses BYTE."""
    check_ordinary_file_refused(source, raw_source, BYTE)


@pytest.mark.upstream("pmem2_granularity/TEST9")
@pytest.mark.usefixtures("ordinary")
@without_map_sync
def test_cache_line_on_ordinary_file(source: pmem2.Source, raw_source: int) -> None:
    """An ordinary file refuses CACHE_LINE."""
    check_ordinary_file_refused(source, raw_source, CACHE_LINE)


@pytest.mark.upstream("pmem2_granularity/TEST11", "pmem2_granularity/TEST12", "pmem2_granularity/TEST13")
def test_page_gives_best_available(source: pmem2.Source, raw_source: int, granularity: pmem2.Granularity) -> None:
    """A requirement of PAGE gives the finest available granularity."""
    assert raw_outcome(raw_source, PAGE) is granularity
    assert outcome(source, PAGE) is granularity


@pytest.mark.upstream("pmem2_granularity/TEST13")
@pytest.mark.usefixtures("ordinary")
@without_map_sync
def test_page_on_ordinary_file(source: pmem2.Source, raw_source: int) -> None:
    """The finest granularity of an ordinary file is PAGE."""
    assert raw_outcome(raw_source, PAGE) is PAGE
    assert outcome(source, PAGE) is PAGE


@pytest.mark.upstream(
    "pmem2_granularity_detection/TEST0",
    "pmem2_granularity_detection/TEST1",
    "pmem2_granularity_detection/TEST2",
    "pmem2_granularity_detection/TEST3",
    "pmem2_granularity_detection/TEST4",
)
@pytest.mark.parametrize(
    ("forced", "detected"),
    [
        ("page", PAGE),
        ("PAGE", PAGE),
        pytest.param("cache_line", CACHE_LINE, marks=needs_cache_line),
        pytest.param("cacheline", CACHE_LINE, marks=needs_cache_line),
        pytest.param("Cache_Line", CACHE_LINE, marks=needs_cache_line),
        ("byte", BYTE),
    ],
)
def test_forced_granularity(
    source: pmem2.Source,
    raw_source: int,
    monkeypatch: pytest.MonkeyPatch,
    forced: str,
    detected: pmem2.Granularity,
) -> None:
    """A map has the granularity that the environment forces, in any letter case."""
    monkeypatch.setenv(FORCE, forced)
    assert raw_outcome(raw_source, PAGE) is detected
    assert outcome(source, PAGE) is detected


def check_medium(source: pmem2.Source, raw_source: int, available: pmem2.Granularity) -> None:
    """Check that the façade and libpmem2 satisfy every requirement except one finer than the medium."""
    for required in pmem2.Granularity:
        for result in (raw_outcome(raw_source, required), outcome(source, required)):
            if available <= required:
                assert result is available
            else:
                assert isinstance(result, str)


@pytest.mark.upstream("pmem2_integration/TEST5", "pmem2_integration/TEST6", "pmem2_integration/TEST7")
@pytest.mark.upstream("pmem2_granularity/TEST3", "pmem2_granularity/TEST8")  # on Windows
@pytest.mark.usefixtures("ordinary")
@without_map_sync
def test_page_medium(source: pmem2.Source, raw_source: int) -> None:
    """A PAGE medium satisfies PAGE only."""
    check_medium(source, raw_source, PAGE)


@pytest.mark.upstream(
    "pmem2_granularity/TEST7", "pmem2_integration/TEST8", "pmem2_integration/TEST9", "pmem2_integration/TEST10"
)
@needs_cache_line
def test_cache_line_medium(source: pmem2.Source, raw_source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CACHE_LINE medium satisfies PAGE and CACHE_LINE, but not BYTE."""
    monkeypatch.setenv(FORCE, "CACHE_LINE")
    check_medium(source, raw_source, CACHE_LINE)


@pytest.mark.upstream(
    "pmem2_granularity/TEST6", "pmem2_integration/TEST11", "pmem2_integration/TEST12", "pmem2_integration/TEST13"
)
def test_byte_medium(source: pmem2.Source, raw_source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A BYTE medium satisfies every requirement."""
    monkeypatch.setenv(FORCE, "BYTE")
    check_medium(source, raw_source, BYTE)
