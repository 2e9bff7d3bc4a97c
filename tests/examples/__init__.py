# SPDX-License-Identifier: BSD-3-Clause
"""The programs in examples/."""
