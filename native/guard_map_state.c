/* SPDX-License-Identifier: BSD-3-Clause */
/* The state of a map, and its creation through a pmem2_config. */
#ifndef PMEM2_GUARD_MAP_STATE_C
#define PMEM2_GUARD_MAP_STATE_C

#include "guard_errors.c"
#include "guard_gate.c"
#include "guard_reservation.c"
#include "guard_source.c"
#include "os.c"
#include "workaround_chdir.c"

struct guarded_map {
    uint64_t gate;
    struct guarded_pin *pins;  /* the live views; under pins_lock */
    uintptr_t address;
    size_t size;
    size_t page;               /* bytes: the unit of the mapping, the huge page on hugetlbfs */
    unsigned protection;
    enum pmem2_granularity granularity;
    pmem2_persist_fn persist;
    pmem2_flush_fn flush;
    pmem2_drain_fn drain;
    pmem2_memmove_fn memmove;
    pmem2_memset_fn memset;
    struct pmem2_map *map;
    struct guarded_reservation *reservation;
    struct guarded_map *next;  /* in the list `reserved_maps` */
    uint64_t serial;           /* never reused: Python looks a Map up by it */
    size_t unmap_size;         /* bytes to unmap ourselves: device DAX without an NVDIMM region */
    file_t file;               /* a file that the map owns, to write pages back through (workaround_msync.c); or NO_FILE */
    struct noted_file backing; /* the mapped file, if many ranges of it can be written back together */
    size_t file_offset;        /* where the map begins in it */
    int msync_suffices;        /* 1, -1, or 0 if unknown (workaround_ext4_journal.c) */
    struct description description;     /* that of its source, if it is in `page_maps` (workaround_msync.c) */
    struct guarded_map *next_page_map;
    int write_back_error;      /* -errno of the first write-back that failed (workaround_msync.c), or 0 */
};

/* How to map a source: a Config with its defaults resolved. */
struct map_request {
    int granularity;  /* the one required, or GUARD_GRANULARITY_UNSET */
    int forced;       /* the one that PMEM2_FORCE_GRANULARITY names, or GUARD_GRANULARITY_UNSET */
    size_t offset;
    size_t length;    /* 0: the rest of the source */
    enum pmem2_sharing_type sharing;
    unsigned protection;
    struct guarded_reservation *reservation;  /* or NULL */
    size_t reservation_offset;
};

static char *map_ptr(const struct guarded_map *m, size_t offset)
{
    return (char *)(m->address + offset);
}

/* Cache the functions that libpmem2 chose for `map`. */
static void cache_functions(struct guarded_map *m, struct pmem2_map *map)
{
    m->persist = pmem2_get_persist_fn(map);
    m->flush = pmem2_get_flush_fn(map);
    m->drain = pmem2_get_drain_fn(map);
    m->memmove = pmem2_get_memmove_fn(map);
    m->memset = pmem2_get_memset_fn(map);
}

struct map_new_call {
    struct pmem2_map **map;
    const struct pmem2_config *config;
    const struct pmem2_source *source;
};

static int call_map_new(void *argument)
{
    const struct map_new_call *call = argument;
    return pmem2_map_new(call->map, call->config, call->source);
}

/* Call pmem2_map_new with a temporary config; under a lock that a fork waits for. */
static int map_with_config(struct guarded_map *m, const struct pmem2_source *source, const struct map_request *request,
                           char *message)
{
    struct pmem2_config *config;
    size_t size;
    int rc = save_errormsg(pmem2_config_new(&config), message);
    if (rc)
        return rc;
    if (request->granularity != GUARD_GRANULARITY_UNSET)
        rc = pmem2_config_set_required_store_granularity(config, (enum pmem2_granularity)request->granularity);
    if (!rc)
        rc = pmem2_config_set_offset(config, request->offset);
    if (!rc)
        rc = pmem2_config_set_length(config, request->length);
    if (!rc)
        rc = pmem2_config_set_sharing(config, request->sharing);
    if (!rc)
        rc = pmem2_config_set_protection(config, request->protection);
    if (!rc && request->reservation)
        rc = pmem2_config_set_vm_reservation(config, request->reservation->reservation, request->reservation_offset);
    struct map_new_call call = {&m->map, config, source};
    if (!rc)
        rc = call_in_own_directory(call_map_new, &call);
    save_errormsg(rc, message);
    pmem2_config_delete(&config);
    /* An offset exactly at the end passes libpmem2's checks and fails in mmap. */
    if (rc == -EINVAL && !pmem2_source_size(source, &size) && request->offset == size)
        rc = PMEM2_E_MAP_RANGE;
    return rc;
}

#endif
