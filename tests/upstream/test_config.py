# SPDX-License-Identifier: BSD-3-Clause
"""Configs: rows 35 to 47 of PMDK's own suite."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import attrs
import pytest
from _pmem2 import lib
from support import libpmem2
from support.values import SIZE, opened

import pmem2

PAGE = mmap.ALLOCATIONGRANULARITY
PROT_WRITE = 2  # of mmap.mmap, where it has it
READ, WRITE, EXEC, NONE = (
    pmem2.Protection.READ,
    pmem2.Protection.WRITE,
    pmem2.Protection.EXEC,
    pmem2.Protection.NONE,
)


def test_row_035_made_and_deleted() -> None:
    """A config is made out of nothing and can be deleted; two Configs made alike are equal."""
    rc, pointer = libpmem2.config_new()
    assert rc == 0
    assert pointer != 0
    assert libpmem2.config_delete(pointer) == (0, 0)
    assert pmem2.Config() == pmem2.Config()
    assert hash(pmem2.Config()) == hash(pmem2.Config())


def test_row_037_deleting_nothing() -> None:
    """Deleting no config at all succeeds."""
    assert libpmem2.config_delete(0) == (0, 0)


def test_row_038_granularity_is_unset_and_the_last_one_counts(raw_source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new config requires no granularity, which mapping refuses; of BYTE and then PAGE, PAGE counts."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "PAGE")
    with libpmem2.config(None) as config:
        assert libpmem2.map_new(config, raw_source) == (lib.PMEM2_E_GRANULARITY_NOT_SET, 0)
        assert libpmem2.set_granularity(config, lib.PMEM2_GRANULARITY_BYTE) == 0
        assert libpmem2.map_new(config, raw_source) == (lib.PMEM2_E_GRANULARITY_NOT_SUPPORTED, 0)
        assert libpmem2.set_granularity(config, lib.PMEM2_GRANULARITY_PAGE) == 0
        with libpmem2.map(config, raw_source) as map:
            assert libpmem2.map_granularity(map) == lib.PMEM2_GRANULARITY_PAGE


def test_row_038_granularity_of_a_config(source: pmem2.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Config requires PAGE unless told otherwise; with `None` mapping is refused; an evolved one counts."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "PAGE")
    assert pmem2.Config().required_granularity is pmem2.Granularity.PAGE
    unset = pmem2.Config(required_granularity=None)
    with pytest.raises(pmem2.GranularityNotSetError):
        source.map(unset)
    byte = attrs.evolve(unset, required_granularity=pmem2.Granularity.BYTE)
    with pytest.raises(pmem2.GranularityNotSupportedError):
        source.map(byte)
    with source.map(attrs.evolve(byte, required_granularity=pmem2.Granularity.PAGE)) as map:
        assert map.granularity is pmem2.Granularity.PAGE


def test_row_039_no_granularity() -> None:
    """A number that is no granularity is refused."""
    with libpmem2.config() as config:
        assert libpmem2.set_granularity(config, 999) == lib.PMEM2_E_GRANULARITY_NOT_SUPPORTED
    with pytest.raises(pmem2.GranularityNotSupportedError):
        pmem2.Config(required_granularity=999)


def test_row_040_offset_beyond_any_file() -> None:
    """An offset that no file can have is refused, the largest that one can have is not."""
    with libpmem2.config() as config:
        assert libpmem2.set_offset(config, 2**63) == lib.PMEM2_E_OFFSET_OUT_OF_RANGE
        assert libpmem2.set_offset(config, 2**63 - 1) == 0
    with pytest.raises(pmem2.OffsetOutOfRangeError):
        pmem2.Config(offset=2**63)
    assert pmem2.Config(offset=2**63 - 1).offset == 2**63 - 1


def test_row_041_offset(source: pmem2.Source, raw_source: int) -> None:
    """A map with an offset begins there in the source."""
    source.pwrite_mcsafe(b"second page", PAGE)
    with libpmem2.config(offset=PAGE) as config, libpmem2.map(config, raw_source) as pointer:
        assert libpmem2.read(pointer, 11) == b"second page"
    with source.map(pmem2.Config(offset=PAGE)) as map:
        assert map[:11] == b"second page"
        assert map.size == SIZE - PAGE


def test_row_042_length(source: pmem2.Source, raw_source: int) -> None:
    """A map with a length is that long."""
    with libpmem2.config(length=PAGE) as config, libpmem2.map(config, raw_source) as pointer:
        assert libpmem2.map_size(pointer) == PAGE
    with source.map(pmem2.Config(length=PAGE)) as map:
        assert map.size == len(map) == PAGE


def test_row_044_sharing(source: pmem2.Source, raw_source: int) -> None:
    """A config is SHARED until it is made PRIVATE."""
    with libpmem2.config() as config:
        with libpmem2.map(config, raw_source) as pointer:
            assert libpmem2.permissions(libpmem2.map_address(pointer)) == "rw-s"
        assert libpmem2.set_sharing(config, lib.PMEM2_PRIVATE) == 0
        with libpmem2.map(config, raw_source) as pointer:
            assert libpmem2.permissions(libpmem2.map_address(pointer)) == "rw-p"
    shared = pmem2.Config()
    assert shared.sharing is pmem2.Sharing.SHARED
    private = attrs.evolve(shared, sharing=pmem2.Sharing.PRIVATE)
    with source.map(shared) as one, source.map(private) as other:
        assert (one.sharing, other.sharing) == (pmem2.Sharing.SHARED, pmem2.Sharing.PRIVATE)
        assert libpmem2.permissions(one.address) == "rw-s"
        assert libpmem2.permissions(other.address) == "rw-p"


def test_row_045_no_sharing() -> None:
    """A number that is no sharing is refused."""
    with libpmem2.config() as config:
        assert libpmem2.set_sharing(config, 777) == lib.PMEM2_E_INVALID_SHARING_VALUE
    with pytest.raises(pmem2.InvalidSharingValueError):
        pmem2.Config(sharing=777)


@pytest.mark.parametrize(
    ("protection", "allowed"),
    [
        pytest.param(READ, "r--s", id="read"),
        pytest.param(WRITE, "-w-s", id="write"),
        pytest.param(EXEC, "--xs", id="exec"),
        pytest.param(NONE, "---s", id="none"),
        pytest.param(WRITE | READ | EXEC, "rwxs", id="write-read-exec"),
    ],
)
def test_row_046_protections(exec_file: Path, protection: pmem2.Protection, allowed: str) -> None:
    """Each protection is accepted, and is what the system then allows the mapping."""
    with pmem2.Source.from_path(exec_file) as source:
        with libpmem2.config() as config, opened(exec_file, os.O_RDWR) as fd, libpmem2.source(fd) as pointer:
            assert libpmem2.set_protection(config, protection) == 0
            with libpmem2.map(config, pointer) as mapped:
                assert libpmem2.permissions(libpmem2.map_address(mapped)) == allowed
        with source.map(pmem2.Config(protection=protection)) as map:
            assert map.protection == protection
            assert libpmem2.permissions(map.address) == allowed


def test_row_047_no_protection(source: pmem2.Source, raw_source: int) -> None:
    """The PROT_WRITE of mmap is refused, and what was set before stays."""
    with libpmem2.config() as config:
        assert libpmem2.set_protection(config, PROT_WRITE) == lib.PMEM2_E_INVALID_PROT_FLAG
        with libpmem2.map(config, raw_source) as pointer:
            assert libpmem2.permissions(libpmem2.map_address(pointer)) == "rw-s"
    default = pmem2.Config()
    with pytest.raises(pmem2.InvalidProtFlagError):
        attrs.evolve(default, protection=PROT_WRITE)
    with source.map(default) as map:
        assert map.protection == READ | WRITE
        assert libpmem2.permissions(map.address) == "rw-s"
