# SPDX-License-Identifier: BSD-3-Clause
"""The test cases of PMDK's own suite, numbered: which there are, and why some of them have no test here.

Row *n* is covered by a test whose name begins with `test_row_nnn_`, or it has a reason here; `test_rows.py` checks it.
"""

from __future__ import annotations

# fmt: off
ALL_ROWS = (
    # sources: made, measured
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23,
    24, 25, 26, 28, 29, 30, 31, 32, 33, 34,
    # configs
    35, 36, 37, 38, 39, 40, 41, 42, 44, 45, 46, 47,
    # maps: made, protected, of existing memory
    48, 49, 50, 51, 52, 53, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 67, 68, 69, 71, 72, 73, 74,
    75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 86, 87,
    88, 89, 91, 92,
    # reservations
    93, 94, 95, 96, 97, 98, 99, 100, 101, 103, 105, 106, 107, 108, 110, 111, 112, 113, 114, 115, 117, 118, 120, 121,
    122, 123,
    # granularity
    127, 128, 129, 132, 133, 134, 136, 137, 138,
    # flushing
    139, 140, 141, 142, 143, 144, 146, 147, 148, 149, 150, 151,
    # copying
    155, 156, 157, 158, 159, 160, 161, 162, 164, 165, 166, 167, 168, 169, 170, 171,
    # integration
    173, 174, 175, 177, 178, 179, 180, 181, 186, 187,
    # errors, logs, headers
    188, 189, 190, 191, 192, 193, 194, 195, 196,
    # bad blocks
    197, 198, 199, 200, 201, 202, 203, 204,
    # asynchronous copies
    205, 206, 207, 208, 209, 210,
    # examples
    211, 212,
    # not covered upstream
    220, 221, 222, 223, 224, 225, 226, 227, 231, 233, 234, 235, 237,
)
# fmt: on

NO_MEMORY = "needs a libpmem2 built for fault injection: one malloc in it fails"
PMEMCHECK = "needs valgrind's pmemcheck, which only PMDK's own valgrind has"
FAKE_BAD_BLOCK = "fakes the answers of libndctl and of the file system inside libpmem2"
ASYNCHRONOUS = "needs miniasync; libpmem2 2.0 dropped asynchronous copies, and they are not bound"
EXAMPLE = "is an example program of PMDK: it belongs to examples/, which are not there yet"

ELSEWHERE: dict[int, str] = {
    # rows 1 to 138
    5: NO_MEMORY,
    23: "is row 20 once more, on an ordinary file, through upstream's harness for a device DAX",
    34: "needs NVDIMMs that count unsafe shutdowns",
    36: NO_MEMORY,
    61: "fakes a struct pmem2_map of length 0, which no public function makes",
    62: "fakes a struct pmem2_map at an unaligned address, which no public function makes",
    91: NO_MEMORY,
    92: NO_MEMORY,
    100: NO_MEMORY,
    # rows 139 to 237
    142: PMEMCHECK,
    143: PMEMCHECK,
    144: PMEMCHECK,
    147: "fakes the sysfs file of a device DAX inside libpmem2",
    167: PMEMCHECK,
    171: "needs a processor with MOVDIR64B",
    175: PMEMCHECK,
    190: "sets an error text with a macro inside libpmem2",
    193: PMEMCHECK,
    194: PMEMCHECK,
    202: FAKE_BAD_BLOCK,
    203: FAKE_BAD_BLOCK,
    204: FAKE_BAD_BLOCK,
    205: ASYNCHRONOUS,
    206: ASYNCHRONOUS,
    207: ASYNCHRONOUS,
    208: ASYNCHRONOUS,
    209: ASYNCHRONOUS,
    210: ASYNCHRONOUS,
    211: EXAMPLE,
    212: EXAMPLE,
}
