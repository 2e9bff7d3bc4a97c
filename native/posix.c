/* SPDX-License-Identifier: BSD-3-Clause */
/* What the guards need of the operating system; a Windows build brings its own. */


#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libpmem2.h>

typedef pthread_mutex_t lock_t;

/* What libpmem2 does not lock itself, or locks across a fork: the registry of maps, reservations, bad blocks. */
static lock_t library_lock = PTHREAD_MUTEX_INITIALIZER;
/* mcsafe on device DAX swaps the SIGBUS handler of the whole process. */
static lock_t sigbus_lock = PTHREAD_MUTEX_INITIALIZER;

/* grows in every forked child, in the place that a gate keeps it */
static uint64_t generation;

static void lock(lock_t *l)
{
    pthread_mutex_lock(l);
}

static void unlock(lock_t *l)
{
    pthread_mutex_unlock(l);
}

static void before_fork(void)
{
    lock(&library_lock);
    lock(&sigbus_lock);
}

static void after_fork_in_parent(void)
{
    unlock(&sigbus_lock);
    unlock(&library_lock);
}

static void after_fork_in_child(void)
{
    generation = (generation + ((uint64_t)1 << 20)) & (((uint64_t)0xffff) << 20);
    after_fork_in_parent();
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/*
 * Every map of libpmem2 1.x owns a pthread key, and the library does not notice when there are none left: deleting
 * such a map would delete key 0, which belongs to somebody else. Refuse while a few are still free for others.
 */
static int spare_keys(void)
{
    enum { SPARE = 16 };
    pthread_key_t keys[SPARE];
    int made = 0;
    while (made < SPARE && pthread_key_create(&keys[made], NULL) == 0)
        made++;
    for (int i = 0; i < made; i++)
        pthread_key_delete(keys[i]);
    return made == SPARE ? 0 : -EAGAIN;
}

/* not 0, 1 or 2: libpmem2's debug build refuses those for bad blocks */
static int duplicate(int fd)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return own < 0 ? -errno : own;
}

static int inspect(int fd, int *device, int *writable)
{
    struct stat status;
    if (fstat(fd, &status))
        return -errno;
    *device = S_ISCHR(status.st_mode);
    *writable = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
    return 0;
}

static uintptr_t page_size(void)
{
    return (uintptr_t)sysconf(_SC_PAGESIZE);
}

/* libpmem2's own write-back of pages aborts the process on an error, and never ends on a map made from_existing. */
static int write_back(uintptr_t address, size_t length)
{
    const uintptr_t start = address & ~(page_size() - 1);
    int rc;
    do
        rc = msync((void *)start, address + length - start, MS_SYNC) ? -errno : 0;
    while (rc == -EINTR);
    return rc;
}

static int map_shared(int fd, size_t offset, size_t length, unsigned protection, void **address)
{
    const int prot = (protection & PMEM2_PROT_READ ? PROT_READ : 0) | (protection & PMEM2_PROT_WRITE ? PROT_WRITE : 0)
        | (protection & PMEM2_PROT_EXEC ? PROT_EXEC : 0);
    *address = mmap(NULL, length, prot, MAP_SHARED, fd, (off_t)offset);
    if (*address != MAP_FAILED)
        return 0;
    return errno == EACCES ? PMEM2_E_NO_ACCESS : -errno;
}

static void unmap(void *address, size_t length)
{
    munmap(address, length);
}
