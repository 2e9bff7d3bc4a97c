/* SPDX-License-Identifier: BSD-3-Clause */
/* Copies, fills and plain stores and loads of bytes. */
#ifndef PMEM2_GUARD_COPY_C
#define PMEM2_GUARD_COPY_C

#include "guard_flush.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "os.c"

/* For PAGE, copy without flushing and then msync: libpmem2 would write back with its own msync (workaround_msync.c). */
static int guarded_memmove(struct guarded_map *m, size_t offset, const char *data, size_t length, unsigned flags)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, offset, length);
    if (rc)
        return rc;
    m->memmove(map_ptr(m, offset), data, length, is_paged(m) ? PMEM2_F_MEM_NOFLUSH : flags);
    if (is_paged(m) && !(flags & PMEM2_F_MEM_NOFLUSH))
        rc = persist_range(m, offset, length);
    return map_leave(m, rc);
}

static int guarded_memset(struct guarded_map *m, size_t offset, int value, size_t length, unsigned flags)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, offset, length);
    if (rc)
        return rc;
    m->memset(map_ptr(m, offset), value, length, is_paged(m) ? PMEM2_F_MEM_NOFLUSH : flags);
    if (is_paged(m) && !(flags & PMEM2_F_MEM_NOFLUSH))
        rc = persist_range(m, offset, length);
    return map_leave(m, rc);
}

/* Return the byte, or the negated GUARD_* code. */
static int guarded_get_byte(struct guarded_map *m, size_t offset)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_READ, offset, 1);
    return rc ? -rc : map_leave(m, *(const unsigned char *)map_ptr(m, offset));
}

/* Store without flushing. Naturally aligned 1, 2, 4 or 8 bytes are one store instruction, so that they never tear. */
static int guarded_store(struct guarded_map *m, size_t offset, const char *data, size_t length)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, offset, length);
    if (rc)
        return rc;
    char *target = map_ptr(m, offset);
    const int aligned = length && (uintptr_t)target % length == 0;
    if (aligned && length == 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        __atomic_store_n((uint64_t *)target, word, __ATOMIC_RELAXED);
    } else if (aligned && length == 4) {
        uint32_t word;
        memcpy(&word, data, sizeof word);
        __atomic_store_n((uint32_t *)target, word, __ATOMIC_RELAXED);
    } else if (aligned && length == 2) {
        uint16_t word;
        memcpy(&word, data, sizeof word);
        __atomic_store_n((uint16_t *)target, word, __ATOMIC_RELAXED);
    } else
        memmove(target, data, length);
    return map_leave(m, 0);
}

#endif
