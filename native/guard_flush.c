/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Make one range durable: persist, flush, drain, deep flush. For PAGE granularity each of them is an msync. Else a fence
 * comes before each flush and after each drain, where libpmem2 alone orders too little (cpu_cache.c).
 */
#ifndef PMEM2_GUARD_FLUSH_C
#define PMEM2_GUARD_FLUSH_C

#include "cpu_cache.c"
#include "guard_errors.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_map_use.c"
#include "os.c"
#include "workaround_msync.c"

static int is_paged(const struct guarded_map *m)
{
    return m->granularity == PMEM2_GRANULARITY_PAGE;
}

static int persist_range(struct guarded_map *m, size_t offset, size_t length)
{
    if (is_paged(m))
        return write_back(m, m->address + offset, length);
    flush_fence();
    m->persist(map_ptr(m, offset), length);
    flush_fence();
    return 0;
}

static int guarded_persist(struct guarded_map *m, size_t offset, size_t length)
{
    int rc = map_enter(m, OPERATION, NEED_ANY, offset, length);
    return rc ? rc : map_leave(m, persist_range(m, offset, length));
}

static int guarded_flush(struct guarded_map *m, size_t offset, size_t length)
{
    int rc = map_enter(m, OPERATION, NEED_ANY, offset, length);
    if (rc)
        return rc;
    if (is_paged(m))
        return map_leave(m, persist_range(m, offset, length));
    flush_fence();
    m->flush(map_ptr(m, offset), length);
    return map_leave(m, 0);
}

static int guarded_drain(struct guarded_map *m)
{
    int rc = map_enter(m, OPERATION, NEED_ANY, 0, 0);
    if (rc)
        return rc;
    if (is_paged(m))
        return map_leave(m, persist_range(m, 0, 0)); /* only returns an earlier error */
    m->drain();
    flush_fence();
    return map_leave(m, 0);
}

/* For PAGE, libpmem2's deep flush does nothing. */
static int guarded_deep_flush(struct guarded_map *m, size_t offset, size_t length, char *message)
{
    int rc = map_enter(m, OPERATION, NEED_ANY, offset, length);
    if (rc)
        return rc;
    if (is_paged(m))
        return map_leave(m, persist_range(m, offset, length));
    flush_fence();
    rc = save_errormsg(pmem2_deep_flush(m->map, map_ptr(m, offset), length), message);
    flush_fence();
    return map_leave(m, rc);
}

#endif
