# SPDX-License-Identifier: BSD-3-Clause
"""The settings that pyproject.toml cannot hold: the cffi module, and one wheel for CPython 3.9 and later."""

import platform
import sysconfig

from setuptools import setup

ABI3 = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["build_pmem2.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp39"}} if ABI3 else {},
)
