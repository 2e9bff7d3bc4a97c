# SPDX-License-Identifier: BSD-3-Clause
"""Values and helpers that several tests use."""
