# SPDX-License-Identifier: BSD-3-Clause
"""Eight threads on the same maps and reservation for as long as the argument says (seconds): nothing is lost.

`python tests/soak.py 600`: every thread persists, copies, views, maps, closes and counts with an atomic, whose value
must be the number of additions at the end.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pmem2

THREADS = 8
PAGE = 4096
PAGES = 16
REFUSALS = (ValueError, BufferError, pmem2.Pmem2Error)


class Soak:
    """What the threads share."""

    def __init__(self, path: Path, seconds: float) -> None:
        """Map a file once for the counter, and many times in a reservation."""
        self.end = time.monotonic() + seconds
        self.source = pmem2.Source.from_path(path)
        self.counter = self.source.map()
        self.reservation = pmem2.VMReservation(PAGES * PAGE)
        self.added = [0] * THREADS
        self.operations = [0] * THREADS
        self.errors: list[BaseException] = []

    def step(self, number: int, chance: random.Random) -> None:
        """Do something, which another thread may make impossible."""
        slot = chance.randrange(PAGES)
        what = chance.randrange(7)
        if what == 0:
            place = slot * PAGE
            config = pmem2.Config(length=PAGE, offset=place, reservation=self.reservation, reservation_offset=place)
            self.source.map(config)  # dropped at once, or found by another thread
        elif what == 1:
            self.reservation.find(slot * PAGE, PAGE).close()
        elif what == 2:
            self.reservation.find(slot * PAGE, PAGE).memcpy(64, b"x" * chance.randrange(PAGE - 64))
        elif what == 3:
            with self.reservation.first().view(64, 64) as view:
                view[:] = bytes([number]) * 64
        elif what == 4:
            for map in self.reservation:
                map.persist(64, PAGE - 64)
        elif what == 5:
            self.counter.persist_many([(0, 8), (PAGE, PAGE)])
        else:
            self.counter.memset(PAGE * slot + 128, number, 256)

    def run(self, number: int) -> None:
        """Go on until the time is over."""
        chance = random.Random(number)
        try:
            while time.monotonic() < self.end:
                self.counter.fetch_add_u64(0, 1)
                self.added[number] += 1
                with suppress(*REFUSALS):
                    self.step(number, chance)
                self.operations[number] += 1
        except BaseException as error:
            self.errors.append(error)


def main() -> int:
    """Run the threads, and return 1 if something failed or was lost."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(bytes(PAGES * PAGE))
        soak = Soak(path, seconds)
        threads = [threading.Thread(target=soak.run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counted = soak.counter.load_u64(0)
        for map in soak.reservation:
            map.close()
        soak.reservation.close()
        soak.counter.close()
        soak.source.close()
    print(f"{seconds:.0f} s, {sum(soak.operations)} operations, {counted} counted of {sum(soak.added)}")
    for error in soak.errors:
        print(f"{type(error).__name__}: {error}")
    return int(bool(soak.errors) or counted != sum(soak.added))


if __name__ == "__main__":
    sys.exit(main())
