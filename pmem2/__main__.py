# SPDX-License-Identifier: BSD-3-Clause
"""`python -m pmem2` runs the `pmem2` command."""

from __future__ import annotations

import sys

from pmem2.cli import main

if __name__ == "__main__":
    sys.exit(main())
