# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of configs: pmem2_config."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest
from _pmem2 import lib
from support import libpmem2
from support.values import PAGE, SIZE, open_fd

import pmem2

PROT_WRITE = 2  # mmap.PROT_WRITE, which Windows lacks
READ, WRITE, EXEC, NONE = (
    pmem2.Protection.READ,
    pmem2.Protection.WRITE,
    pmem2.Protection.EXEC,
    pmem2.Protection.NONE,
)


@pytest.mark.upstream("pmem2_config/TEST0")
def test_create_and_delete() -> None:
    """A config is created without arguments and deleted; Configs with the same values are equal."""
    rc, pointer = libpmem2.config_new()
    assert rc == 0
    assert pointer != 0
    assert libpmem2.config_delete(pointer) == (0, 0)
    assert pmem2.Config() == pmem2.Config()
    assert hash(pmem2.Config()) == hash(pmem2.Config())


@pytest.mark.upstream("pmem2_config/TEST2")
@pytest.mark.libpmem2
def test_delete_null() -> None:
    """Deleting a NULL config succeeds."""
    assert libpmem2.config_delete(0) == (0, 0)


@pytest.mark.upstream("pmem2_config/TEST3")
@pytest.mark.libpmem2
def test_library_granularity_last_set_wins(raw_source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new config has no granularity, which mapping refuses; of BYTE and then PAGE, PAGE counts."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "PAGE")
    with libpmem2.config(None) as config:
        assert libpmem2.map_new(config, raw_source) == (lib.PMEM2_E_GRANULARITY_NOT_SET, 0)
        assert libpmem2.set_granularity(config, lib.PMEM2_GRANULARITY_BYTE) == 0
        assert libpmem2.map_new(config, raw_source) == (lib.PMEM2_E_GRANULARITY_NOT_SUPPORTED, 0)
        assert libpmem2.set_granularity(config, lib.PMEM2_GRANULARITY_PAGE) == 0
        with libpmem2.map(config, raw_source) as map:
            assert libpmem2.map_granularity(map) == lib.PMEM2_GRANULARITY_PAGE


@pytest.mark.upstream("pmem2_config/TEST3")
def test_granularity_default_and_evolve(source: pmem2.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Config requires PAGE by default; mapping refuses `None`; an evolved Config uses its new granularity."""
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


@pytest.mark.upstream("pmem2_config/TEST4")
def test_invalid_granularity() -> None:
    """A number that is not a granularity is refused."""
    with libpmem2.config() as config:
        assert libpmem2.set_granularity(config, 999) == lib.PMEM2_E_GRANULARITY_NOT_SUPPORTED
    with pytest.raises(pmem2.GranularityNotSupportedError):
        pmem2.Config(required_granularity=999)  # type: ignore[arg-type]


@pytest.mark.upstream("pmem2_config/TEST5", "pmem2_config/TEST8")
def test_offset_too_large() -> None:
    """An offset of 2**63 is refused, and 2**63 - 1 is accepted."""
    with libpmem2.config() as config:
        assert libpmem2.set_offset(config, 2**63) == lib.PMEM2_E_OFFSET_OUT_OF_RANGE
        assert libpmem2.set_offset(config, 2**63 - 1) == 0
    with pytest.raises(pmem2.OffsetOutOfRangeError):
        pmem2.Config(offset=2**63)
    assert pmem2.Config(offset=2**63 - 1).offset == 2**63 - 1


@pytest.mark.upstream("pmem2_config/TEST6")
def test_offset(source: pmem2.Source, raw_source: int) -> None:
    """A map with an offset begins there in the source."""
    source.pwrite_mcsafe(b"second page", PAGE)
    with libpmem2.config(offset=PAGE) as config, libpmem2.map(config, raw_source) as pointer:
        assert libpmem2.read(pointer, 11) == b"second page"
    with source.map(pmem2.Config(offset=PAGE)) as map:
        assert map[:11] == b"second page"
        assert map.size == SIZE - PAGE


@pytest.mark.upstream("pmem2_config/TEST7")
def test_length(source: pmem2.Source, raw_source: int) -> None:
    """A map has the length that its config sets."""
    with libpmem2.config(length=PAGE) as config, libpmem2.map(config, raw_source) as pointer:
        assert libpmem2.map_size(pointer) == PAGE
    with source.map(pmem2.Config(length=PAGE)) as map:
        assert map.size == len(map) == PAGE


@pytest.mark.upstream("pmem2_config/TEST9")
def test_sharing(source: pmem2.Source, raw_source: int) -> None:
    """A config is SHARED by default and can be set to PRIVATE."""
    with libpmem2.config() as config:
        with libpmem2.map(config, raw_source) as pointer:
            assert libpmem2.permissions(libpmem2.map_address(pointer)) == "rw-s"
        assert libpmem2.set_sharing(config, lib.PMEM2_PRIVATE) == 0
        with libpmem2.map(config, raw_source) as pointer:
            assert libpmem2.permissions(libpmem2.map_address(pointer)) == "rw-p"
    shared = pmem2.Config()
    assert shared.sharing is pmem2.Sharing.SHARED
    private = attrs.evolve(shared, sharing=pmem2.Sharing.PRIVATE)
    with source.map(shared) as shared_map, source.map(private) as private_map:
        assert (shared_map.sharing, private_map.sharing) == (pmem2.Sharing.SHARED, pmem2.Sharing.PRIVATE)
        assert libpmem2.permissions(shared_map.address) == "rw-s"
        assert libpmem2.permissions(private_map.address) == "rw-p"


@pytest.mark.upstream("pmem2_config/TEST10")
def test_invalid_sharing() -> None:
    """A number that is not a sharing is refused."""
    with libpmem2.config() as config:
        assert libpmem2.set_sharing(config, 777) == lib.PMEM2_E_INVALID_SHARING_VALUE
    with pytest.raises(pmem2.InvalidSharingValueError):
        pmem2.Config(sharing=777)  # type: ignore[arg-type]


@pytest.mark.upstream("pmem2_config/TEST11")
@pytest.mark.parametrize(
    ("protection", "permissions"),
    [
        pytest.param(READ, "r--s", id="read"),
        pytest.param(WRITE, "-w-s", id="write"),
        pytest.param(EXEC, "--xs", id="exec"),
        pytest.param(NONE, "---s", id="none"),
        pytest.param(WRITE | READ | EXEC, "rwxs", id="write-read-exec"),
    ],
)
def test_protections(exec_file: Path, protection: pmem2.Protection, permissions: str) -> None:
    """The mapping has exactly the protection that the config sets."""
    with pmem2.Source.from_path(exec_file) as source:
        with libpmem2.config() as config, open_fd(exec_file, os.O_RDWR) as fd, libpmem2.source(fd) as pointer:
            assert libpmem2.set_protection(config, protection) == 0
            with libpmem2.map(config, pointer) as mapped:
                assert libpmem2.permissions(libpmem2.map_address(mapped)) == permissions
        with source.map(pmem2.Config(protection=protection)) as map:
            assert map.protection == protection
            assert libpmem2.permissions(map.address) == permissions


@pytest.mark.upstream("pmem2_config/TEST12")
def test_invalid_protection(source: pmem2.Source, raw_source: int) -> None:
    """PROT_WRITE of mmap is refused, and the earlier protection stays."""
    with libpmem2.config() as config:
        assert libpmem2.set_protection(config, PROT_WRITE) == lib.PMEM2_E_INVALID_PROT_FLAG
        with libpmem2.map(config, raw_source) as pointer:
            assert libpmem2.permissions(libpmem2.map_address(pointer)) == "rw-s"
    default = pmem2.Config()
    with pytest.raises(pmem2.InvalidProtFlagError):
        attrs.evolve(default, protection=PROT_WRITE)  # type: ignore[arg-type]
    with source.map(default) as map:
        assert map.protection == READ | WRITE
        assert libpmem2.permissions(map.address) == "rw-s"
