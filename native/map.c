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
    file_t file;                    /* what a Windows map writes pages back through: ours, or NO_FILE */
};

static struct guarded_map *reserved_maps;
static uint64_t serials;

static struct guarded_map *guarded_map_alloc(void)
{
    struct guarded_map *m = calloc(1, sizeof *m);
    if (m)
        m->file = NO_FILE;
    return m;
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
    close_file(&m->file);
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

/* pmem2_map_new with a config of all this */
static int map_configured(struct guarded_map *m, const struct pmem2_source *source, int granularity, size_t offset,
                          size_t length, enum pmem2_sharing_type sharing, unsigned protection,
                          struct guarded_reservation *r, size_t reservation_offset, char *message)
{
    struct pmem2_config *config;
    size_t size;
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
        rc = pmem2_config_set_sharing(config, sharing);
    if (!rc)
        rc = pmem2_config_set_protection(config, protection);
    if (!rc && r)
        rc = pmem2_config_set_vm_reservation(config, r->reservation, reservation_offset);
    if (!rc)
        rc = pmem2_map_new(&m->map, config, source);
    told(rc, message);
    pmem2_config_delete(&config);
    /* an offset exactly at the end passes libpmem2's checks and fails in mmap */
    if (rc == -EINVAL && !pmem2_source_size(source, &size) && offset == size)
        rc = PMEM2_E_MAP_RANGE;
    return rc;
}

/* How a platform maps, in posix_map.c and windows_map.c: all under library_lock. */
static int map_new(struct guarded_map *m, struct guarded_source *s, int granularity, size_t offset, size_t length,
                   enum pmem2_sharing_type sharing, unsigned protection, struct guarded_reservation *r,
                   size_t reservation_offset, char *message);
static int map_existing(struct guarded_map *m, struct guarded_source *s, uintptr_t address, size_t length,
                        enum pmem2_granularity granularity, char *message);

static int guarded_map_new(struct guarded_map *m, struct guarded_source *s, int granularity, size_t offset,
                           size_t length, enum pmem2_sharing_type sharing, unsigned protection,
                           struct guarded_reservation *r, size_t reservation_offset, char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    lock(&library_lock);
    if (r && !r->reservation)
        rc = GUARD_WRONG_RESERVATION;
    /* libpmem2 would map over whatever lies there */
    else if (r && reservation_offset > pmem2_vm_reservation_get_size(r->reservation))
        rc = GUARD_RANGE;
    else if (!(rc = spare_keys()))
        rc = map_new(m, s, granularity, offset, length, sharing, protection, r, reservation_offset, message);
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
        rc = map_existing(m, s, address, length, granularity, message);
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
    lock(&library_lock);
    int rc = m->map ? map_delete(m, message) : 0;
    unlock(&library_lock);
    if (!rc) /* what the system does not unmap, for want of memory, stays: searches may still come across it */
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
