# SPDX-License-Identifier: BSD-3-Clause
"""publish and acquire in a workload: they write back and fence, as persist does."""

from __future__ import annotations

from functools import partial
from typing import Callable

from explorer.helpers import NODRAIN, SIZE, check_published, discard, failure_of
from pmem2 import Granularity, Map, MemFlag
from pmem2.testing import explore

WRITE_BACKS: dict[str, Callable[[Map], None]] = {
    "publish": lambda map: map.publish(0, 8),
    "acquire": lambda map: map.acquire(0, 8),
    "publish a view": lambda map: map.publish(map.view(0, 8)),
    "publish_many": lambda map: map.publish_many([(0, 1), (4, 4)]),
    "acquire_many": lambda map: map.acquire_many(iter([(7, 1)])),
}


def test_orders_as_persist() -> None:
    """The content of a range before publish or acquire is durable before later stores."""

    def workload(map: Map, write_back: Callable[[Map], None]) -> None:
        map.memcpy(0, b"promised", NODRAIN | MemFlag.NONTEMPORAL)
        write_back(map)
        map.store_u64(64, 1)

    for write_back in WRITE_BACKS.values():
        assert explore(partial(workload, write_back=write_back), discard(check_published), size=SIZE).exhaustive
    in_caches = partial(workload, write_back=WRITE_BACKS["publish"])
    assert explore(in_caches, discard(check_published), size=SIZE, granularity=Granularity.BYTE).exhaustive


def test_other_lines_stay_volatile() -> None:
    """publish writes back its own lines only."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.publish(128, 64)
        map.store_u64(64, 1)

    assert failure_of(workload, check_published).lost[0].offset == 0


def test_not_durable_on_page() -> None:
    """On PAGE, lines that are written back are in the page cache, on no disk."""

    def workload(map: Map) -> None:
        map[0:8] = b"promised"
        map.publish(0, 8)
        map.store_u64(4096, 1, persist=True)

    def check(map: Map) -> None:
        assert not map.load_u64(4096) or map[0:8] == b"promised"

    assert failure_of(workload, check, size=8192, granularity=Granularity.PAGE).lost[0].offset == 0


def test_repetition_is_no_mistake() -> None:
    """Lint accepts publish and acquire of durable lines: other hosts need them."""

    def workload(map: Map) -> None:
        map.memcpy(0, b"promised")
        map.publish(0, 8)
        map.acquire(64, 8)

    assert explore(workload, discard(check_published), size=SIZE, lint=True).findings == ()
