# SPDX-License-Identifier: BSD-3-Clause
"""Sphinx configuration; `nox -s docs` builds the documentation."""

from __future__ import annotations

import enum
import re
import zlib
from pathlib import Path
from typing import Optional

import attrs
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import pmem2

project = "pmem2"
author = "the pmem2 authors"
copyright = author
release = version = pmem2.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["conf.py"]
COLOURED = ("color-brand-primary", "color-brand-content", "color-api-name")
html_theme = "furo"
html_title = f"pmem2 {release}"
html_show_sphinx = False
html_show_sourcelink = html_copy_source = False
html_favicon = html_logo = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_js_files = ["tables.js"]
html_theme_options = {
    "light_css_variables": dict.fromkeys(COLOURED, "#0b6283"),
    "dark_css_variables": dict.fromkeys(COLOURED, "#7cc4e0"),
}

myst_enable_extensions = ["deflist", "tasklist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.strikethrough"]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
default_role = "py:obj"  # docstrings put `names` in single backticks
maximum_signature_line_length = 90
napoleon_use_rtype = False
python_display_short_literal_types = True

# Copy what a reader would type: neither prompts nor output.
copybutton_prompt_text = r">>> ?|\.\.\. ?|\$ "
copybutton_prompt_is_regexp = True

manpages_url = "https://manpages.debian.org/{path}"
linkcheck_timeout = 20
linkcheck_workers = 2
linkcheck_ignore = [r"https://docs\.python\.org/", r"https://numpy\.org/doc/"]  # from inventories: the pages exist

# Without a network, the build succeeds without links to Python and NumPy: an empty inventory is the last choice.
# Before it comes the inventory of Debian's package python3-doc.
NO_NAMES = Path(__file__).parents[1] / ".cache/docs/empty.inv"
NO_NAMES.parent.mkdir(parents=True, exist_ok=True)
NO_NAMES.write_bytes(b"# Sphinx inventory version 2\n# Project: none\n# Version: 0\n# zlib\n" + zlib.compress(b""))
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", (None, "/usr/share/doc/python3/html/objects.inv", str(NO_NAMES))),
    "numpy": ("https://numpy.org/doc/stable", (None, str(NO_NAMES))),
}
intersphinx_timeout = 10

MAN_PAGE_RE = re.compile(r"\b(?:lib)?pmem2\w*\(\d\)")
PRIVATE_MODULE_RE = re.compile(r"\bpmem2\._\w+\.")
C_FUNCTION_RE = re.compile(r"pmem2_\w+")
PYTHON_NAME_RE = re.compile(r"(?:[a-z]\w*\.)*[A-Z]\w*[a-z]\w*(?:\.\w+)?(?:\(\))?|(?:[a-z]\w*\.)+\w+(?:\(\))?")


def show_signature(
    _app: Sphinx, what: str, name: str, shown: type, _options: object, signature: str, _returns: str
) -> Optional[tuple[str, str]]:
    """Show the default values of a Config, and no signature of an exception class: pmem2 creates its instances."""
    if what == "exception":
        return "", ""
    if name != "pmem2.Config":
        return None
    defaults = {field.name: field.default for field in attrs.fields(shown)}
    return re.sub(r"attr_dict\['(\w+)'\]\.default", lambda found: default_text(defaults[found[1]]), signature), ""


def default_text(value: object) -> str:
    """Return a default value as a caller would write it."""
    return f"{type(value).__name__}.{value.name}" if isinstance(value, enum.Enum) else repr(value)


def edit_docstring(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Link the man pages that a docstring names, and shorten names such as `pmem2._enums.Sharing` to public ones."""
    lines[:] = [PRIVATE_MODULE_RE.sub("", MAN_PAGE_RE.sub(r":manpage:`\g<0>`", line)) for line in lines]


def link_names(app: Sphinx, document: nodes.document) -> None:
    """Link the Python names in the inline code of a page: `Map.persist`, `m.persist()`, `os.fork`; and C functions."""
    for literal in list(document.findall(nodes.literal)):
        name = literal.astext()
        if C_FUNCTION_RE.fullmatch(name) and app.env.docname == "guide/functions":
            page = manpages_url.format(path=f"{name}(3)")
            literal.replace_self(nodes.reference("", "", literal.deepcopy(), refuri=page))
        elif PYTHON_NAME_RE.fullmatch(name) and not isinstance(literal.parent, (nodes.reference, pending_xref)):
            target = re.sub(r"^m\.", "Map.", name).removesuffix("()")
            options = {"refdomain": "py", "reftype": "obj", "reftarget": target, "refspecific": True}
            literal.replace_self(pending_xref("", literal.deepcopy(), refdoc=app.env.docname, **options))


def setup(app: Sphinx) -> None:
    """Register the functions."""
    app.connect("autodoc-process-signature", show_signature)
    app.connect("autodoc-process-docstring", edit_docstring)
    app.connect("doctree-read", link_names)
