# SPDX-License-Identifier: BSD-3-Clause
"""The type of the fixture `run_child`."""

from __future__ import annotations

import subprocess
from typing import Protocol


class RunChild(Protocol):
    """Run Python in a child process."""

    def __call__(self, code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run *code* with `sys.argv[1:]` set to *arguments* and return its exit status and output."""
