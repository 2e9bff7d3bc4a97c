/* SPDX-License-Identifier: BSD-3-Clause */
/* Create a map, on POSIX; workaround_map_windows.c is for Windows. The locks are those of guard_map.c. */
#ifndef PMEM2_WORKAROUND_MAP_POSIX_C
#define PMEM2_WORKAROUND_MAP_POSIX_C

#include "guard_errors.c"
#include "guard_map_state.c"
#include "guard_source.c"
#include "os.c"
#include "workaround_msync.c"

static int to_mmap_prot(unsigned protection)
{
    return (protection & PMEM2_PROT_READ ? PROT_READ : 0) | (protection & PMEM2_PROT_WRITE ? PROT_WRITE : 0)
        | (protection & PMEM2_PROT_EXEC ? PROT_EXEC : 0);
}

/* Map a file anywhere. */
static int mmap_file(file_t file, size_t offset, size_t length, unsigned protection, int flags, void **address)
{
    *address = mmap(NULL, length, to_mmap_prot(protection), flags, file, (off_t)offset);
    if (*address != MAP_FAILED)
        return 0;
    return errno == EACCES ? PMEM2_E_NO_ACCESS : -errno;
}

/* Return 0 if a page of the file can be mapped with these flags, or -errno. */
static int probe_flags(file_t file, size_t offset, int flags)
{
    void *probe = mmap(NULL, page_size(), PROT_READ, MAP_SHARED_VALIDATE | flags, file,
                       (off_t)(offset & ~(page_size() - 1)));
    if (probe == MAP_FAILED)
        return -errno;
    munmap(probe, page_size());
    return 0;
}

/*
 * Return 0 if MAP_SYNC is unsupported. Any other failure counts as DAX: libpmem2 then reports the error itself. Nor is
 * a file on DAX where no flag is refused: QEMU's user emulation before 8.2 ignores MAP_SYNC.
 */
static int is_dax(file_t file, size_t offset)
{
    enum { UNKNOWN_FLAG = 1 << 24 };
    const int rc = probe_flags(file, offset, MAP_SYNC);
    return rc ? rc != -EOPNOTSUPP && rc != -EINVAL : probe_flags(file, offset, UNKNOWN_FLAG) != 0;
}

/* Replace the mapping at `address` in one step, so that no mapping of another thread can get in between. */
static int mmap_fixed(void *address, file_t file, size_t offset, size_t length, unsigned protection, int flags)
{
    void *probe;
    /* probe elsewhere first: a failed MAP_FIXED leaves a hole at `address`; only private memory counts by its length */
    const size_t probed = flags & MAP_PRIVATE ? length : page_size();
    int rc = mmap_file(file, offset, probed, protection, flags, &probe);
    if (rc)
        return rc;
    munmap(probe, probed);
    if (mmap(address, length, to_mmap_prot(protection), flags | MAP_FIXED, file, (off_t)offset) == MAP_FAILED)
        return -errno;
    return 0;
}

/* Map device DAX without an NVDIMM region (CXL), where pmem2_map_new would crash; the same checks in the same order. */
static int map_devdax(struct guarded_map *m, struct guarded_source *s, const struct map_request *request, char *message)
{
    const size_t offset = request->offset, length = request->length ? request->length : s->dax_size - offset;
    if (request->granularity == GUARD_GRANULARITY_UNSET)
        return PMEM2_E_GRANULARITY_NOT_SET;
    if (offset % s->dax_alignment)
        return PMEM2_E_OFFSET_UNALIGNED;
    if (request->sharing == PMEM2_PRIVATE)
        return PMEM2_E_SRC_DEVDAX_PRIVATE;
    if (request->length % s->dax_alignment)
        return PMEM2_E_LENGTH_UNALIGNED;
    if (offset >= s->dax_size || length > s->dax_size - offset)
        return PMEM2_E_MAP_RANGE;
    if (request->granularity == PMEM2_GRANULARITY_BYTE)
        return PMEM2_E_GRANULARITY_NOT_SUPPORTED;
    void *address;
    int rc = mmap_file(s->file, offset, length, request->protection, MAP_SHARED, &address);
    if (rc)
        return rc;
    rc = save_errormsg(pmem2_map_from_existing(&m->map, s->source, address, length, PMEM2_GRANULARITY_CACHE_LINE),
                       message);
    if (rc)
        unmap(address, length);
    else
        m->unmap_size = length;
    return rc;
}

/* Set the functions for CACHE_LINE, taken once from a map of static memory: libpmem2's functions serve every map. */
static int use_cache_line_functions(struct guarded_map *m, struct guarded_source *s, char *message)
{
    static char memory[64];
    static struct guarded_map cached;
    if (!cached.persist) {
        int rc = save_errormsg(
            pmem2_map_from_existing(&cached.map, s->source, memory, sizeof memory, PMEM2_GRANULARITY_CACHE_LINE),
            message);
        if (rc)
            return rc;
        cache_functions(&cached, cached.map);
        pmem2_map_delete(&cached.map);
    }
    m->persist = cached.persist;
    m->flush = cached.flush;
    m->drain = cached.drain;
    m->memmove = cached.memmove;
    m->memset = cached.memset;
    return 0;
}

