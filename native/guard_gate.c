/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A gate is one atomic word that counts the users of an object, so that "close it if unused" is one compare-and-swap:
 * closed | dropped | deferred | live views | fork generation | threads inside an operation.
 * After a fork only the forking thread exists in the child: operations that an older generation counted have no thread.
 *
 * Memory orders, for processors that reorder: leaving releases and closing acquires, so that the object is freed
 * after the last access to it. Every change is a read-modify-write, so that a release reaches the closing thread through
 * the changes of others. Entering acquires, so that no access comes before it. A relaxed load only proposes a word: the
 * compare-and-swap proves it.
 */
#ifndef PMEM2_GUARD_GATE_C
#define PMEM2_GUARD_GATE_C

#include "guard_errors.c"
#include "os.c"

#define OPERATION ((uint64_t)1)
#define OPERATIONS (((uint64_t)1 << 20) - 1)
/* GENERATION_MASK: os_*.c count `fork_generation` in these bits */
#define VIEW ((uint64_t)1 << 36)
#define VIEWS (((uint64_t)0x1ffffff) << 36)
#define DEFERRED ((uint64_t)1 << 61) /* closed, but the last view or operation has yet to release the object */
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
 * Close the gate. Live views and running operations prevent it, unless `defer` is set: then no thread can enter any
 * more, and GUARD_DEFERRED means that the last to leave has to release the object.
 */
static int gate_close(uint64_t *gate, int defer)
{
    uint64_t word = __atomic_load_n(gate, __ATOMIC_RELAXED), next;
    int rc;
    do {
        next = gate_current(word);
        if (next & CLOSED)
            return GUARD_CLOSED;
        rc = next & VIEWS ? GUARD_EXPORTED : next & OPERATIONS ? GUARD_BUSY : 0;
        if (rc && !defer)
            return rc;
        next |= CLOSED | (rc ? DEFERRED : 0);
    } while (!__atomic_compare_exchange_n(gate, &word, next, 1, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return rc ? GUARD_DEFERRED : 0;
}

static int gate_closed(const uint64_t *gate)
{
    return (__atomic_load_n(gate, __ATOMIC_ACQUIRE) & CLOSED) != 0;
}

#endif
