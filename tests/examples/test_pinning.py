# SPDX-License-Identifier: BSD-3-Clause
"""The recipe "Pinning for a GPU": memory is never unmapped while it is registered."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest
from safety.process_state import collect_garbage
from support.compiled import preloadable

import pmem2

RECIPES = Path(__file__).parents[2] / "docs/guide/recipes.md"
FAKE_CUDA = """
#include <stdlib.h>
#include <sys/mman.h>

static size_t registered, unregistered, unmapped, length;

static int is_unmapped(void *address, size_t size)
{
    unsigned char *pages = malloc(size / 4096 + 1);
    int result = mincore(address, size, pages);
    free(pages);
    return result != 0;
}

int cudaHostRegister(void *address, size_t size, unsigned flags)
{
    (void)flags, registered++, length = size;
    return is_unmapped(address, size);
}

int cudaHostUnregister(void *address)
{
    unregistered++, unmapped += is_unmapped(address, length);
    return 0;
}

void counts(size_t *target)
{
    target[0] = registered, target[1] = unregistered, target[2] = unmapped;
    registered = unregistered = unmapped = 0;
}
"""


class Pinned(Protocol):
    """The recipe's class."""

    def close(self) -> object:
        """Give the memory back."""


class Cuda:
    """The fake library, and the recipe's class."""

    def __init__(self) -> None:
        """Compile the library and execute the recipe."""
        self.library = ctypes.CDLL(str(preloadable(FAKE_CUDA)))
        text = RECIPES.read_text(encoding="utf-8")
        (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class Pinned" in block)
        names: dict[str, Any] = {"ctypes": ctypes}
        exec(code, names)
        self.pinned = names["Pinned"]

    def pin(self, map: pmem2.Map) -> Pinned:
        """Register the memory of a map."""
        pinned: Pinned = self.pinned(self.library, map)
        return pinned

    def counts(self) -> list[int]:
        """Return how often memory was registered, unregistered, and unregistered when it was not mapped any more."""
        found = (ctypes.c_size_t * 3)()
        self.library.counts(found)
        return list(found)


@pytest.fixture
def cuda() -> Iterator[Cuda]:
    """A library that takes the place of CUDA."""
    cuda = Cuda()
    yield cuda
    for _ in range(2):  # what the test has dropped: PyPy frees the pin, the view and the map one after the other
        collect_garbage()
    assert cuda.counts() == [0, 0, 0]


def test_closing_a_pinned_map(cuda: Cuda, path: Path) -> None:
    """A map refuses to close while it is pinned, and closes after that."""
    map = pmem2.open(path)
    pinned = cuda.pin(map)
    with pytest.raises(BufferError):
        map.close()
    assert cuda.counts() == [1, 0, 0]
    pinned.close()
    pinned.close()
    map.close()
    assert cuda.counts() == [0, 1, 0]


def test_with_block_of_pinned_map(cuda: Cuda, path: Path) -> None:
    """A `with` block gives the memory back before it unmaps it, also when the block raises."""
    with pytest.raises(KeyError), pmem2.open(path) as map, closing(cuda.pin(map)):
        raise KeyError
    assert map.closed
    assert cuda.counts() == [1, 1, 0]


def test_deferred_closing_while_pinned(cuda: Cuda, path: Path) -> None:
    """After a deferred close the memory stays mapped until it is not registered any more."""
    map = pmem2.open(path)
    pinned = cuda.pin(map)
    assert map.close(defer=True) is False
    pinned.close()
    del pinned
    assert cuda.counts() == [1, 1, 0]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropping_a_pinned_map(cuda: Cuda, path: Path) -> None:
    """The order holds when both objects are dropped, together in a cycle too."""
    map = pmem2.open(path)
    pinned = cuda.pin(map)
    cycle: list[object] = [map, pinned]
    cycle.append(cycle)
    del map, pinned, cycle
    collect_garbage()
    assert cuda.counts() == [1, 1, 0]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_view_outlives_pinned_map(cuda: Cuda, path: Path) -> None:
    """The order holds, and a view stays valid, when the view outlives the Map object and the pin."""
    map = pmem2.open(path)
    pinned, view = cuda.pin(map), map.view(0, 8)
    content = bytes(view)
    del map, pinned
    collect_garbage()
    assert cuda.counts() == [1, 1, 0]
    assert bytes(view) == content
