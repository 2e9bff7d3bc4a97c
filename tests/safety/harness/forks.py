# SPDX-License-Identifier: BSD-3-Clause
"""Forks at random moments: a signal handler forks inside a call, and the child closes the map."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from types import FrameType

from support.public_calls import CALLS, REFUSALS, World

from safety.harness.interrupts import longest_delay

CREATING = ("open w+", "open x+", "open a+")  # parent and child would remove the same file


class Forker:
    """Forks in a signal handler; the child tries to close all maps at once."""

    def __init__(self, world: World) -> None:
        """Install the signal handler."""
        self.world = world
        self.child: int | None = None
        self.status = 0
        signal.signal(signal.SIGALRM, self._fork)

    def _fork(self, _signal: int, _frame: FrameType | None) -> None:
        self.child = os.fork()
        if self.child:
            self.status = os.waitpid(self.child, 0)[1]
        else:
            for map in (self.world.map, *self.world.placed):
                with suppress(BufferError):  # the child is inside an operation of it
                    map.close()


def call_until_forked(world: World, name: str, delay: float) -> int:
    """Repeat a call until a signal handler has forked inside it; return the status of the child."""
    forker = Forker(world)
    signal.setitimer(signal.ITIMER_REAL, delay)
    try:
        while forker.child is None:
            CALLS[name](world)
    except (*REFUSALS, AssertionError):  # the child has closed the maps
        if forker.child != 0:
            raise
    except BaseException:
        if forker.child != 0:
            raise
        os._exit(1)
    if forker.child == 0:
        try:
            for map in (world.map, *world.placed):
                map.close()  # nothing uses it any more
            os._exit(0)
        finally:
            os._exit(2)
    return forker.status


def fork_inside(world: World, name: str, rounds: int, rng: random.Random) -> list[str]:
    """Fork inside a call many times; describe the children that failed."""
    if name in CREATING:
        return []
    longest = longest_delay(lambda: CALLS[name](world))
    problems = []
    for _ in range(rounds):
        status = call_until_forked(world, name, rng.uniform(1e-6, longest))
        world.remove_new()
        if status:
            problems.append(f"a child that was forked inside ended with the status {status:#x}")
    return problems
