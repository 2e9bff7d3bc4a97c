# SPDX-License-Identifier: BSD-3-Clause
"""Persistent memory: DAX file systems, DAX devices, bad blocks."""
