# SPDX-License-Identifier: BSD-3-Clause
"""pmem2.testing: the crash explorer."""
