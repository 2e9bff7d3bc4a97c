# SPDX-License-Identifier: BSD-3-Clause
"""Child processes that run Python code; the type of the fixture `run_child`.

An interpreter that imports pmem2 takes longer to start than most children run. So children are forked from a server: a
process that has imported pmem2 and has done nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from support.values import EMULATED

TIMEOUT = 2000 if EMULATED else 200  # seconds: catches hangs only, an msync can wait seconds for a busy disk
MOST_SERVERS = 8  # more would take much memory
SERVE = "from support.child_server import next_child; exec(compile(next_child({}), '<string>', 'exec'))"
# variables that the interpreter or a library reads when it starts
READ_AT_START = ("LD_", "PYTHON", "MALLOC_", "PMEM_", "PMEM2_LOG")


Ended = subprocess.CompletedProcess[str]


class RunChild(Protocol):
    """Run Python in a child process."""

    def __call__(self, code: str, *arguments: str, **environment: str) -> Ended:
        """Run *code* with `sys.argv[1:]` set to *arguments* and return its exit status and output."""


class ChildServer:
    """A process that forks children; its variables that are read at the start are those of its children."""

    def __init__(self, environment: dict[str, str]) -> None:
        """Start it."""
        self._connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(TIMEOUT)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE.format(other.fileno())],
                env=environment,
                pass_fds=[other.fileno()],
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def run(self, code: str, arguments: tuple[str, ...], environment: dict[str, str]) -> Ended:
        """Run *code* in a new child and wait for its end."""
        request = json.dumps([code, arguments, environment, os.getcwd()]).encode()
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            socket.send_fds(self._connection, [request], [output.fileno(), errors.fileno()])
            try:
                status = int(self._connection.recv(100))
            except BaseException:  # a child that hangs, or Ctrl-C
                self.close()
                raise
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(["python", *arguments], status, output.read(), errors.read())

    def close(self) -> None:
        """End it, and the child that still runs."""
        self._connection.close()
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Children:
    """The children of a test session; an instance is what the fixture `run_child` returns."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._servers: dict[tuple[tuple[str, str], ...], ChildServer] = {}

    def __call__(self, code: str, *arguments: str, **environment: str) -> Ended:
        """Run Python in a child that can import from tests/; a negative returncode is a fatal signal."""
        if sys.platform == "win32":
            return run_interpreter(code, *arguments, **environment)
        variables = variables_of_child(environment)
        key = read_at_start(variables)
        server = self._servers.pop(key, None)
        if server is None or not server.alive:
            server = ChildServer(variables)
        self._servers[key] = server  # as the newest
        if len(self._servers) > MOST_SERVERS:
            self._servers.pop(next(iter(self._servers))).close()
        return server.run(textwrap.dedent(code), arguments, variables)

    def close(self) -> None:
        """End the servers."""
        while self._servers:
            self._servers.popitem()[1].close()


def run_interpreter(code: str, *arguments: str, **environment: str) -> Ended:
    """Run Python in a new interpreter, which has imported nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env=variables_of_child(environment),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def variables_of_child(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment of a child, to which a test adds variables."""
    path = os.pathsep.join((str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")))
    # a sanitizer's runtime must come first
    preloaded = [names["LD_PRELOAD"] for names in (os.environ, environment) if "LD_PRELOAD" in names]
    return {**os.environ, "PYTHONPATH": path, **environment, "LD_PRELOAD": " ".join(preloaded)}


def read_at_start(environment: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the variables that a process reads when it starts."""
    return tuple(sorted(pair for pair in environment.items() if pair[0].startswith(READ_AT_START)))
