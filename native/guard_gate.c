/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A gate is one atomic word that counts the users of an object, so that "close it if unused" is one compare-and-swap:
 * closed | dropped | live views | fork generation | threads inside an operation.
 * After a fork only the forking thread exists in the child: operations that an older generation counted have no thread.
 */
#ifndef PMEM2_GUARD_GATE_C
#define PMEM2_GUARD_GATE_C

#include "guard_errors.c"
#include "os.c"

#define OPERATION ((uint64_t)1)
#define OPERATIONS (((uint64_t)1 << 20) - 1)
/* GENERATION_MASK: os_*.c count `fork_generation` in these bits */
#define VIEW ((uint64_t)1 << 36)
#define VIEWS (((uint64_t)0x3ffffff) << 36)
#define DROPPED ((uint64_t)1 << 62)
#define CLOSED ((uint64_t)1 << 63)

/* Return the word without the operations of an older generation. */
static uint64_t gate_current(const uint64_t word)
{
    if ((word & GENERATION_MASK) == fork_generation)
        return word;
    return (word & ~(GENERATION_MASK | OPERATIONS)) | fork_generation;
}

static int gate_enter(uint64_t *gate, uint64_t unit)
{
    const uint64_t counted = unit == VIEW ? VIEWS : OPERATIONS;
    uint64_t word = __atomic_load_n(gate, __ATOMIC_RELAXED), next;
    do {
        if (word & CLOSED)
            return GUARD_CLOSED;
        next = gate_current(word);
        if ((next & counted) == counted)
            return GUARD_OVERFLOW;
    } while (!__atomic_compare_exchange_n(gate, &word, next + unit, 1, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
    return 0;
}

/* Acquire and release: the last thread to leave may free memory that the others have used. */
static uint64_t gate_leave(uint64_t *gate, uint64_t unit)
{
    return __atomic_sub_fetch(gate, unit, __ATOMIC_ACQ_REL);
}

/*
 * Close the gate. Live views prevent it; so do running operations, unless `wait` is set: then no thread can enter any
 * more, and GUARD_BUSY means that the last running operation has to release the object.
 */
static int gate_close(uint64_t *gate, int wait)
{
    uint64_t word = __atomic_load_n(gate, __ATOMIC_RELAXED), next;
    do {
        next = gate_current(word);
        if (next & CLOSED)
            return GUARD_CLOSED;
        if (next & VIEWS)
            return GUARD_EXPORTED;
        if (next & OPERATIONS && !wait)
            return GUARD_BUSY;
    } while (!__atomic_compare_exchange_n(gate, &word, next | CLOSED, 1, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return next & OPERATIONS ? GUARD_BUSY : 0;
}

#endif
