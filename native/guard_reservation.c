/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reservations, all under library_lock. Each map holds a reference, so that reservation and maps may be dropped in any
 * order.
 */
#ifndef PMEM2_GUARD_RESERVATION_C
#define PMEM2_GUARD_RESERVATION_C

#include "guard_errors.c"
#include "os.c"
#include "workaround_reservation.c"

struct guarded_reservation {
    struct pmem2_vm_reservation *reservation;
    size_t references;
    size_t padding;  /* bytes behind the reservation that libpmem2 never unmaps (workaround_reservation.c) */
};

static struct guarded_reservation *guarded_reservation_alloc(void)
{
    struct guarded_reservation *r = calloc(1, sizeof *r);
    if (r)
        r->references = 1;
    return r;
}

static int reservation_delete(struct guarded_reservation *r, char *message)
{
    char *end = (char *)pmem2_vm_reservation_get_address(r->reservation)
        + pmem2_vm_reservation_get_size(r->reservation);
    int rc = save_errormsg(pmem2_vm_reservation_delete(&r->reservation), message);
    if (!rc && r->padding)
        unmap(end, r->padding);
    return rc;
}

static void reservation_unref(struct guarded_reservation *r)
{
    char message[GUARD_MESSAGE_SIZE];
    if (--r->references)
        return;
    if (r->reservation)
        reservation_delete(r, message);
    free(r);
}

static int guarded_reservation_new(struct guarded_reservation *r, uintptr_t address, size_t size, char *message)
{
    enum { ATTEMPTS = 16 };
    uintptr_t place = address;
    int rc, attempts = 0;
    lock(&library_lock);
    do {
        if (!address)
            place = reservation_place(size);
        rc = save_errormsg(pmem2_vm_reservation_new(&r->reservation, (void *)place, size), message);
    } while (rc == PMEM2_E_MAPPING_EXISTS && !address && ++attempts < ATTEMPTS);
    if (!rc && place)
        r->padding = reservation_padding(size);
    unlock(&library_lock);
    return rc;
}

static int guarded_reservation_close(struct guarded_reservation *r, char *message)
{
    lock(&library_lock);
    int rc = r->reservation ? reservation_delete(r, message) : GUARD_CLOSED;
    unlock(&library_lock);
    return rc;
}

static void guarded_reservation_drop(struct guarded_reservation *r)
{
    lock(&library_lock);
    reservation_unref(r);
    unlock(&library_lock);
}

static int guarded_reservation_closed(struct guarded_reservation *r)
{
    lock(&library_lock);
    int closed = !r->reservation;
    unlock(&library_lock);
    return closed;
}

static int guarded_reservation_extent(struct guarded_reservation *r, uintptr_t *address, size_t *size)
{
    lock(&library_lock);
    int rc = r->reservation ? 0 : GUARD_CLOSED;
    if (!rc) {
        *address = (uintptr_t)pmem2_vm_reservation_get_address(r->reservation);
        *size = pmem2_vm_reservation_get_size(r->reservation);
    }
    unlock(&library_lock);
    return rc;
}

static int guarded_reservation_extend(struct guarded_reservation *r, size_t size, char *message)
{
    lock(&library_lock);
    int rc = GUARD_CLOSED;
    if (r->reservation) {
        rc = size > SIZE_MAX / 2 - pmem2_vm_reservation_get_size(r->reservation)
            ? GUARD_RANGE
            : save_errormsg(pmem2_vm_reservation_extend(r->reservation, size), message);
        if (!rc)
            r->padding = 0;
    }
    unlock(&library_lock);
    return rc;
}

static int guarded_reservation_shrink(struct guarded_reservation *r, size_t offset, size_t size, char *message)
{
    lock(&library_lock);
    int rc = GUARD_CLOSED;
    if (r->reservation) {
        rc = offset > pmem2_vm_reservation_get_size(r->reservation) || size > SIZE_MAX - offset
            ? GUARD_RANGE
            : save_errormsg(pmem2_vm_reservation_shrink(r->reservation, offset, size), message);
        if (!rc)
            r->padding = 0;
    }
    unlock(&library_lock);
    return rc;
}

#endif
