/* SPDX-License-Identifier: BSD-3-Clause */
/* Write dirty pages back to the file: msync, or FlushViewOfFile on Windows. */
#ifndef PMEM2_WORKAROUND_MSYNC_C
#define PMEM2_WORKAROUND_MSYNC_C

#include "os.c"

#ifdef _WIN32

/* FlushViewOfFile does not wait for the disk, FlushFileBuffers does. A read-only handle has nothing to wait for. */
static int write_back(file_t file, uintptr_t address, size_t length)
{
    if (!FlushViewOfFile((void *)address, length))
        return last_error();
    if (file == NO_FILE || FlushFileBuffers(file) || GetLastError() == ERROR_ACCESS_DENIED)
        return 0;
    return last_error();
}

#else

/* libpmem2's own write-back aborts the process on an error, and loops endlessly on a map made by from_existing. */
static int write_back(file_t file, uintptr_t address, size_t length)
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

#endif
