# SPDX-License-Identifier: BSD-3-Clause
"""Resource, the base class of everything that has `close()`, and the ownership of C allocations.

When destructors may run: `ffi.gc` alone runs too early on CPython. In a garbage cycle its destructor runs together with
the finalizers, in any order; a finalizer that runs later, or that resurrects the objects, would use freed memory. So
`_keepalive` holds the owner of a destructor, where CPython's collector does not see it, until the plain pointer that
objects hold instead is freed: the collector does not track plain pointers. PyPy runs finalizers in order.

Only C code releases things: destructors are C functions, and the callback of a weak reference is `dict.pop`.
Python code there could be interrupted by a signal handler, and the exception would be lost together with what it held.
"""

from __future__ import annotations

import errno
import gc
import sys
import warnings
import weakref
from contextlib import suppress
from types import MethodType
from typing import TYPE_CHECKING, Callable, ClassVar, NoReturn, TypeVar

from pmem2._ffi import ffi, lib

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, TypeVarTuple, Unpack

    from pmem2._ffi import Pin, Pointer

    P = TypeVar("P", bound=Pointer)
    Ts = TypeVarTuple("Ts")
    R = TypeVar("R", bound="Resource")

CPYTHON = sys.implementation.name == "cpython"
HAS_GIL = CPYTHON and (sys.version_info < (3, 13) or sys._is_gil_enabled())
GC_PASSES = 1 if HAS_GIL else 3  # PyPy and threads without a lock need more for what finalizers or other threads held
GC_ROUNDS = 4 if HAS_GIL else 10
NO_DESCRIPTORS = (-errno.EMFILE, -errno.ENFILE)  # dropped objects that are not collected yet may hold many
VIEW_COST = 100_000  # bytes that PyPy believes a view to hold, so that it collects views often enough


class PointerReference(weakref.ref["Pointer"]):
    """A weak reference to a pointer that is hashed by its own identity, so that a dead one can be looked up too."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


_keepalive: dict[PointerReference, tuple[object, ...]] = {}
lib.guarded_immortalize(id(_keepalive))  # leaked on purpose: destructors run after module teardown


def keep_alive(pointer: P, *owners: object) -> P:
    """Return *pointer*; *owners* live exactly as long as it does."""
    _keepalive[PointerReference(pointer, _keepalive.pop)] = owners
    return pointer


def sweep_dead_pointers() -> int:
    """Drop the owners of freed pointers whose callback could not run at the recursion limit; return how many.

    Without the interpreter's lock there is no such limit for C code, and a callback may be about to run.
    """
    if not HAS_GIL:  # pragma: no cover: on other interpreters
        return 0
    dead = [reference for reference in list(_keepalive) if reference() is None]
    for reference in dead:
        _keepalive.pop(reference, None)  # pragma: no cover: at the recursion limit
    return len(dead)


def own(pointer: P, destructor: Callable[[P], None]) -> P:
    """Return *pointer*, a C allocation; C's *destructor* runs once nothing can reach it any more.

    Raises:
        MemoryError: *pointer* is NULL.
    """
    if not pointer:
        raise MemoryError  # pragma: no cover: malloc does not fail on demand
    owner = ffi.gc(pointer, destructor)
    return keep_alive(ffi.cast(ffi.typeof(pointer), pointer), owner) if CPYTHON else owner


def new_pin() -> Pin:
    """Return a pin that pins nothing yet.

    Raises:
        MemoryError: There is no memory for it.
    """
    pin = lib.guarded_pin_alloc()
    if not pin:
        raise MemoryError  # pragma: no cover: malloc does not fail on demand
    return ffi.gc(pin, lib.guarded_pin_drop)


def pinned_pointer(pointer: P, pin: Pin, owner: object) -> P:
    """Return *pointer*, the address of a view; *owner* lives, and *pin* pins, until nothing can reach it any more."""
    if CPYTHON:
        return keep_alive(pointer, pin, owner)
    unpin = MethodType(MethodType(lib.guarded_unpin_pointer, ffi.new_handle(owner)), pin)  # pragma: no cover: PyPy
    return ffi.gc(pointer, unpin, VIEW_COST)  # pragma: no cover: PyPy


def gc_collect() -> int:
    """Collect garbage cycles; on PyPy, everything that was dropped. Return how much was found, as far as is known."""
    try:
        found = sum(gc.collect() or 0 for _ in range(GC_PASSES))
    except ValueError:  # pragma: no cover: PyPy refuses inside a finalizer
        found = 0
    return found + sweep_dead_pointers()


def retry_after_gc(refusals: tuple[int, ...], call: Callable[[Unpack[Ts]], int], *arguments: Unpack[Ts]) -> int:
    """Return the return code of a call; while it is one of *refusals*, collect garbage, which may be the cause.

    It ends when nothing more is found. It takes no closure: CPython leaks its variables or dies when memory is short.
    """
    rc = call(*arguments)
    for _ in range(GC_ROUNDS):
        if rc not in refusals:
            break
        found = gc_collect()
        rc = call(*arguments)
        if not found:
            break
    return rc


class Resource:
    """A resource of libpmem2: closed explicitly, by `with`, or at the latest by the garbage collector."""

    __slots__ = ()

    _COPY_HINT: ClassVar[str] = "pass the path and open it there"

    @property
    def closed(self) -> bool:
        """Whether `close()` has succeeded."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the resource. Closing twice does nothing."""
        raise NotImplementedError

    def _check_uninitialized(self) -> None:
        """Refuse a second `__init__`: views and operations use the handle that the first one made."""
        if hasattr(self, "_handle"):
            raise ValueError(f"{self!r} is already initialised")

    def __enter__(self) -> Self:
        """Return the object itself.

        Raises:
            ValueError: It is closed.
        """
        if self.closed:
            raise ValueError(f"cannot enter {self!r}: it is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close it; an exception of the block is not replaced by one of `close`."""
        if error is None:
            self.close()
        else:
            with suppress(Exception):
                self.close()

    def __del__(self) -> None:
        """Warn about an object that was not closed; `ffi.gc` on its C handle releases the resource."""
        try:
            unclosed = not self.closed
        except AttributeError:  # __init__ raised before there was a handle
            return
        if unclosed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied.

        Raises:
            TypeError: Always; the text says what to do instead.
        """
        raise TypeError(f"cannot pickle or copy a {type(self).__name__}: {self._COPY_HINT}")


def drop_attrs_init(cls: type[R]) -> type[R]:
    """Remove the methods of attrs that would set all fields, at any time and unchecked, while C uses them."""
    for name in ("__attrs_init__", "__replace__"):  # newer versions of attrs add the second one
        if hasattr(cls, name):
            delattr(cls, name)
    return cls
