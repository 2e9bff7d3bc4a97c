# SPDX-License-Identifier: BSD-3-Clause
"""Faults of the system: no memory, no descriptors, no addresses, a failing disk. The table is in docs/faults.md."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest
from support.children import RunChild
from support.values import PAGE

import pmem2

FAULTS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
static __thread long left = -1; /* allocations of libpmem2 and of the extension until one fails */
static int broken;
void fail_at(long count) { left = count; }
long allocations_left(void) { return left; }
void break_disk(int how) { broken = how; }
static int fails(void *caller)
{
    Dl_info info;
    const char *name;
    if (left < 0 || !dladdr(caller, &info) || !info.dli_fname || !(name = strrchr(info.dli_fname, '/')))
        return 0;
    if (!strstr(name, "pmem2"))
        return 0;
    return left-- == 0;
}
void *malloc(size_t n)
{
    if (!fails(__builtin_return_address(0)))
        return __libc_malloc(n);
    errno = ENOMEM;
    return 0;
}
void *calloc(size_t n, size_t m)
{
    if (!fails(__builtin_return_address(0)))
        return __libc_calloc(n, m);
    errno = ENOMEM;
    return 0;
}
int msync(void *address, size_t length, int flags)
{
    if (!broken)
        return (int)syscall(SYS_msync, address, length, flags);
    errno = EIO;
    return -1;
}
"""

PRELUDE = """
import ctypes, gc, os, resource, signal, sys, threading
signal.alarm(150)
import pmem2
path = sys.argv[1]
libc = ctypes.CDLL(None)
BYTE = pmem2.Granularity.BYTE
"""


