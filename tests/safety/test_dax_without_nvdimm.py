# SPDX-License-Identifier: BSD-3-Clause
"""DAX devices outside an NVDIMM bus, where libndctl, and so libpmem2, would crash: pmem2 reads sysfs instead."""

from __future__ import annotations

import gc
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.values import descriptors, needs_cache_line

import pmem2
from pmem2 import _files, _source

MIB = 1024 * 1024


def fake_device(monkeypatch: pytest.MonkeyPatch, sysfs: Path, bus: str, **attributes: str) -> None:
    """Make `/dev/null` look like a DAX device on *bus* with these attributes in sysfs."""
    device = sysfs / "devices" / bus / "dax0.0"
    device.mkdir(parents=True)
    for name, text in attributes.items():
        (device / name).write_text(text)
    (sysfs / "bus" / "dax").mkdir(parents=True)
    (device / "subsystem").symlink_to(sysfs / "bus" / "dax")
    (sysfs / "dev" / "char").mkdir(parents=True)
    number = os.stat("/dev/null").st_rdev
    (sysfs / "dev" / "char" / f"{os.major(number)}:{os.minor(number)}").symlink_to(device)
    monkeypatch.setattr(_files, "SYSFS", sysfs)


@pytest.fixture
def null() -> Iterator[int]:
    """A descriptor of a character device."""
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


def test_sysfs_describes_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, null: int) -> None:
    """Pitfall 31: sysfs alone gives size, alignment and NUMA node of a DAX device outside an NVDIMM bus."""
    fake_device(monkeypatch, tmp_path, "platform/hmem.0", size="1073741824\n", align="2097152\n", numa_node="-1\n")
    assert _files.dax_device_without_nvdimm(null) == (1 << 30, 2 * MIB, -1)


def test_sysfs_of_this_machine() -> None:
    """Without a test's own folder, pmem2 reads the kernel's list of devices."""
    assert Path(_files.SYSFS, "dev", "char").is_dir()


def test_nvdimm_is_for_libpmem2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, null: int) -> None:
    """pmem2 leaves a DAX device on an NVDIMM bus to libpmem2."""
    fake_device(monkeypatch, tmp_path, "LNXSYSTM:00/ndbus0/region0", size="1073741824\n")
    assert _files.dax_device_without_nvdimm(null) is None


def test_other_files_are_no_dax(null: int, fd: int) -> None:
    """Another character device and an ordinary file are no DAX devices."""
    assert stat.S_ISCHR(os.fstat(null).st_mode)
    assert _files.dax_device_without_nvdimm(null) is None
    assert _files.dax_device_without_nvdimm(fd) is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, pmem2.InvalidSizeFormatError),
        ({"size": "big"}, pmem2.InvalidSizeFormatError),
        ({"size": "4096"}, pmem2.InvalidAlignmentFormatError),
        ({"size": "4096", "align": ""}, pmem2.InvalidAlignmentFormatError),
        ({"size": "4096", "align": "4096"}, pmem2.DaxRegionNotFoundError),
    ],
)
def test_incomplete_sysfs_attributes(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    null: int,
    attributes: dict[str, str],
    expected: type[pmem2.Pmem2Error],
) -> None:
    """A missing or malformed attribute raises libpmem2's code for it."""
    fake_device(monkeypatch, tmp_path, "platform/hmem.0", **attributes)
    with pytest.raises(expected, match="cannot read"):
        _files.dax_device_without_nvdimm(null)


@pytest.fixture
def dax(monkeypatch: pytest.MonkeyPatch, file: Path) -> Iterator[pmem2.Source]:
    """An ordinary file that pmem2 treats as a DAX device of 8 MiB with an alignment of 2 MiB."""
    monkeypatch.setattr(_source, "dax_device_without_nvdimm", lambda fd: _files.DaxGeometry(8 * MIB, 2 * MIB, 3))
    with pmem2.Source.from_path(file) as source:
        yield source


