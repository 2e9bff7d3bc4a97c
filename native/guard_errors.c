/* SPDX-License-Identifier: BSD-3-Clause */
/* Errors that the guards find, and the error text of libpmem2. */
#ifndef PMEM2_GUARD_ERRORS_C
#define PMEM2_GUARD_ERRORS_C

#include "os.c"

enum {
    GUARD_CLOSED = 1,        /* the object is closed */
    GUARD_RANGE,             /* the range lies outside the map or the reservation */
    GUARD_UNREADABLE,        /* mapped without READ */
    GUARD_UNWRITABLE,        /* mapped without WRITE */
    GUARD_INACCESSIBLE,      /* mapped with neither READ nor WRITE */
    GUARD_UNALIGNED,         /* the address of an atomic is not a multiple of 8 */
    GUARD_BUSY,              /* another thread is inside an operation on the map */
    GUARD_EXPORTED,          /* views of the map are alive */
    GUARD_WRONG_RESERVATION, /* the map lies in another reservation or in none, or the reservation is closed */
    GUARD_OVERFLOW,          /* more simultaneous views or operations than a gate can count */
    GUARD_DEFERRED,          /* closed; the memory is unmapped when the last view and operation is gone */
    GUARD_MESSAGE_SIZE = 512,
    GUARD_GRANULARITY_UNSET = -1
};

/* Copy libpmem2's error text on the thread that failed, before another call overwrites it. */
static int save_errormsg(int rc, char *message)
{
    if (rc < 0)
        snprintf(message, GUARD_MESSAGE_SIZE, "%s", pmem2_errormsg());
    return rc;
}

#endif
