# SPDX-License-Identifier: BSD-3-Clause
"""The test cases of PMDK's own suite, run on pmem2 and on libpmem2 itself."""
