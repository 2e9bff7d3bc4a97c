/* SPDX-License-Identifier: BSD-3-Clause */
/* POSIX systems; os_windows.c defines the same names for Windows. */
#ifndef PMEM2_OS_POSIX_C
#define PMEM2_OS_POSIX_C

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/fs.h>
#include <linux/magic.h>

#include <libpmem2.h>

/* An open file: a descriptor. */
typedef int file_t;
typedef char path_char_t;
#define NO_FILE (-1)
#define source_from_file pmem2_source_from_fd
#define source_get_file pmem2_source_get_fd
#define read_at pmem2_source_pread_mcsafe

typedef pthread_mutex_t lock_t;

/* Guards maps and reservations: libpmem2 does not lock them, or its lock does not survive a fork. */
static lock_t library_lock = PTHREAD_MUTEX_INITIALIZER;
/* Guards pmem2_map_new for devices, which asks libndctl and may take long; taken before library_lock. */
static lock_t devices_lock = PTHREAD_MUTEX_INITIALIZER;
/* mcsafe calls on device DAX replace the SIGBUS handler of the whole process. */
static lock_t sigbus_lock = PTHREAD_MUTEX_INITIALIZER;
/* Guards the lists of pins, and that of closing sources; nothing blocks under it. */
static lock_t pins_lock = PTHREAD_MUTEX_INITIALIZER;
/* Guards bad-block contexts. A device may hang under it, so a fork does not wait for it: a child has a new lock. */
static lock_t badblocks_lock = PTHREAD_MUTEX_INITIALIZER;

typedef pthread_t thread_t;
#define current_thread pthread_self

/* Counts forks, in the bits of a gate word that hold the generation (guard_gate.c). */
#define GENERATION_ONE ((uint64_t)1 << 20)
#define GENERATION_MASK (((uint64_t)0xffff) << 20)
static uint64_t fork_generation;

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
    lock(&devices_lock);
    lock(&library_lock);
    lock(&sigbus_lock);
    lock(&pins_lock);
}

static void after_fork_in_parent(void)
{
    unlock(&pins_lock);
    unlock(&sigbus_lock);
    unlock(&library_lock);
    unlock(&devices_lock);
}

static void after_fork_in_child(void)
{
    fork_generation = (fork_generation + GENERATION_ONE) & GENERATION_MASK;
    badblocks_lock = (lock_t)PTHREAD_MUTEX_INITIALIZER;
    after_fork_in_parent();
}

