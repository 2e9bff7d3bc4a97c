/* SPDX-License-Identifier: BSD-3-Clause */
/* libpmem2 maps padding around a reservation and never unmaps it. */
#ifndef PMEM2_WORKAROUND_RESERVATION_C
#define PMEM2_WORKAROUND_RESERVATION_C

#include "os.c"

#ifndef _WIN32
static size_t reservation_alignment(size_t size)
{
    return size < ((size_t)2 << 30) ? (size_t)2 << 20 : (size_t)1 << 30;
}
#endif

/* The size of the padding, by libpmem2's own arithmetic; on Windows there is none. */
static size_t reservation_padding(size_t size)
{
#ifdef _WIN32
    (void)size;
    return 0;
#else
    const size_t align = reservation_alignment(size);
    return (size + align - 1) / align * align + align - size;
#endif
}

/*
 * Return an address at which a reservation has room, 0 if there is none. With an explicit address all padding lies behind
 * the reservation, where it can be found and unmapped. Another thread may take the addresses: then try again.
 */
static uintptr_t reservation_place(size_t size)
{
#ifdef _WIN32
    (void)size;
    return 0;
#else
    const size_t align = reservation_alignment(size), room = size + reservation_padding(size) + align;
    void *probe = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (probe == MAP_FAILED)
        return 0;
    unmap(probe, room);
    return ((uintptr_t)probe + align - 1) / align * align;
#endif
}

#endif
