# SPDX-License-Identifier: BSD-3-Clause
"""Replace POWER10's dcbstps and phwsync in libpmem2 by dcbf and hwsync: clear_power10.py LIBRARY.

Processors before POWER10 ignore the bits that make the difference, so they execute dcbf and hwsync. QEMU dies of them.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

# the instruction without its register, and the bits of its field L
DCBSTPS = 0x7C0000AC | 6 << 21
PHWSYNC = 0x7C0004AC | 4 << 21
REGISTER = 31 << 11
FIELD_L = 7 << 21

library = Path(sys.argv[1]).resolve()
code = library.read_bytes()
for offset in range(0, len(code) - 3, 4):
    (word,) = struct.unpack_from("<I", code, offset)
    if word & ~REGISTER in (DCBSTPS, PHWSYNC):
        code = code[:offset] + struct.pack("<I", word & ~FIELD_L) + code[offset + 4 :]
library.write_bytes(code)
