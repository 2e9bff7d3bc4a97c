# SPDX-License-Identifier: BSD-3-Clause
"""Sphinx configuration; `nox -s docs` builds the documentation."""

import pmem2

project = "pmem2"
author = "the pmem2 authors"
copyright = author
release = version = pmem2.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py"]
html_theme = "furo"
html_title = f"pmem2 {release}"
html_show_sphinx = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.strikethrough"]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
default_role = "code"  # docstrings put `names` in single backticks
napoleon_use_ivar = True
napoleon_use_rtype = False

linkcheck_timeout = 20
linkcheck_workers = 2