@pytest.fixture
def faults(tmp_path: Path) -> str:
    """A library that makes memory and the disk fail on demand, to be preloaded."""
    source, library = tmp_path / "faults.c", tmp_path / "faults.so"
    source.write_text(FAULTS, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return str(library)


EVERY_ALLOCATION = """
def everything():
    with pmem2.Source.from_path(path) as source, pmem2.VMReservation(1 << 20) as reservation:
        with source.map(pmem2.Config(reservation=reservation, length=4096)) as map:
            map.memcpy(0, b"x")
            assert reservation.first() is map
            reservation.extend(4096)
        with source.map(), pmem2.Map.from_existing(source, bytearray(64), BYTE), source.bad_blocks() as bad:
            list(bad)
    with pmem2.Source.from_anon(4096) as source, source.map():
        pass
everything()
gc.collect()
before = len(os.listdir("/proc/self/fd"))
failed = 0
for count in range(500):
    libc.fail_at(ctypes.c_long(count))
    try:
        everything()
    except MemoryError:
        failed += 1
    except OSError as error:
        assert error.errno == 12 or isinstance(error, pmem2.Pmem2Error), error
        failed += 1
    unused = libc.allocations_left() >= 0
    libc.fail_at(ctypes.c_long(-1))
    gc.collect()
    if unused:
        break
everything()
gc.collect()
print(failed > 10, unused, len(os.listdir("/proc/self/fd")) == before)
"""


def test_each_allocation_fails_in_turn(run_child: RunChild, file: Path, faults: str) -> None:
    """Whichever allocation of libpmem2 or of the guards fails, it is an exception, and everything works afterwards."""
    child = run_child(PRELUDE + EVERY_ALLOCATION, str(file), LD_PRELOAD=faults)
    assert (child.returncode, child.stdout) == (0, "True True True\n"), child.stderr


def test_disk_that_fails(run_child: RunChild, file: Path, faults: str) -> None:
    """Write-back that fails with EIO is an OSError each time, and the map goes on; what was durable before is so."""
    code = """
with pmem2.open(path) as map:
    map.memcpy(0, b"durable")
    libc.break_disk(1)
    copy, many = lambda: map.memcpy(8, b"x"), lambda: map.persist_many([(0, 1)])
    for act in (map.persist, map.flush, map.deep_flush, copy, many):
        try:
            act()
        except OSError as error:
            print(error.errno)
    libc.break_disk(0)
    map.persist()
print(open(path, "rb").read(9))
"""
    child = run_child(PRELUDE + code, str(file), LD_PRELOAD=faults)
    assert child.stdout.splitlines() == ["5"] * 5 + [repr(b"durable\0x")], child.stderr


def test_no_descriptors_and_no_addresses(run_child: RunChild, file: Path) -> None:
    """The limits on descriptors and addresses are OSErrors that say so; existing maps work on."""
    code = """
map = pmem2.open(path)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
source = pmem2.Source.from_path(path)
resource.setrlimit(resource.RLIMIT_NOFILE, ([os.dup(0) for _ in range(20)][-1] + 1, limits[1]))
for act in (lambda: pmem2.Source.from_path(path), lambda: pmem2.Source.from_fd(source.fd)):
    try:
        act()
    except OSError as error:
        print(error.errno)
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
for act in (source.map, lambda: pmem2.VMReservation(1 << 30)):
    try:
        act()
    except OSError as error:
        print(error.errno)
map.memcpy(0, b"fine")
print(map[:4])
"""
    child = run_child(PRELUDE + code, str(file))
    assert child.stdout.splitlines() == ["24", "24", "12", "12", "b'fine'"], child.stderr


NO_MAPPINGS = """
import warnings
warnings.simplefilter("ignore", ResourceWarning)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
made = [0] * 100_000  # beforehand: growing it may need a mapping
def used_up():
    count = 0
    while True:  # neighbours of different protection are not merged
        address = libc.mmap(None, 4096, count % 2, 0x22, -1, 0)
        if address == 2**64 - 1:
            return count
        made[count] = address
        count += 1
def given_back(first, last):
    for index in range(first, last):
        libc.munmap(made[index], 4096)
def looked(act):
    try:
        return act()
    except pmem2.MappingNotFoundError:
        return None
source = pmem2.Source.from_path(path)
reservation = pmem2.VMReservation(1 << 22)
high = source.map(pmem2.Config(reservation=reservation, reservation_offset=1 << 21, length=4096))
"""


@pytest.fixture
def few_mappings() -> None:
    """What a test needs that uses up all mappings that a process may have."""
    if int(Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii")) > 100_000:
        pytest.skip("a process may have more than 100,000 mappings here (vm.max_map_count)")


@pytest.mark.usefixtures("few_mappings")
def test_map_that_cannot_be_unmapped(run_child: RunChild, file: Path) -> None:
    """A Map in a reservation that is dropped when no mapping is left stays mapped; searches go on."""
    code = """
low = source.map(pmem2.Config(reservation=reservation, reservation_offset=0, length=4096))
count = used_up()
del low
for _ in range(3):
    gc.collect()
given_back(0, count)
for act in (reservation.first, lambda: reservation.find(0, 4096), lambda: reservation.prev(high)):
    print(looked(act))
print(reservation.last() is high, reservation.next(high) if looked(lambda: reservation.next(high)) else None)
high.memcpy(0, b"fine")
high.close()
print(source.map()[:4])
"""
    # what is freed is overwritten at once
    poison = {"MALLOC_PERTURB_": "165", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    child = run_child(PRELUDE + NO_MAPPINGS + code, str(file), **poison)
    assert child.stdout.splitlines() == ["None", "None", "None", "True None", "b'fine'"], child.stderr


@pytest.mark.usefixtures("few_mappings")
def test_map_that_can_be_neither_made_nor_undone(run_child: RunChild, file: Path) -> None:
    """Whatever few mappings are left, mapping into a reservation succeeds or says ENOMEM, and searches go on."""
    code = """
for spare in range(8):
    config = pmem2.Config(reservation=reservation, reservation_offset=spare * 65536, length=4096)
    count = used_up()
    given_back(0, spare)
    try:
        map = source.map(config)
    except OSError as error:
        assert error.errno == 12, error
    except MemoryError:
        pass
    gc.collect()
    given_back(spare, count)
    for act in (reservation.first, lambda: reservation.find(0, 1 << 22), lambda: reservation.prev(high)):
        looked(act)
    assert reservation.last() is high
print(high[0:1])
"""
    child = run_child(PRELUDE + NO_MAPPINGS + code, str(file))
    assert (child.stdout, child.stderr) == ("b'\\x00'\n", "")


INTERRUPTED = """
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>
/* As on a tmpfs: a signal undoes everything, and here one always comes. */
int posix_fallocate(int file, off_t offset, off_t length)
{
    sigset_t masked;
    sigprocmask(SIG_BLOCK, 0, &masked);
    if (!sigismember(&masked, SIGUSR1))
        return EINTR;
    kill(getpid(), SIGUSR1);
    return ftruncate(file, offset + length) ? errno : 0;
}
int posix_fallocate64(int file, off_t offset, off_t length)
{
    return posix_fallocate(file, offset, length);
}
"""


def test_signals_while_space_is_allocated(run_child: RunChild, tmp_path: Path) -> None:
    """They wait for its end; an exception of a handler then removes the file."""
    source, library = tmp_path / "interrupted.c", tmp_path / "interrupted.so"
    source.write_text(INTERRUPTED, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    code = """
    import os, signal, sys
    signal.alarm(100)
    import pmem2
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    pmem2.open(sys.argv[1], "w+", size=1 << 30).close()
    print(len(seen), os.path.getsize(sys.argv[1]) == 1 << 30)
    def enough(number, frame):
        seen.append(number)
        raise KeyboardInterrupt
    seen.clear()
    signal.signal(signal.SIGUSR1, enough)
    try:
        pmem2.open(sys.argv[2], "w+", size=1 << 30)
    except KeyboardInterrupt:
        print(len(seen), os.path.exists(sys.argv[2]))
    """
    child = run_child(code, str(tmp_path / "one"), str(tmp_path / "two"), LD_PRELOAD=str(library))
    assert (child.returncode, child.stdout) == (0, "1 True\n1 False\n"), child.stderr


def test_hardly_any_descriptors_allowed(run_child: RunChild, file: Path) -> None:
    """A limit below the descriptors that a Source may have is the same OSError as no descriptors left."""
    code = """
with open(path, "r+b", buffering=0) as file:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        pmem2.Source.from_fd(file)
    except OSError as error:
        print(error.errno)
"""
    child = run_child(PRELUDE + code, str(file))
    assert child.stdout == "24\n", child.stderr


def test_interrupt_in_long_copies(run_child: RunChild, file: Path) -> None:
    """Ctrl-C in the middle of long copies leaves the map whole and able to close."""
    code = """
map = pmem2.open(path)
data = bytes([7]) * len(map)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    while True:
        map.memcpy(0, data)
except KeyboardInterrupt:
    print(map[:] == data)
map.close()
print(map.closed)
"""
    child = run_child(PRELUDE + code, str(file))
    assert child.stdout.splitlines() == ["True", "True"], child.stderr


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system on a device that has run out of real space: what it promised, it cannot write."""
    below, above = tmp_path / "below", tmp_path / "above"
    below.mkdir()
    above.mkdir()
    image = below / "image"
    undo: list[list[str]] = []
    try:
        commands = [
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(below)],
            ["truncate", "-s", "32m", str(image)],
            ["mkfs.ext4", "-q", "-O", "^has_journal", str(image)],
            ["mount", "-o", "loop,errors=continue", str(image), str(above)],
        ]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no such disk can be made here: {done.stderr}")
            if command[0] == "mount":
                undo.insert(0, ["umount", command[-1]])
        yield above
    except FileNotFoundError as error:
        pytest.skip(f"no such disk can be made here: {error}")
    finally:
        for command in undo:
            subprocess.run(command, check=True)


def test_device_that_fails(run_child: RunChild, failing_disk: Path) -> None:
    """A device that cannot write is an OSError from the call that was to make it durable; the map goes on."""
    code = """
with pmem2.open(path, "w+", size=8 << 20) as map:
    map[:] = bytes([7]) * len(map)
    try:
        map.persist()
    except OSError as error:
        print(error.errno)
    print(map[-1])
"""
    child = run_child(PRELUDE + code, str(failing_disk / "file"))
    error, byte = child.stdout.splitlines()
    assert error in ("5", "28"), child.stderr  # a loop device passes on what its own file system says
    assert byte == "7"


@pytest.fixture
def breakable(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A file system on a device of device-mapper, and what makes that device fail ("error") or work ("linear")."""
    name, image, folder = "pmem2-breakable", tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    image.touch()
    os.truncate(image, 32 << 20)
    sectors = (32 << 20) // 512

    def must(*command: str) -> str:
        environment = {**os.environ, "DM_DISABLE_UDEV": "1"}  # the machine has none
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def table(target: str) -> str:
        return f"0 {sectors} linear {loop} 0" if target == "linear" else f"0 {sectors} error"

    def become(target: str) -> None:
        must("dmsetup", "suspend", "--noflush", "--nolockfs", name)
        must("dmsetup", "load", name, "--table", table(target))
        must("dmsetup", "resume", name)

    with ExitStack() as undo:
        try:
            subprocess.run(["modprobe", "-a", "loop", "dm_mod"], capture_output=True, check=False)
            must("dmsetup", "targets")
            loop = must("losetup", "--find", "--show", str(image))
            undo.callback(must, "losetup", "--detach", loop)
            must("dmsetup", "create", name, "--table", table("linear"))
            undo.callback(must, "dmsetup", "remove", name)
            must("mkfs.ext4", "-q", "-O", "^has_journal", f"/dev/mapper/{name}")
            must("mount", "-o", "errors=continue", f"/dev/mapper/{name}", str(folder))
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no device-mapper here: {error}")
        undo.callback(must, "umount", str(folder))
        yield folder, become


@pytest.mark.medium
@pytest.mark.skipif(os.geteuid() != 0, reason="making devices needs root")
def test_medium_that_fails(breakable: tuple[Path, Callable[[str], None]]) -> None:
    """Where the device fails, each call that makes something durable is an OSError(EIO); what was durable stays."""
    folder, become = breakable
    path = folder / "file"
    with pmem2.open(path, "w+", size=8 * PAGE) as map:
        map.memcpy(0, b"durable")
        become("error")
        ways: list[Callable[[], object]] = [
            lambda: map.memcpy(PAGE, b"lost"),
            lambda: store_and(map.persist),
            lambda: store_and(map.flush),
            lambda: store_and(map.deep_flush),
            lambda: store_and(lambda: map.persist_many([(2 * PAGE, 8)])),
        ]

        def store_and(act: Callable[[], object]) -> None:
            map[2 * PAGE] = (map[2 * PAGE] + 1) % 256  # the kernel reports each failed page once
            act()

        for way in ways:
            with pytest.raises(OSError, match="Input/output error") as caught:
                way()
            assert caught.value.errno == errno.EIO
        become("linear")
        map.memcpy(PAGE, b"again")
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    content = path.read_bytes()
    assert (content[:7], content[PAGE : PAGE + 5]) == (b"durable", b"again")


def test_file_system_that_becomes_read_only(run_child: RunChild, small_disk: Path) -> None:
    """It cannot while a writable map lives; afterwards files can only be mapped for reading."""
    code = """
import subprocess
disk = os.path.dirname(path)
remount = lambda: subprocess.run(["mount", "-o", "remount,ro", disk], stderr=subprocess.DEVNULL).returncode
with pmem2.open(path, "w+", size=4096) as map:
    map.memcpy(0, b"kept")
    print(remount() != 0)
print(remount() == 0)
try:
    pmem2.open(path)
except OSError as error:
    print(error.errno)
with pmem2.open(path, "r") as map:
    print(map[:4])
"""
    child = run_child(PRELUDE + code, str(small_disk / "file"))
    assert child.stdout.splitlines() == ["True", "True", "30", "b'kept'"], child.stderr


def test_without_sys(run_child: RunChild, file: Path) -> None:
    """Where /sys is not mounted, files are mapped as ever, and what only sysfs knows is an OSError."""
    code = """
import subprocess
if os.environ.get("INSIDE") is None:
    inside = f"umount -l /sys; exec {sys.executable} -c 'import os, sys; exec(os.environ[\\"CODE\\"])' {path}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", inside], env={**os.environ, "INSIDE": "1"})
    sys.exit(done.returncode)
print(os.listdir("/sys"))
with pmem2.Source.from_path(path) as source, source.map() as map:
    map.memcpy(0, b"x")
    for look in (lambda: source.device_id, lambda: source.numa_node, lambda: list(source.bad_blocks())):
        try:
            look()
        except OSError as error:
            print(type(error).__name__)
"""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces for us")
    child = run_child(PRELUDE + code, str(file), CODE=PRELUDE + code)
    assert child.stdout.splitlines() == ["[]", "NosuppError", "DaxRegionNotFoundError"], child.stderr


NUMBERS = ("PMEM_MOVNT_THRESHOLD", "PMEM_AVX512F", "PMEM_MOVDIR64B", "PMEM_NO_MOVNT", "PMEM_NO_CLWB", "PMEM2_LOG_LEVEL")


@pytest.mark.parametrize("value", [None, "", "-1", "99999999999999999999", "no number", "%s%n"])
def test_environment(file: Path, value: str | None) -> None:
    """With no variable at all, or nonsense in those that libpmem2 reads, everything is written as ever."""
    code = """
import pmem2, sys
with pmem2.open(sys.argv[1]) as map:
    map.memcpy(1, b"x" * 100_000)
    map.memset(200_001, 121, 100_000)
    map.persist()
    print(map.granularity is pmem2.Granularity.PAGE, map[:].count(b"x"), map[:].count(b"y"))
"""
    environment = {} if value is None else dict.fromkeys(NUMBERS, value)
    started = {name: kept for name, kept in os.environ.items() if name.startswith(("PYTHON", "LD_", "ASAN_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        env={**started, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True 100000 100000\n"), done.stderr


def test_user_without_permissions(run_child: RunChild, locked: Path) -> None:
    """A plain user maps what may be read, and is told where libndctl or the file do not allow more."""
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    code = """
os.setgid(65534)
os.setuid(65534)
with pmem2.Source.from_path(path, writable=False) as source, source.map() as map:
    print(map.protection.name, list(source.bad_blocks()))
    for look in (lambda: source.device_id, lambda: source.numa_node, lambda: pmem2.open(path)):
        try:
            look()
        except OSError as error:
            print(type(error).__name__)
"""
    child = run_child(PRELUDE + code, str(locked))
    wanted = ["READ []", "NosuppError", "DaxRegionNotFoundError", "PermissionError"]
    assert child.stdout.splitlines() == wanted, child.stderr
