# SPDX-License-Identifier: BSD-3-Clause
"""Errors: classes, attributes, and texts that say what to do."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import re
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Callable, NamedTuple

import pytest
from _pmem2 import ffi, lib
from support.values import PAGE, needs_cache_line

import pmem2
import pmem2.errors
from pmem2 import ErrorCode, Granularity
from pmem2._error_map import MEANINGS, error_from_rc, make_pmem2_error, new_error_buffer
from pmem2._granularity import explain_granularity, granularity_error

every_code = pytest.mark.parametrize("code", list(ErrorCode), ids=lambda code: code.name)
UNASSIGNED_CODE = -100002


def class_name(code: ErrorCode) -> str:
    """Return the name of the exception class of a code: IoFailError for PMEM2_E_IO_FAIL."""
    return "".join(word.capitalize() for word in code.name.split("_")) + "Error"


def error_for_code(code: int, text: bytes = b"") -> pmem2.Pmem2Error:
    """Return the exception that pmem2 makes for a code of libpmem2 and libpmem2's text."""
    error = error_from_rc(code, "pmem2_map_new", "cannot map it", ffi.new("char[]", text))
    assert isinstance(error, pmem2.Pmem2Error)
    return error


# ---- classes and attributes


@every_code
def test_subclass_for_every_code(code: ErrorCode) -> None:
    """Every code has a direct subclass of Pmem2Error in pmem2.errors and pmem2, named after the code in CapWords."""
    name = class_name(code)
    kind: object = getattr(pmem2.errors, name)
    assert getattr(pmem2, name) is kind
    assert isinstance(kind, type)
    assert kind.__bases__ == (pmem2.Pmem2Error,)
    assert type(error_for_code(code)) is kind


@every_code
def test_meaning_needs_no_docstring(code: ErrorCode) -> None:
    """Every code has a meaning in errors, which is also what the docstring of its class says."""
    assert MEANINGS[code] in str(error_for_code(code))
    docstring = getattr(pmem2.errors, class_name(code)).__doc__
    if sys.flags.optimize < 2:
        assert MEANINGS[code].lower() == docstring.rstrip(".").lower()


def test_error_buffer_is_reused() -> None:
    """Each thread has one buffer for libpmem2's text, empty before every call: PyPy would collect new ones late."""
    buffer = new_error_buffer()
    ffi.memmove(buffer, b"text\0", 5)
    assert new_error_buffer() is buffer
    assert ffi.string(buffer) == b""
    others: list[object] = []
    thread = threading.Thread(target=lambda: others.append(new_error_buffer()))
    thread.start()
    thread.join()
    assert others != [buffer]


def test_no_additional_subclass() -> None:
    """Every subclass of Pmem2Error belongs to a code."""
    assert {kind.__name__ for kind in pmem2.Pmem2Error.__subclasses__()} == {class_name(code) for code in ErrorCode}


def test_pmem2_error_is_os_error() -> None:
    """Pmem2Error is an OSError."""
    assert pmem2.Pmem2Error.__bases__ == (OSError,)


@every_code
def test_attributes(code: ErrorCode) -> None:
    """An error has its code, libpmem2's errno for it, a sentence and the C function."""
    error = error_for_code(code, b"libpmem2's own text")
    assert error.code is code
    assert error.errno == (errno.ENOTSUP if code is ErrorCode.NOSUPP else errno.EINVAL)
    assert error.strerror is not None
    assert error.strerror.startswith("cannot map it: ")
    assert error.strerror in str(error)
    assert error.function == "pmem2_map_new"


def test_unknown_code() -> None:
    """An unknown code raises Pmem2Error itself with the number as its code and errno EINVAL."""
    error = error_for_code(UNASSIGNED_CODE)
    assert type(error) is pmem2.Pmem2Error
    assert error.code == UNASSIGNED_CODE
    assert type(error.code) is int
    assert error.errno == errno.EINVAL