@pytest.mark.memcheck
@needs_cache_line
def test_device_can_be_mapped(dax: pmem2.Source, file: Path) -> None:
    """A map of the device has CACHE_LINE granularity and persists its data."""
    assert (dax.size, dax.alignment, dax.numa_node) == (8 * MIB, 2 * MIB, 3)
    with dax.map(pmem2.Config(required_granularity=pmem2.Granularity.CACHE_LINE)) as map:
        assert (map.size, map.granularity) == (8 * MIB, pmem2.Granularity.CACHE_LINE)
        map.memcpy(0, b"copied")
        map[6] = 33
        map.persist(0, 7)
        map.flush_many([(0, 1), (4096, 1)])
        map.drain()
    assert file.read_bytes()[:7] == b"copied!"
    with dax.map(pmem2.Config(offset=2 * MIB, length=4 * MIB)) as map:
        map[0] = 77
        assert map.size == 4 * MIB
    assert file.read_bytes()[2 * MIB] == 77


@needs_cache_line
def test_close_unmaps_the_device(dax: pmem2.Source, file: Path) -> None:
    """Closing a map of the device unmaps it, although libpmem2 knows it as existing memory."""
    with dax.map():
        assert str(file) in Path("/proc/self/maps").read_text()
    assert str(file) not in Path("/proc/self/maps").read_text()


@pytest.mark.memcheck
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (pmem2.Config(required_granularity=None), pmem2.GranularityNotSetError),
        (pmem2.Config(offset=4096), pmem2.OffsetUnalignedError),
        (pmem2.Config(sharing=pmem2.Sharing.PRIVATE), pmem2.SrcDevdaxPrivateError),
        (pmem2.Config(length=4096), pmem2.LengthUnalignedError),
        (pmem2.Config(offset=8 * MIB), pmem2.MapRangeError),
        (pmem2.Config(offset=2 * MIB, length=8 * MIB), pmem2.MapRangeError),
        (pmem2.Config(length=2**64 - 2 * MIB), pmem2.MapRangeError),
        (pmem2.Config(required_granularity=pmem2.Granularity.BYTE), pmem2.GranularityNotSupportedError),
    ],
)
def test_device_limits_are_checked(dax: pmem2.Source, config: pmem2.Config, expected: type[pmem2.Pmem2Error]) -> None:
    """A config that libpmem2 refuses for a DAX device raises the same code."""
    with pytest.raises(expected) as caught:
        dax.map(config)
    assert caught.value.function == "pmem2_map_new"


@pytest.mark.parametrize("config", [pmem2.Config(offset=4096), pmem2.Config(length=4096)], ids=["offset", "length"])
def test_alignment_is_reported(dax: pmem2.Source, config: pmem2.Config) -> None:
    """The error for an unaligned range states the alignment of the device."""
    with pytest.raises(pmem2.Pmem2Error, match=f"the alignment of the device is {2 * MIB} bytes; use a multiple"):
        dax.map(config)


@needs_cache_line
def test_read_only_device(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """A protection that the descriptor does not allow raises NoAccessError."""
    monkeypatch.setattr(_source, "dax_device_without_nvdimm", lambda fd: _files.DaxGeometry(8 * MIB, 2 * MIB, 3))
    with pmem2.Source.from_path(file, writable=False) as source:
        with pytest.raises(pmem2.NoAccessError):
            source.map(pmem2.Config(protection=pmem2.Protection.READ | pmem2.Protection.WRITE))
        with source.map() as map:
            assert map.protection == pmem2.Protection.READ


def test_features_of_nvdimms_only(dax: pmem2.Source, reservation: pmem2.VMReservation) -> None:
    """mcsafe, bad blocks, ids and reservations need an NVDIMM and raise NosuppError."""
    with pytest.raises(pmem2.NosuppError):
        dax.pread_mcsafe(8)
    with pytest.raises(pmem2.NosuppError):
        dax.pwrite_mcsafe(b"data")
    with pytest.raises(pmem2.NosuppError):
        dax.bad_blocks()
    with pytest.raises(pmem2.NosuppError):
        _ = dax.device_id
    with pytest.raises(pmem2.NosuppError):
        _ = dax.device_usc
    with pytest.raises(pmem2.NosuppError):
        dax.map(pmem2.Config(reservation=reservation))


def test_failed_source_is_closed(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """A source that fails in the middle closes its descriptor and leaves no ResourceWarning."""

    def fail(fd: int) -> None:
        raise pmem2.InvalidSizeFormatError(pmem2.ErrorCode.INVALID_SIZE_FORMAT, "no size", "pmem2_source_from_fd")

    monkeypatch.setattr(_source, "dax_device_without_nvdimm", fail)
    before = descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(pmem2.InvalidSizeFormatError):
            pmem2.Source.from_path(file)
        for _ in range(3):
            gc.collect()
    assert descriptors() == before
