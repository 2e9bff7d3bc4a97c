# SPDX-License-Identifier: BSD-3-Clause
"""A file system in user space (FUSE) with odd files in memory: `fuse_server.py FOLDER`, as root, until it is unmounted.

It speaks the protocol of /dev/fuse itself, see <linux/fuse.h>. It has one folder and no fallocate. What a file does
depends on its name:

    direct...   the kernel passes reads and writes on, and refuses to map it
    short...    the same, and a read returns at most 100 bytes
    larger...   the same, and its size is reported 8192 bytes too large
    unknown...  the same, and its size is reported as 0
    cached-larger...  is cached, and its size is reported 8192 bytes too large
    slow...     a write takes 5 milliseconds
    broken      while it exists, writes to all other files fail
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
import time
from typing import Callable, NoReturn, Optional

LOOKUP, FORGET, GETATTR, SETATTR, UNLINK, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 10, 14, 15, 16, 17, 18
RENAME, FSYNC, FLUSH, INIT, OPENDIR, RELEASEDIR, CREATE, INTERRUPT, BATCH_FORGET = 12, 20, 25, 26, 27, 29, 35, 36, 42
HEADER, REPLY = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q10I")
ROOT = 1
DIRECT_IO = 1
UNCACHED = ("direct", "short", "larger", "unknown")
LIE = 8192
MAX_WRITE = 128 << 10
SET_MODE, SET_SIZE = 1, 8


class File:
    """A file in memory."""

    def __init__(self, number: int, mode: int) -> None:
        """Create an empty one."""
        self.number, self.mode, self.data = number, mode, bytearray()


class FileSystem:
    """The folder and its files."""

    def __init__(self) -> None:
        """Start without files."""
        self.names: dict[str, File] = {}
        self.files: dict[int, tuple[str, File]] = {}
        """By number: the name when it was created, and the file."""

    def attributes(self, node: int) -> bytes:
        """Return `struct fuse_attr`."""
        mode, size = stat.S_IFDIR | 0o755, 0
        if node != ROOT:
            name, file = self.files[node]
            mode, size = file.mode, len(file.data)
            size = 0 if name.startswith("unknown") else size + LIE * ("larger" in name)
        times = [0, 0, 0, 0, 0, 0]
        return ATTRIBUTES.pack(node, size, -(-size // 512), *times, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)

    def entry(self, node: int) -> bytes:
        """Return `struct fuse_entry_out`, which the kernel does not cache."""
        return struct.pack("<4Q2I", node, 0, 0, 0, 0, 0) + self.attributes(node)

    def lookup(self, node: int, body: bytes) -> bytes:
        """Find a name."""
        return self.entry(self.names[os.fsdecode(body[:-1])].number)

    def getattr(self, node: int, body: bytes) -> bytes:
        """Return the attributes of a file."""
        return struct.pack("<QII", 0, 0, 0) + self.attributes(node)

    def setattr(self, node: int, body: bytes) -> bytes:
        """Set the size or the mode; ignore the rest."""
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        file = self.files[node][1]
        if valid & SET_SIZE:
            file.data[size:] = bytes(max(0, size - len(file.data)))
        if valid & SET_MODE:
            file.mode = stat.S_IFREG | struct.unpack_from("<I", body, 68)[0] & 0o7777
        return self.getattr(node, body)

    def create(self, node: int, body: bytes) -> bytes:
        """Create and open a file."""
        name, mode = os.fsdecode(body[16:-1]), struct.unpack_from("<4I", body)[1]
        number = ROOT + 1 + len(self.files)
        file = self.names[name] = File(number, stat.S_IFREG | mode & 0o777)
        self.files[number] = name, file
        return self.entry(number) + self.open(number, b"")

    def open(self, node: int, body: bytes) -> bytes:
        """Open a file or the folder."""
        uncached = node != ROOT and self.files[node][0].startswith(UNCACHED)
        return struct.pack("<QII", 0, DIRECT_IO if uncached else 0, 0)

    def read(self, node: int, body: bytes) -> bytes:
        """Read, perhaps less than there is."""
        _, offset, size = struct.unpack_from("<QQI", body)
        name, file = self.files[node]
        return bytes(file.data[offset : offset + (min(size, 100) if name.startswith("short") else size)])

    def write(self, node: int, body: bytes) -> bytes:
        """Write, or fail."""
        _, offset, size = struct.unpack_from("<QQI", body)
        name, file = self.files[node]
        if "broken" in self.names:
            raise OSError(errno.EIO, name)
        if name.startswith("slow"):
            time.sleep(0.005)
        file.data += bytes(max(0, offset - len(file.data)))
        file.data[offset : offset + size] = body[40 : 40 + size]
        return struct.pack("<II", size, 0)

    def rename(self, node: int, body: bytes) -> bytes:
        """Give a file another name, that of another file perhaps; it stays as odd as it was."""
        old, new, _ = body[8:].split(b"\0")
        self.names[os.fsdecode(new)] = self.names.pop(os.fsdecode(old))
        return b""

    def unlink(self, node: int, body: bytes) -> bytes:
        """Remove a name."""
        del self.names[os.fsdecode(body[:-1])]
        return b""

    def statfs(self, node: int, body: bytes) -> bytes:
        """Return the room, a gigabyte of each."""
        return struct.pack("<5Q10I", *[1 << 18] * 5, 4096, 255, 4096, *[0] * 7)

    def succeed(self, node: int, body: bytes) -> bytes:
        """Do nothing."""
        return b""

    def start(self, node: int, body: bytes) -> bytes:
        """Return `struct fuse_init_out`: version 7.31 without options."""
        return struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 9, 9, MAX_WRITE, 1, 0, 0, *[0] * 8)

    def refuse(self, opcode: int) -> NoReturn:
        """Refuse a request, as fallocate."""
        raise OSError(errno.ENOSYS, f"request {opcode}")


CALLS: dict[int, Callable[[FileSystem, int, bytes], bytes]] = {
    INIT: FileSystem.start,
    LOOKUP: FileSystem.lookup,
    GETATTR: FileSystem.getattr,
    SETATTR: FileSystem.setattr,
    CREATE: FileSystem.create,
    OPEN: FileSystem.open,
    OPENDIR: FileSystem.open,
    READ: FileSystem.read,
    WRITE: FileSystem.write,
    RENAME: FileSystem.rename,
    UNLINK: FileSystem.unlink,
    STATFS: FileSystem.statfs,
    **dict.fromkeys((RELEASE, RELEASEDIR, FLUSH, FSYNC), FileSystem.succeed),
}


def serve(device: int, system: FileSystem) -> None:
    """Answer requests until the file system is unmounted."""
    while True:
        try:
            request = os.read(device, MAX_WRITE + 4096)
        except OSError as error:
            if error.errno == errno.ENODEV:  # unmounted
                return
            continue
        _, opcode, unique, node = HEADER.unpack_from(request)[:4]
        if opcode in (FORGET, INTERRUPT, BATCH_FORGET):
            continue
        answer, failure = b"", 0
        try:
            answer = CALLS[opcode](system, node, request[HEADER.size :]) if opcode in CALLS else system.refuse(opcode)
        except KeyError:
            failure = errno.ENOENT
        except OSError as error:
            failure = error.errno or errno.EIO
        os.write(device, REPLY.pack(REPLY.size + len(answer), -failure, unique) + answer)


def mount(folder: str) -> int:
    """Mount it, and return the descriptor for its requests."""
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if libc.mount(b"pmem2-test", os.fsencode(folder), b"fuse", ctypes.c_ulong(0), os.fsencode(options)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    return device


def main() -> Optional[str]:
    """Return why it cannot be mounted, or serve it."""
    try:
        device = mount(sys.argv[1])
    except OSError as error:
        return f"FUSE: {error}"
    print("mounted", flush=True)
    serve(device, FileSystem())
    return None


if __name__ == "__main__":
    sys.exit(main())
