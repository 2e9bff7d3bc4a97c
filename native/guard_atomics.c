/* SPDX-License-Identifier: BSD-3-Clause */
/* Atomic loads, stores and read-modify-writes of aligned 8-byte words. */
#ifndef PMEM2_GUARD_ATOMICS_C
#define PMEM2_GUARD_ATOMICS_C

#include "guard_errors.c"
#include "guard_flush.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_map_use.c"
#include "os.c"

static int enter_u64(struct guarded_map *m, unsigned need, size_t offset)
{
    int rc = map_enter(m, OPERATION, need, offset, sizeof(uint64_t));
    if (!rc && (m->address + offset) % sizeof(uint64_t))
        rc = map_leave(m, GUARD_UNALIGNED);
    return rc;
}

static int leave_u64(struct guarded_map *m, size_t offset, int persist)
{
    return map_leave(m, persist ? persist_range(m, offset, sizeof(uint64_t)) : 0);
}

/*
 * The functions that return a value fail as strtoull does: they return UINT64_MAX and set errno, to one of the codes that
 * other functions return. A success that returns UINT64_MAX sets errno to 0.
 */
static uint64_t value_or_error(uint64_t value, int rc)
{
    if (rc)
        value = UINT64_MAX;
    if (value == UINT64_MAX)
        errno = rc;
    return value;
}

static uint64_t guarded_load_u64(struct guarded_map *m, size_t offset)
{
    int rc = enter_u64(m, PMEM2_PROT_READ, offset);
    if (rc)
        return value_or_error(0, rc);
    const uint64_t value = __atomic_load_n((uint64_t *)map_ptr(m, offset), __ATOMIC_SEQ_CST);
    return value_or_error(value, map_leave(m, 0));
}

static int guarded_store_u64(struct guarded_map *m, size_t offset, uint64_t value, int persist)
{
    int rc = enter_u64(m, PMEM2_PROT_WRITE, offset);
    if (rc)
        return rc;
    __atomic_store_n((uint64_t *)map_ptr(m, offset), value, __ATOMIC_SEQ_CST);
    return leave_u64(m, offset, persist);
}

static uint64_t guarded_compare_exchange_u64(struct guarded_map *m, size_t offset, uint64_t expected, uint64_t desired,
                                             int persist)
{
    int rc = enter_u64(m, PMEM2_PROT_READ | PMEM2_PROT_WRITE, offset);
    if (rc)
        return value_or_error(0, rc);
    __atomic_compare_exchange_n((uint64_t *)map_ptr(m, offset), &expected, desired, 0, __ATOMIC_SEQ_CST,
                                __ATOMIC_SEQ_CST);
    return value_or_error(expected, leave_u64(m, offset, persist));
}

static uint64_t guarded_fetch_add_u64(struct guarded_map *m, size_t offset, uint64_t delta, int persist)
{
    int rc = enter_u64(m, PMEM2_PROT_READ | PMEM2_PROT_WRITE, offset);
    if (rc)
        return value_or_error(0, rc);
    const uint64_t previous = __atomic_fetch_add((uint64_t *)map_ptr(m, offset), delta, __ATOMIC_SEQ_CST);
    return value_or_error(previous, leave_u64(m, offset, persist));
}

#endif