@every_code
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(code: ErrorCode, protocol: int) -> None:
    """A pickled error keeps its class and attributes."""
    error = error_for_code(code, b"text")
    loaded: object = pickle.loads(pickle.dumps(error, protocol))
    assert isinstance(loaded, pmem2.Pmem2Error)
    assert type(loaded) is type(error)
    assert loaded.code is code
    assert (loaded.errno, loaded.strerror, loaded.function) == (error.errno, error.strerror, error.function)


def test_pickle_of_unknown_code() -> None:
    """A pickled or copied error of an unknown code keeps its attributes."""
    error = make_pmem2_error(UNASSIGNED_CODE, "pmem2_map_new", "cannot", "found")
    loaded: object = pickle.loads(pickle.dumps(error))
    for other in (loaded, copy.copy(error)):
        assert isinstance(other, pmem2.Pmem2Error)
        assert (other.code, other.strerror, other.function) == (UNASSIGNED_CODE, "cannot: found", "pmem2_map_new")


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EACCES, errno.EEXIST, errno.EINTR, errno.EBADF, errno.EINVAL])
def test_raw_errno(number: int) -> None:
    """A raw -errno raises the built-in OSError subclass for it, not a Pmem2Error."""
    error = error_from_rc(-number, "pmem2_map_new", "cannot map it")
    assert isinstance(error, OSError)
    assert type(error) is type(OSError(number, ""))
    assert error.errno == number
    assert error.strerror == f"cannot map it: {os.strerror(number)}"


def test_too_much_anonymous_memory() -> None:
    """Mapping more memory than the address space holds raises OSError(ENOMEM)."""
    with pmem2.Source.from_anon(2**62) as source:
        with pytest.raises(OSError, match="cannot map") as caught:
            source.map()
    assert caught.value.errno == errno.ENOMEM
    assert not isinstance(caught.value, pmem2.Pmem2Error)


# ---- texts


class Mistake(NamedTuple):
    """A mistake of a caller, and the attributes and words that its error must contain."""

    act: Callable[[Path], object]
    code: ErrorCode
    function: str
    requested: str
    found: str
    advice: str


def map_with(config: Callable[[], pmem2.Config], path: Path) -> None:
    """Map a file with a config that cannot work."""
    with pmem2.Source.from_path(path) as source:
        source.map(config())


def map_empty_file(path: Path) -> None:
    """Map an empty file."""
    os.truncate(path, 0)
    map_with(pmem2.Config, path)


def map_read_only_for_writing(path: Path) -> None:
    """Map a read-only source for writing."""
    with pmem2.Source.from_path(path, writable=False) as source:
        source.map(pmem2.Config(protection=pmem2.Protection.WRITE))


def use_anonymous_source(act: Callable[[pmem2.Source], object], size: int = PAGE) -> None:
    """Call *act* with a source of anonymous memory."""
    with pmem2.Source.from_anon(size) as source:
        act(source)


def use_reservation(act: Callable[[pmem2.VMReservation, pmem2.Map], object], path: Path) -> None:
    """Call *act* with a reservation of two pages and a map in its first page."""
    with pmem2.VMReservation(2 * PAGE) as reservation, pmem2.Source.from_path(path) as source:
        with source.map(pmem2.Config(length=PAGE, reservation=reservation)) as map:
            act(reservation, map)


def map_twice(path: Path) -> None:
    """Make two maps of the same memory."""
    memory = bytearray(PAGE)
    with pmem2.Source.from_path(path) as source, pmem2.Map.from_existing(source, memory, Granularity.PAGE):
        pmem2.Map.from_existing(source, memory, Granularity.PAGE)


def open_directory(path: Path) -> None:
    """Make a source from a directory."""
    pmem2.Source.from_path(path.parent)


def read_past_the_end(path: Path) -> None:
    """Read past the end of a file."""
    with pmem2.Source.from_path(path) as source:
        source.pread_mcsafe(1, 2**40)


