# SPDX-License-Identifier: BSD-3-Clause
"""The public API: what each class, method and error does."""
