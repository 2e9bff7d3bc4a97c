# SPDX-License-Identifier: BSD-3-Clause
"""Values, fixtures and programs that several tests use."""
