/* SPDX-License-Identifier: BSD-3-Clause */
/* Search a reservation. libpmem2 returns its own pointer; Python looks its Map up by our serial number. */
#ifndef PMEM2_GUARD_RESERVATION_FIND_C
#define PMEM2_GUARD_RESERVATION_FIND_C

#include "guard_errors.c"
#include "guard_map.c"
#include "guard_map_use.c"
#include "guard_reservation.c"
#include "os.c"

enum { FIND_RANGE, FIND_FIRST, FIND_LAST, FIND_NEXT, FIND_PREV };

static int find(struct guarded_reservation *r, int how, size_t offset, size_t length, const struct guarded_map *origin,
                struct pmem2_map **map)
{
    switch (how) {
    case FIND_FIRST:
        return pmem2_vm_reservation_map_find_first(r->reservation, map);
    case FIND_LAST:
        return pmem2_vm_reservation_map_find_last(r->reservation, map);
    case FIND_NEXT:
        return pmem2_vm_reservation_map_find_next(r->reservation, origin->map, map);
    case FIND_PREV:
        return pmem2_vm_reservation_map_find_prev(r->reservation, origin->map, map);
    default:
        return pmem2_vm_reservation_map_find(r->reservation, offset, length, map);
    }
}

/* FIND_RANGE uses `offset` and `length`; FIND_NEXT and FIND_PREV use `origin`, which is NULL otherwise. */
static int guarded_reservation_find(struct guarded_reservation *r, int how, size_t offset, size_t length,
                                    struct guarded_map *origin, uint64_t *found, char *message)
{
    struct pmem2_map *map = NULL;
    lock(&library_lock);
    int rc = 0;
    if (!r->reservation || (origin && !origin->map))
        rc = GUARD_CLOSED;
    else if (origin && origin->reservation != r)
        rc = GUARD_WRONG_RESERVATION;
    else {
        const size_t size = pmem2_vm_reservation_get_size(r->reservation);
        if (offset > size)
            rc = GUARD_RANGE;
        else { /* clamp the length: libpmem2 finds nothing if offset + length wraps */
            length = length < size - offset ? length : size - offset;
            rc = save_errormsg(find(r, how, offset, length, origin, &map), message);
        }
    }
    if (!rc) {
        const struct guarded_map *m = reserved_maps;
        while (m && m->map != map)
            m = m->next;
        if (m)
            *found = m->serial;
        else /* a map whose creation failed and could not be undone: no Map exists for it */
            rc = PMEM2_E_MAPPING_NOT_FOUND;
    }
    unlock(&library_lock);
    return rc;
}

#endif
