# SPDX-License-Identifier: BSD-3-Clause
"""Run one harness: `python -m safety.harness interrupts --rounds 1000 --only Map.view`."""

import sys

from safety.harness.program import main

sys.exit(main(sys.argv[1:]))
