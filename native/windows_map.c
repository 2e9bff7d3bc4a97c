/* SPDX-License-Identifier: BSD-3-Clause */
/* How a source is mapped on Windows. */

/*
 * A map of libpmem2 remembers the handle of its source: a deep flush goes through it, and on a volume that is not DAX so
 * does every persist. So a map gets a handle of its own, and is made from a source of that, which nobody can close.
 */
static int own_source(struct guarded_map *m, const struct guarded_source *s, struct pmem2_source **own, char *message)
{
    *own = NULL;
    if (s->file == NO_FILE)
        return 0;
    int rc = duplicate(s->file, &m->file);
    return rc ? rc : told(source_from_file(own, m->file), message);
}

static int mapped(struct guarded_map *m, struct pmem2_source *own, int rc)
{
    pmem2_source_delete(&own);
    if (rc)
        close_file(&m->file);
    return rc;
}

static int map_new(struct guarded_map *m, struct guarded_source *s, int granularity, size_t offset, size_t length,
                   enum pmem2_sharing_type sharing, unsigned protection, struct guarded_reservation *r,
                   size_t reservation_offset, char *message)
{
    struct pmem2_source *own;
    int rc = own_source(m, s, &own, message);
    if (!rc)
        rc = map_configured(m, own ? own : s->source, granularity, offset, length, sharing, protection, r,
                            reservation_offset, message);
    return mapped(m, own, rc);
}

static int map_existing(struct guarded_map *m, struct guarded_source *s, uintptr_t address, size_t length,
                        enum pmem2_granularity granularity, char *message)
{
    struct pmem2_source *own;
    int rc = own_source(m, s, &own, message);
    if (!rc)
        rc = told(pmem2_map_from_existing(&m->map, own ? own : s->source, (void *)address, length, granularity), message);
    return mapped(m, own, rc);
}

/* PMEM2_FORCE_GRANULARITY means nothing on Windows. */
static int guarded_force_granularity_ignored(void)
{
    return 0;
}
