# SPDX-License-Identifier: BSD-3-Clause
"""Run nox, show its progress without its advice, and print tables of the results: the second half of ./run.

`ci` stands for the default sessions of the noxfile. `--list [TAG]` prints these sessions, or those with a tag, as a
JSON list for the workflows.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import selectors
import shlex
import subprocess
import sys
import termios
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import NamedTuple

NOX = [sys.executable, "-m", "nox"]
JUNIT = Path(".cache/junit")
PREFIX = b"nox > "
PATIENCE = 8  # seconds without output before a sign of life
DEFAULT_PYTHON = "3.11"  # of sessions that do not choose one
STARTED = re.compile(r"Running session (.+)")
ENDED = re.compile(r"Session (\S+) (was successful|failed|aborted|skipped)(?:: )?(.*?)(?: in .*| \(took .*)?\.?$")
NO_INTERPRETER = re.compile(r"Python interpreter (\S+) not found")
INSTALLING = re.compile(r"python -m pip install (.*)")
REQUIREMENT = re.compile(r"[\[;<>=].*")  # everything after the name of a package
CREATING = re.compile(r"Creating virtual environment")
ADVICE = re.compile(r"Missing interpreters|uv binary|Nox was installed without|Ran \w+ sessions|Re-?using|\* ")
INSTALLING_WHEEL = "python tools/install_wheel.py"  # reports its progress itself


class Session(NamedTuple):
    """How a session ended."""

    name: str
    status: str
    reason: str
    seconds: float


class Progress:
    """Turns nox's log into short lines and results."""

    def __init__(self) -> None:
        """Start without a session."""
        self.sessions: list[Session] = []
        self.missing: list[str] = []
        self.current = ""
        self.began = time.monotonic()

    def translate(self, message: str) -> str:
        """Return the line to print for a message of nox; an empty string to print nothing."""
        if found := STARTED.fullmatch(message):
            self.current, self.began = found[1], time.monotonic()
            (JUNIT / f"{self.current}.xml").unlink(missing_ok=True)
            return ""
        if found := ENDED.fullmatch(message):
            if interpreter := NO_INTERPRETER.search(found[3]):
                self.missing.append(interpreter[1])
                return ""
            status = found[2].replace("was successful", "passed")
            self.sessions.append(Session(found[1], status, found[3], time.monotonic() - self.began))
            return "" if status == "passed" else f"{found[1]}: {status} {found[3]}"
        if CREATING.match(message):
            return f"{self.current}: creating a virtual environment ..."
        if found := INSTALLING.fullmatch(message):
            packages = [REQUIREMENT.sub("", word) for word in shlex.split(found[1]) if not word.startswith("-")]
            return f"{self.current}: installing {' '.join(dict.fromkeys(packages))} ..."
        if ADVICE.match(message) or message == INSTALLING_WHEEL:
            return ""
        return f"{self.current}: {message}" if self.current else message


def show_progress(output: int, progress: Progress) -> None:
    """Copy nox's output to ours until it ends; translate the lines of nox itself."""
    pending = b""
    last = time.monotonic()
    at_line_start = True
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, last + PATIENCE - time.monotonic())):
                seconds = time.monotonic() - progress.began
                print("" if at_line_start else "\n", f"... {progress.current}: {seconds:.0f} s", sep="", flush=True)
                last = time.monotonic()
                at_line_start = True
                continue
            try:
                data = os.read(output, 65536)
            except OSError:  # the other end of a terminal is closed
                data = b""
            if not data and not pending:
                return
            *lines, pending = (pending + data).splitlines(keepends=True) or [b""]
            if pending.endswith(b"\n") or not PREFIX.startswith(pending[: len(PREFIX)]) or not data:
                lines.append(pending)
                pending = b""
            for line in lines:
                if line.startswith(PREFIX):
                    text = progress.translate(line[len(PREFIX) :].decode(errors="replace").strip())
                    line = f"{text}\n".encode() if text else b""
                if line:
                    sys.stdout.buffer.write(line)
                    last = time.monotonic()
                    at_line_start = line.endswith(b"\n")
            sys.stdout.buffer.flush()


