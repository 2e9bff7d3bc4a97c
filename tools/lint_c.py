# SPDX-License-Identifier: BSD-3-Clause
"""Check the C code: no compiler warning, and no finding of gcc's analyzer, cppcheck and clang-tidy.

`python tools/lint_c.py --compile-only` checks the warnings alone.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig

from compile_extension import PROJECT, WARNINGS, compile_extension

GUARDS = PROJECT / "native" / "guards.c"  # includes all other C files
IGNORED = (
    "bugprone-suspicious-include",  # guards.c includes .c files: they are one translation unit
    "bugprone-easily-swappable-parameters",
    *("bugprone-reserved-identifier", "cert-dcl37-c", "cert-dcl51-cpp"),  # _GNU_SOURCE
    "cert-err33-c",  # snprintf writes into a large enough buffer, or truncates a text on purpose
    "clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling",  # glibc lacks the suggested functions
)
CHECKS = ("-*", "bugprone-*", "cert-*", "clang-analyzer-*", "concurrency-*", *(f"-{name}" for name in IGNORED))
INCLUDES = [f"-I{PROJECT / 'native'}", f"-I{sysconfig.get_path('include')}"]
CPPCHECK = ["cppcheck", "--enable=warning,performance,portability", "--error-exitcode=1", "--inline-suppr", "--quiet"]
CLANG_TIDY = ["clang-tidy", "--quiet", "--header-filter=native/", f"--checks={','.join(CHECKS)}"]


def main() -> int:
    """Return an exit status."""
    if sys.argv[1:] == ["--compile-only"]:
        compile_extension("lint-c", WARNINGS)
        return 0
    compile_extension("lint-c", f"-fanalyzer {WARNINGS}")
    failed = 0
    for command in (
        [*CPPCHECK, INCLUDES[0], str(GUARDS)],
        [*CLANG_TIDY, "--warnings-as-errors=*", str(GUARDS), "--", *INCLUDES],
    ):
        print("+", *command, flush=True)
        failed |= subprocess.run(command, cwd=PROJECT, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
