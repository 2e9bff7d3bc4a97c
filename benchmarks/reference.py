# SPDX-License-Identifier: BSD-3-Clause
"""The same work in C: loops over the functions of libpmem2, compiled when the benchmark starts."""

from __future__ import annotations

import importlib.util
import tempfile
from typing import Any

from cffi import FFI

DECLARATIONS = """
uintptr_t c_open(int fd);
void c_flush_many(uintptr_t map, const uint64_t *ranges, size_t count, size_t times);
void c_flush_many_checked(uintptr_t map, const uint64_t *ranges, size_t count, size_t times);
void c_copy(uintptr_t map, const char *data, size_t length, unsigned flags, size_t times);
void c_set(uintptr_t map, size_t length, size_t times);
void c_pread(int fd, char *buffer, size_t length, size_t times);
int c_map(int fd, size_t times);
void c_persist(uintptr_t map, size_t times);
"""

SOURCE = r"""
#include <stdint.h>
#include <libpmem2.h>

static uintptr_t c_open(int fd)
{
    struct pmem2_source *source;
    struct pmem2_config *config;
    struct pmem2_map *map = NULL;
    if (pmem2_source_from_fd(&source, fd) || pmem2_config_new(&config))
        return 0;
    pmem2_config_set_required_store_granularity(config, PMEM2_GRANULARITY_PAGE);
    pmem2_map_new(&map, config, source);
    pmem2_config_delete(&config);
    pmem2_source_delete(&source);
    return (uintptr_t)map;
}

static void c_flush_many(uintptr_t map, const uint64_t *ranges, size_t count, size_t times)
{
    struct pmem2_map *m = (struct pmem2_map *)map;
    char *base = pmem2_map_get_address(m);
    pmem2_flush_fn flush = pmem2_get_flush_fn(m);
    pmem2_drain_fn drain = pmem2_get_drain_fn(m);
    while (times--) {
        for (size_t i = 0; i < count; i++)
            flush(base + ranges[2 * i], ranges[2 * i + 1]);
        drain();
    }
}

/* The same guarantees as persist_many: check all ranges first, and flush a cache line that two ranges share once. */
static void c_flush_many_checked(uintptr_t map, const uint64_t *ranges, size_t count, size_t times)
{
    struct pmem2_map *m = (struct pmem2_map *)map;
    const uintptr_t base = (uintptr_t)pmem2_map_get_address(m);
    const size_t size = pmem2_map_get_size(m);
    pmem2_flush_fn flush = pmem2_get_flush_fn(m);
    pmem2_drain_fn drain = pmem2_get_drain_fn(m);
    while (times--) {
        uintptr_t done = 0;
        for (size_t i = 0; i < count; i++)
            if (ranges[2 * i] > size || ranges[2 * i + 1] > size - ranges[2 * i])
                return;
        for (size_t i = 0; i < count; i++) {
            const uintptr_t low = (base + ranges[2 * i]) & ~(uintptr_t)63;
            const uintptr_t high = base + ranges[2 * i] + ranges[2 * i + 1];
            const uintptr_t start = low < done && low + 64 >= done ? done : low;
            if (high > start) {
                flush((void *)start, high - start);
                done = (high + 63) & ~(uintptr_t)63;
            }
        }
        drain();
    }
}

static void c_copy(uintptr_t map, const char *data, size_t length, unsigned flags, size_t times)
{
    struct pmem2_map *m = (struct pmem2_map *)map;
    pmem2_memcpy_fn copy = pmem2_get_memcpy_fn(m);
    while (times--)
        copy(pmem2_map_get_address(m), data, length, flags);
}

static void c_set(uintptr_t map, size_t length, size_t times)
{
    struct pmem2_map *m = (struct pmem2_map *)map;
    pmem2_memset_fn set = pmem2_get_memset_fn(m);
    while (times--)
        set(pmem2_map_get_address(m), 1, length, 0);
}

static void c_pread(int fd, char *buffer, size_t length, size_t times)
{
    struct pmem2_source *source;
    if (pmem2_source_from_fd(&source, fd))
        return;
    while (times--)
        pmem2_source_pread_mcsafe(source, buffer, length, 0);
    pmem2_source_delete(&source);
}

static int c_map(int fd, size_t times)
{
    struct pmem2_source *source;
    struct pmem2_config *config;
    struct pmem2_map *map;
    int rc = pmem2_source_from_fd(&source, fd);
    if (rc || (rc = pmem2_config_new(&config)))
        return rc;
    pmem2_config_set_required_store_granularity(config, PMEM2_GRANULARITY_PAGE);
    while (!rc && times--)
        if (!(rc = pmem2_map_new(&map, config, source)))
            rc = pmem2_map_delete(&map);
    pmem2_config_delete(&config);
    pmem2_source_delete(&source);
    return rc;
}

static void c_persist(uintptr_t map, size_t times)
{
    struct pmem2_map *m = (struct pmem2_map *)map;
    volatile uint64_t *word = pmem2_map_get_address(m);
    pmem2_persist_fn persist = pmem2_get_persist_fn(m);
    while (times--) {
        *word = times;
        persist((const void *)word, 8);
    }
}
"""


def build() -> Any:
    """Compile the loops and import them."""
    builder = FFI()
    builder.cdef(DECLARATIONS)
    builder.set_source_pkgconfig("_reference", ["libpmem2"], SOURCE)
    path = builder.compile(tmpdir=tempfile.mkdtemp(prefix="pmem2-reference-"))
    spec = importlib.util.spec_from_file_location("_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
