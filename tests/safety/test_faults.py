# SPDX-License-Identifier: BSD-3-Clause
"""Faults of the system: no memory, no descriptors, no addresses, a failing disk; docs/faults.md lists them."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest
from support.children import RunChild
from support.compiled import border_library
from support.values import EMULATED, ON_PYPY, PAGE, needs_cache_line, not_emulated

import pmem2

PRELUDE = """
import ctypes, errno, gc, os, resource, signal, sys, threading
signal.alarm(1500)  # emulation is slow; elsewhere children.TIMEOUT comes first
import pmem2
path = sys.argv[1]
libc = ctypes.CDLL(None)
BYTE = pmem2.Granularity.BYTE
"""
WITH_BORDER = (
    PRELUDE
    + """
from support.border import ALWAYS, Border, Call, Fault
border = Border()
"""
)


EVERY_ALLOCATION = """
def use_all():
    with pmem2.Source.from_path(path) as source, pmem2.VMReservation(1 << 20) as reservation:
        with source.map(pmem2.Config(reservation=reservation, length=4096)) as map:
            map.memcpy(0, b"x")
            map.persist_many([(0, 1)])
            assert reservation.first() is map
            reservation.extend(4096)
        with source.map(), pmem2.Map.from_existing(source, bytearray(64), BYTE), source.bad_blocks() as bad:
            list(bad)
    with pmem2.Source.from_anon(4096) as source, source.map():
        pass
use_all()
gc.collect()
before = len(os.listdir("/proc/self/fd"))
failed = 0
for count in range(500):
    with border.failing(Call.MALLOC, errno.ENOMEM, skip=count):
        try:
            use_all()
        except MemoryError:
            failed += 1
        except OSError as error:
            assert error.errno == errno.ENOMEM or isinstance(error, pmem2.Pmem2Error), error
            failed += 1
        unused = border.seen(Call.MALLOC) <= count
    gc.collect()
    if unused:
        break
use_all()
gc.collect()
print(failed > 10, unused, len(os.listdir("/proc/self/fd")) == before)
"""


def test_each_allocation_fails(run_child: RunChild, file: Path) -> None:
    """An exception follows the failure of any allocation in libpmem2 or the guards, and pmem2 works on."""
    child = run_child(WITH_BORDER + EVERY_ALLOCATION, str(file), LD_PRELOAD=border_library())
    assert (child.returncode, child.stdout) == (0, "True True True\n"), child.stderr


def test_many_ranges_free_memory(run_child: RunChild, file: Path) -> None:
    """`persist_many` frees what it has allocated, also when a range is refused."""
    code = """
from array import array
ranges = array("Q", [0, 8]) * 100_000
refused = array("Q", [2**40, 1]) + ranges
def virtual_size():
    return int(open("/proc/self/statm").read().split()[0]) * 4096
def use(map):
    map.persist_many(ranges)
    try:
        map.persist_many(refused)
    except ValueError:
        return
with pmem2.open(path) as map:
    use(map)
    before = virtual_size()
    for _ in range(100):
        use(map)
    print(virtual_size() - before < 100 << 20)
"""
    child = run_child("import warnings; warnings.simplefilter('ignore')" + PRELUDE + code, str(file))
    assert (child.returncode, child.stdout) == (0, "True\n"), child.stderr


def test_map_larger_than_memory(file: Path) -> None:
    """A shared map of a file takes no memory of its own: it may be larger than the memory."""
    size = 4 * os.sysconf("SC_PHYS_PAGES") * PAGE
    os.truncate(file, size)
    with pmem2.open(file) as map:
        assert map.size == size
        assert map.protection == pmem2.Protection.READ | pmem2.Protection.WRITE


@needs_cache_line
def test_first_map_without_memory(run_child: RunChild, file: Path) -> None:
    """The first map at CACHE_LINE works although any allocation failed, or raises, and the next one works."""
    code = """
def map_once(source, count):
    with border.failing(Call.MALLOC, errno.ENOMEM, skip=count):
        try:
            map, unused = source.map(), border.seen(Call.MALLOC) <= count
        except (MemoryError, OSError):
            map, unused = None, False
    map = map or source.map()
    map.memcpy(0, b"works")
    map.persist(0, 5)
    return unused

with pmem2.Source.from_path(path) as source:
    unused = count = 0
    while not unused:
        pid = os.fork()
        if not pid:
            os._exit(map_once(source, count))
        unused, count = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), count + 1
    print(unused, count > 5)
"""
    environment = {"LD_PRELOAD": border_library(), "PMEM2_FORCE_GRANULARITY": "CACHE_LINE"}
    child = run_child(WITH_BORDER + code, str(file), **environment)
    assert (child.returncode, child.stdout) == (0, "1 True\n"), child.stderr


def test_msync_fails(run_child: RunChild, file: Path) -> None:
    """A failed write-back raises OSError(EIO) from then on; memory stays usable and durable data stays."""
    code = """
