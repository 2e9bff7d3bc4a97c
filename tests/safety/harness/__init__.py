# SPDX-License-Identifier: BSD-3-Clause
"""Harnesses that disturb every public call: exceptions, failing allocations, the recursion limit, forks, threads.

`python -m safety.harness DISTURBANCE` runs one of them with `tests/` on the module path; `nox -s soak` runs them for
longer. After each disturbed call, the exception is the one that was raised; all objects can be closed; and descriptors,
mappings, borrowed buffers and files are the same as before.
"""
