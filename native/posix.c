/* SPDX-License-Identifier: BSD-3-Clause */
/* What the guards need of the operating system; windows.c is the same for Windows. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libpmem2.h>

/* what names an open file */
typedef int file_t;
#define NO_FILE (-1)
#define source_from_file pmem2_source_from_fd
#define source_get_file pmem2_source_get_fd
#define read_at pmem2_source_pread_mcsafe
#define write_at pmem2_source_pwrite_mcsafe

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

static void close_file(file_t *file)
{
    if (*file != NO_FILE)
        close(*file);
    *file = NO_FILE;
}

/* not 0, 1 or 2: libpmem2's debug build refuses those for bad blocks */
static int duplicate(file_t file, file_t *own)
{
    char path[32];
    struct stat status;
    *own = fcntl(file, F_DUPFD_CLOEXEC, 3);
    if (*own == NO_FILE)
        return errno == EINVAL ? -EMFILE : -errno; /* EINVAL: the process may have no more than three at all */
    const int flags = fcntl(*own, F_GETFL);
    if (!(flags & O_APPEND) || fstat(*own, &status) || !S_ISREG(status.st_mode))
        return 0;
    /* through a descriptor that appends, Linux writes at the end, whatever the offset: open the file once more */
    snprintf(path, sizeof path, "/proc/self/fd/%d", *own);
    const int other = open(path, (flags & O_ACCMODE) | O_CLOEXEC);
    const int rc = other == NO_FILE ? -errno : 0;
    close(*own);
    *own = other;
    return rc;
}

/*
 * Give a file space on disk; PyPy's own posix_fallocate tells of no failure. Signals wait for its end: tmpfs gives up
 * all that it has done when one comes, so that it would never end while a timer goes off more often.
 */
static int guarded_allocate(file_t file, size_t offset, size_t size)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int code = posix_fallocate(file, (off_t)offset, (off_t)size);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -code;
}

static int inspect(file_t file, int *device, int *writable)
{
    struct stat status;
    if (fstat(file, &status))
        return -errno;
    *device = S_ISCHR(status.st_mode);
    *writable = (fcntl(file, F_GETFL) & O_ACCMODE) == O_RDWR;
    return 0;
}

static uintptr_t page_size(void)
{
    return (uintptr_t)sysconf(_SC_PAGESIZE);
}

/* libpmem2's own write-back of pages aborts the process on an error, and never ends on a map made from_existing. */
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

static void unmap(void *address, size_t length)
{
    munmap(address, length);
}

/* that libpmem2 keeps behind a reservation at an explicit address; the same arithmetic as its own */
static size_t reservation_padding(size_t size)
{
    const size_t align = size < ((size_t)2 << 30) ? (size_t)2 << 20 : (size_t)1 << 30;
    return (size + align - 1) / align * align + align - size;
}
