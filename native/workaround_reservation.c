/* SPDX-License-Identifier: BSD-3-Clause */
/* The padding that libpmem2 maps behind a reservation and never unmaps. */
#ifndef PMEM2_WORKAROUND_RESERVATION_C
#define PMEM2_WORKAROUND_RESERVATION_C

#include "os.c"

#ifdef _WIN32

static size_t reservation_padding(size_t size)
{
    (void)size;
    return 0;
}

static uintptr_t free_address(size_t size)
{
    (void)size;
    return 0;
}

#else

/* By libpmem2's own arithmetic. */
static size_t reservation_align(size_t size)
{
    return size < ((size_t)2 << 30) ? (size_t)2 << 20 : (size_t)1 << 30;
}

/* The size of the padding, by libpmem2's own arithmetic. */
static size_t reservation_padding(size_t size)
{
    const size_t align = reservation_align(size);
    return (size + align - 1) / align * align + align - size;
}

/*
 * Return an aligned address with room for a reservation and its padding, or 0. Where libpmem2 chooses the address, the
 * padding depends on what the kernel returned: it cannot be found afterwards, and 65,000 reservations use up all maps.
 */
static uintptr_t free_address(size_t size)
{
    const size_t align = reservation_align(size), length = size + reservation_padding(size) + align;
    void *room = length > size ? mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (room == MAP_FAILED)
        return 0;
    munmap(room, length);
    return ((uintptr_t)room + align - 1) / align * align;
}

#endif

#endif
