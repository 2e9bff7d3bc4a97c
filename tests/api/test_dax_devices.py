# SPDX-License-Identifier: BSD-3-Clause
"""dax_devices: what sysfs says about the device DAX of a machine."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

import pmem2
from pmem2 import DaxDevice, _files

GIB = 1 << 30


def add_device(sysfs: Path, name: str, driver: str = "device_dax", **attributes: str) -> None:
    """Add a device to a copy of sysfs."""
    device = sysfs / "devices/platform" / name
    device.mkdir(parents=True)
    for attribute, text in attributes.items():
        (device / attribute).write_text(text)
    (device / "driver").symlink_to(Path("/sys/bus/dax/drivers") / driver)
    listed = sysfs / "bus/dax/devices"
    listed.mkdir(parents=True, exist_ok=True)
    (listed / name).symlink_to(device)


def test_devices_of_sysfs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Devices come in order of their numbers; a value that sysfs lacks, or that is no number, is None."""
    monkeypatch.setattr(_files, "SYSFS", tmp_path)
    assert pmem2.dax_devices() == ()
    add_device(tmp_path, "dax10.0", size=f"{GIB}\n", align="2097152\n", numa_node="-1\n", target_node="3\n")
    add_device(tmp_path, "dax9.1", size="4096\n", align="unknown\n")
    add_device(tmp_path, "dax9.0")
    add_device(tmp_path, "dax1.0", driver="kmem", size=f"{GIB}\n")
    add_device(tmp_path, "dax2.0", size="0\n")
    assert pmem2.dax_devices() == (
        DaxDevice("/dev/dax9.0", None, None, None, None),
        DaxDevice("/dev/dax9.1", 4096, None, None, None),
        DaxDevice("/dev/dax10.0", GIB, 2 << 20, -1, 3),
    )


def test_device_is_frozen() -> None:
    """A DaxDevice is a value."""
    device = DaxDevice("/dev/dax0.0", 1, 2, 3, 4)
    assert hash(device) == hash(attrs.evolve(device))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        device.size = 5  # type: ignore[misc]


@pytest.mark.medium
def test_devices_of_machine() -> None:
    """The devices of this machine are there, with the size, alignment and NUMA node that a Source has."""
    devices = {device.path: device for device in pmem2.dax_devices()}
    names = {f"PMEM2_TEST_{kind}DAX" for kind in ("DEV", "SOFT")} & os.environ.keys()
    for path in (os.environ[name] for name in names):
        with pmem2.Source.from_path(path) as source:
            found = devices[path]
            assert (found.size, found.alignment, found.numa_node) == (source.size, source.alignment, source.numa_node)
            assert found.target_node is not None
