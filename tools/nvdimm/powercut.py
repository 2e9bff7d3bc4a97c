# SPDX-License-Identifier: BSD-3-Clause
"""Cut the power of the machine while it writes, boot it again on the same NVDIMMs, and check the records.

In each round SIGKILL ends QEMU at a random moment. The next boot checks every record that the media count, and that
they count at least the records that the writer had printed; then it writes on. All stores of the guest are in the
host's page cache, flushed or not, so this test cannot see a missing flush.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import threading
import time

from machine import CACHE, TIME_LIMIT, Machine, image, lines

JOB = """
export PYTHONPATH=/host/project PYTHONDONTWRITEBYTECODE=1
python3 /host/project/tools/nvdimm/ledger.py $PMEM2_TEST_FSDAX/ledger $PMEM2_TEST_DEVDAX
"""
MEDIA = ("fsdax", "devdax")
MAX_SECONDS = 8.0  # of writing


def boot(machine: Machine, printed: dict[str, int], seconds: float) -> str:
    """Boot, check the records, write for some seconds, cut the power; return the findings.

    Args:
        machine: The machine.
        printed: For each medium the last number that the writer has printed; updated.
        seconds: The time of writing.
    """
    machine.prepare(JOB)
    process = machine.start()
    cut = threading.Timer(TIME_LIMIT, process.kill)  # until it writes
    cut.start()
    found: list[str] = []
    writing = False
    try:
        with open(machine.folder / "console.log", "a", encoding="utf-8") as log:
            for line in lines(process):
                print(line, file=log, flush=True)
                words = line.split()
                if words[:1] == ["CHECK"]:
                    medium, result, last = words[1], words[2], int(words[3].rstrip(":"))
                    if result != "good" or last < printed[medium]:
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


def main(rounds: int) -> None:
    """Cut the power *rounds* times; after the last cut, boot and check once more."""
    folder = CACHE / "powercut"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    machine = Machine(folder, "ext4", "mem-ctrl", image())
    printed = dict.fromkeys(MEDIA, 0)
    began = time.monotonic()
    for number in range(rounds + 1):
        begin = time.monotonic()
        seconds = random.uniform(0, MAX_SECONDS)
        found = boot(machine, printed, seconds)
        result = f"after cut {number}: {found}" if number else "first boot: no records yet"
        print(f"powercut: {result} ({time.monotonic() - begin:.0f} s)", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"powercut: {rounds} cuts in {minutes:.0f} minutes: no record lost or torn, all printed records found")