__attribute__((constructor)) static void register_atfork(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* Runs before libpmem2's own destructor, which frees memory that a daemon thread may still use: block such threads. */
__attribute__((destructor)) static void lock_at_exit(void)
{
    before_fork();
}

/* Return whether a write to the file ignores its offset and appends. */
static int appends(file_t file)
{
    struct stat status;
    return fcntl(file, F_GETFL) & O_APPEND && !fstat(file, &status) && S_ISREG(status.st_mode);
}

typedef pthread_key_t tls_key_t;

static int tls_key_create(tls_key_t *key)
{
    return pthread_key_create(key, NULL) == 0;
}

static void tls_key_delete(tls_key_t key)
{
    pthread_key_delete(key);
}

static void close_file(file_t *file)
{
    if (*file != NO_FILE)
        close(*file);
    *file = NO_FILE;
}

/* Open a file; -EINTR means that a signal handler is to run before the next attempt. */
static int open_file(const path_char_t *path, int flags, file_t *file)
{
    *file = open(path, flags, 0666);
    return *file == NO_FILE ? -errno : 0;
}

/* A file and where it was: one that is new, to be removed again if what it was made for fails, or one to open later. */
struct noted_file {
    path_char_t *path;  /* NULL: there is none */
    dev_t device;
    ino_t inode;
};

static int note_file(struct noted_file *new, const path_char_t *path, file_t file)
{
    struct stat status;
    if (fstat(file, &status))
        return -errno;
    new->device = status.st_dev;
    new->inode = status.st_ino;
    new->path = strdup(path);
    return new->path ? 0 : -ENOMEM;
}

static void forget_file(struct noted_file *new)
{
    free(new->path);
    new->path = NULL;
}

/* Remove the file, unless its path now names another one. */
static void remove_noted_file(struct noted_file *new)
{
    struct stat status;
    if (new->path && !lstat(new->path, &status) && status.st_dev == new->device && status.st_ino == new->inode)
        unlink(new->path);
    forget_file(new);
}

/* Never returns descriptor 0, 1 or 2: the debug build of libpmem2 refuses those for bad blocks. */
static int is_direct(file_t file)
{
    return (fcntl(file, F_GETFL) & O_DIRECT) != 0;
}

static int duplicate_file(file_t file, file_t *own)
{
    char path[32];
    *own = fcntl(file, F_DUPFD_CLOEXEC, 3);
    if (*own == NO_FILE)
        return errno == EINVAL ? -EMFILE : -errno; /* EINVAL: the process may have at most three descriptors */
    if (!appends(*own) && !is_direct(*own))
        return 0;
    /*
     * Reopen it without O_APPEND, and without O_DIRECT, which needs aligned buffers. Where that fails, as without /proc,
     * write_at refuses to write to a file that appends; all else works.
     */
    snprintf(path, sizeof path, "/proc/self/fd/%d", *own);
    const int other = open(path, (fcntl(*own, F_GETFL) & O_ACCMODE) | O_CLOEXEC);
    if (other != NO_FILE) {
        close(*own);
        *own = other;
    }
    return 0;
}

struct file_id {
    uint64_t device, inode; /* 0: unknown */
};

static struct file_id identify_file(file_t file)
{
    struct stat status;
    return fstat(file, &status) ? (struct file_id){0, 0} : (struct file_id){status.st_dev, status.st_ino};
}

static int write_at(struct pmem2_source *source, void *data, size_t size, size_t offset)
{
    file_t file;
    if (!source_get_file(source, &file) && appends(file))
        return -EOPNOTSUPP;
    return pmem2_source_pwrite_mcsafe(source, data, size, offset);
}

static int stat_file(file_t file, int *device, int *writable)
{
    struct stat status;
    if (fstat(file, &status))
        return -errno;
    *device = S_ISCHR(status.st_mode);
    *writable = (fcntl(file, F_GETFL) & O_ACCMODE) == O_RDWR;
    return 0;
}

/* Return the magic number of the file system of a file (statfs(2)), or -errno. */
static long guarded_filesystem_magic(file_t file)
{
    struct statfs status;
    return fstatfs(file, &status) ? -errno : (long)(unsigned)status.f_type;
}

/* Return the flags of an inode, as lsattr shows them; none where the file system has no such flags. */
static unsigned guarded_inode_flags(file_t file)
{
    int flags;
    return ioctl(file, FS_IOC_GETFLAGS, &flags) ? 0 : (unsigned)flags;
}

/* Return the size of the huge pages that make up a file on hugetlbfs, or 0: everywhere else mmap asks for base pages. */
static size_t huge_page_size(file_t file)
{
    struct statfs status;
    return !fstatfs(file, &status) && status.f_type == HUGETLBFS_MAGIC ? (size_t)status.f_bsize : 0;
}

/*
 * Allocate disk space for a range of a file; PyPy's own posix_fallocate reports no error. Signals are blocked during the
 * call: a signal makes tmpfs undo all its work, so that under a frequent timer the allocation would never finish.
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

/* Read once; `done` is 0 at the end of the file. */
static int read_file(file_t file, char *data, size_t length, size_t offset, size_t *done)
{
    const ssize_t count = pread(file, data, length, (off_t)offset);
    *done = count < 0 ? 0 : (size_t)count;
    return count >= 0 ? 0 : errno == EIO ? PMEM2_E_IO_FAIL : -errno;
}

static int guarded_truncate(file_t file, size_t size)
{
    int rc;
    do
        rc = ftruncate(file, (off_t)size);
    while (rc && errno == EINTR);
    return rc ? -errno : 0;
}

static const void *find_bytes(const void *memory, size_t length, const void *wanted, size_t wanted_length)
{
    return memmem(memory, length, wanted, wanted_length);
}

static uintptr_t page_size(void)
{
    return (uintptr_t)sysconf(_SC_PAGESIZE);
}

/* Older headers lack the newer kinds of advice, which a newer kernel knows all the same. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static int advise_pages(void *address, size_t length, int option)
{
    return madvise(address, length, option) ? -errno : 0;
}

/* Fault pages in, for stores or for loads; -EINVAL where the kernel cannot. */
static int populate_pages(void *address, size_t length, int writable)
{
    int rc;
    do
        rc = advise_pages(address, length, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    while (rc == -EINTR);
    return rc;
}

static void unmap(void *address, size_t length)
{
    munmap(address, length);
}

#endif
