# SPDX-License-Identifier: BSD-3-Clause
"""The types of the compiled module: `ffi`, `lib` and their values.

Each class stands for one C type and exists for type checkers only. Each struct has its own pointer type, so that a map
is never accepted as a source; `Pointer` is `void *`. The type of a parameter that may be NULL ends in `| Null`.
The stubs do not use types-cffi, so that installed packages type-check without it.
"""

import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Callable, Final, Generic, Literal, SupportsIndex, TypeVar, final, overload, type_check_only

from typing_extensions import Buffer, Self, TypeAlias

from . import lib as lib

_Data = TypeVar("_Data", bound=CData)
_Target = TypeVar("_Target", bound=Pointer)

# ---- values

@type_check_only
class CData:
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@type_check_only
class Integer(CData):
    def __int__(self) -> int: ...

@type_check_only
class Pointer(CData):
    def __bool__(self) -> bool: ...

@final
@type_check_only
class Null(Pointer): ...

# ---- pointers to numbers, characters and pointers

@type_check_only
class _Cell(Pointer):
    def __getitem__(self, index: Literal[0], /) -> int: ...
    def __setitem__(self, index: Literal[0], value: int, /) -> None: ...

@type_check_only
class IntPointer(_Cell): ...

@type_check_only
class SizePointer(_Cell): ...

@type_check_only
class Uint64Pointer(_Cell): ...

@type_check_only
class UintptrPointer(_Cell): ...

@type_check_only
class CharPointer(Pointer): ...

@type_check_only
class WcharPointer(Pointer): ...

@final
@type_check_only
class Out(Pointer, Generic[_Target]):
    def __getitem__(self, index: Literal[0], /) -> _Target: ...
    def __setitem__(self, index: Literal[0], value: _Target, /) -> None: ...

# ---- arrays, and buffers that are borrowed until the end of a `with` block

