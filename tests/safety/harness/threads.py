# SPDX-License-Identifier: BSD-3-Clause
"""Threads that make all calls at once, while the map that they use is closed and replaced."""

from __future__ import annotations

import copy
import gc
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from support.public_calls import CALLS, REFUSALS, World

from safety.harness.process import collect_garbage, describe, find_leaks, measure_usage, take_ignored

THREADS = 6


class Crowd:
    """Threads that share one World, but for the file that each of them creates."""

    def __init__(self, folder: Path, names: list[str], seconds: float) -> None:
        """Create the World."""
        self.names = names
        self.end = time.monotonic() + seconds
        self.world = World(folder)
        self.worlds = [copy.copy(self.world) for _ in range(THREADS)]
        for number, world in enumerate(self.worlds):
            world.new += str(number)
        self.problems: Counter[str] = Counter()

    def replace_map(self) -> None:
        """Replace the map of all threads, and close the old one."""
        map = self.world.source.map()
        old, self.world.map = self.world.map, map
        for world in self.worlds:
            world.map = map
        old.close()

    def run(self, world: World, rng: random.Random) -> None:
        """Make random calls until the time is over."""
        while time.monotonic() < self.end:
            name = rng.choice(self.names)
            try:
                CALLS[name](world)
                if rng.random() < 0.02:
                    self.replace_map()
                elif rng.random() < 0.01:
                    gc.collect()
            except REFUSALS:
                pass
            except BaseException as error:
                self.problems[f"{name}: {describe(error)}"] += 1


def call_at_once(folder: Path, names: list[str], seconds: float, seed: int) -> list[str]:
    """Make all calls in many threads at once; describe what is wrong."""
    sys.setswitchinterval(1e-5)
    World(folder).release()  # creates the files
    before = measure_usage(folder)
    crowd = Crowd(folder, names, seconds)
    threads = [
        threading.Thread(target=crowd.run, args=(world, random.Random(seed + number)))
        for number, world in enumerate(crowd.worlds)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    problems = [f"{count} times: {text}" for text, count in crowd.problems.items()]
    for world in crowd.worlds:
        world.remove_new()
    crowd.world.release()
    collect_garbage()
    problems += crowd.world.find_borrowed()
    padding = sum(world.padding for world in crowd.worlds)
    del crowd, threads, world
    collect_garbage()
    return problems + take_ignored()[1] + find_leaks(before, measure_usage(folder), padding)
