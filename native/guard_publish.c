/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory that hosts without coherent caches share: publish writes lines back to it, acquire drops this host's copies.
 * The granularity of the map does not matter here, because it says only what survives a power failure.
 */
#ifndef PMEM2_GUARD_PUBLISH_C
#define PMEM2_GUARD_PUBLISH_C

#include "batch_flush.c"
#include "cpu_cache.c"
#include "guard_errors.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_map_use.c"

/* The first fence completes earlier loads: clflushopt is not ordered after the load of a number that announced the data. */
static int control_lines(struct guarded_map *m, unsigned need, pmem2_flush_fn act, const uint64_t *ranges, size_t count)
{
    int rc = map_enter(m, OPERATION, need, 0, 0);
    if (rc)
        return rc;
    if (!HAS_CACHE_CONTROL)
        return map_leave(m, PMEM2_E_NOSUPP);
    cache_fence();
    rc = act_on_lines(m, ranges, count, act);
    cache_fence();
    return map_leave(m, rc);
}

static int guarded_publish_many(struct guarded_map *m, const uint64_t *ranges, size_t count)
{
    return control_lines(m, PMEM2_PROT_WRITE, write_back_lines, ranges, count);
}

static int guarded_acquire_many(struct guarded_map *m, const uint64_t *ranges, size_t count)
{
    return control_lines(m, PMEM2_PROT_READ, drop_lines, ranges, count);
}

static int guarded_publish(struct guarded_map *m, size_t offset, size_t length)
{
    const uint64_t range[] = {offset, length};
    return guarded_publish_many(m, range, 1);
}

static int guarded_acquire(struct guarded_map *m, size_t offset, size_t length)
{
    const uint64_t range[] = {offset, length};
    return guarded_acquire_many(m, range, 1);
}

/* Memory that other code has mapped: the caller's export keeps it in place. */
static int control_memory(const char *memory, size_t length, pmem2_flush_fn act)
{
    if (!HAS_CACHE_CONTROL)
        return PMEM2_E_NOSUPP;
    cache_fence();
    if (length)
        act(memory, length);
    cache_fence();
    return 0;
}

static int guarded_publish_memory(const char *memory, size_t length)
{
    return control_memory(memory, length, write_back_lines);
}

static int guarded_acquire_memory(const char *memory, size_t length)
{
    return control_memory(memory, length, drop_lines);
}

#endif
