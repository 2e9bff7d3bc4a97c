/* SPDX-License-Identifier: BSD-3-Clause */
/* Making, closing and dropping maps. */

struct guarded_map {
    uint64_t gate;
    uintptr_t address;
    size_t size;
    unsigned protection;
    enum pmem2_granularity granularity;
    pmem2_persist_fn persist;
    pmem2_flush_fn flush;
    pmem2_drain_fn drain;
    pmem2_memmove_fn copy;
    pmem2_memset_fn set;
    struct pmem2_map *map;
    struct guarded_reservation *reservation;
    struct guarded_map *neighbour;  /* in the list of maps in reservations, which `find` answers from */
    uint64_t serial;                /* never used twice: a number that Python can look a Map up by */
    size_t unmap;                   /* bytes that are ours to unmap: a device DAX that no NVDIMM region backs */
};

static struct guarded_map *reserved_maps;
static uint64_t serials;

static struct guarded_map *guarded_map_alloc(void)
{
    return calloc(1, sizeof(struct guarded_map));
}

static void take_functions(struct guarded_map *m, struct pmem2_map *map)
{
    m->persist = pmem2_get_persist_fn(map);
    m->flush = pmem2_get_flush_fn(map);
    m->drain = pmem2_get_drain_fn(map);
    m->copy = pmem2_get_memmove_fn(map);
    m->set = pmem2_get_memset_fn(map);
}

/* under library_lock */
static void map_opened(struct guarded_map *m, unsigned protection, struct guarded_reservation *r)
{
    m->address = (uintptr_t)pmem2_map_get_address(m->map);
    m->size = pmem2_map_get_size(m->map);
    if (!m->persist) {
        m->granularity = pmem2_map_get_store_granularity(m->map);
        take_functions(m, m->map);
    }
    m->protection = protection;
    m->serial = ++serials;
    if (r) {
        r->references++;
        m->reservation = r;
        m->neighbour = reserved_maps;
        reserved_maps = m;
    }
}

/* under library_lock */
static int map_delete(struct guarded_map *m, char *message)
{
    int rc = told(pmem2_map_delete(&m->map), message);
    if (rc)
        return rc;
    if (m->unmap)
        unmap((void *)m->address, m->unmap);
    if (m->reservation) {
        struct guarded_map **link = &reserved_maps;
        while (*link != m)
            link = &(*link)->neighbour;
        *link = m->neighbour;
        reservation_unref(m->reservation);
        m->reservation = NULL;
    }
    return 0;
}

/* pmem2_map_new for a device DAX that no NVDIMM region backs, in the library's order of checks */
static int map_dax(struct guarded_map *m, struct guarded_source *s, int granularity, size_t offset, size_t length,
                   enum pmem2_sharing_type sharing, unsigned protection, char *message)
{
    if (granularity == GUARD_GRANULARITY_UNSET)
        return PMEM2_E_GRANULARITY_NOT_SET;
    if (offset % s->dax_alignment)
        return PMEM2_E_OFFSET_UNALIGNED;
    if (sharing == PMEM2_PRIVATE)
        return PMEM2_E_SRC_DEVDAX_PRIVATE;
    if (length % s->dax_alignment)
        return PMEM2_E_LENGTH_UNALIGNED;
    if (offset >= s->dax_size || length > s->dax_size - offset)
        return PMEM2_E_MAP_RANGE;
    if (granularity == PMEM2_GRANULARITY_BYTE)
        return PMEM2_E_GRANULARITY_NOT_SUPPORTED;
    if (!length)
        length = s->dax_size - offset;
    void *address;
    int rc = map_shared(s->fd, offset, length, protection, &address);
    if (rc)
        return rc;
    rc = told(pmem2_map_from_existing(&m->map, s->source, address, length, PMEM2_GRANULARITY_CACHE_LINE), message);
    if (rc)
        unmap(address, length);
    else
        m->unmap = length;
    return rc;
}

/* The functions of CACHE_LINE, where the environment claims it, from a map of memory of our own: they serve all maps. */
static int take_cache_line_functions(struct guarded_map *m, struct guarded_source *s, char *message)
{
    static char memory[64];
    static struct guarded_map known;
    if (!known.persist) {
        int rc = told(pmem2_map_from_existing(&known.map, s->source, memory, sizeof memory,
                                              PMEM2_GRANULARITY_CACHE_LINE), message);
        if (rc)
            return rc;
        take_functions(&known, known.map);
        pmem2_map_delete(&known.map);
    }
    m->persist = known.persist;
    m->flush = known.flush;
    m->drain = known.drain;
    m->copy = known.copy;
    m->set = known.set;
    return 0;
}

