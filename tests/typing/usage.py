# SPDX-License-Identifier: BSD-3-Clause
# mypy: disallow-any-expr
"""Types that a user of pmem2 sees. A type checker checks this file; it never runs."""

import mmap
import os
import sys
from array import array
from io import FileIO
from pathlib import Path
from typing import Optional, SupportsIndex, Union

import attrs
from typing_extensions import assert_type

import pmem2
from pmem2 import (
    BadBlock,
    BadBlockContext,
    Config,
    ErrorCode,
    Granularity,
    Map,
    MemFlag,
    Pmem2Error,
    Protection,
    Sharing,
    Source,
    VMReservation,
)

assert_type(pmem2.__version__, str)


def open_() -> None:
    """`open` accepts any path and returns a map for a `with` statement."""
    with pmem2.open("path") as m:
        assert_type(m, Map)
    assert_type(pmem2.open(b"path", "r"), Map)
    assert_type(pmem2.open(Path("path"), "w+", size=4096), Map)
    assert_type(pmem2.open("path", "x+", size=4096, config=Config(offset=4096)), Map)
    assert_type(pmem2.open("path", "r+", config=Config()), Map)
    assert_type(pmem2.open("path", mode="c"), Map)
    assert_type(pmem2.open("path", "a+", size=4096), Map)


def enums() -> None:
    """Enum members keep their type when they are combined."""
    assert_type(Granularity.BYTE < Granularity.CACHE_LINE < Granularity.PAGE, bool)
    assert_type(Granularity.PAGE.value, int)
    assert_type(Granularity(0), Granularity)
    name: str = Sharing(0).name
    assert_type(Sharing[name], Sharing)
    assert_type(Protection.READ | Protection.WRITE, Protection)
    assert_type(~Protection.EXEC & Protection.NONE, Protection)
    assert_type(MemFlag.NODRAIN | MemFlag.NONTEMPORAL | MemFlag.TEMPORAL, MemFlag)
    assert_type(MemFlag.WC | MemFlag.WB | MemFlag.NOFLUSH, MemFlag)
    assert_type(ErrorCode.MAP_RANGE.value, int)


def source(file: FileIO, buffer: bytearray) -> None:
    """The methods and properties of a Source."""
    with Source.from_path("path", writable=False) as s:
        assert_type(s, Source)
    assert_type(Source.from_fd(3), Source)
    assert_type(Source.from_fd(file), Source)
    assert_type(Source.from_anon(4096), Source)
    assert_type(Source.from_handle(4), Source)
    assert_type(s.fd, int)
    assert_type(s.handle, int)
    assert_type(s.size, int)
    assert_type(s.alignment, int)
    assert_type(s.device_id, str)
    assert_type(s.device_usc, int)
    assert_type(s.numa_node, int)
    assert_type(s.closed, bool)
    assert_type(s.pread_mcsafe(8), bytes)
    assert_type(s.pread_mcsafe(8, offset=8), bytes)
    s.pread_mcsafe_into(buffer, 8)
    s.pread_mcsafe_into(memoryview(buffer))
    s.pwrite_mcsafe(b"data", offset=8)
    assert_type(s.map(), Map)
    assert_type(s.map(Config()), Map)
    s.close()


def config(reservation: VMReservation) -> None:
    """A Config accepts enums and returns them."""
    c = Config(
        required_granularity=Granularity.BYTE,
        offset=4096,
        length=None,
        sharing=Sharing.PRIVATE,
        protection=Protection.READ,
        reservation=reservation,
        reservation_offset=0,
    )
    assert_type(c.required_granularity, Optional[Granularity])
    assert_type(c.offset, int)
    assert_type(c.length, Optional[int])
    assert_type(c.sharing, Sharing)
    assert_type(c.protection, Optional[Protection])
    assert_type(c.reservation, Optional[VMReservation])
    assert_type(c.reservation_offset, int)
    assert_type(Config(protection=Protection.READ | Protection.WRITE, length=4096), Config)
    assert_type(Config(required_granularity=None), Config)
    assert_type(attrs.evolve(c, offset=8192, protection=None), Config)
    assert_type(c == Config(), bool)
    assert_type({c}, set[Config])


