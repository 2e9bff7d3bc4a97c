# SPDX-License-Identifier: BSD-3-Clause
"""Cut the power of the machine while it writes, boot it again on the same NVDIMMs, and check what it finds.

`python nvdimm/powercut.py [ROUNDS]`: in each round QEMU is killed with SIGKILL at a random moment. The next boot checks
every record that the media count, and that they count what the writer had printed; then it writes on.
What the guest had stored is in the host's page cache, flushed or not: a missing flush cannot be seen here.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import threading
import time

from machine import CACHE, LIMIT, Machine, image, lines

JOB = """
export PYTHONPATH=/host/project PYTHONDONTWRITEBYTECODE=1
python3 /host/project/nvdimm/ledger.py $PMEM2_TEST_FSDAX/ledger $PMEM2_TEST_DEVDAX
"""
MEDIA = ("fsdax", "devdax")
LONGEST = 8.0  # seconds that it may write


def boot(machine: Machine, printed: dict[str, int], seconds: float) -> str:
    """Boot, check, write for that long, cut the power; return what was found.

    *printed* is the last number that the writer has printed for each medium, before and after.
    """
    machine.prepare(JOB)
    process = machine.start()
    cut = threading.Timer(LIMIT, process.kill)  # until it writes
    cut.start()
    found: list[str] = []
    writing = False
    try:
        with open(machine.folder / "console.log", "a", encoding="utf-8") as log:
            for line in lines(process):
                print(line, file=log, flush=True)
                words = line.split()
                if words[:1] == ["CHECK"]:
                    medium, verdict, last = words[1], words[2], int(words[3].rstrip(":"))
                    if verdict != "good" or last < printed[medium]:
                        sys.exit(f"powercut: {line}; the writer had printed {printed[medium]}")
                    found.append(f"{medium} {' '.join(words[4:])}, {last - printed[medium]} more than printed")
                elif words[:1] == ["WROTE"] and len(words) == 3:
                    if not writing:
                        writing = True
                        cut.cancel()
                        cut = threading.Timer(seconds, process.kill)
                        cut.start()
                    printed[words[1]] = int(words[2])
    finally:
        cut.cancel()
    if not writing or process.returncode != -signal.SIGKILL:
        sys.exit(f"powercut: the machine stopped by itself; see {log.name}")
    return "; ".join(found)


def main() -> None:
    """Cut the power as often as the command line says, 20 times if it does not; then boot and check once more."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    folder = CACHE / "powercut"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    machine = Machine(folder, "ext4", "mem-ctrl", image())
    printed = dict.fromkeys(MEDIA, 0)
    began = time.monotonic()
    for number in range(rounds + 1):
        begin = time.monotonic()
        seconds = random.uniform(0, LONGEST)
        found = boot(machine, printed, seconds)
        what = f"after cut {number}: {found}" if number else "at first: nothing there yet"
        print(f"powercut: {what} ({time.monotonic() - begin:.0f} s)", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"powercut: {rounds} cuts in {minutes:.0f} minutes: no record lost or torn, none less than printed")


if __name__ == "__main__":
    main()