/* Make the private mapping of a file without DAX shared: the second half of map_new. */
static int remap_shared(struct guarded_map *m, struct guarded_source *s, const struct map_request *request,
                        char *message)
{
    int rc = 0;
    m->granularity = request->forced == GUARD_GRANULARITY_UNSET ? PMEM2_GRANULARITY_PAGE
                                                                : (enum pmem2_granularity)request->forced;
    if ((int)m->granularity > request->granularity)
        rc = PMEM2_E_GRANULARITY_NOT_SUPPORTED;
    else if (m->granularity == PMEM2_GRANULARITY_CACHE_LINE)
        rc = use_cache_line_functions(m, s, message);
    else /* a private mapping has the functions for BYTE; for PAGE only its plain copies are used */
        cache_functions(m, m->map);
    if (!rc)
        rc = mmap_fixed(pmem2_map_get_address(m->map), s->file, request->offset, pmem2_map_get_size(m->map),
                        request->protection, MAP_SHARED);
    if (rc)
        pmem2_map_delete(&m->map); /* if this fails too, dropping `m` tries again */
    else if (m->granularity == PMEM2_GRANULARITY_PAGE)
        note_backing(m, s->file, request->offset);
    return rc;
}

/* Make a private read-only mapping writable, without reserving memory for pages that are never written. */
static int remap_unreserved(struct guarded_map *m, struct guarded_source *s, const struct map_request *request)
{
    int rc = mmap_fixed(pmem2_map_get_address(m->map), s->file, request->offset, pmem2_map_get_size(m->map),
                        request->protection, MAP_PRIVATE | MAP_NORESERVE);
    if (rc)
        pmem2_map_delete(&m->map); /* if this fails too, dropping `m` tries again */
    return rc;
}

/*
 * libpmem2 takes base pages for the unit of every file. On hugetlbfs the kernel would round up to huge pages, over
 * whatever lies behind the map, and munmap would refuse the length. The same checks in the same order as for devices.
 */
static int check_huge_pages(struct guarded_source *s, const struct map_request *request)
{
    size_t length = request->length;
    struct guarded_reservation *r = request->reservation;
    const uintptr_t start = r ? (uintptr_t)pmem2_vm_reservation_get_address(r->reservation) : 0;
    if (!s->huge_page || request->granularity == GUARD_GRANULARITY_UNSET)
        return 0; /* in the second case libpmem2 returns the error */
    if (request->offset % s->huge_page)
        return PMEM2_E_OFFSET_UNALIGNED;
    if (!length)
        pmem2_source_size(s->source, &length); /* fallocate gives a file any size; pmem2_map_new reports an error */
    if (length % s->huge_page)
        return PMEM2_E_LENGTH_UNALIGNED;
    return r && (start + request->reservation_offset) % s->huge_page ? PMEM2_E_ADDRESS_UNALIGNED : 0;
}

/*
 * On a file without DAX, pmem2_map_new first tries MAP_SYNC at a fixed address. Many file systems refuse only after the
 * kernel has unmapped the old range; the second attempt then replaces whatever another thread has mapped in the gap,
 * for example its stack. So libpmem2 maps such a file privately, in one attempt, and mmap_fixed replaces that mapping.
 * A private map to write to is replaced too, because libpmem2 would reserve memory for all of it.
 */
static int map_new(struct guarded_map *m, struct guarded_source *s, const struct map_request *request, char *message)
{
    if (s->dax_size)
        return request->reservation ? PMEM2_E_NOSUPP : map_devdax(m, s, request, message);
    int rc = check_huge_pages(s, request);
    if (rc)
        return rc;
    /* hugetlbfs refuses MAP_SYNC before it unmaps anything, and a private mapping would reserve pages of its own */
    if (s->file == NO_FILE || s->device || s->huge_page)
        return map_with_config(m, s->source, request, message);
    const int shared = request->sharing == PMEM2_SHARED;
    if (shared ? is_dax(s->file, request->offset) : !(request->protection & PMEM2_PROT_WRITE))
        return map_with_config(m, s->source, request, message);
    struct map_request private_request = *request;
    private_request.sharing = PMEM2_PRIVATE;
    private_request.protection = PMEM2_PROT_READ;
    rc = map_with_config(m, s->source, &private_request, message);
    if (rc)
        return rc;
    return shared ? remap_shared(m, s, request, message) : remap_unreserved(m, s, request);
}

static int map_existing(struct guarded_map *m, struct guarded_source *s, uintptr_t address, size_t length,
                        enum pmem2_granularity granularity, char *message)
{
    return save_errormsg(pmem2_map_from_existing(&m->map, s->source, (void *)address, length, granularity), message);
}

#endif