def properties(s: Source) -> None:
    """The constructors and properties of a Map."""
    with Map(s) as m:
        assert_type(m, Map)
    assert_type(Map(s, Config()), Map)
    assert_type(Map(s, config=Config()), Map)
    assert_type(m.address, int)
    assert_type(m.size, int)
    assert_type(m.granularity, Granularity)
    assert_type(m.protection, Protection)
    assert_type(m.sharing, Sharing)
    assert_type(m.config, Config)
    assert_type(m.closed, bool)
    assert_type(len(m), int)
    m.close()


def existing_memory(s: Source, memory: mmap.mmap) -> None:
    """Any buffer can be existing memory."""
    assert_type(Map.from_existing(s, memory, Granularity.PAGE), Map)
    assert_type(Map.from_existing(s, memoryview(memory), Granularity.PAGE), Map)
    assert_type(Map.from_existing(s, bytearray(4096), granularity=Granularity.PAGE), Map)


def items(m: Map, index: SupportsIndex) -> None:
    """An item is an int and a slice is bytes; both can be stored."""
    assert_type(m[0], int)
    assert_type(m[index], int)
    assert_type(m[0:1], bytes)
    assert_type(m[:], bytes)
    assert_type(m[::-1], bytes)
    assert_type(m[index:], bytes)
    m[0] = 255
    m[index] = index
    m[0:4] = b"data"
    m[0:4] = bytearray(4)
    m[0:8:2] = memoryview(b"data")
    m[:] = m


def views(m: Map) -> None:
    """A view is a memoryview; the map itself is a buffer from Python 3.12."""
    assert_type(m.view(), memoryview)
    assert_type(m.view(8, length=8), memoryview)
    with m.view() as view:
        assert_type(view[0], int)
        assert_type(view.cast("Q")[0], int)
    if sys.version_info >= (3, 12):
        assert_type(memoryview(m), memoryview)
        assert_type(bytes(m), bytes)
    else:
        memoryview(m)  # type: ignore[arg-type]
        bytes(m)  # type: ignore[call-overload]


def durability(m: Map) -> None:
    """Ranges are numbers, pairs of numbers, or packed in a buffer."""
    m.persist()
    m.persist(0, 8)
    m.flush(offset=0, length=None)
    m.drain()
    m.deep_flush(0, 8)
    m.persist(m.view(0, 8))
    m.flush(bytearray(8))
    m.deep_flush(offset=m.view())
    m.persist_many([(0, 8), (64, 8)])
    m.persist_many((n, 8) for n in range(0, 64, 8))
    m.flush_many(array("Q", (0, 8)))
    m.flush_many(memoryview(b"").cast("Q"))


def hints(m: Map) -> None:
    """Hints are numbers, as those of mmap."""
    if sys.platform != "win32":
        m.madvise(mmap.MADV_RANDOM)
        m.madvise(mmap.MADV_SEQUENTIAL, 0, length=None)
    m.prefault()
    m.prefault(0, 8)


def sharing_with_hosts(m: Map) -> None:
    """Ranges are given as for durability."""
    m.publish()
    m.publish(0, 8)
    m.publish(m.view(0, 8))
    m.acquire(m.view())
    m.acquire(offset=0, length=None)
    m.publish_many([(0, 8), (64, 8)])
    m.acquire_many(array("Q", (0, 8)))
    pmem2.publish(bytearray(8))
    pmem2.acquire(m.view(0, 8))


def copies(m: Map, other: Map) -> None:
    """Data is a buffer or a map."""
    m.memcpy(0, b"data")
    m.memcpy(0, other, MemFlag.NODRAIN)
    m.memmove(0, m.view(8, 8), flags=MemFlag.NODRAIN | MemFlag.TEMPORAL)
    m.memset(0, 255, 8, flags=MemFlag.NODRAIN)
    m.memcpy_many([(0, b"data"), (8, b"data")])
    m.memcpy_many([(0, b"data"), (8, other), (16, bytearray(8))])
    m.memcpy_many((n, bytes(8)) for n in range(0, 64, 8))


