/* SPDX-License-Identifier: BSD-3-Clause */
/* Pins: a live view pins its map. A pin belongs to a Python object, and is given back when that is freed. */
#ifndef PMEM2_GUARD_PIN_C
#define PMEM2_GUARD_PIN_C

#include "guard_errors.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_map_use.c"
#include "os.c"

struct guarded_pin {
    struct guarded_map *map;  /* NULL: nothing is pinned */
    struct guarded_pin *next, **link;
    uint64_t generation;
    thread_t thread;
    int internal;             /* the view that a Map indexes through, which no caller gets */
};

/* A pin that pins nothing yet. C owns it: were a destructor lost, the list of a map must not point to freed memory. */
static struct guarded_pin *guarded_pin_alloc(void)
{
    return calloc(1, sizeof(struct guarded_pin));
}

/* Pin a map for a view of a range. */
static int guarded_pin_view(struct guarded_pin *pin, struct guarded_map *m, size_t offset, size_t length, int internal)
{
    lock(&pins_lock);
    int rc = map_enter(m, VIEW, PMEM2_PROT_READ, offset, length);
    if (!rc) {
        *pin = (struct guarded_pin){m, m->pins, &m->pins, fork_generation, current_thread(), internal};
        if (pin->next)
            pin->next->link = &pin->next;
        m->pins = pin;
    }
    unlock(&pins_lock);
    return rc;
}

static void guarded_unpin(struct guarded_pin *pin)
{
    lock(&pins_lock);
    struct guarded_map *m = pin->map;
    if (m) {
        pin->map = NULL;
        *pin->link = pin->next;
        if (pin->next)
            pin->next->link = pin->link;
    }
    unlock(&pins_lock);
    if (m)
        leave(m, VIEW);
}

static void guarded_pin_drop(struct guarded_pin *pin)
{
    guarded_unpin(pin);
    free(pin);
}

/* The destructor of a view's pointer on PyPy: the other arguments live until it has run. */
static void guarded_unpin_pointer(void *owner, struct guarded_pin *pin, char *pointer)
{
    (void)owner, (void)pointer;
    guarded_unpin(pin);
}

/*
 * Return how closing a map with live views goes on. A view that another thread has made may belong to a thread that the
 * fork did not copy: nothing releases it, and the map could never be closed. Such a view defers unmapping.
 */
static int check_pins(struct guarded_map *m)
{
    int rc = GUARD_DEFERRED;
    lock(&pins_lock);
    for (const struct guarded_pin *pin = m->pins; pin && rc != GUARD_EXPORTED; pin = pin->next)
        if (pin->generation == fork_generation || (!pin->internal && pin->thread == current_thread()))
            rc = pin->internal ? GUARD_BUSY : GUARD_EXPORTED;
    unlock(&pins_lock);
    return rc;
}

#endif
