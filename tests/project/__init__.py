# SPDX-License-Identifier: BSD-3-Clause
"""The project itself: building, stubs, imports, documentation."""