with pmem2.open(path) as map:
    map.memcpy(0, b"durable")
    copy, many = lambda: map.memcpy(8, b"x"), lambda: map.persist_many([(0, 1)])
    with border.failing(Call.MSYNC, errno.EIO):
        for act in (map.persist, map.flush, map.deep_flush, map.drain, copy, many):
            try:
                act()
            except OSError as error:
                print(error.errno)
    print(map[:9])
print(open(path, "rb").read(7))
"""
    child = run_child(WITH_BORDER + code, str(file), LD_PRELOAD=border_library())
    assert child.stdout.splitlines() == ["5"] * 6 + [repr(b"durable\0x"), repr(b"durable")], child.stderr


@not_emulated("does not limit addresses")
def test_descriptors_and_addresses_run_out(run_child: RunChild, file: Path) -> None:
    """Running out of descriptors or addresses raises OSError, and existing maps work on."""
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
pages = [0] * 100_000  # allocated before: growing it may need a mapping
count = 0
def map_all():
    global count
    while True:  # the kernel does not merge neighbours of different protection
        address = libc.mmap(None, 4096, count % 2, 0x22, -1, 0)
        if address == 2**64 - 1:
            return
        pages[count] = address
        count += 1
def unmap(number):
    global count
    for _ in range(number):
        count -= 1
        libc.munmap(pages[count], 4096)
def find_or_none(act):
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
    """Skip where a process may have too many mappings to use them all up, or the interpreter itself needs some."""
    if ON_PYPY or EMULATED:
        pytest.skip("PyPy's collector and QEMU's user emulation map memory at any moment")
    if int(Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii")) > 100_000:
        pytest.skip("a process may have more than 100,000 mappings here (vm.max_map_count)")


@pytest.mark.usefixtures("few_mappings")
def test_unmapping_fails(run_child: RunChild, file: Path) -> None:
    """A dropped Map in a reservation stays mapped when no mapping is left, and searches work on."""
    code = """
low = source.map(pmem2.Config(reservation=reservation, reservation_offset=0, length=4096))
map_all()
del low
for _ in range(3):
    gc.collect()
unmap(count)
for act in (reservation.first, lambda: reservation.find(0, 4096), lambda: reservation.prev(high)):
    print(find_or_none(act))
print(reservation.last() is high, reservation.next(high) if find_or_none(lambda: reservation.next(high)) else None)
high.memcpy(0, b"fine")
high.close()
print(source.map()[:4])
"""
    # malloc overwrites freed memory at once
    poison = {"MALLOC_PERTURB_": "165", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    child = run_child(PRELUDE + NO_MAPPINGS + code, str(file), **poison)
    assert child.stdout.splitlines() == ["None", "None", "None", "True None", "b'fine'"], child.stderr


@pytest.mark.usefixtures("few_mappings")
def test_mappings_run_out(run_child: RunChild, file: Path) -> None:
    """Mapping with few mappings left succeeds or raises ENOMEM, and searches in the reservation work on."""
    code = """
for spare in range(8):
    config = pmem2.Config(reservation=reservation, reservation_offset=spare * 65536, length=4096)
    map_all()
    unmap(spare)
    try:
        map = source.map(config)
    except OSError as error:
        assert error.errno == 12, error
    except MemoryError:
        pass
    gc.collect()
    unmap(1000)  # room for the searches; the next round maps it again
    for act in (reservation.first, lambda: reservation.find(0, 1 << 22), lambda: reservation.prev(high)):
        find_or_none(act)
    assert reservation.last() is high
print(high[0:1])
"""
    child = run_child(PRELUDE + NO_MAPPINGS + code, str(file))
    assert (child.stdout, child.stderr) == ("b'\\x00'\n", "")


def test_signals_during_allocation(run_child: RunChild, tmp_path: Path) -> None:
    """Signals wait for the end of a piece of an allocation, and an exception of their handler removes the new file."""
    code = """
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
border.inject(Call.FALLOCATE, how=Fault.SIGNAL, times=ALWAYS)
pmem2.open(path, "w+", size=1 << 20).close()
print(len(seen), os.path.getsize(path) == 1 << 20)
def interrupt(number, frame):
    seen.append(number)
    raise KeyboardInterrupt
seen.clear()
signal.signal(signal.SIGUSR1, interrupt)
try:
    pmem2.open(path + ".new", "w+", size=1 << 20)
except KeyboardInterrupt:
    print(len(seen), os.path.exists(path + ".new"))
