# SPDX-License-Identifier: BSD-3-Clause
"""Map files at consecutive addresses and fill them with dashes: `python map_multiple_files.py FILE...`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pmem2


def map_consecutively(sources: Sequence[pmem2.Source], reservation: pmem2.VMReservation) -> Iterator[pmem2.Map]:
    """Yield maps of the sources, at consecutive offsets of the reservation. Close them before the reservation."""
    offset = 0
    for source in sources:
        yield source.map(pmem2.Config(reservation=reservation, reservation_offset=offset))
        offset += source.size


def check(sources: Sequence[pmem2.Source]) -> None:
    """Check that the sources can be mapped at consecutive addresses.

    Raises:
        ValueError: Their sizes or alignments do not allow it.
    """
    for source in sources:
        if source.size % source.alignment:
            raise ValueError(f"usage: files must be aligned to {source.alignment} bytes")
    if len({source.alignment for source in sources}) > 1:
        raise ValueError("usage: files must have the same alignment")


def main(argv: list[str]) -> int:
    """Run the example and return its exit status."""
    if len(argv) < 2:
        print("usage: ./map_multiple_files <file1> <file2> ...", file=sys.stderr)
        return 1
    try:
        with ExitStack() as stack:
            sources = [stack.enter_context(pmem2.Source.from_path(path)) for path in argv[1:]]
            check(sources)
            reservation = stack.enter_context(pmem2.VMReservation(sum(source.size for source in sources)))
            maps = [stack.enter_context(map) for map in map_consecutively(sources, reservation)]
            if len({map.granularity for map in maps}) > 1:
                raise ValueError("usage: filesystems must be compatible for a side by side mapping")
            for map in maps:
                map.memset(0, ord("-"), map.size, pmem2.MemFlag.NONTEMPORAL)
    except OSError as error:
        print(f"{getattr(error, 'function', 'open')}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
