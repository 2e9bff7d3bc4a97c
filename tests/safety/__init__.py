# SPDX-License-Identifier: BSD-3-Clause
"""Lifetimes, threads, forks, signals and faults: no sequence of calls kills or hangs the interpreter."""
