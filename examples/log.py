# SPDX-License-Identifier: BSD-3-Clause
"""An append-only log: `python log.py FILE COMMAND...`, `python log.py help`.

Appending is atomic: the record becomes durable first, then the length of the log that includes it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import pmem2

SIGNATURE = b"PMEM2_LOG\0"  # at offset 0
USED, DATA, MINIMUM = 16, 24, 1 << 20  # offsets of the length (8 bytes) and of the records; smallest file size
USAGE = """\
Usage:
\tlog <file> <COMMAND_1> [COMMAND_2 ...]
\tlog help
Available commands:
append DATA\t\t\t- add a new element to the LOG
appendv N DATA_1 ... DATA_N\t- add N new elements to the LOG
rewind\t\t\t\t- remove the LOG content
dump\t\t\t\t- dump the file content to the console
help\t\t\t\t- print this help info
"""


class Log:
    """A log in a map; a map without a log becomes an empty one."""

    def __init__(self, map: pmem2.Map) -> None:
        """Open or create the log; raise ValueError if it is full, longer than the map, or the map is too small."""
        if map.size < MINIMUM:
            raise ValueError("log_init: not enough space in the file")
        self.map, self.capacity = map, map.size - DATA
        if map[: len(SIGNATURE)] != SIGNATURE:
            self.rewind()
            map[: len(SIGNATURE)] = SIGNATURE
            map.persist(0, len(SIGNATURE))
        if self.used >= self.capacity:
            raise ValueError("log_init: log is full" if self.used == self.capacity else "log_init: file truncated?")

    @property
    def used(self) -> int:
        """Number of bytes in the log."""
        return self.map.load_u64(USED)

    def rewind(self) -> None:
        """Empty the log; the old records stay on the medium."""
        self.map.store_u64(USED, 0, persist=True)

    def append(self, data: bytes) -> None:
        """Append a record."""
        used = self.used
        if used + len(data) > self.capacity:
            raise ValueError("log_append: no space left in the file")
        self.map.memcpy(DATA + used, data)
        self.map.store_u64(USED, used + len(data), persist=True)

    def append_many(self, records: Sequence[bytes]) -> None:
        """Append all records atomically: if the power fails, all or none are in the log."""
        used, total = self.used, sum(map(len, records))
        offset = DATA + used
        if used + total > self.capacity:
            raise ValueError("log_appendv: no space left in the file")
        for record in records:
            self.map.memcpy(offset, record, pmem2.MemFlag.NOFLUSH)
            offset += len(record)
        self.map.persist(DATA + used, total)
        self.map.store_u64(USED, used + total, persist=True)

    def dump(self) -> bytes:
        """Return the content of the log."""
        return self.map[DATA : DATA + self.used]


def execute(log: Log, commands: list[str]) -> None:
    """Run the commands in order."""
    while commands:
        command = commands.pop(0)
        if command == "append" and commands:
            log.append(os.fsencode(commands.pop(0)))
        elif command == "appendv" and commands:
            found = re.match(r"[ \t-\r]*\+?(0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)", given := commands.pop(0), re.IGNORECASE)
            number = int(re.sub("^0(?=[0-7])", "0o", found[1]), 0) if found else 0  # like C's strtoul
            if number == 0:
                raise ValueError(f"log_appendv: invalid N argument: {given}")
            if len(commands) < number:
                raise ValueError("log_appendv: a too small number of strings provided")
            log.append_many([os.fsencode(commands.pop(0)) for _ in range(number)])
        elif command == "dump":
            sys.stdout.buffer.write(log.dump() + b"\n")
        elif command == "rewind":
            log.rewind()
        else:
            sys.stdout.buffer.write(USAGE.encode())
            raise ValueError(f"log: {command} - unknown command or a too small number of arguments")


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
    if argv[1:2] == ["help"] or len(argv) < 3:
        print(USAGE, end="")
        return 0 if argv[1:2] == ["help"] else 1
    try:
        with pmem2.open(argv[1]) as map:
            execute(Log(map), argv[2:])
    except (OSError, ValueError) as error:
        message = f"{getattr(error, 'function', 'open')}: {error.strerror}" if isinstance(error, OSError) else error
        print(message, file=sys.stderr)
        return int(getattr(error, "code", 1)) % 256  # the C program returns libpmem2's code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
