# SPDX-License-Identifier: BSD-3-Clause
"""The checker of `nox -s disk`: what it refuses, and what it allows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools" / "nvdimm"
if not TOOLS.exists():
    pytest.skip("this is not a checkout", allow_module_level=True)
sys.path.insert(0, str(TOOLS))

from disk_log import FLUSH, FUA, HEAD, MAGIC, MARK, SECTOR, SUPER, read_log  # noqa: E402
from disk_model import Disk, Event  # noqa: E402

PAGE = 4096


def disk_with(*events: Event) -> Disk:
    """Return a disk with a file of two pages, after some events."""
    disk = Disk()
    for event in (["create", "f", 2 * PAGE], *events):
        disk.apply(event)
    return disk


def image(*pieces: tuple[int, bytes]) -> dict[str, bytes]:
    """Return the file with some bytes in it."""
    contents = bytearray(2 * PAGE)
    for offset, data in pieces:
        contents[offset : offset + len(data)] = data
    return {"f": bytes(contents)}


STORES: list[Event] = [
    ["store", "f", 0, b"one".hex()],
    ["store", "f", 0, b"two".hex()],
    ["store", "f", 600, b"x".hex()],
]


def test_lost_bytes_refused() -> None:
    """A durable byte that is missing, a missing file and a file of another size are refused."""
    disk = disk_with(*STORES, ["durable", "f", 0, 1])
    assert disk.refuse(image((0, b"two"), (600, b"x")), []) is None
    for wrong in (image((0, b"two")), image((600, b"x")), image((0, b"one"), (600, b"x")), {}, {"f": b""}):
        assert disk.refuse(wrong, []) is not None


def test_any_version_allowed() -> None:
    """Before a page is durable, each of its sectors may show any of its versions, and nothing else."""
    disk = disk_with(*STORES)
    for first in ((0, b""), (0, b"one"), (0, b"two")):
        assert disk.refuse(image(first), []) is None
        assert disk.refuse(image(first, (600, b"x")), []) is None
    assert disk.refuse(image((0, b"one"), (600, b"y")), []) is not None
    assert disk.refuse(image((5, b"x")), []) is not None


def test_only_copies_tear() -> None:
    """A copy may be half done, word by word; a store may not, nor a word of a copy."""
    data = b"a" * 8 + b"b" * 8
    assert disk_with(["copy", "f", 0, data.hex()]).refuse(image((8, b"b" * 8)), []) is None
    assert disk_with(["copy", "f", 0, data.hex()]).refuse(image((8, b"b" * 4)), []) is not None
    assert disk_with(["store", "f", 0, data.hex()]).refuse(image((8, b"b" * 8)), []) is not None


def test_running_step_allowed() -> None:
    """The stores of a call that has not returned may be there or not; a file that is being replaced is old or new."""
    store: Event = ["store", "f", 0, b"next".hex()]
    for found in (image(), image((0, b"next"))):
        assert disk_with().refuse(found, [store, ["durable", "f", 0, 4]]) is None
    disk = disk_with(["create", "g", 2 * PAGE], ["store", "g", 0, b"new".hex()], ["durable", "g", 0, 3])
    for contents, refused in ((b"", False), (b"new", False), (b"mix", True)):
        found = {"f": image((0, contents))["f"], "g": image((0, b"new"))["f"]}
        assert (disk.refuse(found, [["replace", "f", "g"]]) is not None) is refused


def test_log_is_read(tmp_path: Path) -> None:
    """Writes, flushes and marks are read in their order."""
    entries = [(7, 1, FUA, b"d" * SECTOR), (0, 0, FLUSH, b""), (0, 0, MARK, b"12")]
    log = SUPER.pack(MAGIC, 1, len(entries), SECTOR).ljust(SECTOR, b"\0")
    for sector, sectors, flags, data in entries:
        head = HEAD.pack(sector, sectors, flags, len(data) if flags & MARK else 0)
        log += (head + data).ljust(SECTOR, b"\0") if flags & MARK else head.ljust(SECTOR, b"\0") + data
    path = tmp_path / "log"
    path.write_bytes(log)
    found = [tuple(entry) for entry in read_log(str(path))]
    assert found == [(7 * SECTOR, b"d" * SECTOR, FUA, ""), (0, b"", FLUSH, ""), (0, b"", MARK, "12")]
