# SPDX-License-Identifier: BSD-3-Clause
"""What Source, Map, VMReservation and BadBlockContext have in common: something to close."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


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
