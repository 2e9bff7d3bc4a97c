/* SPDX-License-Identifier: BSD-3-Clause */
/* What is done to a map: enter, check, act, leave, in one call. */

#define DURABILITY 0u  /* needs READ or WRITE, whichever */

static int map_enter(struct guarded_map *m, uint64_t unit, unsigned need, size_t offset, size_t length)
{
    int rc = gate_enter(&m->gate, unit);
    if (rc)
        return rc;
    if (need & PMEM2_PROT_WRITE & ~m->protection)
        rc = GUARD_UNWRITABLE;
    else if (need & PMEM2_PROT_READ & ~m->protection)
        rc = GUARD_UNREADABLE;
    else if (!(m->protection & (PMEM2_PROT_READ | PMEM2_PROT_WRITE)))
        rc = GUARD_INACCESSIBLE;
    else if (offset > m->size || length > m->size - offset)
        rc = GUARD_RANGE;
    if (rc)
        gate_leave(&m->gate, unit);
    return rc;
}

static int map_leave(struct guarded_map *m, int rc)
{
    gate_leave(&m->gate, OPERATION);
    return rc;
}

static char *at(const struct guarded_map *m, size_t offset)
{
    return (char *)(m->address + offset);
}

/* A pin is an operation or a view that lasts longer than one call. */
struct guarded_pin {
    struct guarded_map *map;
    uint64_t unit;
    uint64_t generation;
};

static int pin(struct guarded_pin *pin, struct guarded_map *m, uint64_t unit, unsigned need, size_t offset,
               size_t length)
{
    int rc = map_enter(m, unit, need, offset, length);
    if (!rc)
        *pin = (struct guarded_pin){m, unit, generation};
    return rc;
}

static int guarded_pin_operation(struct guarded_pin *p, struct guarded_map *m, unsigned need, size_t offset,
                                 size_t length)
{
    return pin(p, m, OPERATION, need, offset, length);
}

static int guarded_pin_view(struct guarded_pin *p, struct guarded_map *m, size_t offset, size_t length)
{
    return pin(p, m, VIEW, PMEM2_PROT_READ, offset, length);
}

static void guarded_unpin(struct guarded_pin *p)
{
    struct guarded_map *m = __atomic_exchange_n(&p->map, NULL, __ATOMIC_ACQ_REL);
    if (!m || (p->unit == OPERATION && p->generation != generation))
        return;
    uint64_t word = gate_now(gate_leave(&m->gate, p->unit));
    if (word & DROPPED && !(word & (VIEWS | OPERATIONS)))
        map_free(m);
}

static int make_durable(const struct guarded_map *m, size_t offset, size_t length)
{
    if (m->granularity == PMEM2_GRANULARITY_PAGE)
        return length ? write_back(m->file, m->address + offset, length) : 0;
    m->persist(at(m, offset), length);
    return 0;
}

static int guarded_persist(struct guarded_map *m, size_t offset, size_t length)
{
    int rc = map_enter(m, OPERATION, DURABILITY, offset, length);
    return rc ? rc : map_leave(m, make_durable(m, offset, length));
}

static int guarded_flush(struct guarded_map *m, size_t offset, size_t length)
{
    int rc = map_enter(m, OPERATION, DURABILITY, offset, length);
    if (rc)
        return rc;
    if (m->granularity == PMEM2_GRANULARITY_PAGE)
        rc = make_durable(m, offset, length);
    else
        m->flush(at(m, offset), length);
    return map_leave(m, rc);
}

static int guarded_drain(struct guarded_map *m)
{
    int rc = map_enter(m, OPERATION, DURABILITY, 0, 0);
    if (rc)
        return rc;
    if (m->granularity != PMEM2_GRANULARITY_PAGE)
        m->drain();
    return map_leave(m, 0);
}

/* On PAGE libpmem2's deep flush does nothing at all, so write back. */
static int guarded_deep_flush(struct guarded_map *m, size_t offset, size_t length, char *message)
{
    int rc = map_enter(m, OPERATION, DURABILITY, offset, length);
    if (rc)
        return rc;
    if (m->granularity == PMEM2_GRANULARITY_PAGE)
        rc = make_durable(m, offset, length);
    else
        rc = told(pmem2_deep_flush(m->map, at(m, offset), length), message);
    return map_leave(m, rc);
}

/* Whole cache lines or pages. */
struct run {
    uintptr_t low, high;
};

static struct run run_of(const struct guarded_map *m, uintptr_t unit, size_t offset, size_t length)
{
    return (struct run){(m->address + offset) & ~(unit - 1), (m->address + offset + length + unit - 1) & ~(unit - 1)};
}