@type_check_only
class CharArray(CharPointer):
    def __len__(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

@final
@type_check_only
class Borrowed(CharArray): ...

@final
@type_check_only
class Uint64Array(Uint64Pointer):
    def __setitem__(self, index: int, value: int, /) -> None: ...
    def __iter__(self) -> Iterator[int]: ...
    def __len__(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

# ---- objects of libpmem2

@final
@type_check_only
class RawSource(Pointer): ...

@final
@type_check_only
class RawConfig(Pointer): ...

@final
@type_check_only
class RawMap(Pointer): ...

@final
@type_check_only
class RawReservation(Pointer): ...

@final
@type_check_only
class RawBadBlockContext(Pointer): ...

@final
@type_check_only
class RawBadBlock(Pointer):
    offset: int
    length: int

# ---- objects of the guards

@final
@type_check_only
class SourceHandle(Pointer):
    dax_size: int
    dax_alignment: int
    device: int
    writable: int
    if sys.platform == "win32":
        file: Pointer
    else:
        file: int

@final
@type_check_only
class ReservationHandle(Pointer): ...

@final
@type_check_only
class MapHandle(Pointer):
    address: int
    size: int
    protection: int
    granularity: int
    serial: int

@final
@type_check_only
class MapRequest(Pointer): ...

_MapRequestFields: TypeAlias = tuple[int, int, int, int, int, int, ReservationHandle | Null, int]

@final
@type_check_only
class Pin(Pointer): ...

@final
@type_check_only
class Pieces(Pointer): ...

@final
@type_check_only
class BadBlocksHandle(Pointer): ...

# ---- functions that libpmem2 returns, and functions with variable arguments

@final
@type_check_only
class FlushFunction(Pointer):
    def __call__(self, ptr: Pointer, size: int, /) -> None: ...

@final
@type_check_only
class DrainFunction(Pointer):
    def __call__(self) -> None: ...

@final
@type_check_only
class CopyFunction(Pointer):
    def __call__(self, pmemdest: Pointer, src: Pointer, len: int, flags: int, /) -> Pointer: ...

@final
@type_check_only
class SetFunction(Pointer):
    def __call__(self, pmemdest: Pointer, c: int, len: int, flags: int, /) -> Pointer: ...

@final
@type_check_only
class IntFunction(Pointer):
    def __call__(self) -> int: ...

@final
@type_check_only
class PrintFunction(Pointer):
    def __call__(self, format: CharPointer | bytes, /, *args: CData) -> None: ...

@final
@type_check_only
class WidePrintFunction(Pointer):
    def __call__(self, format: WcharPointer | str, /, *args: CData) -> None: ...

# ---- ffi

@type_check_only
class CType:
    kind: str
    cname: str
    args: tuple[CType, ...]
    result: CType
    item: CType
    ellipsis: bool

@final
@type_check_only
class CharArrayType(CType): ...

@final
@type_check_only
class Uint64ArrayType(CType): ...

@final
@type_check_only
class CBuffer:
    def __eq__(self, other: object, /) -> bool: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: SupportsIndex, /) -> bytes: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    def __setitem__(self, key: SupportsIndex | slice, value: Buffer, /) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
@type_check_only
class FFI:
    NULL: Final[Null]
    errno: int
    @overload
    def new(self, cdecl: Literal["int *"], init: int = ..., /) -> IntPointer: ...
    @overload
    def new(self, cdecl: Literal["size_t *"], init: int = ..., /) -> SizePointer: ...
    @overload
    def new(self, cdecl: Literal["uint64_t *"], init: int = ..., /) -> Uint64Pointer: ...
    @overload
    def new(self, cdecl: Literal["uintptr_t *"], init: int = ..., /) -> UintptrPointer: ...
    @overload
    def new(self, cdecl: Literal["char[]"] | CharArrayType, init: int | bytes, /) -> CharArray: ...
    @overload
    def new(self, cdecl: Uint64ArrayType, init: list[int] | int, /) -> Uint64Array: ...
    @overload
    def new(self, cdecl: Literal["void **"], init: Pointer = ..., /) -> Out[Pointer]: ...
    @overload
    def new(self, cdecl: Literal["struct pmem2_source **"], init: RawSource = ..., /) -> Out[RawSource]: ...
    @overload
    def new(self, cdecl: Literal["struct pmem2_config **"], init: RawConfig = ..., /) -> Out[RawConfig]: ...
    @overload
    def new(self, cdecl: Literal["struct pmem2_map **"], init: RawMap = ..., /) -> Out[RawMap]: ...
    @overload
    def new(
        self, cdecl: Literal["struct pmem2_vm_reservation **"], init: RawReservation = ..., /
    ) -> Out[RawReservation]: ...
    @overload
    def new(
        self, cdecl: Literal["struct pmem2_badblock_context **"], init: RawBadBlockContext = ..., /
    ) -> Out[RawBadBlockContext]: ...
    @overload
    def new(self, cdecl: Literal["struct pmem2_badblock *"], init: tuple[int, int] = ..., /) -> RawBadBlock: ...
    @overload
    def new(
        self,
        cdecl: Literal["struct map_request *"],
        init: _MapRequestFields,
        /,
    ) -> MapRequest: ...
    @overload
    def new(self, cdecl: Literal["struct guarded_piece[]"], init: list[tuple[int, CharPointer, int]], /) -> Pieces: ...
    @overload
    def cast(self, cdecl: CType, source: _Target, /) -> _Target: ...
    @overload
    def cast(self, cdecl: Literal["int", "uintptr_t"], source: CData | int, /) -> Integer: ...
    @overload
    def cast(self, cdecl: Literal["char *"], source: CData | int, /) -> CharPointer: ...
    @overload
    def cast(self, cdecl: Literal["void *"], source: CData | int, /) -> Pointer: ...
    @overload
    def cast(self, cdecl: Literal["struct pmem2_source *"], source: CData | int, /) -> RawSource: ...
    @overload
    def cast(self, cdecl: Literal["struct pmem2_config *"], source: CData | int, /) -> RawConfig: ...
    @overload
    def cast(self, cdecl: Literal["struct pmem2_map *"], source: CData | int, /) -> RawMap: ...
    @overload
    def cast(self, cdecl: Literal["struct pmem2_vm_reservation *"], source: CData | int, /) -> RawReservation: ...
    @overload
    def cast(self, cdecl: Literal["struct pmem2_badblock_context *"], source: CData | int, /) -> RawBadBlockContext: ...
    @overload
    def cast(self, cdecl: Literal["struct guarded_source *"], source: CData | int, /) -> SourceHandle: ...
    @overload
    def cast(self, cdecl: Literal["struct guarded_reservation *"], source: CData | int, /) -> ReservationHandle: ...
    @overload
    def cast(self, cdecl: Literal["struct guarded_map *"], source: CData | int, /) -> MapHandle: ...
    @overload
    def cast(self, cdecl: Literal["struct guarded_badblocks *"], source: CData | int, /) -> BadBlocksHandle: ...
    @overload
    def cast(self, cdecl: Literal["int (*)(void)"], source: CData | int, /) -> IntFunction: ...
    @overload
    def from_buffer(self, python_buffer: Buffer, /, require_writable: bool = False) -> Borrowed: ...
    @overload
    def from_buffer(
        self, cdecl: Literal["char[]"] | CharArrayType, python_buffer: Buffer, /, require_writable: bool = False
    ) -> Borrowed: ...
    @overload
    def from_buffer(
        self, cdecl: Literal["uint64_t[]"] | Uint64ArrayType, python_buffer: Buffer, /, require_writable: bool = False
    ) -> Uint64Array: ...
    @overload
    def typeof(self, cdecl: Literal["char[]"], /) -> CharArrayType: ...
    @overload
    def typeof(self, cdecl: Literal["uint64_t[]"], /) -> Uint64ArrayType: ...
    @overload
    def typeof(self, cdecl: object, /) -> CType: ...
    @overload
    def string(self, cdata: CharPointer, maxlen: int = -1, /) -> bytes: ...
    @overload
    def string(self, cdata: WcharPointer, maxlen: int = -1, /) -> str: ...
    def unpack(self, cdata: CharPointer, length: int, /) -> bytes: ...
    def memmove(self, dest: Pointer | Buffer, src: Pointer | Buffer, n: int, /) -> None: ...
    def release(self, cdata: Borrowed | Uint64Array, /) -> None: ...
    def buffer(self, cdata: Pointer, size: int = -1, /) -> CBuffer: ...
    def new_handle(self, obj: object, /) -> Pointer: ...
    def gc(self, cdata: _Data, destructor: Callable[[_Data], object], size: int = 0, /) -> _Data: ...

ffi: Final[FFI]
