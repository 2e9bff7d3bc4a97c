/* SPDX-License-Identifier: BSD-3-Clause */
/* The padding that libpmem2 maps behind a reservation at an explicit address and never unmaps. */
#ifndef PMEM2_WORKAROUND_RESERVATION_C
#define PMEM2_WORKAROUND_RESERVATION_C

#include "os.c"

/* The size of the padding, by libpmem2's own arithmetic; on Windows there is none. */
static size_t reservation_padding(size_t size)
{
#ifdef _WIN32
    (void)size;
    return 0;
#else
    const size_t align = size < ((size_t)2 << 30) ? (size_t)2 << 20 : (size_t)1 << 30;
    return (size + align - 1) / align * align + align - size;
#endif
}

#endif
