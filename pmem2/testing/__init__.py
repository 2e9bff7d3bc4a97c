# SPDX-License-Identifier: BSD-3-Clause
"""Unit tests of every state that a power failure could leave, without special hardware.

    def test_append(crash_explorer):
        crash_explorer(workload, check, size=4096)

runs `workload(map)` once, and then `check(map)` on a map of each state that a power failure could have left at any
moment of the workload; with `recover`, also of the recovery from such a state, and so on. pytest finds the fixture
`crash_explorer` without configuration; elsewhere, call `explore`.
"""

# The path of an exploration through the modules, in which imports point one way only:
#   _workload        runs the workload; _recorder writes its _events (_tracing and _shadow find stores through views,
#                    _threads refuses threads)
#   _memory_model    replays the events, and knows the states that a power failure can leave
#   _search          chooses the images to check; _pruning skips those in which a check reads nothing new
#   _closure         searches the recovery of each image too, until no new image comes
#   _runner          runs the recovery and the check on an image; _read_tracking notes what they read
#   _diagnosis       explains a failing image by the fewest lost stores, and raises one of _errors

from pmem2.testing._errors import CrashConsistencyError, LostStore
from pmem2.testing._explore import Explorer, Report, explore
from pmem2.testing._explore_model import explore_model
from pmem2.testing._lint import Finding

for public in (CrashConsistencyError, Explorer, Finding, LostStore, Report, explore, explore_model):
    public.__module__ = __name__  # pickles and tracebacks name what users import
del public

__all__ = ["CrashConsistencyError", "Explorer", "Finding", "LostStore", "Report", "explore", "explore_model"]
