# SPDX-License-Identifier: BSD-3-Clause
"""The granularity of a map: PMEM2_FORCE_GRANULARITY, and why a source gives no finer one."""

from __future__ import annotations

import os
import sys
import warnings

from pmem2._enums import ErrorCode, Granularity
from pmem2._error_map import make_pmem2_error
from pmem2._ffi import lib

FORCE_GRANULARITY_ENV = "PMEM2_FORCE_GRANULARITY"
GRANULARITY_BY_NAME = {
    "BYTE": Granularity.BYTE,
    "CACHE_LINE": Granularity.CACHE_LINE,
    "CACHELINE": Granularity.CACHE_LINE,
    "PAGE": Granularity.PAGE,
}
PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


def force_granularity_text() -> str | None:
    """Return the value of PMEM2_FORCE_GRANULARITY; libpmem2 does not read it on Windows."""
    return None if sys.platform == "win32" else os.environ.get(FORCE_GRANULARITY_ENV)


def forced_granularity() -> Granularity | None:
    """Return the granularity that the environment forces, `None` if it forces none."""
    text = force_granularity_text()
    return None if text is None else GRANULARITY_BY_NAME.get(text.upper())


def forced_in_c() -> int:
    """Return the granularity that the environment forces, as C takes it.

    C does not read the environment: another thread may change it at the same time.
    """
    forced = forced_granularity()
    return lib.GUARD_GRANULARITY_UNSET if forced is None else forced


def warn_if_ignored() -> None:
    """Warn, at the line that called pmem2, if libpmem2 ignores the value of PMEM2_FORCE_GRANULARITY.

    Warns:
        RuntimeWarning: The value is no granularity.
    """
    text = force_granularity_text()
    if text is not None and text.upper() not in GRANULARITY_BY_NAME:
        names = ", ".join(GRANULARITY_BY_NAME)
        message = f"{FORCE_GRANULARITY_ENV}={text!r} has no effect: use {names}"
        warnings.warn(message, RuntimeWarning, stacklevel=caller_stacklevel())


def caller_stacklevel() -> int:
    """Return the `stacklevel` with which the caller of this function blames the first frame outside pmem2."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def explain_granularity(available: Granularity) -> str:
    """Return why a shared map of a file has the granularity *available*."""
    if forced_granularity() is available:
        return f"{FORCE_GRANULARITY_ENV} forces it"
    if available is Granularity.BYTE:
        return "it is on DAX, and the platform flushes its caches on power failure (eADR)"
    if available is Granularity.CACHE_LINE:
        return "it is on DAX, but the platform does not flush its caches on power failure (no eADR)"
    if sys.platform == "win32":
        return "it is not on a DAX volume, so stores go through the page cache"
    else:
        return (
            "it is not on a file system mounted with DAX, or the kernel refuses MAP_SYNC, "
            "so stores go through the page cache"
        )


def granularity_error(asked: str, required: Granularity, available: Granularity) -> Exception:
    """Return the exception for a source that gives only *available* where the Config requires *required*."""
    if forced_granularity() is available:
        hint = f"unset {FORCE_GRANULARITY_ENV}"
    elif available is Granularity.CACHE_LINE:
        hint = "require Granularity.CACHE_LINE, and persist() what must survive"
    else:
        hint = (
            "require Granularity.PAGE, which works on every file (persist() then writes pages back), or put the file "
            "on persistent memory mounted with -o dax"
        )
    found = f"the Config requires {required.name} granularity, but the source gives {available.name}, because "
    found += explain_granularity(available)
    return make_pmem2_error(ErrorCode.GRANULARITY_NOT_SUPPORTED, "pmem2_map_new", asked, found, hint)
