# SPDX-License-Identifier: BSD-3-Clause
"""Resource, the base class of everything that has `close()`, and the ownership of C allocations.

When destructors may run: `ffi.gc` alone runs too early on CPython. In a garbage cycle its destructor runs together with
the finalizers, in any order; a finalizer that runs later, or that resurrects the objects, would use freed memory. So
`_keepalive` holds the owner of a destructor, where CPython's collector does not see it, until the plain pointer that
objects hold instead is freed: the collector does not track plain pointers. PyPy runs finalizers in order.
"""

from __future__ import annotations

import functools
import gc
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Callable, NoReturn, TypeVar

from pmem2._ffi import ffi, lib

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from pmem2._ffi import Pin, Pointer

    P = TypeVar("P", bound=Pointer)
    R = TypeVar("R", bound="Resource")

CPYTHON = sys.implementation.name == "cpython"
GC_PASSES = 1 if CPYTHON else 3  # PyPy needs another pass for objects kept alive by finalizers

# The key is the id of a weak reference. The value holds that reference, so no other object gets the same id.
_keepalive: dict[int, tuple[object, ...]] = {}
lib.guarded_immortalize(id(_keepalive))  # leaked on purpose: destructors run after module teardown


def keep_alive(pointer: P, *owners: object) -> P:
    """Return *pointer*; *owners* live exactly as long as it does."""
    reference = weakref.ref(pointer, _forget)
    _keepalive[id(reference)] = (*owners, reference)
    return pointer


def _forget(reference: weakref.ref[P], keepalive: dict[int, tuple[object, ...]] = _keepalive) -> None:
    """Drop the owners of a pointer that was freed, perhaps after this module's teardown."""
    keepalive.pop(id(reference), None)


def own(pointer: P, destructor: Callable[[P], None]) -> P:
    """Return *pointer*, a C allocation; C's *destructor* runs once nothing can reach it any more.

    Raises:
        MemoryError: *pointer* is NULL.
    """
    if not pointer:
        raise MemoryError  # pragma: no cover: malloc does not fail on demand
    owner = ffi.gc(pointer, destructor)
    return keep_alive(ffi.cast(ffi.typeof(pointer), pointer), owner) if CPYTHON else owner


def pinned_pointer(pointer: P, pin: Pin, owner: object) -> P:
    """Return *pointer*, the address of a view; *owner* and *pin* live until nothing can reach it any more."""
    return keep_alive(pointer, pin, owner) if CPYTHON else ffi.gc(pointer, functools.partial(_unpin, pin, owner))


def _unpin(pin: Pin, _owner: object, _pointer: Pointer) -> None:
    """Release *pin*; the other arguments only live until then."""
    lib.guarded_unpin(pin)  # pragma: no cover: PyPy


def gc_collect() -> None:
    """Collect garbage cycles; on PyPy, everything that was dropped."""
    try:
        for _ in range(GC_PASSES):
            gc.collect()
    except ValueError:  # pragma: no cover: PyPy refuses inside a finalizer
        pass


class Resource:
    """A resource of libpmem2: closed explicitly, by `with`, or at the latest by the garbage collector."""

    __slots__ = ()

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
        """Close it, whether or not the block raised."""
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
            TypeError: Always: the other process must open the file itself.
        """
        name = type(self).__name__
        raise TypeError(f"cannot pickle or copy a {name}: pass the path and open it there")


def drop_attrs_init(cls: type[R]) -> type[R]:
    """Remove the methods of attrs that would set all fields, at any time and unchecked, while C uses them."""
    for name in ("__attrs_init__", "__replace__"):  # newer versions of attrs add the second one
        if hasattr(cls, name):
            delattr(cls, name)
    return cls
