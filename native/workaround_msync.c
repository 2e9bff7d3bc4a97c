/* SPDX-License-Identifier: BSD-3-Clause */
/* Write dirty pages back to the file: msync, or FlushViewOfFile on Windows. */
#ifndef PMEM2_WORKAROUND_MSYNC_C
#define PMEM2_WORKAROUND_MSYNC_C

#include "guard_map_state.c"
#include "os.c"

#ifdef _WIN32

/* FlushViewOfFile does not wait for the disk, FlushFileBuffers does. A read-only handle has nothing to wait for. */
static int sync_pages(file_t file, uintptr_t address, size_t length)
{
    if (!FlushViewOfFile((void *)address, length))
        return last_error();
    if (file == NO_FILE || FlushFileBuffers(file) || GetLastError() == ERROR_ACCESS_DENIED)
        return 0;
    return last_error();
}

#else

/* libpmem2's own write-back aborts the process on an error, and loops endlessly on a map made by from_existing. */
static int sync_pages(file_t file, uintptr_t address, size_t length)
{
    (void)file;
    const uintptr_t start = address & ~(page_size() - 1);
    int rc;
    do
        rc = msync((void *)start, address + length - start, MS_SYNC) ? -errno : 0;
    while (rc == -EINTR);
    return rc;
}

#endif

/*
 * Make the pages of a range durable. Linux reports a failed write-back once and marks the pages clean, so that the next
 * msync would succeed for data that is on no disk. Keep the first error: every later call for this map returns it.
 */
static int write_back(struct guarded_map *m, uintptr_t address, size_t length)
{
    int error = __atomic_load_n(&m->write_back_error, __ATOMIC_ACQUIRE);
    if (error || !length)
        return error;
    const int rc = sync_pages(m->file, address, length);
    if (rc)
        __atomic_compare_exchange_n(&m->write_back_error, &error, rc, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    /* The kernel may have reported an error in this range to another thread's msync. */
    return __atomic_load_n(&m->write_back_error, __ATOMIC_ACQUIRE);
}

#endif
