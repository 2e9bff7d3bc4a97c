/* SPDX-License-Identifier: BSD-3-Clause */
/* Make an allocated file zero, as a truncation and a new allocation would, but so that a full disk loses nothing. */
#ifndef PMEM2_OS_ZERO_C
#define PMEM2_OS_ZERO_C

#include "os.c"

#ifdef _WIN32

/* Not called: guarded_zero works everywhere. */
static int guarded_write_zeros(file_t file, size_t offset, size_t size)
{
    (void)file, (void)offset, (void)size;
    return -EOPNOTSUPP;
}

/* Truncate and extend the file, which makes it zero. */
static int guarded_zero(file_t file, size_t size)
{
    FILE_END_OF_FILE_INFO end = {.EndOfFile.QuadPart = 0};
    if (!SetFileInformationByHandle(file, FileEndOfFileInfo, &end, sizeof end))
        return last_error();
    return guarded_allocate(file, 0, size);
}

#else

#include <linux/falloc.h> /* musl's fcntl.h lacks FALLOC_FL_ZERO_RANGE */

static int guarded_write_zeros(file_t file, size_t offset, size_t size)
{
    static const char zeros[1 << 16];
    while (size) {
        const ssize_t done = pwrite(file, zeros, size < sizeof zeros ? size : sizeof zeros, (off_t)offset);
        if (done < 0 && errno == EINVAL) /* hugetlbfs has no write(2) */
            return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size)
                ? -errno
                : guarded_allocate(file, offset, size);
        if (done < 0 && errno != EINTR)
            return -errno;
        if (done > 0) {
            offset += (size_t)done;
            size -= (size_t)done;
        }
    }
    return 0;
}

/*
 * Make the beginning of a file zero, without giving up its blocks: between a truncation and a new allocation the disk
 * could become full. File systems that copy on write reserve the new blocks before they change anything. Some file
 * systems have no such call (-EOPNOTSUPP): there, zeros must be written.
 */
static int guarded_zero(file_t file, size_t size)
{
    int rc;
    do
        rc = fallocate(file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, (off_t)size) ? -errno : 0;
    while (rc == -EINTR);
    return rc;
}

#endif

#endif
