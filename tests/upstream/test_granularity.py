# SPDX-License-Identifier: BSD-3-Clause
"""Granularities: rows 127 to 138 of PMDK's own suite.

A medium finer than PAGE is what the environment forces; that it is not there is what an ordinary file says.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _pmem2 import lib
from support import libpmem2

import pmem2

BYTE, CACHE_LINE, PAGE = pmem2.Granularity
FORCE = "PMEM2_FORCE_GRANULARITY"


@pytest.fixture
def ordinary(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forced, and the file is not on DAX."""
    monkeypatch.delenv(FORCE, raising=False)
    with pmem2.Source.from_path(file) as source, source.map() as map:
        if map.granularity is not PAGE:
            pytest.skip("temporary files are on DAX here")


def raw_outcome(source: int, required: pmem2.Granularity) -> pmem2.Granularity | str:
    """Return the granularity that libpmem2 maps with, or its words where it does not support the required one."""
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
    """Return the granularity of the Map, or what the exception says where the required one is not supported."""
    try:
        with source.map(pmem2.Config(required_granularity=required)) as map:
            return map.granularity
    except pmem2.GranularityNotSupportedError as error:
        return str(error.strerror)


def test_row_127_byte_where_there_is_byte(
    source: pmem2.Source, raw_source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where stores are durable at once, BYTE is mapped as BYTE."""
    monkeypatch.setenv(FORCE, "byte")
    assert raw_outcome(raw_source, BYTE) is BYTE
    assert outcome(source, BYTE) is BYTE


def test_row_128_byte_where_there_is_cache_line(
    source: pmem2.Source, raw_source: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where cache lines must be flushed BYTE is refused: in C for want of eADR, here with what there is instead."""
    monkeypatch.setenv(FORCE, "cache_line")
    assert "platform doesn't support eADR" in str(raw_outcome(raw_source, BYTE))
    text = outcome(source, BYTE)
    assert isinstance(text, str)
    assert "BYTE" in text
    assert "CACHE_LINE" in text


def check_refused_on_an_ordinary_file(source: pmem2.Source, raw_source: int, required: pmem2.Granularity) -> None:
    """Check that an ordinary file is refused for want of DAX, and that one is told of PAGE."""
    words = raw_outcome(raw_source, required)
    assert isinstance(words, str)
    assert "fd doesn't point to DAX-enabled file or kernel doesn't support MAP_SYNC flag (Linux >= 4.15)" in words
    text = outcome(source, required)
    assert isinstance(text, str)
    assert required.name in text
    assert "PAGE" in text
    assert "DAX" in text


@pytest.mark.usefixtures("ordinary")
def test_row_129_byte_of_an_ordinary_file(source: pmem2.Source, raw_source: int) -> None:
    """An ordinary file does not give BYTE."""
    check_refused_on_an_ordinary_file(source, raw_source, BYTE)


@pytest.mark.usefixtures("ordinary")
def test_row_132_cache_line_of_an_ordinary_file(source: pmem2.Source, raw_source: int) -> None:
    """An ordinary file does not give CACHE_LINE."""
    check_refused_on_an_ordinary_file(source, raw_source, CACHE_LINE)


def test_row_133_page_gives_the_best(source: pmem2.Source, raw_source: int, granularity: pmem2.Granularity) -> None:
    """Who requires only PAGE gets the finest that there is."""
    assert raw_outcome(raw_source, PAGE) is granularity
    assert outcome(source, PAGE) is granularity


@pytest.mark.usefixtures("ordinary")
def test_row_133_page_of_an_ordinary_file(source: pmem2.Source, raw_source: int) -> None:
    """The finest that an ordinary file gives is PAGE."""
    assert raw_outcome(raw_source, PAGE) is PAGE
    assert outcome(source, PAGE) is PAGE


@pytest.mark.parametrize(
    ("forced", "detected"),
    [
        ("page", PAGE),
        ("PAGE", PAGE),
        ("cache_line", CACHE_LINE),
        ("cacheline", CACHE_LINE),
        ("Cache_Line", CACHE_LINE),
        ("byte", BYTE),
    ],
)
def test_row_134_forced_granularity_is_detected(
    source: pmem2.Source,
    raw_source: int,
    monkeypatch: pytest.MonkeyPatch,
    forced: str,
    detected: pmem2.Granularity,
) -> None:
    """The granularity that the environment names, in small letters or large ones, is the one that a map has."""
    monkeypatch.setenv(FORCE, forced)
    assert raw_outcome(raw_source, PAGE) is detected
    assert outcome(source, PAGE) is detected


def check_medium(source: pmem2.Source, raw_source: int, available: pmem2.Granularity) -> None:
    """Check that each granularity is given unless it is finer than what is available."""
    for required in pmem2.Granularity:
        for given in (raw_outcome(raw_source, required), outcome(source, required)):
            if available <= required:
                assert given is available
            else:
                assert isinstance(given, str)


@pytest.mark.usefixtures("ordinary")
def test_row_136_page_medium(source: pmem2.Source, raw_source: int) -> None:
    """A medium of PAGE granularity gives PAGE only."""
    check_medium(source, raw_source, PAGE)


def test_row_137_cache_line_medium(source: pmem2.Source, raw_source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A medium of CACHE_LINE granularity satisfies PAGE and CACHE_LINE, but not BYTE."""
    monkeypatch.setenv(FORCE, "CACHE_LINE")
    check_medium(source, raw_source, CACHE_LINE)


def test_row_138_byte_medium(source: pmem2.Source, raw_source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A medium of BYTE granularity satisfies every requirement."""
    monkeypatch.setenv(FORCE, "BYTE")
    check_medium(source, raw_source, BYTE)
