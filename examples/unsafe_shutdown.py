# SPDX-License-Identifier: BSD-3-Clause
"""Store a text and detect unsafe shutdowns: `python unsafe_shutdown.py read|write FILE [TEXT]`.

NVDIMMs count how often they lost power before their buffers were empty. A file that was open at that time may be wrong.
"""

from __future__ import annotations

import os
import sys

import pmem2

SIGNATURE = b"SHUTDOWN\0"  # at offset 0
FLAGS, SIZE, ID, USC, VALID, TEXT = 16, 24, 32, 544, 552, 556  # offsets
IN_USE, USC_KNOWN = 1, 2
USAGE = """usage: {} <command> <file> [<arg>]\nWhere available commands are:
\tread - print the file contents\n\twrite - store <arg> into the file"""


class Unsafe(Exception):
    """The content of the file may be wrong."""


class Pool:
    """A text in a map, with the state of the device when it was written."""

    def __init__(self, map: pmem2.Map, source: pmem2.Source, name: str) -> None:
        """Check the device, and mark the pool as in use."""
        self.map, self.source, self.name = map, source, name
        valid = map[: len(SIGNATURE)] == SIGNATURE and map.load_u64(FLAGS) < 4 and map.load_u64(SIZE) == map.size
        if valid:  # inverted, as in the C program: both programs must write the same file
            self.replace(0, bytes(VALID))
            self.replace(SIZE, map.size.to_bytes(8, sys.byteorder))
            self.replace(0, SIGNATURE)
        self.interrupted = bool(map.load_u64(FLAGS) & IN_USE)
        self.check_device()
        self.set_flags(map.load_u64(FLAGS) | IN_USE)

    def replace(self, offset: int, data: bytes) -> None:
        """Store data and deep-flush it, so that it survives an unsafe shutdown."""
        self.map[offset : offset + len(data)] = data
        self.map.deep_flush(offset, len(data))

    def set_flags(self, flags: int) -> None:
        """Store and deep-flush the flags."""
        self.map.store_u64(FLAGS, flags)
        self.map.deep_flush(FLAGS, 8)

    def check_device(self) -> None:
        """Compare the device with its stored state; raise Unsafe if the content may be wrong."""
        flags = self.map.load_u64(FLAGS)
        try:
            count, device = self.source.device_usc, self.source.device_id.encode()
        except OSError as error:
            print(f"{getattr(error, 'function', self.name)}: {error.strerror}", file=sys.stderr)
            if isinstance(error, pmem2.NosuppError) and not flags & USC_KNOWN:
                return
            unable = "Unable to determine the state of the pool"
            raise Unsafe(f"{unable} {self.name}. Accessing the pool might be unsafe.") from error
        if self.map[ID:USC].partition(b"\0")[0] == device[: USC - ID]:
            if self.map.load_u64(USC) == count:
                return
            if self.interrupted:
                reason = "might be corrupted, silent data corruption is possible. Accessing the pool is unsafe."
                raise Unsafe(f"The pool {self.name} {reason}")
        self.replace(ID, bytes(VALID - ID))
        self.replace(USC, count.to_bytes(8, sys.byteorder))
        self.replace(ID, device[: USC - ID])  # last: the id makes the count valid
        self.set_flags(flags | USC_KNOWN)

    def recover(self) -> None:
        """Clear a text that is not marked as valid."""
        if not any(self.map[VALID:TEXT]):
            self.map.memset(TEXT, 0, self.map.size - TEXT)

    def write(self, text: bytes) -> None:
        """Store a text; ignore one that is too long, as the C program does."""
        if TEXT + len(text) < self.map.size:
            self.map.memcpy(TEXT, text + b"\0")
            self.map[VALID:TEXT] = (1).to_bytes(4, sys.byteorder)
            self.map.persist(VALID, 4)

    def read(self) -> bytes:
        """Return the text."""
        return self.map[TEXT:].partition(b"\0")[0] if any(self.map[VALID:TEXT]) else b"empty string"

    def close(self) -> None:
        """Deep-flush everything, then mark the pool as not in use."""
        self.map.deep_flush()
        self.set_flags(self.map.load_u64(FLAGS) & ~IN_USE)


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
    if len(argv) < 3 or argv[1] not in ("read", "write"):
        print(USAGE.format(argv[0]), file=sys.stderr)
        return 1
    try:
        with pmem2.Source.from_path(argv[2]) as source, source.map() as map:
            pool = Pool(map, source, argv[2])
            if pool.interrupted:
                print(f"The pool {argv[2]} was not closed cleanly. User data recovery is required.", file=sys.stderr)
                pool.recover()
            if argv[1] == "read":
                sys.stdout.buffer.write(pool.read() + b"\n")
            elif len(argv) > 3:
                pool.write(os.fsencode(argv[3]))
            else:
                print("expected string input argument", file=sys.stderr)
            pool.close()
            return int(argv[1] == "write" and len(argv) == 3)
    except (OSError, Unsafe) as error:
        print(f"{argv[2]}: {error.strerror}" if isinstance(error, OSError) else error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
