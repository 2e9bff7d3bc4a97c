# SPDX-License-Identifier: BSD-3-Clause
"""What Source, Map, VMReservation and BadBlockContext have in common: something to close."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NoReturn, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    H = TypeVar("H", bound="Handle")


class Handle:
    """A resource of libpmem2: closed explicitly, by `with`, or at the latest when it is collected."""

    __slots__ = ()

    @property
    def closed(self) -> bool:
        """Whether `close()` has succeeded."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the resource back; a closed one is left alone."""
        raise NotImplementedError

    def _check_new(self) -> None:
        """Refuse a second `__init__`: views and operations are inside what the first has made."""
        if hasattr(self, "_handle"):
            raise ValueError(f"{self!r} is made already; make another {type(self).__name__}")

    def __enter__(self) -> Self:
        """Return the object itself.

        Raises:
            ValueError: It is closed.
        """
        if self.closed:
            raise ValueError(f"{self!r} cannot be entered: it is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close it, whether or not the block failed."""
        self.close()

    def __del__(self) -> None:
        """Warn of an object that nobody closed; `ffi.gc` on its C handle gives the resource back."""
        try:
            forgotten = not self.closed
        except AttributeError:  # __init__ has raised before there was a handle
            return
        if forgotten:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied.

        Raises:
            TypeError: Always: the other process must open the file itself.
        """
        kind = type(self).__name__
        raise TypeError(f"a {kind} cannot be pickled or copied; pass the path and open it again over there")


def sealed(kind: type[H]) -> type[H]:
    """Take away what attrs adds to set all fields, at any time and unchecked: what they hold is in use."""
    del kind.__attrs_init__  # type: ignore[attr-defined] # attrs' plugin for mypy does not know of it
    return kind
