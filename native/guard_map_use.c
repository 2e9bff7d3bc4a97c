/* SPDX-License-Identifier: BSD-3-Clause */
/* Enter and leave a map. Once it is closed or dropped, the last thread to leave unmaps it. */
#ifndef PMEM2_GUARD_MAP_USE_C
#define PMEM2_GUARD_MAP_USE_C

#include "guard_errors.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_reservation.c"
#include "os.c"
#include "workaround_msync.c"

/* Durability calls need no particular access, only READ or WRITE. */
#define NEED_ANY 0u

/* Check what never changes in the life of a map. */
static int map_check(const struct guarded_map *m, unsigned need, size_t offset, size_t length)
{
    if (need & PMEM2_PROT_WRITE & ~m->protection)
        return GUARD_UNWRITABLE;
    if (need & PMEM2_PROT_READ & ~m->protection)
        return GUARD_UNREADABLE;
    if (!(m->protection & (PMEM2_PROT_READ | PMEM2_PROT_WRITE)))
        return GUARD_INACCESSIBLE;
    return offset > m->size || length > m->size - offset ? GUARD_RANGE : 0;
}

static int map_enter(struct guarded_map *m, uint64_t unit, unsigned need, size_t offset, size_t length)
{
    int rc = map_check(m, need, offset, length);
    if (rc)
        return gate_closed(&m->gate) ? GUARD_CLOSED : rc;
    return gate_enter(&m->gate, unit);
}

/* The maps that lie in reservations, of all reservations; under library_lock. */
static struct guarded_map *reserved_maps;

/* Under library_lock. */
static int map_delete(struct guarded_map *m, char *message)
{
    int rc = save_errormsg(pmem2_map_delete(&m->map), message);
    if (rc)
        return rc;
    leave_page_maps(m);
    close_file(&m->file);
    forget_file(&m->backing);
    if (m->unmap_size)
        unmap((void *)m->address, m->unmap_size);
    if (m->reservation) {
        struct guarded_map **link = &reserved_maps;
        while (*link != m)
            link = &(*link)->next;
        *link = m->next;
        reservation_unref(m->reservation);
        m->reservation = NULL;
    }
    return 0;
}

/* Under library_lock. If the kernel has no memory to unmap it, a search may still find the map, so its state stays. */
static void map_release(struct guarded_map *m)
{
    char message[GUARD_MESSAGE_SIZE];
    const int rc = m->map ? map_delete(m, message) : 0;
    if (!rc && __atomic_load_n(&m->gate, __ATOMIC_ACQUIRE) & DROPPED)
        free(m);
}

/*
 * Leave. Once closing is deferred, the last thread to leave unmaps. It leaves under library_lock then, because the Map
 * object may be dropped at the same time, and its owner frees the state.
 */
static void leave(struct guarded_map *m, uint64_t unit)
{
    uint64_t word = __atomic_load_n(&m->gate, __ATOMIC_RELAXED);
    while (!(word & (DEFERRED | DROPPED)))
        if (__atomic_compare_exchange_n(&m->gate, &word, word - unit, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return;
    lock(&library_lock);
    if (!(gate_current(gate_leave(&m->gate, unit)) & (VIEWS | OPERATIONS)))
        map_release(m);
    unlock(&library_lock);
}

static int map_leave(struct guarded_map *m, int rc)
{
    leave(m, OPERATION);
    return rc;
}

#endif
