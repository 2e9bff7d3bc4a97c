/* SPDX-License-Identifier: BSD-3-Clause */
/* Flush many ranges in one call, each cache line and each page once. */
#ifndef PMEM2_BATCH_FLUSH_C
#define PMEM2_BATCH_FLUSH_C

#include "cpu_cache.c"
#include "guard_errors.c"
#include "guard_flush.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_map_use.c"
#include "os.c"
#include "workaround_msync.c"

/* Round a range outwards to whole units. */
static struct span span_of(const struct guarded_map *m, uintptr_t unit, size_t offset, size_t length)
{
    const uintptr_t start = m->address + offset;
    return (struct span){start & ~(unit - 1), (start + length + unit - 1) & ~(unit - 1)};
}

/* One msync covers pages at most this far apart: waiting for the disk again takes longer than writing the gap. */
#define MSYNC_GAP ((uintptr_t)256 << 10)

static int compare_spans(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return (x->low > y->low) - (x->low < y->low);
}

/* Sort spans of pages and join those that are near; return how many are left. */
static size_t join_spans(struct span *spans, size_t count)
{
    size_t joined = 0;
    qsort(spans, count, sizeof *spans, compare_spans);
    for (size_t i = 0; i < count; i++)
        if (!joined || spans[i].low > spans[joined - 1].high + MSYNC_GAP)
            spans[joined++] = spans[i];
        else if (spans[i].high > spans[joined - 1].high)
            spans[joined - 1].high = spans[i].high;
    return joined;
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

static int flush_pages(struct guarded_map *m, const uint64_t *ranges, size_t count)
{
    struct span *spans = malloc((count + 1) * sizeof *spans);
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
        rc = write_back_spans(m, spans, join_spans(spans, used));
    free(spans);
    return rc;
}

/*
 * Call `act` for the lines of many ranges, without those of the previous ranges. Check all ranges before the first call,
 * so that a bad range has no effect, and each range again, because another thread may change the buffer.
 */
static int act_on_lines(const struct guarded_map *m, const uint64_t *ranges, size_t count, pmem2_flush_fn act)
{
    uintptr_t start = 0, end = 0;
    size_t offset, length, outside = 0;
    for (size_t i = 0; i < count; i++)
        outside += !load_range(m, ranges, i, &offset, &length);
    if (outside)
        return GUARD_RANGE;
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
            act((void *)span.low, span.high - span.low);
            end = span.high;
        }
    }
    return 0;
}

static int guarded_flush_many(struct guarded_map *m, const uint64_t *ranges, size_t count, int drain)
{
    int rc = map_enter(m, OPERATION, NEED_ANY, 0, 0);
    if (rc)
        return rc;
    if (is_paged(m))
        return map_leave(m, flush_pages(m, ranges, count));
    flush_fence();
    rc = act_on_lines(m, ranges, count, m->flush);
    if (!rc && drain) {
        m->drain();
        flush_fence();
    }
    return map_leave(m, rc);
}

#endif
