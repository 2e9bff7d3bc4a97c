# SPDX-License-Identifier: BSD-3-Clause
"""dax_devices: the device DAX of this machine, as sysfs lists them."""

import os
from typing import Optional, final

import attrs

from pmem2 import _files

UNMAPPABLE_DRIVERS = {"kmem"}
"""With it the device is ordinary memory of the system."""


@final
@attrs.frozen()
class DaxDevice:
    """A device DAX as sysfs describes it; `None` where sysfs says nothing.

    Attributes:
        path: The path to open, such as "/dev/dax0.0". Its number can differ between hosts and between starts.
        size: Bytes.
        alignment: Bytes; offsets and lengths of maps are multiples of it.
        numa_node: The nearest NUMA node that has processors, -1 for none.
        target_node: The NUMA node that the memory of the device would be, were it memory of the system.
    """

    path: str
    size: Optional[int]
    alignment: Optional[int]
    numa_node: Optional[int]
    target_node: Optional[int]


def dax_devices() -> tuple[DaxDevice, ...]:
    """Return the device DAX of this machine, in order of their numbers; nothing on a system that has none.

    Devices that are switched to ordinary memory (`daxctl reconfigure-device --mode=system-ram`), and those without
    memory, are left out. Every user may ask, whether or not they may open the devices.
    """
    folder = os.path.join(_files.SYSFS, "bus", "dax", "devices")
    try:
        names = os.listdir(folder)
    except OSError:
        return ()
    names.sort(key=numbers_in)
    return tuple(
        describe(name, os.path.join(folder, name)) for name in names if is_mappable(os.path.join(folder, name))
    )


def numbers_in(name: str) -> list[int]:
    """Return the numbers in a name, to sort by."""
    return [int(part) for part in "".join(letter if letter.isdigit() else " " for letter in name).split()]


def is_mappable(device: str) -> bool:
    """Return whether programs can map a device."""
    driver = os.path.basename(os.path.realpath(os.path.join(device, "driver")))
    return driver not in UNMAPPABLE_DRIVERS and read_number(device, "size") != 0


def describe(name: str, device: str) -> DaxDevice:
    """Return what sysfs says about a device."""
    values = [read_number(device, attribute) for attribute in ("size", "align", "numa_node", "target_node")]
    return DaxDevice(f"/dev/{name}", *values)


def read_number(device: str, attribute: str) -> Optional[int]:
    """Return the number in a file of sysfs, `None` if there is none."""
    try:
        with open(os.path.join(device, attribute), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
