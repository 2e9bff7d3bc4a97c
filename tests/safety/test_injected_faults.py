# SPDX-License-Identifier: BSD-3-Clause
"""System calls that fail, return less, are interrupted or block, one at a time; see tests/support/border.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.children import RunChild
from support.compiled import border_library

if sys.platform == "win32":
    pytest.skip("needs LD_PRELOAD", allow_module_level=True)

PRELUDE = """
import errno, mmap, os, signal, sys, threading
signal.alarm(150)
import pmem2
from support.border import ALWAYS, Border, Call, Fault, Kind
border, path = Border(), sys.argv[1]
"""

DURABILITY_CALLS = {
    "persist": "m.persist()",
    "persist_range": "m.persist(5000, 10)",
    "flush": "m.flush()",
    "deep_flush": "m.deep_flush()",
    "persist_many": "m.persist_many([(0, 8), (1 << 20, 8)])",
    "flush_many": "m.flush_many([(0, 8), (1 << 20, 8)])",
    "memcpy": "m.memcpy(0, b'x')",
    "memset": "m.memset(0, 1, 1)",
    "memcpy_many": "m.memcpy_many([(0, b'x'), (1 << 20, b'y')])",
    "store_u64": "m.store_u64(0, 1, persist=True)",
    "compare_exchange_u64": "m.compare_exchange_u64(0, 7, 8, persist=True)",
    "fetch_add_u64": "m.fetch_add_u64(0, 1, persist=True)",
}
# These fail only because an earlier call has failed: they have nothing to write back themselves.
EMPTY_CALLS = {
    "drain": "m.drain()",
    "persist_nothing": "m.persist(0, 0)",
    "deep_flush_nothing": "m.deep_flush(0, 0)",
    "persist_no_ranges": "m.persist_many([])",
    "flush_no_ranges": "m.flush_many([(0, 0)])",
    "copy_nothing": "m.memcpy(0, b'')",
    "copy_no_pieces": "m.memcpy_many([])",
}

every_durability_call = pytest.mark.parametrize("call", DURABILITY_CALLS.values(), ids=list(DURABILITY_CALLS))


def lines(run_child: RunChild, file: Path, code: str) -> list[str]:
    """Run *code* with the library preloaded and return the lines that it prints."""
    child = run_child(PRELUDE + code, str(file), LD_PRELOAD=border_library())
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


@every_durability_call
def test_failing_msync(run_child: RunChild, file: Path, call: str) -> None:
    """A durability call raises the errno of a failed msync, and the map can be closed."""
    code = f"""
for error in (errno.EIO, errno.ENOSPC):
    with pmem2.open(path) as m, border.failing(Call.MSYNC, error):
        try:
            {call}
        except OSError as raised:
            print(raised.errno == error)
"""
    assert lines(run_child, file, code) == ["True", "True"]


@pytest.mark.libpmem2
@every_durability_call
def test_failure_stays(run_child: RunChild, file: Path, call: str) -> None:
    """After one failed write-back every later durability call of that map raises the same error."""
    later = "\n".join(f"attempt({later!r})" for later in [*DURABILITY_CALLS.values(), *EMPTY_CALLS.values()])
    code = f"""
def attempt(call):
    try:
        exec(call)
    except OSError as error:
        if error.errno == errno.ENOSPC and "new file" in str(error):
            return
    print("no error from", call)

with pmem2.open(path) as other, pmem2.open(path) as m:
    with border.failing(Call.MSYNC, errno.ENOSPC):
        attempt({call!r})
    {later.replace(chr(10), chr(10) + "    ")}
    m[0:4] = b"work"
    m.memcpy(4, b"!", pmem2.MemFlag.NOFLUSH)
    m.store_u64(8, 1)
    other.persist()
    print(m[:5])
"""
    assert lines(run_child, file, code) == ["b'work!'"]


def test_failure_of_shared_description(run_child: RunChild, file: Path) -> None:
    """Live maps of one opened file fail with the first: Linux reports the error to none of the others."""
    code = """
def works(m):
    try:
        m.persist()
        return True
    except OSError:
        return False

with pmem2.Source.from_path(path) as source, pmem2.Source.from_fd(source.fd) as duplicate:
    closed, failing, sibling, copied = source.map(), source.map(), source.map(), duplicate.map()