MISTAKES: dict[str, Mistake] = {
    "negative descriptor": Mistake(
        lambda path: pmem2.Source.from_fd(-1),
        ErrorCode.INVALID_FILE_HANDLE,
        "pmem2_source_from_fd",
        "source from descriptor -1",
        "open",
        "open for reading",
    ),
    "directory": Mistake(
        open_directory,
        ErrorCode.INVALID_FILE_TYPE,
        "pmem2_source_from_fd",
        "make a source",
        "neither a regular file nor a DAX device",
        "pass a regular file",
    ),
    "handle": Mistake(
        lambda path: pmem2.Source.from_handle(7),
        ErrorCode.NOSUPP,
        "pmem2_source_from_handle",
        "source from a handle",
        "no Windows handles",
        "Source.from_fd",
    ),
    "no granularity": Mistake(
        lambda path: map_with(lambda: pmem2.Config(required_granularity=None), path),
        ErrorCode.GRANULARITY_NOT_SET,
        "pmem2_map_new",
        "map from offset 0 to the end",
        "granularity",
        "required_granularity; PAGE",
    ),
    "unknown granularity": Mistake(
        lambda path: pmem2.Config(required_granularity=17),  # type: ignore[arg-type]
        ErrorCode.GRANULARITY_NOT_SUPPORTED,
        "pmem2_config_set_required_store_granularity",
        "Config",
        "17",
        "BYTE, CACHE_LINE or PAGE",
    ),
    "unknown sharing": Mistake(
        lambda path: pmem2.Config(sharing=17),  # type: ignore[arg-type]
        ErrorCode.INVALID_SHARING_VALUE,
        "pmem2_config_set_sharing",
        "Config",
        "17",
        "SHARED or Sharing.PRIVATE",
    ),
    "unknown protection": Mistake(
        lambda path: pmem2.Config(protection=17),  # type: ignore[arg-type]
        ErrorCode.INVALID_PROT_FLAG,
        "pmem2_config_set_protection",
        "Config",
        "0x11",
        "READ, WRITE and EXEC",
    ),
    "offset too large": Mistake(
        lambda path: pmem2.Config(offset=2**63),
        ErrorCode.OFFSET_OUT_OF_RANGE,
        "pmem2_config_set_offset",
        "Config",
        str(2**63),
        "no file is larger",
    ),
    "unaligned offset": Mistake(
        lambda path: map_with(lambda: pmem2.Config(offset=17), path),
        ErrorCode.OFFSET_UNALIGNED,
        "pmem2_map_new",
        "from offset 17 to the end of",
        "multiple of",
        "multiple of Source.alignment",
    ),
    "unaligned length": Mistake(
        lambda path: map_with(lambda: pmem2.Config(length=17), path),
        ErrorCode.LENGTH_UNALIGNED,
        "pmem2_map_new",
        "map 17 bytes",
        "multiple of",
        "multiple of Source.alignment",
    ),
    "past the end": Mistake(
        lambda path: map_with(lambda: pmem2.Config(length=2**40), path),
        ErrorCode.MAP_RANGE,
        "pmem2_map_new",
        f"map {2**40} bytes at offset 0",
        "range",
        "make the file larger",
    ),
    "empty file": Mistake(
        map_empty_file,
        ErrorCode.SOURCE_EMPTY,
        "pmem2_map_new",
        "map from offset 0 to the end",
        "0",
        "give the file a size first",
    ),
    "empty anonymous source": Mistake(
        lambda path: use_anonymous_source(pmem2.Source.map, 0),
        ErrorCode.SOURCE_EMPTY,
        "pmem2_map_new",
        "0 bytes of anonymous memory",
        "no bytes",
        "larger size to Source.from_anon",
    ),
    "anonymous past the end": Mistake(
        lambda path: use_anonymous_source(lambda source: source.map(pmem2.Config(offset=2 * PAGE))),
        ErrorCode.MAP_RANGE,
        "pmem2_map_new",
        f"from offset {2 * PAGE} to the end",
        f"outside the {PAGE} bytes",
        "inside the source",
    ),
    "read-only source": Mistake(
        map_read_only_for_writing,
        ErrorCode.NO_ACCESS,
        "pmem2_map_new",
        "map from offset 0 to the end",
        "allow",
        "for reading and writing",
    ),
    "anonymous descriptor": Mistake(
        lambda path: use_anonymous_source(lambda source: source.fd),
        ErrorCode.FILE_DESCRIPTOR_NOT_SET,
        "pmem2_source_get_fd",
        "descriptor",
        "not set",
        "source of a file",
    ),
    "anonymous read": Mistake(
        lambda path: use_anonymous_source(lambda source: source.pread_mcsafe(1)),
        ErrorCode.SOURCE_TYPE_NOT_SUPPORTED,
        "pmem2_source_pread_mcsafe",
        "read 1 bytes at 0",
        "support",
        "from a file",
    ),
    "read past the end": Mistake(
        read_past_the_end,
        ErrorCode.LENGTH_OUT_OF_RANGE,
        "pmem2_source_pread_mcsafe",
        f"read 1 bytes at {2**40}",
        "outside",
        "stay inside",
    ),
    "mapped twice": Mistake(
        map_twice, ErrorCode.MAP_EXISTS, "pmem2_map_from_existing", "make a Map", "already", "close the other Map"
    ),
    "slot taken": Mistake(
        lambda path: use_reservation(lambda reservation, map: map_with(lambda: map.config, path), path),
        ErrorCode.MAPPING_EXISTS,
        "pmem2_map_new",
        f"map {PAGE} bytes at offset 0",
        "occupied",
        "choose another address",
    ),
    "reservation in use": Mistake(
        lambda path: use_reservation(lambda reservation, map: reservation.close(), path),
        ErrorCode.VM_RESERVATION_NOT_EMPTY,
        "pmem2_vm_reservation_delete",
        "close the reservation",
        "map",
        "close the maps in it first",
    ),
    "nothing found": Mistake(
        lambda path: use_reservation(lambda reservation, map: reservation.find(PAGE, PAGE), path),
        ErrorCode.MAPPING_NOT_FOUND,
        "pmem2_vm_reservation_map_find",
        "find a map",
        "found",
        "",
    ),
    "middle of a reservation": Mistake(
        lambda path: use_reservation(lambda reservation, map: reservation.shrink(0, 2 * PAGE), path),
        ErrorCode.NOSUPP,
        "pmem2_vm_reservation_shrink",
        f"by {2 * PAGE} bytes at 0",
        "",
        "the beginning or the end",
    ),
    "unaligned reservation": Mistake(
        lambda path: pmem2.VMReservation(PAGE + 1),
        ErrorCode.LENGTH_UNALIGNED,
        "pmem2_vm_reservation_new",
        f"reserve {PAGE + 1} bytes",
        "multiple of",
        "page size",
    ),
}


