# SPDX-License-Identifier: BSD-3-Clause
"""Mapping does not change the working directory, and leaves no trace of the process that it uses for that."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.children import RunChild
from support.values import CONTENT, PAGE, not_emulated

import pmem2

REGIONS = Path("/sys/bus/nd/devices")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(autouse=True)
def needs_regions() -> None:
    """Skip the test if libpmem2 has nothing to walk."""
    if not REGIONS.is_dir():
        pytest.skip(f"this kernel has no {REGIONS}")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The working directory, with a file of one page."""
    (tmp_path / "file").write_bytes(bytes(PAGE))
    before = os.getcwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


@not_emulated("has no process that shares memory")
def test_other_threads(folder: Path) -> None:
    """Another thread finds a relative path at every moment."""
    wrong, looks, done = 0, 0, threading.Event()

    def look() -> None:
        nonlocal wrong, looks
        while not done.is_set():
            wrong += not os.path.exists("file")
            looks += 1

    thread = threading.Thread(target=look)
    thread.start()
    with pmem2.Source.from_path("file") as source:
        for _ in range(300):
            source.map().close()
    done.set()
    thread.join()
    assert (wrong, looks > 100) == (0, True)


def test_no_trace(path: Path, run_child: RunChild) -> None:
    """No child is left to wait for, no SIGCHLD comes, no signal stays blocked, and errors have libpmem2's text."""
    code = """
        import os, signal, sys, threading, pmem2

        threading.Thread(target=threading.Event().wait, daemon=True).start()
        signals = []
        signal.signal(signal.SIGCHLD, lambda *_: signals.append(1))
        with pmem2.Source.from_path(sys.argv[1]) as source:
            for _ in range(20):
                source.map().close()
            try:
                source.map(pmem2.Config(required_granularity=None))
            except pmem2.GranularityNotSetError as error:
                print("please define" in str(error))
        print(signals, signal.pthread_sigmask(signal.SIG_BLOCK, []))
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child")
    """
    assert run_child(code, str(path)).stdout.splitlines() == ["True", "[] set()", "no child"]


@needs_root
def test_no_processes_left(path: Path, run_child: RunChild) -> None:
    """Where the user may start no process, mapping works."""
    code = """
        import os, resource, sys, threading, pmem2

        source = pmem2.Source.from_path(sys.argv[1])
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        source.map().close()  # loads what another user could not read
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        os.setgid(65534)
        os.setuid(65534)
        try:
            os.fork()
        except BlockingIOError:
            with source.map() as map:
                print(map.size)
        source.close()
    """
    done = run_child(code, str(path))
    assert done.stdout == f"{len(CONTENT)}\n", done.stderr


@needs_root
def test_new_pid_namespace(path: Path, run_child: RunChild) -> None:
    """The next child of a process that has made a PID namespace becomes its init process, as without a map."""
    code = """
        import ctypes, os, sys, threading, pmem2

        threading.Thread(target=threading.Event().wait, daemon=True).start()
        if ctypes.CDLL(None, use_errno=True).unshare(0x20000000):
            print("cannot")
        with pmem2.Source.from_path(sys.argv[1]) as source:
            source.map().close()
        child = os.fork()
        if child == 0:
            os._exit(os.getpid())
        print(os.WEXITSTATUS(os.waitpid(child, 0)[1]))
    """
    done = run_child(code, str(path))
    if done.stdout.startswith("cannot"):
        pytest.skip("no PID namespace can be made here")
    assert done.stdout == "1\n", done.stderr
