/* SPDX-License-Identifier: BSD-3-Clause */
/* Copies, fills and plain stores and loads of bytes. */
#ifndef PMEM2_GUARD_COPY_C
#define PMEM2_GUARD_COPY_C

#include "cpu_cache.c"
#include "guard_flush.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_map_use.c"
#include "os.c"

/* The flags for libpmem2. For PAGE, it would write back with its own msync (workaround_msync.c). */
static unsigned copy_flags(const struct guarded_map *m, unsigned flags)
{
    return is_paged(m) ? PMEM2_F_MEM_NOFLUSH : flags;
}

/* Complete a copy that libpmem2 has made with these flags. */
static int finish_copy(struct guarded_map *m, size_t offset, size_t length, unsigned flags)
{
    if (flags & PMEM2_F_MEM_NOFLUSH)
        return 0;
    if (is_paged(m))
        return persist_range(m, offset, length);
    if (!(flags & PMEM2_F_MEM_NODRAIN))
        flush_fence();
    return 0;
}

static int guarded_memmove(struct guarded_map *m, size_t offset, const char *data, size_t length, unsigned flags)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, offset, length);
    if (rc)
        return rc;
    m->memmove(map_ptr(m, offset), data, length, copy_flags(m, flags));
    return map_leave(m, finish_copy(m, offset, length, flags));
}

/* Copy a whole map into another one, or into itself. */
static int guarded_copy_map(struct guarded_map *m, size_t offset, struct guarded_map *source, unsigned flags)
{
    int rc = map_enter(source, OPERATION, PMEM2_PROT_READ, 0, source->size);
    if (!rc)
        rc = map_leave(source, guarded_memmove(m, offset, map_ptr(source, 0), source->size, flags));
    return rc;
}

static int guarded_memset(struct guarded_map *m, size_t offset, int value, size_t length, unsigned flags)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, offset, length);
    if (rc)
        return rc;
    m->memset(map_ptr(m, offset), value, length, copy_flags(m, flags));
    return map_leave(m, finish_copy(m, offset, length, flags));
}

/* Return the byte at an index, which may count from the end, or a negated GUARD_* code. */
static int guarded_get_byte(struct guarded_map *m, ptrdiff_t index)
{
    const size_t offset = (size_t)index + (index < 0 ? m->size : 0);
    int rc = map_enter(m, OPERATION, PMEM2_PROT_READ, offset, 1);
    return rc ? -rc : map_leave(m, *(const unsigned char *)map_ptr(m, offset));
}

static int guarded_set_byte(struct guarded_map *m, ptrdiff_t index, unsigned char value)
{
    const size_t offset = (size_t)index + (index < 0 ? m->size : 0);
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, offset, 1);
    if (rc)
        return rc;
    __atomic_store_n(map_ptr(m, offset), (char)value, __ATOMIC_RELAXED);
    return map_leave(m, 0);
}

/* Enter for `count` bytes that lie `step` apart, the first at `start`. */
static int slice_enter(struct guarded_map *m, unsigned need, size_t start, ptrdiff_t step, size_t count)
{
    const size_t stride = step < 0 ? 0 - (size_t)step : (size_t)step;
    const size_t room = step < 0 ? start : m->size - start; /* checked below: `start` lies inside */
    int rc = map_enter(m, OPERATION, need, start, count != 0);
    if (!rc && count > 1 && (!stride || (room - (step > 0)) / stride < count - 1))
        rc = map_leave(m, GUARD_RANGE);
    return rc;
}

/* Return the offset of the first occurrence in a range, -1 if there is none, or -1 minus a GUARD_* code. */
static ptrdiff_t guarded_find(struct guarded_map *m, size_t offset, size_t length, const char *wanted,
                              size_t wanted_length)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_READ, offset, length);
    if (rc)
        return -1 - rc;
    const char *found = find_bytes(map_ptr(m, offset), length, wanted, wanted_length);
    const ptrdiff_t place = found ? found - map_ptr(m, 0) : -1;
    map_leave(m, 0);
    return place;
}

/* Copy a slice out of the map. */
static int guarded_read(struct guarded_map *m, size_t start, ptrdiff_t step, size_t count, char *target)
{
    int rc = slice_enter(m, PMEM2_PROT_READ, start, step, count);
    if (rc)
        return rc;
    const char *source = map_ptr(m, start);
    if (step == 1)
        memmove(target, source, count);
    else
        for (size_t i = 0; i < count; i++, source += step)
            target[i] = *source;
    return map_leave(m, 0);
}

/* Store without flushing. Naturally aligned 1, 2, 4 or 8 bytes are one store instruction, so that they never tear. */
static void store_bytes(char *target, const char *data, size_t length)
{
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
}

/* Store to a slice of the map, without flushing. */
static int guarded_write(struct guarded_map *m, size_t start, ptrdiff_t step, size_t count, const char *data)
{
    int rc = slice_enter(m, PMEM2_PROT_WRITE, start, step, count);
    if (rc)
        return rc;
    char *target = map_ptr(m, start);
    if (step == 1)
        store_bytes(target, data, count);
    else
        for (size_t i = 0; i < count; i++, target += step)
            *target = data[i];
    return map_leave(m, 0);
}

#endif
