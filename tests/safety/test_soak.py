# SPDX-License-Identifier: BSD-3-Clause
"""Many threads and many processes on one file; `nox -s soak` runs the same for longer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.children import RunChild

import pmem2

pytestmark = pytest.mark.xdist_group("threads")

SOAK = Path(__file__).parents[2] / "tools/soak.py"
WORDS = 512


def test_threads_share_maps(run_child: RunChild) -> None:
    """Eight threads persist, copy, view, map and close the same maps without an error or a lost addition."""
    child = run_child(
        "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')",
        str(SOAK),
        "1",
        PYTHONWARNINGS="ignore",
    )
    assert child.returncode == 0, child.stdout + child.stderr


@pytest.mark.filterwarnings("ignore:This process")  # test_fork.py covers forks with threads
def test_hundred_readers(file: Path) -> None:
    """A hundred processes read only complete words while another one writes."""
    with pmem2.open(file) as map:
        children = []
        for _ in range(100):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    with pmem2.open(file, "r") as own:
                        seen = [own.load_u64(8 * number) for number in range(WORDS)]
                    status = 0 if all(word & 0xFFFFFFFF == word >> 32 for word in seen) else 2
                finally:
                    os._exit(status)
            children.append(pid)
            for number in range(0, WORDS, 8):
                map.store_u64(8 * number, pid << 32 | pid)
        assert {os.waitpid(pid, 0)[1] for pid in children} == {0}


def test_killed_writer(run_child: RunChild, file: Path) -> None:
    """The persisted words of a killed process are complete, and other processes map and write the file."""
    child = run_child(
        """
        import os, signal, sys, threading, pmem2
        map = pmem2.open(sys.argv[1])
        def count_up():
            while True:
                map.fetch_add_u64(0, 2**32 + 1, persist=True)
        threading.Thread(target=count_up, daemon=True).start()
        while map.load_u64(0) < 5: pass
        print("counts", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        str(file),
    )
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, "counts\n"), child.stderr
    with pmem2.open(file) as map:
        word = map.load_u64(0)
        assert word & 0xFFFFFFFF == word >> 32 > 0
        map.store_u64(0, 7, persist=True)