/* An msync waits for the disk, which takes longer than writing what else is dirty in a small gap. */
#define BRIDGED ((uintptr_t)256 << 10)

/* What is in `run` is held back until something comes that is too far from it, or nothing, to be flushed at once. */
static int run_add(const struct guarded_map *m, struct run *run, struct run more)
{
    const int paged = m->granularity == PMEM2_GRANULARITY_PAGE;
    const uintptr_t gap = paged ? BRIDGED : 0;
    int rc = 0;
    if (run->high && more.high && more.low <= run->high + gap && more.high + gap >= run->low) {
        run->low = more.low < run->low ? more.low : run->low;
        run->high = more.high > run->high ? more.high : run->high;
        return 0;
    }
    if (run->high && paged)
        rc = write_back(m->file, run->low, run->high - run->low);
    else if (run->high)
        m->flush((void *)run->low, run->high - run->low);
    *run = more;
    return rc;
}

static int by_address(const void *a, const void *b)
{
    const struct run *x = a, *y = b;
    return (x->low > y->low) - (x->low < y->low);
}

/* Read a range from the buffer of a caller, whose other threads may change it meanwhile; return whether it is inside. */
static int range_at(const struct guarded_map *m, const uint64_t *ranges, size_t i, size_t *offset, size_t *length)
{
    *offset = __atomic_load_n(&ranges[2 * i], __ATOMIC_RELAXED);
    *length = __atomic_load_n(&ranges[2 * i + 1], __ATOMIC_RELAXED);
    return *offset <= m->size && *length <= m->size - *offset;
}

static int pages_flush(const struct guarded_map *m, const uint64_t *ranges, size_t count)
{
    struct run now = {0, 0}, *runs = malloc((count + 1) * sizeof *runs);
    const uintptr_t unit = page_size();
    size_t used = 0, offset, length;
    int rc = runs ? 0 : -ENOMEM;
    for (size_t i = 0; i < count && !rc; i++) {
        if (!range_at(m, ranges, i, &offset, &length))
            rc = GUARD_RANGE;
        else if (length)
            runs[used++] = run_of(m, unit, offset, length);
    }
    if (!rc)
        qsort(runs, used, sizeof *runs, by_address);
    for (size_t i = 0; i < used && !rc; i++)
        rc = run_add(m, &now, runs[i]);
    free(runs);
    return rc ? rc : run_add(m, &now, (struct run){0, 0});
}

/* Lines that were flushed just before are not flushed again. */
static int lines_flush(const struct guarded_map *m, const uint64_t *ranges, size_t count)
{
    const pmem2_flush_fn flush = m->flush;
    uintptr_t start = 0, end = 0;
    size_t offset, length;
    for (size_t i = 0; i < count; i++) {
        if (!range_at(m, ranges, i, &offset, &length))
            return GUARD_RANGE;
        if (!length)
            continue;
        struct run run = run_of(m, 64, offset, length);
        if (run.low >= end || run.low < start)
            start = run.low;
        else
            run.low = end;
        if (run.high > run.low) {
            flush((void *)run.low, run.high - run.low);
            end = run.high;
        }
    }
    return 0;
}

/* All ranges are checked before the first is flushed; and each once more, as another thread may change the buffer. */
static int guarded_flush_many(struct guarded_map *m, const uint64_t *ranges, size_t count, int drain)
{
    int rc = map_enter(m, OPERATION, DURABILITY, 0, 0);
    if (rc)
        return rc;
    size_t offset, length, outside = 0;
    if (m->granularity == PMEM2_GRANULARITY_PAGE)
        return map_leave(m, pages_flush(m, ranges, count));
    for (size_t i = 0; i < count; i++)
        outside += !range_at(m, ranges, i, &offset, &length);
    rc = outside ? GUARD_RANGE : lines_flush(m, ranges, count);
    if (!rc && drain)
        m->drain();
    return map_leave(m, rc);
}

static int copy(const struct guarded_map *m, size_t offset, const void *data, size_t length, unsigned flags)
{
    if (m->granularity != PMEM2_GRANULARITY_PAGE) {
        m->copy(at(m, offset), data, length, flags);
        return 0;
    }
    m->copy(at(m, offset), data, length, PMEM2_F_MEM_NOFLUSH);
    return flags & PMEM2_F_MEM_NOFLUSH ? 0 : make_durable(m, offset, length);
}

static int guarded_memmove(struct guarded_map *m, size_t offset, const char *data, size_t length, unsigned flags)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, offset, length);
    return rc ? rc : map_leave(m, copy(m, offset, data, length, flags));
}

