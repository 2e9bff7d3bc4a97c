# SPDX-License-Identifier: BSD-3-Clause
"""What pyproject.toml cannot say: what cffi is to compile, and that one wheel is for CPython 3.9 and all newer ones."""

import platform
import sysconfig

from setuptools import setup

ABI3 = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["build_pmem2.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp39"}} if ABI3 else {},
)