@pytest.mark.parametrize("case", MISTAKES.values(), ids=list(MISTAKES))
def test_error_texts(case: Mistake, file: Path) -> None:
    """The text says what was requested, what was found and what to do, and the error has its code and function."""
    with pytest.raises(pmem2.Pmem2Error) as caught:
        case.act(file)
    error = caught.value
    assert error.code is case.code
    assert type(error).__name__ == class_name(case.code)
    assert error.function == case.function
    assert hasattr(lib, error.function) or case.code is ErrorCode.NOSUPP
    text = error.strerror
    assert text is not None
    requested, found = text.split(": ", 1)
    assert requested.startswith(("cannot ", "invalid Config"))
    assert case.requested in requested
    assert case.found in found
    if "must be" in found:  # names the valid values, which is the advice
        assert case.advice in found
    else:
        assert re.search("; .+", found), "the text has no advice"
        assert case.advice in found.split("; ", 1)[1]


def test_no_stale_text(file: Path) -> None:
    """An error for which libpmem2 writes no text does not show the text of an earlier one."""
    with pmem2.Source.from_path(file) as source, pytest.raises(pmem2.OffsetUnalignedError) as before:
        source.map(pmem2.Config(offset=1))
    with pytest.raises(pmem2.InvalidFileHandleError) as after:
        pmem2.Source.from_fd(-1)
    assert "multiple" in str(before.value)
    assert "multiple" not in str(after.value)


# ---- granularity errors


