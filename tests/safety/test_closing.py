# SPDX-License-Identifier: BSD-3-Clause
"""Objects may be closed in any order, and a closed object refuses every use."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Union

import pytest

import pmem2
from pmem2._resource import HAS_GIL

if TYPE_CHECKING:
    from types import FrameType

    from _typeshed import TraceFunction
    from support.children import RunChild

CLOSED_IN_ORDER = """
import itertools, os, sys
import pmem2
path = sys.argv[1]

def close_in(order):
    source = pmem2.Source.from_path(path)
    reservation = pmem2.VMReservation(32 << 20)
    map = source.map(pmem2.Config(reservation=reservation))
    view = map.view()
    part = view[:8]

    def release_views():
        part.release()
        view.release()

    close = {"source": source.close, "map": map.close, "reservation": reservation.close, "view": release_views}
    refusals = {"map": ("view", BufferError), "reservation": ("map", pmem2.VmReservationNotEmptyError)}
    closed = set()
    for name in order:
        user, error = refusals.get(name, (name, None))
        try:
            close[name]()
        except (BufferError, pmem2.VmReservationNotEmptyError) as refusal:
            assert user not in closed and isinstance(refusal, error), order
        else:
            assert user == name or user in closed, order
            closed.add(name)
        if "view" not in closed:
            part[0] = 2
            assert map[0] == 2, order
    for name in ("view", "map", "reservation"):
        close[name]()
    assert source.closed and map.closed and reservation.closed, order
    with open("/proc/self/maps") as maps:
        assert path not in maps.read(), order

for order in itertools.permutations(("source", "map", "view", "reservation")):
    close_in(order)
"""


def test_closing_in_any_order(run_child: RunChild, file: Path) -> None:
    """An object that another one uses refuses to close, and closes once that one is closed."""
    child = run_child(CLOSED_IN_ORDER, str(file))  # in a child: a refused close collects garbage
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")


def closed_source(source: pmem2.Source) -> pmem2.Source:
    """Return a closed Source."""
    anonymous = pmem2.Source.from_anon(4096)
    anonymous.close()
    return anonymous


def closed_map(source: pmem2.Source) -> pmem2.Map:
    """Return a closed Map."""
    map = source.map()
    map.close()
    return map


def closed_reservation(source: pmem2.Source) -> pmem2.VMReservation:
    """Return a closed VMReservation."""
    reservation = pmem2.VMReservation(4096)
    reservation.close()
    return reservation


def closed_bad_blocks(source: pmem2.Source) -> pmem2.BadBlockContext:
    """Return a closed BadBlockContext."""
    context = source.bad_blocks()
    context.close()
    return context


Closed = Union[pmem2.Source, pmem2.Map, pmem2.VMReservation, pmem2.BadBlockContext]
MAKERS: list[Callable[[pmem2.Source], Closed]] = [closed_source, closed_map, closed_reservation, closed_bad_blocks]
USABLE = {
    *("close", "closed", "granularity", "protection", "sharing", "config"),
    *("from_anon", "from_existing", "from_fd", "from_handle", "from_path"),
}
"""The members that a closed object still has, and the class methods."""
ARGUMENTS: dict[str, tuple[object, ...]] = {
    "acquire_many": ([],),
    "as_array": ("u1",),
    "clear": (pmem2.BadBlock(0, 4096),),
    "compare_exchange_u64": (0, 0, 1),
    "extend": (4096,),
    "fetch_add_u64": (0, 1),
    "find": (0, 1),
    "flush_many": ([],),
    "load_u64": (0,),
    "madvise": (0,),
    "memcpy": (0, b""),
    "memcpy_many": ([],),
    "memmove": (0, b""),
    "memset": (0, 0, 1),
    "persist_many": ([],),
    "pread_mcsafe": (1,),
    "pread_mcsafe_into": (bytearray(1),),
    "pwrite_mcsafe": (b"x",),
    "publish_many": ([],),
    "read_into": (bytearray(1),),
    "shrink": (0, 4096),
    "store_u64": (0, 1),
    "__getitem__": (0,),
    "__setitem__": (0, 1),
}
SPECIAL = ("__enter__", "__getitem__", "__iter__", "__len__", "__next__", "__setitem__")


@pytest.mark.memcheck
@pytest.mark.parametrize("make", MAKERS)
def test_closed_object_refuses_use(source: pmem2.Source, make: Callable[[pmem2.Source], Closed]) -> None:
    """Every public member of a closed object raises ValueError, except those in USABLE."""
    closed = make(source)
    special = {name for name in SPECIAL if hasattr(closed, name)}
    if isinstance(closed, pmem2.BadBlockContext):
        special.remove("__iter__")  # returns the context itself
    public = {name for name in dir(closed) if not name.startswith("_")} - USABLE
    if find_spec("numpy") is None:
        public.discard("as_array")
    for name in public | special:
        arguments = (closed_map(source),) if name in ("next", "prev") else ARGUMENTS.get(name, ())
        with pytest.raises(ValueError, match="closed"):
            getattr(closed, name)(*arguments)
    closed.close()
    assert closed.closed
    assert "closed" in repr(closed)


@pytest.mark.skipif(not HAS_GIL or sys.platform == "win32", reason="indexing runs no Python code here")
def test_close_in_signal_handler(path: Path) -> None:
    """A signal handler that closes the map whose slice this very thread reads closes it, or gets a true error."""
    refusals: list[str] = []
    left = 0

    def close(*_: object) -> None:
        try:
            opened.close()
        except BufferError as error:
            refusals.append(str(error))

    def interrupt(frame: FrameType, event: str, arg: object) -> TraceFunction:
        nonlocal left
        frame.f_trace_opcodes = frame.f_code is pmem2.Map.__getitem__.__code__
        if event == "opcode":
            left -= 1
            if left == 0:
                signal.raise_signal(signal.SIGUSR1)
        return interrupt

    before, tracer, step = signal.signal(signal.SIGUSR1, close), sys.gettrace(), 0
    sys._getframe().f_trace_opcodes = True  # CPython 3.12 traces opcodes only if a frame asks before tracing starts
    try:
        while left <= 0:  # until a read is over before its turn to be interrupted
            step, left, opened = step + 1, step + 1, pmem2.open(path)
            assert opened[:1] == b"\0"  # from now on, Python reads through a view of the map's own
            with suppress(ValueError):
                sys.settrace(interrupt)
                opened[:1]
            sys.settrace(tracer)
            opened.close()
    finally:
        sys.settrace(tracer)
        signal.signal(signal.SIGUSR1, before)
    assert refusals
    assert all("in another thread or under this signal handler" in refusal for refusal in refusals)