def atomics(m: Map) -> None:
    """Atomic operations accept and return integers."""
    assert_type(m.load_u64(0), int)
    m.store_u64(0, 1, persist=True)
    assert_type(m.compare_exchange_u64(0, 1, 2), tuple[bool, int])
    swapped, previous = m.compare_exchange_u64(0, expected=1, desired=2, persist=True)
    assert_type(swapped, bool)
    assert_type(previous, int)
    assert_type(m.fetch_add_u64(0, -1, persist=False), int)


def reservation(m: Map) -> None:
    """A reservation returns maps."""
    with VMReservation(4096) as r:
        assert_type(r, VMReservation)
    assert_type(VMReservation(4096, address=0x10000), VMReservation)
    assert_type(r.address, int)
    assert_type(r.size, int)
    assert_type(r.closed, bool)
    r.extend(4096)
    r.shrink(0, 4096)
    assert_type(r.find(0, 4096), Map)
    assert_type(r.first(), Map)
    assert_type(r.last(), Map)
    assert_type(r.next(m), Map)
    assert_type(r.prev(m), Map)
    assert_type(list(r), list[Map])
    r.close()


def bad_blocks(s: Source) -> None:
    """A bad-block context is an iterator of BadBlocks."""
    with s.bad_blocks() as context:
        assert_type(context, BadBlockContext)
        assert_type(next(context), BadBlock)
        for block in context:
            assert_type(block.offset, int)
            assert_type(block.length, int)
            context.clear(block)
    assert_type(context.closed, bool)
    assert_type(BadBlock(0, 512) == BadBlock(offset=0, length=512), bool)
    context.close()


def errors() -> None:
    """A Pmem2Error is an OSError with a code and a function."""
    try:
        pmem2.open(os.devnull)
    except pmem2.InvalidFileTypeError as error:
        assert_type(error, pmem2.InvalidFileTypeError)
        assert_type(error.code, Union[ErrorCode, int])
        assert_type(error.errno, Optional[int])
        assert_type(error.strerror, Optional[str])
        assert_type(error.function, str)
    base: OSError = Pmem2Error(ErrorCode.UNKNOWN, "invalid argument", "pmem2_map_new")
    assert_type(isinstance(base, pmem2.errors.MapRangeError), bool)


every_error: tuple[type[Pmem2Error], ...] = (
    pmem2.AddressNullError,
    pmem2.AddressUnalignedError,
    pmem2.BufferTooSmallError,
    pmem2.CannotReadBoundsError,
    pmem2.DaxRegionNotFoundError,
    pmem2.DeepFlushRangeError,
    pmem2.FileDescriptorNotSetError,
    pmem2.FileHandleNotSetError,
    pmem2.GranularityNotSetError,
    pmem2.GranularityNotSupportedError,
    pmem2.InvalidAddressRequestTypeError,
    pmem2.InvalidAlignmentFormatError,
    pmem2.InvalidAlignmentValueError,
    pmem2.InvalidDevFormatError,
    pmem2.InvalidFileHandleError,
    pmem2.InvalidFileTypeError,
    pmem2.InvalidProtFlagError,
    pmem2.InvalidRegionFormatError,
    pmem2.InvalidSharingValueError,
    pmem2.InvalidSizeFormatError,
    pmem2.IoFailError,
    pmem2.LengthOutOfRangeError,
    pmem2.LengthUnalignedError,
    pmem2.MapExistsError,
    pmem2.MapRangeError,
    pmem2.MappingExistsError,
    pmem2.MappingNotFoundError,
    pmem2.NoAccessError,
    pmem2.NoBadBlockFoundError,
    pmem2.NosuppError,
    pmem2.OffsetOutOfRangeError,
    pmem2.OffsetUnalignedError,
    pmem2.SourceEmptyError,
    pmem2.SourceTypeNotSupportedError,
    pmem2.SrcDevdaxPrivateError,
    pmem2.UnknownError,
    pmem2.VmReservationNotEmptyError,
)