"""
    child = run_child(WITH_BORDER + code, str(tmp_path / "one"), LD_PRELOAD=border_library())
    assert (child.returncode, child.stdout) == (0, "1 True\n1 False\n"), child.stderr


def test_descriptor_limit_is_tiny(run_child: RunChild, file: Path) -> None:
    """A limit below the descriptors that a Source may have raises OSError(EMFILE)."""
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


def test_interrupt_during_copies(run_child: RunChild, file: Path) -> None:
    """Ctrl-C during long copies leaves the map complete and closable."""
    code = """
map = pmem2.open(path)
data = bytes([7]) * len(map)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored
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
    """A file system on a loop device whose own disk, the folder `below` beside it, is too small."""
    below, above = tmp_path / "below", tmp_path / "above"
    below.mkdir()
    above.mkdir()
    image = below / "image"
    undo: list[list[str]] = []
    try:
        if shutil.which("modprobe"):
            subprocess.run(["modprobe", "loop"], capture_output=True, check=False)
        commands = [
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(below)],
            ["truncate", "-s", "32m", str(image)],
            ["mkfs.ext4", "-q", "-O", "^has_journal", str(image)],
            ["mount", "-o", "loop,errors=continue", str(image), str(above)],
        ]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"such a disk cannot be made here: {done.stderr}")
            if command[0] == "mount":
                undo.insert(0, ["umount", "-l", command[-1]])  # the kernel detaches the loop device later
        yield above
    except FileNotFoundError as error:
        pytest.skip(f"such a disk cannot be made here: {error}")
    finally:
        for command in undo:
            subprocess.run(command, check=True)


def test_device_is_full(run_child: RunChild, failing_disk: Path) -> None:
    """After a device could not write, the map persists nothing, with room again neither; a new file does."""
    code = """
import shutil
import subprocess
with pmem2.open(path, "w+", size=8 << 20) as map:
    map[:] = bytes([7]) * len(map)
    for attempt in range(4):
        try:
            map.persist()
        except OSError as error:
            print(error.errno)
        if attempt == 1:
            subprocess.run(["mount", "-o", "remount,size=64m", sys.argv[2]], check=True)
    with pmem2.open(path + ".new", "w+", size=len(map)) as new:
        new.memcpy(0, map)
        print(new[-1])
"""
    child = run_child(PRELUDE + code, str(failing_disk / "file"), str(failing_disk.parent / "below"))
    *errors, byte = child.stdout.splitlines()
    assert errors in (["5"] * 4, ["28"] * 4), child.stderr  # a loop device passes on the error of its file system
    assert byte == "7"


@pytest.mark.medium
def test_ext4_without_journal(run_child: RunChild, failing_disk: Path) -> None:
    """On ext4 without a journal, Linux before 6.18 needs two syncfs after each msync; an error is reported."""
    code = """
pmem2.open(path, "w+", size=8192).close()
for fails in (False, True):
    with pmem2.open(path) as map, border.failing(Call.SYNCFS, errno.EIO, skip=0 if fails else 9, times=ALWAYS):
        try:
            map.memcpy(0, b"x")
            map.persist_many([(0, 1), (4096, 1)])
        except OSError as error:
            print(error.errno == errno.EIO)
        print(border.seen(Call.SYNCFS))
"""
    child = run_child(WITH_BORDER + code, str(failing_disk / "file"), LD_PRELOAD=border_library())
    faulty = tuple(map(int, os.uname().release.split(".")[:2])) < (6, 18)
    assert child.stdout.splitlines() == (["4", "True", "1"] if faulty else ["0", "0"]), child.stderr


