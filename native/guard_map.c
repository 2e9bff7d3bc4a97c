/* SPDX-License-Identifier: BSD-3-Clause */
/* The life of a map: create, pin, close, drop. */
#ifndef PMEM2_GUARD_MAP_C
#define PMEM2_GUARD_MAP_C

#include "guard_errors.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_reservation.c"
#include "guard_source.c"
#include "os.c"
#ifdef _WIN32
#include "workaround_map_windows.c"
#else
#include "workaround_map_posix.c"
#endif
#include "workaround_tls_keys.c"

/* The maps that lie in reservations, of all reservations; under library_lock. */
static struct guarded_map *reserved_maps;
static uint64_t last_serial;

static struct guarded_map *guarded_map_alloc(void)
{
    struct guarded_map *m = calloc(1, sizeof *m);
    if (m)
        m->file = NO_FILE;
    return m;
}

/* Complete a map that was just created; under library_lock. */
static void map_register(struct guarded_map *m, unsigned protection, struct guarded_reservation *r)
{
    m->address = (uintptr_t)pmem2_map_get_address(m->map);
    m->size = pmem2_map_get_size(m->map);
    if (!m->persist) { /* remap_shared has set granularity and functions already */
        m->granularity = pmem2_map_get_store_granularity(m->map);
        cache_functions(m, m->map);
    }
    m->protection = protection;
    m->serial = ++last_serial;
    if (r) {
        r->references++;
        m->reservation = r;
        m->next = reserved_maps;
        reserved_maps = m;
    }
}

/* Under library_lock. */
static int map_delete(struct guarded_map *m, char *message)
{
    int rc = save_errormsg(pmem2_map_delete(&m->map), message);
    if (rc)
        return rc;
    close_file(&m->file);
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

static int guarded_map_new(struct guarded_map *m, struct guarded_source *s, const struct map_request *request,
                           char *message)
{
    struct guarded_reservation *r = request->reservation;
    int rc = source_enter(s);
    if (rc)
        return rc;
    lock(&library_lock);
    if (r && !r->reservation)
        rc = GUARD_WRONG_RESERVATION;
    /* past the end, libpmem2 would replace whatever is mapped there */
    else if (r && request->reservation_offset > pmem2_vm_reservation_get_size(r->reservation))
        rc = GUARD_RANGE;
    else if (!(rc = check_tls_keys()))
        rc = map_new(m, s, request, message);
    if (!rc)
        map_register(m, request->protection, r);
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
    if (!(rc = check_tls_keys()))
        rc = map_existing(m, s, address, length, granularity, message);
    if (!rc)
        map_register(m, protection, NULL);
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
    if (!rc) /* otherwise the kernel had no memory to unmap it: a search may still find the map, so keep its state */
        free(m);
}

/* Release the map for its owner. A view that outlives the owner, as garbage may, keeps the memory mapped. */
static void guarded_map_drop(struct guarded_map *m)
{
    uint64_t word = gate_current(__atomic_or_fetch(&m->gate, DROPPED, __ATOMIC_ACQ_REL));
    if (!(word & (VIEWS | OPERATIONS)))
        map_free(m);
}

static int guarded_map_closed(struct guarded_map *m)
{
    return (__atomic_load_n(&m->gate, __ATOMIC_ACQUIRE) & CLOSED) != 0;
}

/* A pin is an operation or a view that lasts longer than one call. */
struct guarded_pin {
    struct guarded_map *map;
    uint64_t unit;
    uint64_t generation;
};

static int pin_map(struct guarded_pin *pin, struct guarded_map *m, uint64_t unit, unsigned need, size_t offset,
                   size_t length)
{
    int rc = map_enter(m, unit, need, offset, length);
    if (!rc)
        *pin = (struct guarded_pin){m, unit, fork_generation};
    return rc;
}

static int guarded_pin_operation(struct guarded_pin *pin, struct guarded_map *m, unsigned need, size_t offset,
                                 size_t length)
{
    return pin_map(pin, m, OPERATION, need, offset, length);
}

static int guarded_pin_view(struct guarded_pin *pin, struct guarded_map *m, size_t offset, size_t length)
{
    return pin_map(pin, m, VIEW, PMEM2_PROT_READ, offset, length);
}

static void guarded_unpin(struct guarded_pin *pin)
{
    struct guarded_map *m = __atomic_exchange_n(&pin->map, NULL, __ATOMIC_ACQ_REL);
    if (!m || (pin->unit == OPERATION && pin->generation != fork_generation))
        return;
    uint64_t word = gate_current(gate_leave(&m->gate, pin->unit));
    if (word & DROPPED && !(word & (VIEWS | OPERATIONS)))
        map_free(m);
}

#endif
