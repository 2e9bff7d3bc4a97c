# SPDX-License-Identifier: BSD-3-Clause
"""Run `pmem2` as `python -m pmem2`."""

from __future__ import annotations

import sys

from pmem2.cli import main

if __name__ == "__main__":
    sys.exit(main())
