# SPDX-License-Identifier: BSD-3-Clause
"""The one thing that pyproject.toml cannot say: what cffi is to compile."""

from setuptools import setup

setup(cffi_modules=["build_pmem2.py:ffibuilder"])