def run_nox(arguments: list[str], progress: Progress) -> int:
    """Run nox in a terminal if we have one; return its exit status."""
    if sys.stdout.isatty():
        reading, writing = os.openpty()
        size = fcntl.ioctl(sys.stdout, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(writing, termios.TIOCSWINSZ, size)
    else:
        reading, writing = os.pipe()
    with subprocess.Popen([*NOX, "--nocolor", *arguments], stdout=writing, stderr=writing) as nox:
        os.close(writing)
        with contextlib.suppress(KeyboardInterrupt):  # nox gets the signal too, and stops
            show_progress(reading, progress)
    os.close(reading)
    return nox.returncode


def print_table(rows: list[tuple[object, ...]]) -> None:
    """Print rows with a heading; the first column is text, the others are aligned to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts)]
    for first, *others in texts:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:]))
        print("  ".join((first.ljust(widths[0]), *cells)).rstrip())


def print_tests(sessions: list[Session], missing: list[str]) -> None:
    """Print the results of the pytest sessions: a table, the reasons for skips, the slowest tests."""
    rows: list[tuple[object, ...]] = [("tests on", "passed", "failed", "skipped", "seconds")]
    reasons: Counter[str] = Counter()
    slowest: list[tuple[float, str, str]] = []
    totals: Counter[str] = Counter()
    for session in sessions:
        report = JUNIT / f"{session.name}.xml"
        if not report.exists():
            continue
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
        skipped = [case for case in cases if case.find("skipped") is not None]
        failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
        counts = {"passed": len(cases) - len(skipped) - len(failed), "failed": len(failed), "skipped": len(skipped)}
        totals.update(counts)
        rows.append((session.name.replace("tests-", ""), *counts.values(), f"{session.seconds:.0f}"))
        reasons.update(element.get("message", "") for case in skipped for element in case.iter("skipped"))
        slowest += [
            (float(case.get("time", 0)), f"{case.get('classname')}::{case.get('name')}", session.name) for case in cases
        ]
    if len(rows) == 1:
        return
    if reasons:
        print("\nskipped because:")
    for reason, count in reasons.most_common():
        print(f"{count:6}  {reason}")
    print("\nslowest tests:")
    for seconds, name, session_name in sorted(slowest, reverse=True)[:10]:
        print(f"{seconds:6.1f}  {name} ({session_name})")
    if missing:
        print(f"\ninterpreters that this machine does not have: {', '.join(missing)}")
    print()
    print_table(rows)
    print(f"\n{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")


def list_sessions(tag: str) -> str:
    """Return the default sessions, or those with a tag, as JSON: [{"session": "tests-3.9", "python": "3.9"}, ...]."""
    command = [*NOX, "--list", "--json", *(["--tags", tag] if tag else [])]
    listed = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    # Python's second version number suffices to choose an interpreter; the third is for a machine that has two of them.
    chosen = ((entry["session"], entry["python"] or DEFAULT_PYTHON) for entry in listed)
    return json.dumps([{"session": name, "python": python} for name, python in chosen if python.count(".") == 1])


def main(arguments: list[str]) -> int:
    """Run a session; return an exit status."""
    if arguments[0] == "--list":
        print(list_sessions("".join(arguments[1:])))
        return 0
    for factor in [word for word in arguments if word.startswith("--rounds=")]:
        arguments.remove(factor)
        os.environ["PMEM2_TEST_ROUNDS"] = factor.partition("=")[2]
    session, *posargs = arguments
    progress = Progress()
    status = run_nox([*([] if session == "ci" else ["--session", session]), "--", *posargs], progress)
    print_tests(progress.sessions, progress.missing)
    if session == "ci":
        print()
        results = [(one.name, one.status, f"{one.seconds:.0f}") for one in progress.sessions]
        print_table([("session", "result", "seconds"), *results])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
