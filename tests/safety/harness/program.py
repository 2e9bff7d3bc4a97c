# SPDX-License-Identifier: BSD-3-Clause
"""The program: it disturbs the calls one after the other, and prints what is wrong after each."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import random
import sysconfig
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Callable

from support.public_calls import CALLS, PAGE, World, refuse

from pmem2 import Source
from safety.harness import allocations, bytecodes, forks, interrupts, recursion, threads
from safety.harness.process import (
    ON_PYPY,
    collect_garbage,
    describe,
    find_leaks,
    keep_ignored_exceptions,
    measure_usage,
    take_ignored,
)

SKIPPED = 77  # exit status
TIME_LIMIT = 600  # seconds for one batch, on a busy machine
Disturb = Callable[[World, str, int, random.Random], "list[str]"]
STORMS: dict[str, Disturb] = {
    "interrupts": interrupts.interrupt_calls,
    "blocks": interrupts.interrupt_blocks,
    "double-interrupts": interrupts.interrupt_twice,
    "cycles": interrupts.interrupt_cycles,
}
DISTURBANCES: dict[str, Disturb] = {
    **STORMS,
    "bytecodes": bytecodes.interrupt_each,
    "allocations": allocations.fail_allocations,
    "recursion": recursion.reach_limit,
    "forks": forks.fork_inside,
}
GROUP = 20  # calls that share a process
BATCH = 500  # rounds of each call between two checks for leaks, in a long run
MEMORY = "/dev/shm"  # a long run keeps its files there: most of its time would be that of the disk
# whether they share a World too: collecting garbage takes long where nothing is frozen
SHARED = ON_PYPY or bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def sweep() -> None:
    """Collect garbage, and let `close` collect it: at the recursion limit, what was dropped may wait for that."""
    with Source.from_anon(PAGE) as source, source.map() as map, map.view():
        refuse(map.close)
    collect_garbage()


def disturb_world(folder: Path, names: list[str], disturb: Disturb, rounds: int, rng: random.Random) -> list[str]:
    """Disturb some calls of one World, close it, and describe what is wrong."""
    before = measure_usage(folder)
    world = World(folder)
    problems = []
    for name in names:
        try:
            problems += [f"{name}: {problem}" for problem in disturb(world, name, rounds, rng)]
            CALLS[name](world)
        except Exception as error:
            problems.append(f"{name}: does not work any more: {describe(error)}")
    where = ", ".join(names)
    try:
        world.release()
    except Exception as error:
        problems.append(f"{where}: cannot be closed: {describe(error)}")
    collect_garbage()
    left, padding = take_ignored()[1] + world.find_borrowed(), world.padding
    del world
    sweep()
    left += find_leaks(before, measure_usage(folder), padding)
    return problems + [f"{where}: {problem}" for problem in left]


def disturb_group(folder: Path, names: list[str], disturb: Disturb, rounds: int, rng: random.Random) -> list[str]:
    """Disturb some calls, and describe what is wrong."""
    groups = [names] if SHARED else [[name] for name in names]
    return [problem for group in groups for problem in disturb_world(folder, group, disturb, rounds, rng)]


def run_in_child(names: list[str], work: Callable[[], list[str]]) -> tuple[list[str], int]:
    """Run a function in a forked child; return what is wrong, and how many interrupts there were.

    A child that dies is a problem like any other. And each child has its own pthread keys: libpmem2 before 1.13.1 needs
    one for each `Map.from_existing`, and never gives it back.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
            os.write(writing, json.dumps((work(), interrupts.total())).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        report = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if report:
        problems, count = json.loads(report)
        return problems, count
    return [f"{', '.join(names)}: the process died with the status {status:#x}"], 0


class Run:
    """One run of the program."""

    def __init__(self, folder: Path, names: list[str], rounds: int, seed: int) -> None:
        """Prepare to disturb the calls of these names."""
        self.folder = folder
        self.names = names
        self.rounds = max(rounds, 1)
        self.rng = random.Random(seed)
        self.interrupts = 0
        self.problems = 0
        disturb_world(folder, names, lambda *_: [], rounds, self.rng)  # fills the caches of the interpreter

    def run(self, names: list[str], work: Callable[[], list[str]]) -> list[str]:
        """Run a function in a child; print and return what is wrong."""
        found, count = run_in_child(names, work)
        for problem in found:
            print(problem, flush=True)
        self.problems += len(found)
        self.interrupts += count
        return found

    def disturb(self, names: list[str], disturbance: str, rounds: int) -> list[str]:
        """Disturb some calls."""
        rng = random.Random(self.rng.random())
        return self.run(names, lambda: disturb_group(self.folder, names, DISTURBANCES[disturbance], rounds, rng))

    def disturb_all(self, disturbance: str, rounds: int) -> None:
        """Disturb each call; where one fails, disturb each of its group alone, a few rounds at a time."""
        for first in range(0, len(self.names), GROUP):
            group = self.names[first : first + GROUP]
            if self.disturb(group, disturbance, rounds):
                for name in group:
                    for _ in range(rounds // self.rounds):
                        if self.disturb([name], disturbance, self.rounds):
                            break

    def disturb_until(self, disturbance: str, interrupts: int) -> None:
        """Disturb each call, again and again until there were so many interrupts."""
        wanted = self.interrupts + interrupts
        rounds = max(self.rounds, min(BATCH, interrupts // len(self.names)))
        self.disturb_all(disturbance, rounds)
        while self.interrupts < wanted and not self.problems:
            self.disturb_all(disturbance, rounds)

    def run_threads(self, seconds: float) -> None:
        """Make all calls in many threads at once, again and again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seed = self.rng.randrange(2**32)
            once = min(seconds, 5.0)
            self.run(["threads"], lambda: threads.call_at_once(self.folder, self.names, once, seed))  # noqa: B023


def run_disturbance(run: Run, disturbance: str, interrupts: int, seconds: float) -> None:
    """Run one harness."""
    if disturbance == "threads":
        run.run_threads(seconds)
    elif disturbance in STORMS:
        run.disturb_until(disturbance, interrupts)
    else:
        run.disturb_all(disturbance, run.rounds)


def main(arguments: list[str]) -> int:
    """Run harnesses; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m safety.harness", description=__doc__)
    parser.add_argument("disturbance", choices=["all", *DISTURBANCES, "threads"])
    parser.add_argument("--rounds", type=int, default=20, help="interrupts or forks of each call, at least")
    parser.add_argument("--interrupts", type=int, default=0, help="repeat until there were so many")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long the threads run")
    parser.add_argument("--only", default="", help="disturb the calls whose name begins like this")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    faulthandler.enable()
    warnings.simplefilter("ignore")
    keep_ignored_exceptions()
    if not ON_PYPY:
        gc.collect()
        gc.freeze()
    chosen = [*DISTURBANCES, "threads"] if options.disturbance == "all" else [options.disturbance]
    if "allocations" in chosen and not allocations.can_run():
        print("allocations: needs _testcapi, and a CPython that itself neither dies nor leaks when an allocation fails")
        chosen.remove("allocations")
    if "bytecodes" in chosen and not bytecodes.CAN_RUN:
        print("bytecodes: needs CPython 3.9 or 3.10, which handle signals between any two bytecodes")
        chosen.remove("bytecodes")
    if not chosen:
        return SKIPPED
    seed = random.randrange(2**32) if options.seed is None else options.seed
    parent = MEMORY if options.interrupts and os.path.isdir(MEMORY) else None
    problems = 0
    for disturbance in chosen:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            run = Run(Path(folder), [name for name in CALLS if name.startswith(options.only)], options.rounds, seed)
            run_disturbance(run, disturbance, options.interrupts // len(STORMS), options.seconds)
        seconds = time.monotonic() - start
        counts = f"{len(run.names)} calls, {run.interrupts} interrupts, {run.problems} problems"
        print(f"{disturbance}: {counts}, seed {seed}, {seconds:.0f} s", flush=True)
        problems += run.problems
    return int(problems > 0)