@pytest.fixture
def breakable(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A file system on device-mapper, and a function that makes its device fail ("error") or work ("linear")."""
    name, image, folder = "pmem2-breakable", tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    image.touch()
    os.truncate(image, 32 << 20)
    sectors = (32 << 20) // 512

    def run(*command: str) -> str:
        environment = {**os.environ, "DM_DISABLE_UDEV": "1"}  # the machine has no udev
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def table(target: str) -> str:
        return f"0 {sectors} linear {loop} 0" if target == "linear" else f"0 {sectors} error"

    def switch_to(target: str) -> None:
        run("dmsetup", "suspend", "--noflush", "--nolockfs", name)
        run("dmsetup", "load", name, "--table", table(target))
        run("dmsetup", "resume", name)

    with ExitStack() as undo:
        try:
            subprocess.run(["modprobe", "-a", "loop", "dm_mod"], capture_output=True, check=False)
            run("dmsetup", "targets")
            loop = run("losetup", "--find", "--show", str(image))
            undo.callback(run, "losetup", "--detach", loop)
            run("dmsetup", "create", name, "--table", table("linear"))
            undo.callback(run, "dmsetup", "remove", name)
            run("mkfs.ext4", "-q", "-O", "^has_journal", f"/dev/mapper/{name}")
            run("mount", "-o", "errors=continue", f"/dev/mapper/{name}", str(folder))
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no device-mapper here: {error}")
        undo.callback(run, "umount", str(folder))
        yield folder, switch_to


@pytest.mark.medium
@pytest.mark.skipif(os.geteuid() != 0, reason="making devices needs root")
def test_medium_fails(breakable: tuple[Path, Callable[[str], None]]) -> None:
    """Once a device has failed, the map raises OSError(EIO) from each durability call; a new file works."""
    folder, switch_to = breakable
    path = folder / "file"
    with pmem2.open(path, "w+", size=8 * PAGE) as map:
        map.memcpy(0, b"durable")
        switch_to("error")
        calls: list[Callable[[], object]] = [
            lambda: map.memcpy(PAGE, b"lost"),
            map.persist,
            map.flush,
            map.deep_flush,
            lambda: map.persist_many([(2 * PAGE, 8)]),
        ]
        for works in (False, True):
            for call in calls:
                with pytest.raises(OSError, match="Input/output error") as caught:
                    call()
                assert caught.value.errno == errno.EIO
            if not works:
                switch_to("linear")
    other_disk = folder.parent / "new"
    with pmem2.open(other_disk, "w+", size=8 * PAGE) as map:
        map.memcpy(PAGE, b"again")
    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    assert path.read_bytes()[:7] == b"durable"
    assert other_disk.read_bytes()[PAGE : PAGE + 5] == b"again"


def test_remount_read_only(run_child: RunChild, small_disk: Path) -> None:
    """A file system with a writable map cannot become read-only; afterwards only mode "r" works."""
    code = """
import shutil
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


def test_sysfs_is_absent(run_child: RunChild, file: Path) -> None:
    """Without /sys files can be mapped, and properties that need sysfs raise OSError."""
    code = """
import shutil
import subprocess
if os.environ.get("INSIDE") is None:
    inside = f"umount -l /sys; exec {sys.executable} -c 'import os, sys; exec(os.environ[\\"CODE\\"])' {path}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", inside], env={**os.environ, "INSIDE": "1"})
    sys.exit(done.returncode)
print(os.listdir("/sys"))
with pmem2.Source.from_path(path) as source, source.map() as map:
    map.memcpy(0, b"x")
    for call in (lambda: source.device_id, lambda: source.numa_node, lambda: list(source.bad_blocks())):
        try:
            call()
        except OSError as error:
            print(type(error).__name__)
"""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces are not allowed here")
    child = run_child(PRELUDE + code, str(file), CODE=PRELUDE + code)
    assert child.stdout.splitlines() == ["[]", "NosuppError", "DaxRegionNotFoundError"], child.stderr


VARIABLES = (
    "PMEM_MOVNT_THRESHOLD",
    "PMEM_AVX512F",
    "PMEM_MOVDIR64B",
    "PMEM_NO_MOVNT",
    "PMEM_NO_CLWB",
    "PMEM2_LOG_LEVEL",
)


@pytest.mark.parametrize("value", [None, "", "-1", "99999999999999999999", "no number", "%s%n"])
def test_environment_is_nonsense(file: Path, value: str | None) -> None:
    """An empty environment, or nonsense in the variables of libpmem2, changes no stored byte."""
    code = """
import pmem2, sys
with pmem2.open(sys.argv[1]) as map:
    map.memcpy(1, b"x" * 100_000)
    map.memset(200_001, 121, 100_000)
    map.persist()
    print(map.granularity is pmem2.Granularity.PAGE, map[:].count(b"x"), map[:].count(b"y"))
"""
    environment = {} if value is None else dict.fromkeys(VARIABLES, value)
    needed = {name: text for name, text in os.environ.items() if name.startswith(("PYTHON", "LD_", "ASAN_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        env={**needed, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True 100000 100000\n"), done.stderr


def test_user_lacks_permissions(run_child: RunChild, read_only_file: Path) -> None:
    """An unprivileged user maps readable files and gets an OSError for everything else."""
    if os.geteuid():
        pytest.skip("becoming another user needs root")
    code = """
os.setgid(65534)
os.setuid(65534)
with pmem2.Source.from_path(path, writable=False) as source, source.map() as map:
    print(map.protection.name, list(source.bad_blocks()))
    for call in (lambda: source.device_id, lambda: source.numa_node, lambda: pmem2.open(path)):
        try:
            call()
        except OSError as error:
            print(type(error).__name__)
"""
    child = run_child(PRELUDE + code, str(read_only_file))
    wanted = ["READ []", "NosuppError", "DaxRegionNotFoundError", "PermissionError"]
    assert child.stdout.splitlines() == wanted, child.stderr