struct guarded_piece {
    size_t offset;
    const char *data;
    size_t length;
};

/* A longer piece goes past the cache, as libpmem2 sees fit; of shorter ones, what they share is flushed once. */
#define CACHED 256

static int guarded_memcpy_many(struct guarded_map *m, const struct guarded_piece *pieces, size_t count)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, 0, 0);
    if (rc)
        return rc;
    for (size_t i = 0; i < count && !rc; i++)
        if (pieces[i].offset > m->size || pieces[i].length > m->size - pieces[i].offset)
            rc = GUARD_RANGE;
    const int paged = m->granularity == PMEM2_GRANULARITY_PAGE;
    const uintptr_t unit = paged ? page_size() : 64;
    struct run run = {0, 0};
    for (size_t i = 0; i < count && !rc; i++) {
        const struct guarded_piece *piece = &pieces[i];
        const int direct = !paged && piece->length >= CACHED;
        m->copy(at(m, piece->offset), piece->data, piece->length, direct ? PMEM2_F_MEM_NODRAIN : PMEM2_F_MEM_NOFLUSH);
        if (piece->length && !direct)
            rc = run_add(m, &run, run_of(m, unit, piece->offset, piece->length));
    }
    if (!rc)
        rc = run_add(m, &run, (struct run){0, 0});
    if (!rc && !paged)
        m->drain();
    return map_leave(m, rc);
}

static int guarded_memset(struct guarded_map *m, size_t offset, int value, size_t length, unsigned flags)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, offset, length);
    if (rc)
        return rc;
    if (m->granularity != PMEM2_GRANULARITY_PAGE)
        m->set(at(m, offset), value, length, flags);
    else {
        m->set(at(m, offset), value, length, PMEM2_F_MEM_NOFLUSH);
        if (!(flags & PMEM2_F_MEM_NOFLUSH))
            rc = make_durable(m, offset, length);
    }
    return map_leave(m, rc);
}

/* a byte, or a verdict with its sign changed */
static int guarded_get_byte(struct guarded_map *m, size_t offset)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_READ, offset, 1);
    return rc ? -rc : map_leave(m, *(const unsigned char *)at(m, offset));
}

/* A plain store. 1, 2, 4 or 8 naturally aligned bytes are one instruction, so that they never tear. */
static int guarded_store(struct guarded_map *m, size_t offset, const char *data, size_t length)
{
    int rc = map_enter(m, OPERATION, PMEM2_PROT_WRITE, offset, length);
    if (rc)
        return rc;
    char *target = at(m, offset);
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

static int enter_u64(struct guarded_map *m, unsigned need, size_t offset)
{
    int rc = map_enter(m, OPERATION, need, offset, sizeof(uint64_t));
    if (!rc && (m->address + offset) % sizeof(uint64_t))
        rc = map_leave(m, GUARD_UNALIGNED);
    return rc;
}

static int leave_u64(struct guarded_map *m, size_t offset, int persist)
{
    return map_leave(m, persist ? make_durable(m, offset, sizeof(uint64_t)) : 0);
}

static int guarded_load_u64(struct guarded_map *m, size_t offset, uint64_t *value)
{
    int rc = enter_u64(m, PMEM2_PROT_READ, offset);
    if (rc)
        return rc;
    *value = __atomic_load_n((uint64_t *)at(m, offset), __ATOMIC_SEQ_CST);
    return map_leave(m, 0);
}

static int guarded_store_u64(struct guarded_map *m, size_t offset, uint64_t value, int persist)
{
    int rc = enter_u64(m, PMEM2_PROT_WRITE, offset);
    if (rc)
        return rc;
    __atomic_store_n((uint64_t *)at(m, offset), value, __ATOMIC_SEQ_CST);
    return leave_u64(m, offset, persist);
}

static int guarded_compare_exchange_u64(struct guarded_map *m, size_t offset, uint64_t *expected, uint64_t desired,
                                        int persist)
{
    int rc = enter_u64(m, PMEM2_PROT_READ | PMEM2_PROT_WRITE, offset);
    if (rc)
        return rc;
    __atomic_compare_exchange_n((uint64_t *)at(m, offset), expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return leave_u64(m, offset, persist);
}

static int guarded_fetch_add_u64(struct guarded_map *m, size_t offset, uint64_t delta, int persist, uint64_t *previous)
{
    int rc = enter_u64(m, PMEM2_PROT_READ | PMEM2_PROT_WRITE, offset);
    if (rc)
        return rc;
    *previous = __atomic_fetch_add((uint64_t *)at(m, offset), delta, __ATOMIC_SEQ_CST);
    return leave_u64(m, offset, persist);
}
