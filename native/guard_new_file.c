/* SPDX-License-Identifier: BSD-3-Clause */
/* Make a new file and its name durable. */
#ifndef PMEM2_GUARD_NEW_FILE_C
#define PMEM2_GUARD_NEW_FILE_C

#include "os.c"

#ifdef _WIN32

/* NTFS logs the entries of folders, and has no handle that would flush one. */
static int guarded_sync_new_file(file_t file, const char *folder)
{
    (void)folder;
    return FlushFileBuffers(file) ? 0 : last_error();
}

#else

#include "workaround_ext4_journal.c"

static int sync_file(file_t file)
{
    struct stat status;
    int rc;
    do
        rc = fsync(file) ? -errno : 0;
    while (rc == -EINTR);
    if (!rc && !fstat(file, &status) && needs_syncfs(status.st_dev))
        rc = sync_filesystem(file);
    return rc;
}

static int sync_folder(const char *folder)
{
    const file_t directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory == NO_FILE)
        return -errno;
    const int rc = sync_file(directory);
    close(directory);
    return rc;
}

/* Make a new file durable: its contents, its size and its entry in `folder`, unless it has no name. */
static int guarded_sync_new_file(file_t file, const char *folder)
{
    struct stat status;
    int rc = sync_file(file);
    if (!rc && !fstat(file, &status) && status.st_nlink)
        rc = sync_folder(folder);
    /* The folder may not be read, or has no fsync of its own: sync its whole file system. */
    return rc == -EACCES || rc == -EINVAL ? sync_filesystem(file) : rc;
}

#endif

#endif