apart, closed = pmem2.open(path), closed.close()
other = pmem2.open(path + ".other", "x+", size=4096)
with border.failing(Call.MSYNC, errno.EIO):
    print(works(failing), works(sibling), works(copied), works(apart), works(other))
sibling.close()
print(works(failing), works(copied), works(apart))
"""
    assert lines(run_child, file, code) == ["False False False True True", "False False True"]


def test_failure_stays_in_threads(run_child: RunChild, file: Path) -> None:
    """No call of another thread that begins after the failed one succeeds."""
    code = """
failed, succeeded_later = threading.Event(), []

def persist_until_failure(page):
    while True:
        after = failed.is_set()
        try:
            m.persist(page * 4096, 8)
        except OSError:
            failed.set()
            return
        if after:
            succeeded_later.append(page)

with pmem2.open(path) as m:
    with border.failing(Call.MSYNC, errno.EIO, skip=100):
        threads = [threading.Thread(target=persist_until_failure, args=(page,)) for page in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
print(succeeded_later)
"""
    assert lines(run_child, file, code) == ["[]"]


@every_durability_call
def test_interrupted_msync(run_child: RunChild, file: Path, call: str) -> None:
    """A durability call repeats an msync that a signal interrupts."""
    code = f"""
with pmem2.open(path) as m:
    with border.recording(m) as before:
        {call}
    with border.recording(m) as events, border.failing(Call.MSYNC, errno.EINTR):
        {call}
        print(border.seen(Call.MSYNC) - sum(event.kind == Kind.MSYNC for event in before))
    print(events == before)
"""
    assert lines(run_child, file, code) == ["1", "True"]


CREATING = [("w+", False), ("w+", True), ("x+", False)]


@pytest.mark.libpmem2
@pytest.mark.parametrize(("mode", "exists"), CREATING, ids=["w+", "w+ existing", "x+"])
def test_new_file_synced(run_child: RunChild, tmp_path: Path, mode: str, exists: bool) -> None:
    """`open` syncs the file and its folder, and raises OSError if either fails; a file that is new goes away then."""
    code = f"""
for failing in (0, 1, None):
    if {exists}:
        open(path, "wb").write(b"old")
    with border.failing(Call.FSYNC, errno.EIO, skip=2 if failing is None else failing):
        try:
            pmem2.open(path, {mode!r}, size=8192).close()
            print("opened", border.seen(Call.FSYNC), os.path.getsize(path))
        except OSError as error:
            print(error.errno == errno.EIO, os.path.exists(path))
"""
    assert lines(run_child, tmp_path / "new", code) == [f"True {exists}"] * 2 + ["opened 2 8192"]


@pytest.mark.libpmem2
def test_unreadable_folder_synced(run_child: RunChild, tmp_path: Path) -> None:
    """`open` makes a file in a folder that cannot be synced durable too, by a sync of the file system."""
    code = """
for error in (errno.EACCES, errno.EINVAL):
    with border.failing(Call.FSYNC, error, skip=1):
        pmem2.open(path, "w+", size=4096).close()
        print(border.seen(Call.FSYNC))
"""
    assert lines(run_child, tmp_path / "new", code) == ["2", "2"]


def test_failing_munmap(run_child: RunChild, file: Path) -> None:
    """An explicit close() whose munmap fails raises OSError; the map works, and the second close() succeeds."""
    code = """
m = pmem2.open(path)
with border.failing(Call.MUNMAP, errno.ENOMEM):
    try:
        m.close()
    except OSError as error:
        print(error.errno == errno.ENOMEM)
print(m.closed)
m[0:2] = b"ok"
m.persist(0, 2)
view = m.view(0, 2)
print(bytes(view))
del view
m.close()
print(m.closed)
"""
    assert lines(run_child, file, code) == ["True", "False", "b'ok'", "True"]


def test_failing_mmap(run_child: RunChild, file: Path) -> None:
    """A map whose mmap fails raises OSError and leaves no descriptor; the next one succeeds."""
    code = """
before = len(os.listdir("/proc/self/fd"))
for skip in range(3):
    with border.failing(Call.MMAP, errno.ENOMEM, skip=skip, times=ALWAYS):
        try:
            pmem2.open(path).close()
        except OSError as error:
            print(skip, error.errno == errno.ENOMEM)
print(len(os.listdir("/proc/self/fd")) == before)
pmem2.open(path).close()
"""
    printed = lines(run_child, file, code)
    assert printed[0] == "0 True"
    assert printed[-1] == "True"
    assert not any("False" in line for line in printed)


def test_failing_device_map(run_child: RunChild, file: Path) -> None:
    """A map of a DAX device that lacks memory for its state raises an exception and leaves nothing mapped."""
    code = """
from pmem2 import _files, _source
_source.dax_device_without_nvdimm = lambda fd: _files.DaxGeometry(8 << 20, 2 << 20, 0)
failed = 0
with pmem2.Source.from_path(path) as source:
    for skip in range(10):
        try:
            with border.failing(Call.MALLOC, errno.ENOMEM, skip=skip):
                source.map().close()
        except (MemoryError, OSError):
            failed += 1
        gc.collect()
        assert path not in open("/proc/self/maps").read(), skip
print(failed > 1)
"""
    prelude = "import gc, warnings\nwarnings.simplefilter('ignore')\n"
    assert lines(run_child, file, prelude + code) == ["True"]


def test_failing_fallocate(run_child: RunChild, file: Path) -> None:
    """A new file that gets no space is removed, an existing one keeps its contents, and no descriptor is left."""
    code = """
before = len(os.listdir("/proc/self/fd"))
with open(path, "r+b") as f:
    f.write(b"contents")
size = os.path.getsize(path)
for mode, name in (("x+", path + ".new"), ("w+", path + ".new"), ("w+", path)):
    with border.failing(Call.FALLOCATE, errno.ENOSPC):
        try:
            pmem2.open(name, mode, size=1 << 20)
        except OSError as error:
            print(mode, error.errno == errno.ENOSPC, os.path.exists(name))
with open(path, "rb") as f:
    print(f.read(8), os.path.getsize(path) == size)
print(len(os.listdir("/proc/self/fd")) == before)
"""
    assert lines(run_child, file, code) == [
        "x+ True False",
        "w+ True False",
        "w+ True True",
        "b'contents' True",
        "True",
    ]


def test_failing_fcntl(run_child: RunChild, file: Path) -> None:
    """A source that gets no duplicate of the descriptor raises OSError(EMFILE) and leaves none open."""
    code = """
before = len(os.listdir("/proc/self/fd"))
with border.failing(Call.FCNTL, errno.EMFILE, times=ALWAYS):
    try:
        pmem2.Source.from_path(path)
    except OSError as error:
        print(error.errno == errno.EMFILE)
print(len(os.listdir("/proc/self/fd")) == before)
"""
    assert lines(run_child, file, code) == ["True", "True"]


@pytest.mark.parametrize("call", ["PREAD", "PWRITE"])
def test_interrupted_transfer(run_child: RunChild, file: Path, call: str) -> None:
    """A mcsafe call repeats a transfer that a signal interrupts."""
    code = f"""
with pmem2.Source.from_path(path) as s:
    s.pwrite_mcsafe(b"contents")
    with border.failing(Call.{call}, errno.EINTR):
        s.pwrite_mcsafe(b"CONTENTS")
        print(s.pread_mcsafe(8))
"""
    assert lines(run_child, file, code) == ["b'CONTENTS'"]


def test_huge_transfer(run_child: RunChild, tmp_path: Path) -> None:
    """A read of more than the kernel moves in one call is split; each byte is asked for once."""
    code = """
size = (5 << 29) + 17
os.truncate(path, size)
buffer = mmap.mmap(-1, size)
with pmem2.Source.from_path(path) as s:
    with border.recording() as events, border.failing(Call.PREAD, how=Fault.PRETEND, times=ALWAYS):
        s.pread_mcsafe_into(buffer)
done = 0
for event in events:
    assert event.offset == done, events
    done += event.length
print(done == size, max(event.length for event in events) < 1 << 31)
"""
    path = tmp_path / "huge"
    path.touch()
    assert lines(run_child, path, code) == ["True True"]


def test_read_is_one_call(run_child: RunChild, file: Path) -> None:
    """A read of a range that was inside before is one pread, and no fstat."""
    code = """
with pmem2.Source.from_path(path) as s:
    buffer = bytearray(65536)
    os.truncate(path, 65536)
    s.pread_mcsafe_into(buffer)
    with border.recording() as events, border.failing(Call.FSTAT, skip=1 << 30):
        s.pread_mcsafe_into(buffer)
        print(border.seen(Call.FSTAT))
        try:
            s.pread_mcsafe_into(buffer, 1)
        except pmem2.LengthOutOfRangeError:
            print(border.seen(Call.FSTAT))
    print(len(events))
"""
    assert lines(run_child, file, code) == ["0", "1", "1"]


@pytest.mark.parametrize("how", ["SHORT", "FAIL"])
def test_partial_read(run_child: RunChild, file: Path, how: str) -> None:
    """A read that returns fewer bytes goes on; an input error raises IoFailError."""
    code = f"""
with pmem2.Source.from_path(path) as s:
    s.pwrite_mcsafe(bytes(range(200)))
    with border.failing(Call.PREAD, errno.EIO, how=Fault.{how}):
        try:
            print(s.pread_mcsafe(200) == bytes(range(200)))
        except pmem2.IoFailError as error:
            print(error.errno == errno.EINVAL)
"""
    assert lines(run_child, file, code) == ["True"]


def test_file_that_shrinks(run_child: RunChild, file: Path) -> None:
    """A file that is truncated during a read raises LengthOutOfRangeError."""
    code = """
with pmem2.Source.from_path(path) as s:
    errors = []
    def read():
        try:
            s.pread_mcsafe(8192)
        except pmem2.LengthOutOfRangeError as error:
            errors.append(error)
    border.inject(Call.PREAD, how=Fault.BLOCK)
    thread = threading.Thread(target=read)
    thread.start()
    border.wait_until_blocked(Call.PREAD)
    os.truncate(path, 4096)
    border.release(Call.PREAD)
    thread.join()
    print(len(errors))
"""
    assert lines(run_child, file, code) == ["1"]


def test_source_closed_during_read(run_child: RunChild, file: Path) -> None:
    """A source that is closed during a read keeps its descriptor open until the read returns."""
    code = """
s = pmem2.Source.from_path(path)
fd, results = s.fd, []
border.inject(Call.PREAD, how=Fault.BLOCK)
thread = threading.Thread(target=lambda: results.append(s.pread_mcsafe(8)), daemon=True)
thread.start()
border.wait_until_blocked(Call.PREAD)
s.close()
print(s.closed, os.fstat(fd).st_size == os.path.getsize(path))
border.release(Call.PREAD)
thread.join()
print(results == [bytes(8)])
try:
    os.fstat(fd)
except OSError as error:
    print(error.errno == errno.EBADF)
"""
    assert lines(run_child, file, code) == ["True True", "True", "True"]


def test_last_thread_releases_source(run_child: RunChild, file: Path) -> None:
    """A source that is closed while two threads are inside keeps its descriptor until both have returned."""
    code = """
s = pmem2.Source.from_path(path)
fd, results = s.fd, []
border.inject(Call.PREAD, how=Fault.BLOCK)
border.inject(Call.PWRITE, how=Fault.BLOCK)
reader = threading.Thread(target=lambda: results.append(s.pread_mcsafe(8)), daemon=True)
writer = threading.Thread(target=lambda: s.pwrite_mcsafe(b"contents"), daemon=True)
for thread, call in ((reader, Call.PREAD), (writer, Call.PWRITE)):
    thread.start()
    border.wait_until_blocked(call)
s.close()
border.release(Call.PWRITE)
writer.join()
print(os.fstat(fd).st_size == os.path.getsize(path))
border.release(Call.PREAD)
reader.join()
print(results)
try:
    os.fstat(fd)
except OSError as error:
    print(error.errno == errno.EBADF)
"""
    assert lines(run_child, file, code) == ["True", "[b'contents']", "True"]


def test_close_during_msync(run_child: RunChild, file: Path) -> None:
    """Pitfall 38: a close() while another thread is inside persist() is refused; the thread finishes."""
    code = """
m, done = pmem2.open(path), []
border.inject(Call.MSYNC, how=Fault.BLOCK)
thread = threading.Thread(target=lambda: done.append(m.persist()), daemon=True)
thread.start()
border.wait_until_blocked(Call.MSYNC)
try:
    m.close()
except BufferError as error:
    print("another thread" in str(error), m.closed)
border.release(Call.MSYNC)
thread.join()
m.close()
print(done, m.closed)
"""
    assert lines(run_child, file, code) == ["True False", "[None] True"]
