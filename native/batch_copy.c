/* SPDX-License-Identifier: BSD-3-Clause */
/* Copy many pieces in one call, with one drain at the end. */
#ifndef PMEM2_BATCH_COPY_C
#define PMEM2_BATCH_COPY_C

#include "batch_flush.c"
#include "guard_errors.c"
#include "guard_flush.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_map_use.c"
#include "os.c"

struct guarded_piece {
    size_t offset;
    const char *data;
    size_t length;
};

/*
 * From this length on, let libpmem2 flush the piece itself, usually with non-temporal stores. Shorter pieces are copied
 * through the cache, and a cache line that several of them share is flushed once.
 */
#define NT_THRESHOLD 256

static int memcpy_many(struct guarded_map *m, const struct guarded_piece *pieces, size_t count)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, 0, 0);
    if (rc)
        return rc;
    for (size_t i = 0; i < count && !rc; i++)
        if (pieces[i].offset > m->size || pieces[i].length > m->size - pieces[i].offset)
            rc = GUARD_RANGE;
    const int paged = is_paged(m);
    const uintptr_t unit = paged ? page_size() : CACHE_LINE;
    struct span pending = {0, 0};
    for (size_t i = 0; i < count && !rc; i++) {
        const struct guarded_piece *piece = &pieces[i];
        const int direct = !paged && piece->length >= NT_THRESHOLD;
        m->memmove(map_ptr(m, piece->offset), piece->data, piece->length,
                   direct ? PMEM2_F_MEM_NODRAIN : PMEM2_F_MEM_NOFLUSH);
        if (piece->length && !direct)
            rc = span_coalesce(m, &pending, span_of(m, unit, piece->offset, piece->length));
    }
    if (!rc)
        rc = span_flush(m, &pending);
    if (!rc && !paged)
        m->drain();
    return map_leave(m, rc);
}

/* `sources` are the distinct maps that the pieces are copied from; a gate counts fewer operations than pieces. */
static int guarded_memcpy_many(struct guarded_map *m, const struct guarded_piece *pieces, size_t count,
                               struct guarded_map **sources, size_t source_count)
{
    size_t entered = 0;
    int rc = 0;
    while (!rc && entered < source_count)
        if (!(rc = map_enter(sources[entered], OPERATION, PMEM2_PROT_READ, 0, sources[entered]->size)))
            entered++;
    if (!rc)
        rc = memcpy_many(m, pieces, count);
    while (entered)
        map_leave(sources[--entered], 0);
    return rc;
}

#endif