/* The second half of mapping a file that is not on DAX: what libpmem2 has mapped privately becomes shared. */
static int map_share(struct guarded_map *m, struct guarded_source *s, int granularity, size_t offset,
                     unsigned protection, char *message)
{
    int rc = 0;
    m->granularity = forced_granularity(PMEM2_GRANULARITY_PAGE);
    if ((int)m->granularity > granularity)
        rc = PMEM2_E_GRANULARITY_NOT_SUPPORTED;
    else if (m->granularity == PMEM2_GRANULARITY_CACHE_LINE)
        rc = take_cache_line_functions(m, s, message);
    else /* those of BYTE; on PAGE only its plain copies are used */
        take_functions(m, m->map);
    if (!rc)
        rc = map_over(pmem2_map_get_address(m->map), s->fd, offset, pmem2_map_get_size(m->map), protection);
    if (rc)
        pmem2_map_delete(&m->map);
    return rc;
}

/*
 * On a file that is not on DAX, pmem2_map_new tries MAP_SYNC first, at a fixed address. Many file systems refuse only
 * after the kernel has unmapped what was there, and the second attempt then maps over whatever another thread has got
 * in the gap, its stack for one. So there libpmem2 maps privately, which takes one attempt, and we map over that.
 */
static int map_new(struct guarded_map *m, struct guarded_source *s, int granularity, size_t offset, size_t length,
                   enum pmem2_sharing_type sharing, unsigned protection, struct guarded_reservation *r,
                   size_t reservation_offset, char *message)
{
    struct pmem2_config *config;
    size_t size;
    const int paged = s->fd >= 0 && !s->device && sharing == PMEM2_SHARED && !is_dax(s->fd, offset);
    int rc = told(pmem2_config_new(&config), message);
    if (rc)
        return rc;
    if (granularity != GUARD_GRANULARITY_UNSET)
        rc = pmem2_config_set_required_store_granularity(config, (enum pmem2_granularity)granularity);
    if (!rc)
        rc = pmem2_config_set_offset(config, offset);
    if (!rc)
        rc = pmem2_config_set_length(config, length);
    if (!rc)
        rc = pmem2_config_set_sharing(config, paged ? PMEM2_PRIVATE : sharing);
    if (!rc)
        rc = pmem2_config_set_protection(config, paged ? PMEM2_PROT_READ : protection);
    if (!rc && r)
        rc = pmem2_config_set_vm_reservation(config, r->reservation, reservation_offset);
    if (!rc)
        rc = pmem2_map_new(&m->map, config, s->source);
    told(rc, message);
    pmem2_config_delete(&config);
    /* an offset exactly at the end passes libpmem2's checks and fails in mmap */
    if (rc == -EINVAL && !pmem2_source_size(s->source, &size) && offset == size)
        rc = PMEM2_E_MAP_RANGE;
    if (!rc && paged)
        rc = map_share(m, s, granularity, offset, protection, message);
    return rc;
}

static int guarded_map_new(struct guarded_map *m, struct guarded_source *s, int granularity, size_t offset,
                           size_t length, enum pmem2_sharing_type sharing, unsigned protection,
                           struct guarded_reservation *r, size_t reservation_offset, char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    lock(&library_lock);
    if (r && !r->reservation)
        rc = GUARD_FOREIGN;
    /* libpmem2 would map over whatever lies there */
    else if (r && reservation_offset > pmem2_vm_reservation_get_size(r->reservation))
        rc = GUARD_RANGE;
    else if (!(rc = spare_keys())) {
        if (!s->dax_size)
            rc = map_new(m, s, granularity, offset, length, sharing, protection, r, reservation_offset, message);
        else
            rc = r ? PMEM2_E_NOSUPP : map_dax(m, s, granularity, offset, length, sharing, protection, message);
    }
    if (!rc)
        map_opened(m, protection, r);
    unlock(&library_lock);
    return source_leave(s, rc);
}

static int guarded_map_from_existing(struct guarded_map *m, struct guarded_source *s, uintptr_t address, size_t length,
                                     enum pmem2_granularity granularity, unsigned protection, char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    lock(&library_lock);
    if (!(rc = spare_keys()))
        rc = told(pmem2_map_from_existing(&m->map, s->source, (void *)address, length, granularity), message);
    if (!rc)
        map_opened(m, protection, NULL);
    unlock(&library_lock);
    return source_leave(s, rc);
}

static int guarded_map_close(struct guarded_map *m, char *message)
{
    lock(&library_lock);
    int rc = gate_close(&m->gate, 0);
    if (!rc && m->map && (rc = map_delete(m, message)))
        __atomic_and_fetch(&m->gate, ~CLOSED, __ATOMIC_RELEASE);
    unlock(&library_lock);
    return rc;
}

static void map_free(struct guarded_map *m)
{
    char message[GUARD_MESSAGE_SIZE];
    if (is_leaving())
        return;
    lock(&library_lock);
    if (m->map)
        map_delete(m, message);
    unlock(&library_lock);
    free(m);
}

/* The owner is gone. A view that outlives it, as garbage may, keeps the mapping until it goes too. */
static void guarded_map_drop(struct guarded_map *m)
{
    uint64_t word = gate_now(__atomic_or_fetch(&m->gate, DROPPED, __ATOMIC_ACQ_REL));
    if (!(word & (VIEWS | OPERATIONS)))
        map_free(m);
}

static int guarded_map_closed(struct guarded_map *m)
{
    return (__atomic_load_n(&m->gate, __ATOMIC_ACQUIRE) & CLOSED) != 0;
}
