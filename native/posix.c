/* SPDX-License-Identifier: BSD-3-Clause */
/* What the guards need of the operating system; a Windows build brings its own. */


#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
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

/* Runs before libpmem2's own destructor, which frees what a daemon thread may still be using: keep such threads out. */
__attribute__((destructor)) static void close_for_good(void)
{
    before_fork();
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
    char path[32];
    struct stat status;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0)
        return -errno;
    const int flags = fcntl(own, F_GETFL);
    if (!(flags & O_APPEND) || fstat(own, &status) || !S_ISREG(status.st_mode))
        return own;
    /* through a descriptor that appends, Linux writes at the end, whatever the offset: open the file once more */
    snprintf(path, sizeof path, "/proc/self/fd/%d", own);
    int other = open(path, (flags & O_ACCMODE) | O_CLOEXEC);
    if (other < 0)
        other = -errno;
    close(own);
    return other;
}

/* Give a file space on disk; PyPy's own posix_fallocate tells of no failure. */
static int guarded_allocate(int fd, size_t size)
{
    int code;
    do
        code = posix_fallocate(fd, 0, (off_t)size);
    while (code == EINTR);
    return -code;
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

static int prot_of(unsigned protection)
{
    return (protection & PMEM2_PROT_READ ? PROT_READ : 0) | (protection & PMEM2_PROT_WRITE ? PROT_WRITE : 0)
        | (protection & PMEM2_PROT_EXEC ? PROT_EXEC : 0);
}

static int map_shared(int fd, size_t offset, size_t length, unsigned protection, void **address)
{
    *address = mmap(NULL, length, prot_of(protection), MAP_SHARED, fd, (off_t)offset);
    if (*address != MAP_FAILED)
        return 0;
    return errno == EACCES ? PMEM2_E_NO_ACCESS : -errno;
}

/* Whether the library's first attempt, with MAP_SYNC, is going to work; or fail for a reason that it will tell. */
static int is_dax(int fd, size_t offset)
{
    void *probe = mmap(NULL, page_size(), PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, fd,
                       (off_t)(offset & ~(page_size() - 1)));
    if (probe == MAP_FAILED)
        return errno != EOPNOTSUPP && errno != EINVAL;
    munmap(probe, page_size());
    return 1;
}

/* Map over what lies at `address`, in one step: no other thread's mapping can get in between. */
static int map_over(void *address, int fd, size_t offset, size_t length, unsigned protection)
{
    void *probe;
    int rc = map_shared(fd, offset, page_size(), protection, &probe); /* what it refuses leaves no hole over there */
    if (rc)
        return rc;
    munmap(probe, page_size());
    if (mmap(address, length, prot_of(protection), MAP_SHARED | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED)
        return -errno;
    return 0;
}

/* as libpmem2 reads it: anything else is ignored */
static enum pmem2_granularity forced_granularity(enum pmem2_granularity otherwise)
{
    const char *name = secure_getenv("PMEM2_FORCE_GRANULARITY");
    if (!name)
        return otherwise;
    if (!strcasecmp(name, "BYTE"))
        return PMEM2_GRANULARITY_BYTE;
    if (!strcasecmp(name, "CACHE_LINE") || !strcasecmp(name, "CACHELINE"))
        return PMEM2_GRANULARITY_CACHE_LINE;
    return strcasecmp(name, "PAGE") ? otherwise : PMEM2_GRANULARITY_PAGE;
}

static void unmap(void *address, size_t length)
{
    munmap(address, length);
}
