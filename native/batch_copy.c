/* SPDX-License-Identifier: BSD-3-Clause */
/* Copy many pieces in one call, with one drain at the end. */
#ifndef PMEM2_BATCH_COPY_C
#define PMEM2_BATCH_COPY_C

#include "batch_flush.c"
#include "cpu_cache.c"
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

/* Join `next` to the pending lines if they touch; otherwise flush the pending lines and keep `next` pending. */
static void coalesce_lines(const struct guarded_map *m, struct span *pending, struct span next)
{
    if (pending->high && next.low <= pending->high && next.high >= pending->low) {
        pending->low = next.low < pending->low ? next.low : pending->low;
        pending->high = next.high > pending->high ? next.high : pending->high;
        return;
    }
    if (pending->high)
        m->flush((void *)pending->low, pending->high - pending->low);
    *pending = next;
}

static void copy_lines(const struct guarded_map *m, const struct guarded_piece *pieces, size_t count)
{
    struct span pending = {0, 0};
    for (size_t i = 0; i < count; i++) {
        const struct guarded_piece *piece = &pieces[i];
        const int direct = piece->length >= NT_THRESHOLD;
        m->memmove(map_ptr(m, piece->offset), piece->data, piece->length,
                   direct ? PMEM2_F_MEM_NODRAIN : PMEM2_F_MEM_NOFLUSH);
        if (piece->length && !direct)
            coalesce_lines(m, &pending, span_of(m, CACHE_LINE, piece->offset, piece->length));
    }
    if (pending.high)
        m->flush((void *)pending.low, pending.high - pending.low);
    m->drain();
    flush_fence();
}

static int copy_pages(struct guarded_map *m, const struct guarded_piece *pieces, size_t count)
{
    struct span *spans = malloc((count + 1) * sizeof *spans);
    size_t used = 0;
    if (!spans)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        m->memmove(map_ptr(m, pieces[i].offset), pieces[i].data, pieces[i].length, PMEM2_F_MEM_NOFLUSH);
        if (pieces[i].length)
            spans[used++] = span_of(m, page_size(), pieces[i].offset, pieces[i].length);
    }
    int rc = write_back_spans(m, spans, join_spans(spans, used));
    free(spans);
    return rc;
}

static int memcpy_many(struct guarded_map *m, const struct guarded_piece *pieces, size_t count)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, 0, 0);
    if (rc)
        return rc;
    for (size_t i = 0; i < count && !rc; i++)
        if (pieces[i].offset > m->size || pieces[i].length > m->size - pieces[i].offset)
            rc = GUARD_RANGE;
    if (!rc && is_paged(m))
        rc = copy_pages(m, pieces, count);
    else if (!rc)
        copy_lines(m, pieces, count);
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