FORCED = [
    pytest.param(Granularity.BYTE, Granularity.CACHE_LINE, marks=needs_cache_line),
    (Granularity.BYTE, Granularity.PAGE),
    (Granularity.CACHE_LINE, Granularity.PAGE),
]


@pytest.mark.parametrize(("required", "given"), FORCED)
def test_forced_granularity_too_coarse(
    source: pmem2.Source, monkeypatch: pytest.MonkeyPatch, required: Granularity, given: Granularity
) -> None:
    """The error for a forced granularity names the required and the given one and PMEM2_FORCE_GRANULARITY."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", given.name)
    with pytest.raises(pmem2.GranularityNotSupportedError) as caught:
        source.map(pmem2.Config(required_granularity=required))
    error = caught.value
    assert error.code is ErrorCode.GRANULARITY_NOT_SUPPORTED
    assert error.function == "pmem2_map_new"
    text = str(error)
    assert f"requires {required.name} granularity" in text
    assert f"gives {given.name}" in text
    assert "PMEM2_FORCE_GRANULARITY forces it" in text
    assert "unset PMEM2_FORCE_GRANULARITY" in text


@pytest.mark.parametrize("required", [Granularity.BYTE, Granularity.CACHE_LINE])
def test_file_without_dax(source: pmem2.Source, monkeypatch: pytest.MonkeyPatch, required: Granularity) -> None:
    """The error for an ordinary file names the required and the given granularity, the reason and two remedies."""
    monkeypatch.delenv("PMEM2_FORCE_GRANULARITY", raising=False)
    with source.map() as map:
        if map.granularity is not Granularity.PAGE:
            pytest.skip("the file is on DAX")
    with pytest.raises(pmem2.GranularityNotSupportedError) as caught:
        source.map(pmem2.Config(required_granularity=required))
    text = str(caught.value)
    assert f"requires {required.name} granularity" in text
    assert "gives PAGE" in text
    assert "not on a file system mounted with DAX" in text
    assert "require Granularity.PAGE" in text
    assert "-o dax" in text
    assert "unset" not in text


def test_dax_without_eadr(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for DAX without eADR says to require CACHE_LINE."""
    monkeypatch.delenv("PMEM2_FORCE_GRANULARITY", raising=False)
    text = str(granularity_error("cannot map it", Granularity.BYTE, Granularity.CACHE_LINE))
    assert "requires BYTE granularity" in text
    assert "gives CACHE_LINE" in text
    assert "eADR" in text
    assert "require Granularity.CACHE_LINE" in text


def test_granularity_explanations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each granularity has its own explanation, unless PMEM2_FORCE_GRANULARITY forces it."""
    monkeypatch.delenv("PMEM2_FORCE_GRANULARITY", raising=False)
    assert len({explain_granularity(granularity) for granularity in Granularity}) == 3
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "cacheline")
    assert explain_granularity(Granularity.CACHE_LINE) == "PMEM2_FORCE_GRANULARITY forces it"
    assert explain_granularity(Granularity.BYTE) != "PMEM2_FORCE_GRANULARITY forces it"


MAKERS: dict[str, Callable[[pmem2.Source, Path], pmem2.Map]] = {
    "Map": lambda source, path: pmem2.Map(source),
    "Source.map": lambda source, path: source.map(),
    "open": lambda source, path: pmem2.open(path),
    "open an existing file with w+": lambda source, path: pmem2.open(path, "w+", size=PAGE),
    "open a new file with x+": lambda source, path: pmem2.open(path.with_name("new"), "x+", size=PAGE),
    "refused map": lambda source, path: source.map(pmem2.Config(required_granularity=Granularity.BYTE)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_misspelt_forced_granularity(
    source: pmem2.Source, file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A misspelt PMEM2_FORCE_GRANULARITY, which libpmem2 ignores silently, warns once and at the caller's line."""
    monkeypatch.setenv("PMEM2_FORCE_GRANULARITY", "CACHE LINE")
    make = MAKERS[name]
    with pytest.warns(RuntimeWarning, match="CACHE LINE") as caught, suppress(pmem2.GranularityNotSupportedError):
        make(source, file).close()
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, make.__code__.co_firstlineno)]
