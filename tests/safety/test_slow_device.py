# SPDX-License-Identifier: BSD-3-Clause
"""A device DAX that hangs stops only the thread that maps it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.children import RunChild
from support.compiled import preloadable

if sys.platform == "win32":
    pytest.skip("needs LD_PRELOAD", allow_module_level=True)

# /dev/zero looks like a device DAX to libpmem2. Each question to libndctl waits for a byte from a pipe, or for its end.
FAKE_DEVICE = """
#include <string.h>
#include <unistd.h>

#define SIZE (1 << 20)

static int answers = -1, asked;

void read_answers(int pipe) { answers = pipe; }
int count_questions(void) { return asked; }

char *realpath(const char *path, char *resolved)
{
    return strcpy(resolved, strstr(path, "/sys/dev/char/1:5/") ? "/sys/bus/dax" : path);
}
char *__realpath_chk(const char *path, char *resolved, size_t size) { (void)size; return realpath(path, resolved); }

int ndctl_new(void **context)
{
    char answer;
    asked++;
    *context = &asked;
    return read(answers, &answer, 1) < 0;
}
void *ndctl_unref(void *context) { (void)context; return 0; }
void *ndctl_bus_get_first(void *context) { (void)context; return 0; }
void *ndctl_namespace_get_dax(void *namespace) { (void)namespace; return &asked; }
unsigned long ndctl_dax_get_align(void *dax) { (void)dax; return 4096; }
unsigned long long ndctl_dax_get_size(void *dax) { (void)dax; return SIZE; }
"""

PRELUDE = """
import ctypes, os, signal, subprocess, sys, threading, time, warnings
import pmem2

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while there are threads
signal.alarm(30)
library = ctypes.CDLL(None)
answers, answer = os.pipe()
library.read_answers(answers)
sizes = []

def map_device():
    with pmem2.open("/dev/zero") as map:
        sizes.append(map.size)

def read_device():
    with pmem2.Source.from_path("/dev/zero") as source:
        sizes.append(len(source.pread_mcsafe(4096, 0)))

def use_file():
    with pmem2.open(sys.argv[1]) as map:
        map.persist()

def wait_for_question(number):
    os.write(answer, bytes(number - 1))
    while library.count_questions() < number:
        time.sleep(0.001)
    return number

def child_works():
    pid = os.fork()
    if not pid:
        signal.alarm(30)
        use_file()
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0

use_file()
with open("/proc/self/maps") as maps:
    assert "libndctl" in maps.read(), "libpmem2 without libndctl"
thread = threading.Thread(target=map_device, daemon=True)
thread.start()
"""


@pytest.fixture
def fake_device() -> dict[str, str]:
    """The environment of a process with the fake device."""
    # QEMU's user emulation ignores MAP_SYNC: by default, these maps would be CACHE_LINE, which riscv64 refuses
    return {"LD_PRELOAD": str(preloadable(FAKE_DEVICE)), "PMEM2_FORCE_GRANULARITY": "BYTE"}


@pytest.mark.parametrize(("call", "size"), [("map_device", 1 << 20), ("read_device", 4096)])
def test_device_that_hangs(call: str, size: int, fake_device: dict[str, str], path: Path, run_child: RunChild) -> None:
    """While one thread waits for the device, others map, close and fork, and the child maps."""
    code = """
wait_for_question(1)
use_file()
print(child_works())
os.close(answer)
thread.join()
print(sizes)
"""
    prelude = PRELUDE.replace("target=map_device", f"target={call}")
    child = run_child(prelude + code, str(path), **fake_device)
    assert (child.stdout.splitlines(), child.stderr) == (["True", f"[{size}]"], "")


def test_exit_while_a_device_hangs(fake_device: dict[str, str], path: Path, run_child: RunChild) -> None:
    """A process whose daemon thread waits for the device ends."""
    child = run_child(PRELUDE + "wait_for_question(1)", str(path), **fake_device)
    assert (child.returncode, child.stderr) == (0, "")


@pytest.mark.parametrize("question", [2, 3])
def test_device_that_is_slow(question: int, fake_device: dict[str, str], path: Path, run_child: RunChild) -> None:
    """While pmem2_map_new waits for the device, others map and close; a fork waits too, so that the child can map."""
    code = f"""
wait_for_question({question})
use_file()
os.close(answer)
last_answer.communicate(b"now")
print(child_works(), library.count_questions())
thread.join()
print(sizes)
"""
    # not made while the thread waits: where Popen forks, it would wait too
    last_answer = """
last_answer = subprocess.Popen("read now; sleep 0.2 &", shell=True, stdin=subprocess.PIPE, pass_fds=[answer])
"""
    prelude = PRELUDE.replace("thread = ", last_answer + "thread = ")
    child = run_child(prelude + code, str(path), **fake_device)
    assert (child.stdout.splitlines(), child.stderr) == (["True 3", "[1048576]"], "")


def test_reservation_for_a_slow_device(fake_device: dict[str, str], path: Path, run_child: RunChild) -> None:
    """A device in a reservation answers before the lock of reservations is taken."""
    code = """
wait_for_question(1)
with pmem2.VMReservation(1 << 20) as other:
    use_file()
    print(other.size)
os.close(answer)
thread.join()
print(sizes)
"""
    prelude = PRELUDE.replace("sizes = []", "sizes, place = [], pmem2.VMReservation(1 << 20)")
    prelude = prelude.replace('open("/dev/zero")', 'open("/dev/zero", config=pmem2.Config(reservation=place))')
    child = run_child(prelude + code, str(path), **fake_device)
    assert (child.stdout.splitlines(), child.stderr) == (["1048576", "[1048576]"], "")
