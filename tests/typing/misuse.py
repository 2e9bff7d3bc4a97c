# SPDX-License-Identifier: BSD-3-Clause
# mypy: disallow-any-expr
"""Errors that a type checker must report: an unused `type: ignore` is an error. This file never runs."""

import pmem2
from pmem2 import BadBlockContext, Config, Granularity, Map, MemFlag, Protection, Sharing, Source, VMReservation


def open_() -> None:
    """`open` refuses unknown modes, descriptors and positional options."""
    pmem2.open("path", "w")  # type: ignore[arg-type]
    pmem2.open(3)  # type: ignore[arg-type]
    pmem2.open("path", "w+", 4096)  # type: ignore[call-arg]
    pmem2.open("path", config=None)  # type: ignore[arg-type]


def source(s: Source) -> None:
    """A Source is created by its class methods, and its properties are read-only."""
    Source("path")  # type: ignore[call-arg]
    Source.from_fd("path")  # type: ignore[arg-type]
    Source.from_path("path", False)  # type: ignore[call-arg]
    Source.from_anon(4096.0)  # type: ignore[arg-type]
    s.size = 4096  # type: ignore[misc]
    s.pwrite_mcsafe("text")  # type: ignore[arg-type]
    s.map(config=Config())  # type: ignore[call-arg]
    s.mmap()  # type: ignore[attr-defined]


def config(c: Config) -> None:
    """A Config accepts keywords only and is frozen."""
    Config(4096)  # type: ignore[arg-type, call-arg]
    Config(size=4096)  # type: ignore[call-arg]
    Config(offset="4096")  # type: ignore[arg-type]
    Config(offset=None)  # type: ignore[arg-type]
    Config(sharing=None)  # type: ignore[arg-type]
    Config(sharing=Granularity.PAGE)  # type: ignore[arg-type]
    Config(sharing=1)  # type: ignore[arg-type]
    Config(protection=MemFlag.NODRAIN)  # type: ignore[arg-type]
    Config(protection=3)  # type: ignore[arg-type]
    Config(required_granularity=Sharing.SHARED)  # type: ignore[arg-type]
    Config(required_granularity=2)  # type: ignore[arg-type]
    c.offset = 4096  # type: ignore[misc]


def map_(m: Map, s: Source) -> None:
    """The methods of a Map refuse wrong types."""
    Map("path")  # type: ignore[arg-type]
    Map(s, 4096)  # type: ignore[arg-type]
    Map.from_existing(s, "text", Granularity.PAGE)  # type: ignore[arg-type]
    Map.from_existing(s, bytearray(8), Sharing.SHARED)  # type: ignore[arg-type]
    Map.from_existing(s, bytearray(8), 2)  # type: ignore[arg-type]
    m.granularity = pmem2.Granularity.BYTE  # type: ignore[misc]
    m[1.5]  # type: ignore[call-overload]
    m["key"]  # type: ignore[call-overload]
    m[0] = "x"  # type: ignore[call-overload]
    m[0] = b"x"  # type: ignore[call-overload]
    m[0:1] = "x"  # type: ignore[call-overload]
    m[0:2] = 5  # type: ignore[call-overload]
    del m[0]  # type: ignore[attr-defined, misc]
    m.view(1.5)  # type: ignore[arg-type]
    m.persist("0")  # type: ignore[call-overload]
    m.persist(m.view(), 8)  # type: ignore[call-overload]
    m.madvise("MADV_RANDOM")  # type: ignore[arg-type]
    m.prefault(m.view())  # type: ignore[arg-type]
    m.publish("0")  # type: ignore[call-overload]
    m.acquire_many([0, 8])  # type: ignore[list-item]
    pmem2.publish("text")  # type: ignore[arg-type]
    pmem2.acquire(0)  # type: ignore[arg-type]
    m.persist_many([0, 8])  # type: ignore[list-item]
    m.memcpy(0, "text")  # type: ignore[arg-type]
    m.memcpy(b"data", 0)  # type: ignore[arg-type]
    m.memcpy(0, b"x", Protection.READ)  # type: ignore[arg-type]
    m.memmove(0, b"x", 1)  # type: ignore[arg-type]
    m.memset(0, 1, 1, Granularity.PAGE)  # type: ignore[arg-type]
    m.memcpy_many([b"data"])  # type: ignore[list-item]
    m.memset(0, b"x", 1)  # type: ignore[arg-type]
    m.store_u64(0, 1.5)  # type: ignore[arg-type]
    m.fetch_add_u64(0)  # type: ignore[call-arg]


def reservation(r: VMReservation, s: Source) -> None:
    """A reservation contains maps, not sources."""
    VMReservation()  # type: ignore[call-arg]
    r.next(s)  # type: ignore[arg-type]
    r.size = 4096  # type: ignore[misc]


def bad_blocks(context: BadBlockContext) -> None:
    """`clear` accepts only a BadBlock."""
    context.clear((0, 512))  # type: ignore[arg-type]
    for block in context:
        block.length = 0  # type: ignore[misc]


class OwnMap(Map):  # type: ignore[misc]
    """The classes are final."""
