# SPDX-License-Identifier: BSD-3-Clause
"""Every state that a power cut could leave, in a unit test, without hardware.

    def test_append(crash_explorer):
        crash_explorer(workload, check, size=4096)

runs `workload(map)` once, and then `check(map)` on a map of each state that a power cut could have left at any moment
of it. pytest finds the fixture `crash_explorer` without configuration; elsewhere there is `explore`.
"""

from pmem2.testing._errors import CrashConsistencyError, LostStore
from pmem2.testing._explore import Explorer, Report, explore
from pmem2.testing._explore_model import explore_model
from pmem2.testing._lint import Finding

for public in (CrashConsistencyError, Finding, LostStore, Report):
    public.__module__ = __name__  # what a traceback shows is what is imported
del public

__all__ = ["CrashConsistencyError", "Explorer", "Finding", "LostStore", "Report", "explore", "explore_model"]
