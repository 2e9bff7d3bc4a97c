/* SPDX-License-Identifier: BSD-3-Clause */
/* Flush many ranges in one call, each cache line and each page once. */
#ifndef PMEM2_BATCH_FLUSH_C
#define PMEM2_BATCH_FLUSH_C

#include "guard_errors.c"
#include "guard_flush.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_map_use.c"
#include "os.c"
#include "workaround_msync.c"

#define CACHE_LINE ((uintptr_t)64)

/* Addresses of whole cache lines or pages; no span if `high` is 0. */
struct span {
    uintptr_t low, high;
};

/* Round a range outwards to whole units. */
static struct span span_of(const struct guarded_map *m, uintptr_t unit, size_t offset, size_t length)
{
    const uintptr_t start = m->address + offset;
    return (struct span){start & ~(unit - 1), (start + length + unit - 1) & ~(unit - 1)};
}

/* One msync covers pages at most this far apart: waiting for the disk again takes longer than writing the gap. */
#define MSYNC_GAP ((uintptr_t)256 << 10)

/* Join `next` to the pending span, or flush the pending span and keep `next` pending. */
static int span_coalesce(const struct guarded_map *m, struct span *pending, struct span next)
{
    const uintptr_t gap = is_paged(m) ? MSYNC_GAP : 0;
    int rc = 0;
    if (pending->high && next.high && next.low <= pending->high + gap && next.high + gap >= pending->low) {
        pending->low = next.low < pending->low ? next.low : pending->low;
        pending->high = next.high > pending->high ? next.high : pending->high;
        return 0;
    }
    if (pending->high && is_paged(m))
        rc = write_back(m->file, pending->low, pending->high - pending->low);
    else if (pending->high)
        m->flush((void *)pending->low, pending->high - pending->low);
    *pending = next;
    return rc;
}

static int span_flush(const struct guarded_map *m, struct span *pending)
{
    return span_coalesce(m, pending, (struct span){0, 0});
}

static int compare_spans(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return (x->low > y->low) - (x->low < y->low);
}

/*
 * Load a range from the caller's buffer, atomically because other threads may write to the buffer. Return whether the
 * range lies inside the map.
 */
static int load_range(const struct guarded_map *m, const uint64_t *ranges, size_t i, size_t *offset, size_t *length)
{
    *offset = __atomic_load_n(&ranges[2 * i], __ATOMIC_RELAXED);
    *length = __atomic_load_n(&ranges[2 * i + 1], __ATOMIC_RELAXED);
    return *offset <= m->size && *length <= m->size - *offset;
}

static int flush_pages(const struct guarded_map *m, const uint64_t *ranges, size_t count)
{
    struct span pending = {0, 0}, *spans = malloc((count + 1) * sizeof *spans);
    const uintptr_t unit = page_size();
    size_t used = 0, offset, length;
    int rc = spans ? 0 : -ENOMEM;
    for (size_t i = 0; i < count && !rc; i++) {
        if (!load_range(m, ranges, i, &offset, &length))
            rc = GUARD_RANGE;
        else if (length)
            spans[used++] = span_of(m, unit, offset, length);
    }
    if (!rc)
        qsort(spans, used, sizeof *spans, compare_spans);
    for (size_t i = 0; i < used && !rc; i++)
        rc = span_coalesce(m, &pending, spans[i]);
    free(spans);
    return rc ? rc : span_flush(m, &pending);
}

/* Skip cache lines that the previous ranges have flushed. */
static int flush_lines(const struct guarded_map *m, const uint64_t *ranges, size_t count)
{
    const pmem2_flush_fn flush = m->flush;
    uintptr_t start = 0, end = 0;
    size_t offset, length;
    for (size_t i = 0; i < count; i++) {
        if (!load_range(m, ranges, i, &offset, &length))
            return GUARD_RANGE;
        if (!length)
            continue;
        struct span span = span_of(m, CACHE_LINE, offset, length);
        if (span.low >= end || span.low < start)
            start = span.low;
        else
            span.low = end;
        if (span.high > span.low) {
            flush((void *)span.low, span.high - span.low);
            end = span.high;
        }
    }
    return 0;
}

/*
 * Check all ranges before flushing the first, so that a bad range flushes nothing. flush_lines checks each range again,
 * because another thread may change the buffer.
 */
static int guarded_flush_many(struct guarded_map *m, const uint64_t *ranges, size_t count, int drain)
{
    int rc = map_enter(m, OPERATION, NEED_ANY, 0, 0);
    if (rc)
        return rc;
    size_t offset, length, outside = 0;
    if (is_paged(m))
        return map_leave(m, flush_pages(m, ranges, count));
    for (size_t i = 0; i < count; i++)
        outside += !load_range(m, ranges, i, &offset, &length);
    rc = outside ? GUARD_RANGE : flush_lines(m, ranges, count);
    if (!rc && drain)
        m->drain();
    return map_leave(m, rc);
}

#endif
