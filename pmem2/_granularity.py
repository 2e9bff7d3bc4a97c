# SPDX-License-Identifier: BSD-3-Clause
"""Why a source does not give the granularity that a Config requires: the error that most newcomers meet first."""

from __future__ import annotations

import os
import sys
import warnings

from pmem2._enums import ErrorCode, Granularity
from pmem2._error_map import make_pmem2_error

FORCE_GRANULARITY_ENV = "PMEM2_FORCE_GRANULARITY"
GRANULARITY_BY_NAME = {
    "BYTE": Granularity.BYTE,
    "CACHE_LINE": Granularity.CACHE_LINE,
    "CACHELINE": Granularity.CACHE_LINE,
    "PAGE": Granularity.PAGE,
}


def forced_granularity() -> Granularity | None:
    """Return the granularity that the environment forces on every shared map, or `None`."""
    return GRANULARITY_BY_NAME.get((environment_value() or "").upper())


def environment_value() -> str | None:
    """Return the value of the variable, which libpmem2 does not read on Windows."""
    return None if sys.platform == "win32" else os.environ.get(FORCE_GRANULARITY_ENV)


def forced() -> Granularity | None:
    """Return the forced granularity.

    Warns:
        RuntimeWarning: The variable has a value that libpmem2 silently ignores.
    """
    claim, text = forced_granularity(), environment_value()
    if claim is None and text is not None:
        names = ", ".join(GRANULARITY_BY_NAME)
        warnings.warn(
            f"{FORCE_GRANULARITY_ENV}={text!r} is ignored by libpmem2, which knows {names}",
            RuntimeWarning,
            stacklevel=3,
        )
    return claim


def explain_granularity(available: Granularity) -> str:
    """Return why a shared map of a file has the granularity that it has."""
    if forced() is available:
        return f"{FORCE_GRANULARITY_ENV} forces it"
    if available is Granularity.BYTE:
        return "it is on DAX, and the platform flushes its caches on power failure (eADR)"
    if available is Granularity.CACHE_LINE:
        return "it is on DAX, but the platform does not flush its caches on power failure (no eADR)"
    if sys.platform == "win32":
        return "it is not on a DAX volume, so that stores go through the page cache"
    else:
        return (
            "it is not on a file system mounted with DAX, or the kernel refuses MAP_SYNC, "
            "so that stores go through the page cache"
        )


def granularity_error(asked: str, required: Granularity, available: Granularity) -> Exception:
    """Return the exception for a source that gives only *available* where *required* was asked for."""
    if forced() is available:
        advice = f"unset {FORCE_GRANULARITY_ENV}"
    elif available is Granularity.CACHE_LINE:
        advice = "require Granularity.CACHE_LINE and persist() what must survive"
    else:
        advice = (
            "require Granularity.PAGE, which works on every file (persist() then writes pages back), or put the file "
            "on persistent memory mounted with -o dax"
        )
    found = f"{required.name} granularity is required, but it gives {available.name}: {explain_granularity(available)}"
    return make_pmem2_error(ErrorCode.GRANULARITY_NOT_SUPPORTED, "pmem2_map_new", asked, found, advice)
