# SPDX-License-Identifier: BSD-3-Clause
"""Let eight threads use the same maps and reservation: `python tools/soak.py SECONDS`.

Every thread persists, copies, views, maps, closes, and adds to an atomic counter. At the end the counter must be the
number of additions.
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
EXPECTED_ERRORS = (ValueError, BufferError, pmem2.Pmem2Error)


class Soak:
    """The state that the threads share."""

    def __init__(self, path: Path, seconds: float) -> None:
        """Map the file for the counter, and reserve addresses for the other maps."""
        self.end = time.monotonic() + seconds
        self.source = pmem2.Source.from_path(path)
        self.counter = self.source.map()
        self.reservation = pmem2.VMReservation(PAGES * PAGE)
        self.added = [0] * THREADS
        self.operations = [0] * THREADS
        self.errors: list[BaseException] = []

    def step(self, number: int, rng: random.Random) -> None:
        """Do a random operation; other threads may make it fail."""
        slot = rng.randrange(PAGES)
        operation = rng.randrange(7)
        if operation == 0:
            offset = slot * PAGE
            config = pmem2.Config(length=PAGE, offset=offset, reservation=self.reservation, reservation_offset=offset)
            self.source.map(config)  # dropped at once, unless another thread finds it
        elif operation == 1:
            self.reservation.find(slot * PAGE, PAGE).close()
        elif operation == 2:
            self.reservation.find(slot * PAGE, PAGE).memcpy(64, b"x" * rng.randrange(PAGE - 64))
        elif operation == 3:
            with self.reservation.first().view(64, 64) as view:
                view[:] = bytes([number]) * 64
        elif operation == 4:
            for map in self.reservation:
                map.persist(64, PAGE - 64)
        elif operation == 5:
            self.counter.persist_many([(0, 8), (PAGE, PAGE)])
        else:
            self.counter.memset(PAGE * slot + 128, number, 256)

    def run(self, number: int) -> None:
        """Do operations until the time is over."""
        rng = random.Random(number)
        try:
            while time.monotonic() < self.end:
                self.counter.fetch_add_u64(0, 1)
                self.added[number] += 1
                with suppress(*EXPECTED_ERRORS):
                    self.step(number, rng)
                self.operations[number] += 1
        except BaseException as error:
            self.errors.append(error)


def main() -> int:
    """Run the threads; return 1 if one failed or the counter is wrong."""
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
