/* SPDX-License-Identifier: BSD-3-Clause */
/* The life of a map: create, close, drop. */
#ifndef PMEM2_GUARD_MAP_C
#define PMEM2_GUARD_MAP_C

#include "cpu_cache.c"
#include "guard_errors.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_map_use.c"
#include "guard_pin.c"
#include "guard_reservation.c"
#include "guard_source.c"
#include "os.c"
#ifdef _WIN32
#include "workaround_map_windows.c"
#else
#include "workaround_map_posix.c"
#endif
#include "workaround_tls_keys.c"

static uint64_t last_serial; /* under library_lock */

static struct guarded_map *guarded_map_alloc(void)
{
    struct guarded_map *m = calloc(1, sizeof *m);
    if (m)
        m->file = NO_FILE;
    return m;
}

/* Complete a map that was just created, or delete it if persist could do nothing; under library_lock. */
static int map_register(struct guarded_map *m, const struct guarded_source *s, unsigned protection,
                        struct guarded_reservation *r, char *message)
{
    m->address = (uintptr_t)pmem2_map_get_address(m->map);
    m->size = pmem2_map_get_size(m->map);
    m->page = s->huge_page ? s->huge_page : page_size();
    if (!m->persist) { /* remap_shared has set granularity and functions already */
        m->granularity = pmem2_map_get_store_granularity(m->map);
        cache_functions(m, m->map);
    }
    if (!HAS_CACHE_FLUSH && m->granularity == PMEM2_GRANULARITY_CACHE_LINE) {
        map_delete(m, message); /* if this fails, dropping `m` tries again */
        return PMEM2_E_NOSUPP;
    }
    m->protection = protection;
    m->serial = ++last_serial;
    if (r) {
        r->references++;
        m->reservation = r;
        m->next = reserved_maps;
        reserved_maps = m;
    }
    return 0;
}

/*
 * Return whether pmem2_map_new asks libndctl about the source, a device DAX. If so, ask first, while this thread holds no
 * lock: a device that hangs stops this thread only.
 */
static int ask_device(struct guarded_source *s, char *message)
{
    size_t alignment;
    const int asks = s->device && !s->dax_size;
    if (asks)
        source_alignment(s, &alignment, message); /* pmem2_map_new will report an error */
    return asks;
}

static int guarded_map_new(struct guarded_map *m, struct guarded_source *s, const struct map_request *request,
                           char *message)
{
    struct guarded_reservation *r = request->reservation;
    int rc = source_enter(s);
    if (rc)
        return rc;
    lock_t *first = ask_device(s, message) && !r ? &devices_lock : &library_lock; /* reservations need library_lock */
    lock(first);
    if (r && !r->reservation)
        rc = GUARD_WRONG_RESERVATION;
    /* past the end, libpmem2 would replace whatever is mapped there */
    else if (r && request->reservation_offset > pmem2_vm_reservation_get_size(r->reservation))
        rc = GUARD_RANGE;
    else if (!(rc = check_tls_keys()))
        rc = map_new(m, s, request, message);
    if (first != &library_lock)
        lock(&library_lock);
    if (!rc)
        rc = map_register(m, s, request->protection, r, message);
    if (!rc && m->granularity == PMEM2_GRANULARITY_PAGE && request->sharing == PMEM2_SHARED && s->file != NO_FILE)
        join_page_maps(m, s->description);
    unlock(&library_lock);
    if (first != &library_lock)
        unlock(first);
    return source_leave(s, rc);
}

static int guarded_map_from_existing(struct guarded_map *m, struct guarded_source *s, uintptr_t address, size_t length,
                                     enum pmem2_granularity granularity, unsigned protection, char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    lock(&library_lock);
    if (!(rc = check_tls_keys()))
        rc = map_existing(m, s, address, length, granularity, message);
    if (!rc)
        rc = map_register(m, s, protection, NULL, message);
    unlock(&library_lock);
    return source_leave(s, rc);
}

/* Close the map; with `defer`, also while there are views and operations, and then return GUARD_DEFERRED. */
static int guarded_map_close(struct guarded_map *m, int defer, char *message)
{
    lock(&library_lock);
    int rc = gate_close(&m->gate, defer);
    if (rc == GUARD_EXPORTED && (rc = check_pins(m)) == GUARD_DEFERRED && gate_close(&m->gate, 1) == 0)
        rc = 0; /* the last view went in between */
    if (!rc && m->map && (rc = map_delete(m, message)))
        __atomic_and_fetch(&m->gate, ~CLOSED, __ATOMIC_RELEASE);
    unlock(&library_lock);
    return rc;
}

/* Release the map for its owner. A view that outlives the owner, as garbage may, keeps the memory mapped. */
static void guarded_map_drop(struct guarded_map *m)
{
    lock(&library_lock);
    if (!(gate_current(__atomic_or_fetch(&m->gate, DROPPED, __ATOMIC_ACQ_REL)) & (VIEWS | OPERATIONS)))
        map_release(m);
    unlock(&library_lock);
}

/* Return whether the memory of a closed map is mapped still. */
static int guarded_map_mapped(struct guarded_map *m)
{
    lock(&library_lock);
    const int mapped = m->map != NULL;
    unlock(&library_lock);
    return mapped;
}

static int guarded_map_closed(struct guarded_map *m)
{
    return gate_closed(&m->gate);
}

#endif
