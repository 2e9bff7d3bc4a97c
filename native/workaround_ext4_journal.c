/* SPDX-License-Identifier: BSD-3-Clause */
/* On ext4 without a journal, the msync and fsync of Linux before 6.18 leave out the inode and the flush. */
#ifndef PMEM2_WORKAROUND_EXT4_JOURNAL_C
#define PMEM2_WORKAROUND_EXT4_JOURNAL_C

#include "os.c"

#include <sys/utsname.h>

/* `nox -s disk` saw the fault in 6.1 and not in 6.18. */
static int kernel_has_fault(void)
{
    struct utsname system;
    char *rest;
    if (uname(&system))
        return 0;
    const long major_version = strtol(system.release, &rest, 10);
    return major_version < 6 || (major_version == 6 && *rest == '.' && strtol(rest + 1, NULL, 10) < 18);
}

/* sysfs names the journal's thread of each mounted ext4, "<none>" without a journal; nothing of other file systems. */
static int lacks_journal(dev_t device)
{
    char link[64], target[512], path[640], text[8] = "";
    snprintf(link, sizeof link, "/sys/dev/block/%u:%u", major(device), minor(device));
    const ssize_t length = readlink(link, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = '\0';
    const char *name = strrchr(target, '/');
    snprintf(path, sizeof path, "/sys/fs/ext4/%s/journal_task", name ? name + 1 : "");
    const int attribute = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t count = attribute < 0 ? 0 : read(attribute, text, sizeof text - 1);
    if (attribute >= 0)
        close(attribute);
    return count > 0 && strncmp(text, "<none>", 6) == 0;
}

/* Whether sync_filesystem must follow an msync or fsync on a device. */
static int needs_syncfs(dev_t device)
{
    return kernel_has_fault() && lacks_journal(device);
}

/* A syncfs flushes the disk before it writes the last metadata there; a second one flushes these too. */
static int sync_filesystem(file_t file)
{
    return syncfs(file) || syncfs(file) ? -errno : 0;
}

#endif
