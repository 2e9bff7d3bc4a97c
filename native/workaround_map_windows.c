/* SPDX-License-Identifier: BSD-3-Clause */
/* Create a map, on Windows; workaround_map_posix.c is for POSIX. The locks are those of guard_map.c. */
#ifndef PMEM2_WORKAROUND_MAP_WINDOWS_C
#define PMEM2_WORKAROUND_MAP_WINDOWS_C

#include "guard_errors.c"
#include "guard_map_state.c"
#include "guard_source.c"
#include "os.c"

/*
 * A map of libpmem2 keeps using the handle of its source: for a deep flush, and on a volume without DAX for every
 * persist. So each map owns a duplicate of the handle, which no caller can close, and is created from a source of that.
 */
static int duplicate_source(struct guarded_map *m, const struct guarded_source *s, struct pmem2_source **own,
                            char *message)
{
    *own = NULL;
    if (s->file == NO_FILE)
        return 0;
    int rc = duplicate_file(s->file, &m->file);
    return rc ? rc : save_errormsg(source_from_file(own, m->file), message);
}

/* Delete the source of the duplicate; close the handle too if no map was created. */
static int finish_mapping(struct guarded_map *m, struct pmem2_source *own, int rc)
{
    pmem2_source_delete(&own);
    if (rc)
        close_file(&m->file);
    return rc;
}

static int map_new(struct guarded_map *m, struct guarded_source *s, const struct map_request *request, char *message)
{
    struct pmem2_source *own;
    int rc = duplicate_source(m, s, &own, message);
    if (!rc)
        rc = map_with_config(m, own ? own : s->source, request, message);
    return finish_mapping(m, own, rc);
}

static int map_existing(struct guarded_map *m, struct guarded_source *s, uintptr_t address, size_t length,
                        enum pmem2_granularity granularity, char *message)
{
    struct pmem2_source *own;
    int rc = duplicate_source(m, s, &own, message);
    if (!rc)
        rc = save_errormsg(
            pmem2_map_from_existing(&m->map, own ? own : s->source, (void *)address, length, granularity), message);
    return finish_mapping(m, own, rc);
}

#endif
