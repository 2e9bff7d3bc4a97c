/* SPDX-License-Identifier: BSD-3-Clause */
enum {
    GUARD_CLOSED = 1,    /* the handle is closed */
    GUARD_RANGE,         /* the range does not lie inside the map or the reservation */
    GUARD_UNREADABLE,    /* mapped without READ */
    GUARD_UNWRITABLE,    /* mapped without WRITE */
    GUARD_INACCESSIBLE,  /* mapped with neither */
    GUARD_UNALIGNED,     /* an atomic at an address that 8 does not divide */
    GUARD_BUSY,          /* another thread is inside an operation of this map */
    GUARD_EXPORTED,        /* views of this map are alive */
    GUARD_WRONG_RESERVATION,       /* the map lies in another reservation, or in none */
    GUARD_OVERFLOW,       /* more views or operations at once than a gate can count */
    GUARD_MESSAGE_SIZE = 512,
    GUARD_GRANULARITY_UNSET = -1
};

/*
 * A gate is one word that says who uses a handle, so that "nobody does, close it" is one compare-and-swap:
 * closed | dropped | live views | fork generation | threads inside an operation.
 * Only the forking thread lives on in a child: operations counted in an older generation have no thread any more.
 */
#define OPERATION ((uint64_t)1)
#define OPERATIONS (((uint64_t)1 << 20) - 1)
#define GENERATIONS (((uint64_t)0xffff) << 20)  /* `generation` counts here */
#define VIEW ((uint64_t)1 << 36)
#define VIEWS (((uint64_t)0x3ffffff) << 36)
#define DROPPED ((uint64_t)1 << 62)
#define CLOSED ((uint64_t)1 << 63)

static uint64_t gate_now(const uint64_t word)
{
    return (word & GENERATIONS) == generation ? word : (word & ~(GENERATIONS | OPERATIONS)) | generation;
}

static int gate_enter(uint64_t *gate, uint64_t unit)
{
    const uint64_t counted = unit == VIEW ? VIEWS : OPERATIONS;
    uint64_t word = __atomic_load_n(gate, __ATOMIC_RELAXED), next;
    do {
        if (word & CLOSED)
            return GUARD_CLOSED;
        next = gate_now(word);
        if ((next & counted) == counted)
            return GUARD_OVERFLOW;
    } while (!__atomic_compare_exchange_n(gate, &word, next + unit, 1, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
    return 0;
}

static uint64_t gate_leave(uint64_t *gate, uint64_t unit)
{
    return __atomic_sub_fetch(gate, unit, __ATOMIC_ACQ_REL); /* whoever leaves last may free what the others have used */
}

/* Close unless somebody is inside; with `wait` operations may finish first, but nobody enters any more. */
static int gate_close(uint64_t *gate, int wait)
{
    uint64_t word = __atomic_load_n(gate, __ATOMIC_RELAXED), next;
    do {
        next = gate_now(word);
        if (next & CLOSED)
            return GUARD_CLOSED;
        if (next & VIEWS)
            return GUARD_EXPORTED;
        if (next & OPERATIONS && !wait)
            return GUARD_BUSY;
    } while (!__atomic_compare_exchange_n(gate, &word, next | CLOSED, 1, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return next & OPERATIONS ? GUARD_BUSY : 0;
}

/* Copy libpmem2's text on the thread that failed, before anything else can replace it. */
static int told(int rc, char *message)
{
    if (rc < 0)
        snprintf(message, GUARD_MESSAGE_SIZE, "%s", pmem2_errormsg());
    return rc;
}
