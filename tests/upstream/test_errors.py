# SPDX-License-Identifier: BSD-3-Clause
"""PMDK's tests of error messages, errno and its header: pmem2_perror, pmem2_include and pmem2_compat."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest
from _pmem2 import ffi, lib
from support import libpmem2
from support.compiled import compile_c, libpmem2_flags
from support.values import open_fd

import pmem2
from pmem2 import ErrorCode, MemFlag

TOO_LARGE = 2**63


@pytest.mark.upstream("pmem2_perror/TEST0")
@pytest.mark.libpmem2
def test_perror(capfd: pytest.CaptureFixture[str]) -> None:
    """pmem2_perror prints why the last call failed."""
    with libpmem2.config() as config:
        assert libpmem2.set_offset(config, TOO_LARGE) == ErrorCode.OFFSET_OUT_OF_RANGE
        lib.pmem2_perror(b"pmem2_config_set_offset")
    assert capfd.readouterr().err == "pmem2_config_set_offset: offset is greater than INT64_MAX\n"


@pytest.mark.upstream("pmem2_perror/TEST0")
def test_exception_attributes() -> None:
    """The façade's exception has the code, the function, and a sentence that names the offset."""
    with pytest.raises(pmem2.OffsetOutOfRangeError, match=str(TOO_LARGE)) as caught:
        pmem2.Config(offset=TOO_LARGE)
    assert caught.value.code is ErrorCode.OFFSET_OUT_OF_RANGE
    assert caught.value.function == "pmem2_config_set_offset"
    assert caught.value.errno == errno.EINVAL


@pytest.mark.upstream("pmem2_perror/TEST1")
@pytest.mark.libpmem2
def test_perror_formats(capfd: pytest.CaptureFixture[str]) -> None:
    """pmem2_perror formats its arguments as printf does."""
    with libpmem2.config() as config:
        assert libpmem2.set_offset(config, TOO_LARGE) == ErrorCode.OFFSET_OUT_OF_RANGE
        lib.pmem2_perror(b"pmem2_config_set_offset %d", ffi.cast("int", 123))
    assert capfd.readouterr().err == "pmem2_config_set_offset 123: offset is greater than INT64_MAX\n"


@pytest.mark.upstream("pmem2_perror/TEST4", "pmem2_perror/TEST5")
@pytest.mark.libpmem2
def test_perror_after_closed_descriptor(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A libpmem2 source has no size after its descriptor was closed, and the text names fstat."""
    with open_fd(file, os.O_RDWR) as fd:
        rc, source = libpmem2.source_from_fd(fd)
        assert rc == 0
    rc, _ = libpmem2.source_size(source)
    assert rc == ErrorCode.INVALID_FILE_HANDLE
    lib.pmem2_perror(b"test")
    lib.pmem2_perror(b"test %d", ffi.cast("int", 123))
    reason = os.strerror(errno.EBADF)
    printed = capfd.readouterr().err
    assert re.fullmatch(rf"test: fstat[^\n]*: {reason}\ntest 123: fstat[^\n]*: {reason}\n", printed)
    assert libpmem2.source_delete(source) == (0, 0)


@pytest.mark.upstream("pmem2_perror/TEST6")
@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_errno_of_library_codes(code: ErrorCode) -> None:
    """NOSUPP has the errno ENOTSUP, and every other library code EINVAL."""
    subclasses = {kind.__name__: kind for kind in pmem2.Pmem2Error.__subclasses__()}
    kind = subclasses[code.name.title().replace("_", "") + "Error"]
    error = kind(code, "text", "function")
    assert error.errno == (errno.ENOTSUP if code is ErrorCode.NOSUPP else errno.EINVAL)
    assert (error.code, error.strerror, error.function) == (code, "text", "function")


@pytest.mark.upstream("pmem2_perror/TEST6")
def test_errno_of_raised_errors() -> None:
    """Raised errors have these numbers too; a -errno of libpmem2 raises the built-in exception of that number."""
    with pmem2.Source.from_anon(4096) as source:
        with pytest.raises(pmem2.NosuppError) as unsupported:
            _ = source.device_usc
        assert unsupported.value.errno == errno.ENOTSUP
        with pytest.raises(pmem2.LengthUnalignedError) as unaligned:
            source.map(pmem2.Config(length=1))
        assert unaligned.value.errno == errno.EINVAL
    with pmem2.Source.from_anon(2**62) as huge, pytest.raises(OSError, match="cannot map") as refused:
        huge.map()
    assert refused.value.errno == errno.ENOMEM
    assert not isinstance(refused.value, pmem2.Pmem2Error)


@pytest.mark.upstream("pmem2_include")
@pytest.mark.libpmem2
def test_header_alone() -> None:
    """A program that includes only libpmem2.h compiles without warnings, links and runs."""
    program = compile_c(
        "#include <libpmem2.h>\n"
        "int main(void) { struct pmem2_config *c; return pmem2_config_new(&c) || pmem2_config_delete(&c); }\n",
        *("-Wall", "-Werror", *libpmem2_flags()),
    )
    subprocess.run([program], check=True)


@pytest.mark.upstream("pmem2_compat")
def test_flags_equal_libpmem_flags() -> None:
    """Each MemFlag has the value of libpmem's PMEM_F_MEM_ flag; libpmem(7) lists them in this order."""
    names = ("NODRAIN", "NONTEMPORAL", "TEMPORAL", "WC", "WB", "NOFLUSH")
    assert [MemFlag[name] for name in names] == [1 << bit for bit in range(6)]
    every_flag = MemFlag(lib.PMEM2_F_MEM_VALID_FLAGS)
    assert every_flag == sum(MemFlag[name] for name in names)
