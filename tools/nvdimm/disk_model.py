# SPDX-License-Identifier: BSD-3-Clause
"""What pmem2 promises about files on a disk, and what a power failure may show of them.

A recording is a list of steps. A step is one call and its events, each a list whose first item is its kind:

    create NAME SIZE            the file exists and has SIZE zeros, durable
    store NAME OFFSET HEX       plain bytes in one store, not durable
    copy NAME OFFSET HEX        bytes of a copy, which may be half done
    durable NAME OFFSET LENGTH  the pages of the range are durable
    replace NAME SOURCE         the file has the present contents of another one, durable; until then its old contents
    grow NAME SIZE              the file has more zeros at its end, durable
    explore NAME IMAGES         the crash explorer has found these images, digests, for each number of acknowledgements
    acknowledge NAME            the explored program acknowledges

The rules are those of the crash explorer for PAGE: each sector of 512 bytes holds the page as of some moment since the
page was last durable, independently of other sectors.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any, Optional

SECTOR = 512
PAGE = 4096
WORD = 8
Event = list[Any]


class File:
    """The durable contents of a file, and for each sector the versions since then."""

    def __init__(self, contents: bytes) -> None:
        """Start with durable contents, a multiple of the size of a sector."""
        self.durable = bytearray(contents)
        self.versions: dict[int, list[tuple[bytes, bool]]] = {}
        """By sector: contents, and whether the step to them may be half done."""

    def latest(self, sector: int) -> bytes:
        """Return the newest version of a sector."""
        if sector in self.versions:
            return self.versions[sector][-1][0]
        return bytes(self.durable[sector * SECTOR : (sector + 1) * SECTOR])

    def contents(self) -> bytes:
        """Return the newest version of every sector."""
        result = bytearray(self.durable)
        for sector in self.versions:
            result[sector * SECTOR : (sector + 1) * SECTOR] = self.latest(sector)
        return bytes(result)

    def store(self, offset: int, data: bytes, *, half: bool) -> None:
        """Add a version to every sector of a range."""
        while data:
            sector, begin = divmod(offset, SECTOR)
            part = data[: SECTOR - begin]
            old = self.latest(sector)
            new = old[:begin] + part + old[begin + len(part) :]
            self.versions.setdefault(sector, []).append((new, half))
            offset, data = offset + len(part), data[len(part) :]

    def make_durable(self, offset: int, length: int) -> None:
        """Drop all but the newest version of every sector in the pages of a range."""
        for sector in range(offset // PAGE * PAGE // SECTOR, -(-(offset + length) // PAGE) * PAGE // SECTOR):
            if length and sector in self.versions:
                self.durable[sector * SECTOR : (sector + 1) * SECTOR] = self.latest(sector)
                del self.versions[sector]

    def allows(self, sector: int, found: bytes) -> bool:
        """Return whether a power failure may leave these contents of a sector."""
        old = bytes(self.durable[sector * SECTOR : (sector + 1) * SECTOR])
        for new, half in [(old, False), *self.versions[sector]]:
            if found == new or (half and is_mixture(found, old, new)):
                return True
            old = new
        return False

    def refuse(self, found: bytes) -> Optional[str]:
        """Return why a power failure cannot leave these contents, `None` if it can."""
        if len(found) != len(self.durable):
            return f"{len(found)} bytes instead of {len(self.durable)}"
        rest = bytearray(found)
        for sector in self.versions:
            part = slice(sector * SECTOR, (sector + 1) * SECTOR)
            if not self.allows(sector, found[part]):
                return f"the sector at {part.start} has contents that no moment explains"
            rest[part] = self.durable[part]
        if rest == self.durable:
            return None
        wrong = next(i for i, (one, other) in enumerate(zip(rest, self.durable)) if one != other)
        return f"the byte at {wrong} is not durable"


class Explored:
    """A file that must show an image that the crash explorer has found."""

    def __init__(self, images: list[list[str]]) -> None:
        """Start before the first acknowledgement."""
        self.images = images
        self.acknowledged = 0

    def refuse(self, found: bytes, more: int) -> Optional[str]:
        """Return why a power failure cannot leave these contents; up to *more* acknowledgements were on their way."""
        allowed = self.images[self.acknowledged : self.acknowledged + more + 1]
        return None if any(digest(found) in images for images in allowed) else "the explorer has no such image"


def digest(image: bytes) -> str:
    """Return a short hash of an image."""
    return hashlib.sha256(image).hexdigest()[:16]


def is_mixture(found: bytes, old: bytes, new: bytes) -> bool:
    """Return whether each word has its old or its new contents."""
    words = [slice(begin, begin + WORD) for begin in range(0, SECTOR, WORD)]
    return all(found[word] in (old[word], new[word]) for word in words)


class Disk:
    """The files of a disk."""

    def __init__(self) -> None:
        """Start without files."""
        self.files: dict[str, File] = {}
        self.explored: dict[str, Explored] = {}

    def names(self) -> list[str]:
        """Return the names of all files."""
        return [*self.files, *self.explored]

    def apply(self, event: Event) -> None:
        """Apply an event of a step that has returned."""
        kind, name, *details = event
        if kind == "create":
            self.files[name] = File(bytes(details[0]))
        elif kind == "explore":
            self.explored[name] = Explored(details[0])
        elif kind == "acknowledge":
            self.explored[name].acknowledged += 1
        elif kind == "grow":
            self.files[name].durable.extend(bytes(details[0] - len(self.files[name].durable)))
        elif kind == "replace":
            self.files[name] = File(self.files[details[0]].contents())
        elif kind == "durable":
            self.files[name].make_durable(*details)
        else:
            self.files[name].store(details[0], bytes.fromhex(details[1]), half=kind == "copy")

    def refuse(self, found: dict[str, bytes], running: list[Event]) -> Optional[str]:
        """Return why a power failure cannot leave these files, `None` if it can.

        Args:
            found: The files, by name.
            running: The events of the steps that had begun, but not returned.
        """
        changing = {event[1] for event in running}
        files = {name: copy.deepcopy(file) if name in changing else file for name, file in self.files.items()}
        replaced: dict[str, bytes] = {}
        unknown: set[str] = set()
        for kind, name, *details in running:
            if kind in ("create", "grow"):
                unknown.add(name)
            elif kind == "replace":
                replaced[name] = files[details[0]].contents()
            elif kind in ("store", "copy") and name not in unknown:
                files[name].store(details[0], bytes.fromhex(details[1]), half=kind == "copy")
        for name, file in files.items():
            if name in unknown or (name in replaced and found.get(name) == replaced[name]):
                continue
            reason = file.refuse(found[name]) if name in found else "it does not exist"
            if reason:
                return f"{name}: {reason}"
        for name, explored in self.explored.items():
            more = sum(event[:2] == ["acknowledge", name] for event in running)
            reason = explored.refuse(found[name], more) if name in found else "it does not exist"
            if reason:
                return f"{name}: {reason}"
        return None
