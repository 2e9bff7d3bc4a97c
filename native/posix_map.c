/* SPDX-License-Identifier: BSD-3-Clause */
/* How a source is mapped where there is mmap; windows_map.c is the same for Windows. */

static int prot_of(unsigned protection)
{
    return (protection & PMEM2_PROT_READ ? PROT_READ : 0) | (protection & PMEM2_PROT_WRITE ? PROT_WRITE : 0)
        | (protection & PMEM2_PROT_EXEC ? PROT_EXEC : 0);
}

static int map_shared(file_t file, size_t offset, size_t length, unsigned protection, void **address)
{
    *address = mmap(NULL, length, prot_of(protection), MAP_SHARED, file, (off_t)offset);
    if (*address != MAP_FAILED)
        return 0;
    return errno == EACCES ? PMEM2_E_NO_ACCESS : -errno;
}

/* Whether the library's first attempt, with MAP_SYNC, is going to work; or fail for a reason that it will tell. */
static int is_dax(file_t file, size_t offset)
{
    void *probe = mmap(NULL, page_size(), PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, file,
                       (off_t)(offset & ~(page_size() - 1)));
    if (probe == MAP_FAILED)
        return errno != EOPNOTSUPP && errno != EINVAL;
    munmap(probe, page_size());
    return 1;
}

/* Map over what lies at `address`, in one step: no other thread's mapping can get in between. */
static int map_over(void *address, file_t file, size_t offset, size_t length, unsigned protection)
{
    void *probe;
    int rc = map_shared(file, offset, page_size(), protection, &probe); /* what it refuses leaves no hole over there */
    if (rc)
        return rc;
    munmap(probe, page_size());
    if (mmap(address, length, prot_of(protection), MAP_SHARED | MAP_FIXED, file, (off_t)offset) == MAP_FAILED)
        return -errno;
    return 0;
}

/* as libpmem2 reads it: anything else is ignored */
static enum pmem2_granularity forced_granularity(enum pmem2_granularity otherwise)
{
    const char *name = secure_getenv("PMEM2_FORCE_GRANULARITY");
    if (!name)
        return otherwise;
    if (!strcasecmp(name, "BYTE"))
        return PMEM2_GRANULARITY_BYTE;
    if (!strcasecmp(name, "CACHE_LINE") || !strcasecmp(name, "CACHELINE"))
        return PMEM2_GRANULARITY_CACHE_LINE;
    return strcasecmp(name, "PAGE") ? otherwise : PMEM2_GRANULARITY_PAGE;
}

/* Whether PMEM2_FORCE_GRANULARITY is set to something that libpmem2 silently ignores. */
static int guarded_force_granularity_ignored(void)
{
    return secure_getenv("PMEM2_FORCE_GRANULARITY")
        && forced_granularity(PMEM2_GRANULARITY_BYTE) != forced_granularity(PMEM2_GRANULARITY_PAGE);
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
    int rc = map_shared(s->file, offset, length, protection, &address);
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
        rc = map_over(pmem2_map_get_address(m->map), s->file, offset, pmem2_map_get_size(m->map), protection);
    if (rc)
        pmem2_map_delete(&m->map); /* where that fails too, the drop of `m` tries again */
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
    if (s->dax_size)
        return r ? PMEM2_E_NOSUPP : map_dax(m, s, granularity, offset, length, sharing, protection, message);
    const int paged = s->file != NO_FILE && !s->device && sharing == PMEM2_SHARED && !is_dax(s->file, offset);
    int rc = map_configured(m, s->source, granularity, offset, length, paged ? PMEM2_PRIVATE : sharing,
                            paged ? PMEM2_PROT_READ : protection, r, reservation_offset, message);
    if (!rc && paged)
        rc = map_share(m, s, granularity, offset, protection, message);
    return rc;
}

static int map_existing(struct guarded_map *m, struct guarded_source *s, uintptr_t address, size_t length,
                        enum pmem2_granularity granularity, char *message)
{
    return told(pmem2_map_from_existing(&m->map, s->source, (void *)address, length, granularity), message);
}
