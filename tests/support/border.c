/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A library to preload. It stands between pmem2 and what it calls, and does two things there:
 *
 * - It records which bytes libpmem2's own functions and msync get, in order: border_start, border_stop.
 * - It makes a system call or an allocation fail, return less, be interrupted, or block: border_inject.
 *
 * libpmem2 hands out its functions through pmem2_get_*_fn. The versions here return recorders that call the real ones.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MSYNC, FLUSH, DRAIN, PERSIST, COPY, SET, DEEP_FLUSH, READ, WRITE, SUBMIT };

struct event {
    uint64_t kind, address, length, flags;
};

static struct event events[1 << 16];
static uint64_t used;
static int recording;

static void record(uint64_t kind, const void *address, size_t length, unsigned flags)
{
    if (!__atomic_load_n(&recording, __ATOMIC_ACQUIRE))
        return;
    uint64_t i = __atomic_fetch_add(&used, 1, __ATOMIC_RELAXED);
    if (i < sizeof events / sizeof *events)
        events[i] = (struct event){kind, (uint64_t)(uintptr_t)address, length, flags};
}

void border_start(void)
{
    __atomic_store_n(&used, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&recording, 1, __ATOMIC_RELEASE);
}

/* Return the number of events; more than there is room for are an error of the test. */
uint64_t border_stop(const struct event **first)
{
    __atomic_store_n(&recording, 0, __ATOMIC_RELEASE);
    *first = events;
    if (used > sizeof events / sizeof *events)
        abort();
    return used;
}

/* ---- faults */

enum { NOTHING, FAIL, SHORT, BLOCK, PRETEND, SIGNAL };
enum {
    CALL_MSYNC, CALL_MMAP, CALL_MUNMAP, CALL_PREAD, CALL_PWRITE, CALL_FALLOCATE, CALL_FCNTL, CALL_MALLOC, CALL_FSYNC,
    CALL_SUBMIT, CALL_FSTAT, CALL_SYNCFS, CALLS
};

static struct fault {
    int how, error;
    long skip;   /* calls that pass before the first fault */
    long times;  /* faults that are left; -1: all calls from then on */
    long seen;   /* calls since the fault was set */
    int blocked, released;
} faults[CALLS];

/* Let calls of one function go wrong: after `skip` calls, `times` times (-1: always). */
void border_inject(int call, int how, int error, long skip, long times)
{
    struct fault *f = &faults[call];
    *f = (struct fault){.error = error, .skip = skip, .times = times};
    __atomic_store_n(&f->how, how, __ATOMIC_RELEASE);
}

void border_clear(void)
{
    for (int call = 0; call < CALLS; call++) {
        __atomic_store_n(&faults[call].how, NOTHING, __ATOMIC_RELEASE);
        __atomic_store_n(&faults[call].released, 1, __ATOMIC_RELEASE);
    }
}

long border_seen(int call)
{
    return __atomic_load_n(&faults[call].seen, __ATOMIC_ACQUIRE);
}

/* Whether a thread is blocked in this function. */
int border_blocked(int call)
{
    return __atomic_load_n(&faults[call].blocked, __ATOMIC_ACQUIRE);
}

void border_release(int call)
{
    __atomic_store_n(&faults[call].released, 1, __ATOMIC_RELEASE);
}

/* Only calls from pmem2 and libpmem2 go wrong, not those of the interpreter. */
static int from_pmem2(const void *caller)
{
    Dl_info info;
    const char *name;
    if (!dladdr(caller, &info) || !info.dli_fname)
        return 0;
    name = strrchr(info.dli_fname, '/');
    return name && strstr(name, "pmem2");
}

/* Return what to do with this call; a blocked one waits here. */
static int fault(int call, const void *caller)
{
    struct fault *f = &faults[call];
    if (!__atomic_load_n(&f->how, __ATOMIC_ACQUIRE) || !from_pmem2(caller))
        return NOTHING;
    __atomic_add_fetch(&f->seen, 1, __ATOMIC_ACQ_REL);
    if (f->skip > 0) {
        f->skip--;
        return NOTHING;
    }
    if (!f->times)
        return NOTHING;
    if (f->times > 0)
        f->times--;
    if (f->how == BLOCK) {
        __atomic_store_n(&f->blocked, 1, __ATOMIC_RELEASE);
        while (!__atomic_load_n(&f->released, __ATOMIC_ACQUIRE))
            usleep(1000);
        return NOTHING;
    }
    errno = f->error;
    return f->how;
}

#define HERE __builtin_return_address(0)

int msync(void *address, size_t length, int flags)
{
    if (fault(CALL_MSYNC, HERE) == FAIL)
        return -1;
    int rc = (int)syscall(SYS_msync, address, length, flags);
    if (!rc && from_pmem2(HERE))
        record(MSYNC, address, length, (unsigned)flags);
    return rc;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (fault(CALL_MMAP, HERE) == FAIL)
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
    __attribute__((alias("mmap")));

int munmap(void *address, size_t length)
{
    if (fault(CALL_MUNMAP, HERE) == FAIL)
        return -1;
    return (int)syscall(SYS_munmap, address, length);
}

/*
 * A transfer of a fault: SHORT moves half, PRETEND moves nothing and claims to have moved it, but never more than the
 * kernel does. The event's address is the offset in the file.
 */
static ssize_t transfer(int call, const void *caller, long number, int fd, void *buffer, size_t length, off_t offset)
{
    const size_t most = 0x7ffff000;
    const int how = fault(call, caller);
    ssize_t done = -1;
    if (how == PRETEND)
        done = (ssize_t)(length < most ? length : most);
    else if (how != FAIL)
        done = (ssize_t)syscall(number, fd, buffer, how == SHORT ? length / 2 : length, offset);
    if (from_pmem2(caller))
        record(call == CALL_PREAD ? READ : WRITE, (void *)(uintptr_t)offset, done < 0 ? 0 : (size_t)done, 0);
    return done;
}

ssize_t pread(int fd, void *buffer, size_t length, off_t offset)
{
    return transfer(CALL_PREAD, HERE, SYS_pread64, fd, buffer, length, offset);
}

ssize_t pread64(int fd, void *buffer, size_t length, off64_t offset) __attribute__((alias("pread")));

ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset)
{
    return transfer(CALL_PWRITE, HERE, SYS_pwrite64, fd, (void *)(uintptr_t)buffer, length, offset);
}

ssize_t pwrite64(int fd, const void *buffer, size_t length, off64_t offset) __attribute__((alias("pwrite")));

/* A SIGNAL undoes the whole allocation, as on tmpfs, unless the caller has blocked it. */
int posix_fallocate(int fd, off_t offset, off_t length)
{
    const int how = fault(CALL_FALLOCATE, HERE);
    sigset_t blocked;
    if (how == FAIL)
        return errno;
    if (how == SIGNAL) {
        pthread_sigmask(SIG_BLOCK, NULL, &blocked);
        if (!sigismember(&blocked, SIGUSR1))
            return EINTR;
        kill(getpid(), SIGUSR1);
    }
    static int (*real)(int, off_t, off_t);
    if (!real)
        real = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, "posix_fallocate");
    return real(fd, offset, length);
}

int posix_fallocate64(int fd, off64_t offset, off64_t length) __attribute__((alias("posix_fallocate")));

int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    const long argument = va_arg(arguments, long);
    va_end(arguments);
    if (fault(CALL_FCNTL, HERE) == FAIL)
        return -1;
    return (int)syscall(SYS_fcntl, fd, command, argument);
}

int fcntl64(int fd, int command, ...) __attribute__((alias("fcntl")));

int fsync(int fd)
{
    return fault(CALL_FSYNC, HERE) == FAIL ? -1 : (int)syscall(SYS_fsync, fd);
}

int syncfs(int fd)
{
    return fault(CALL_SYNCFS, HERE) == FAIL ? -1 : (int)syscall(SYS_syncfs, fd);
}

/* The event's address is the offset in the file. */
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags)
{
    if (fault(CALL_SUBMIT, HERE) == FAIL)
        return -1;
#ifdef SYS_sync_file_range
    int rc = (int)syscall(SYS_sync_file_range, fd, offset, length, flags);
#else /* POWER */
    int rc = (int)syscall(SYS_sync_file_range2, fd, flags, offset, length);
#endif
    if (!rc && from_pmem2(HERE))
        record(SUBMIT, (void *)(uintptr_t)offset, (size_t)length, flags);
    return rc;
}

int fstat(int fd, struct stat *status)
{
    static int (*real)(int, struct stat *);
    if (!real)
        real = (int (*)(int, struct stat *))dlsym(RTLD_NEXT, "fstat");
    return fault(CALL_FSTAT, HERE) == FAIL ? -1 : real(fd, status);
}

int fstat64(int fd, struct stat64 *status) __attribute__((alias("fstat")));

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);

void *malloc(size_t size)
{
    return fault(CALL_MALLOC, HERE) == FAIL ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fault(CALL_MALLOC, HERE) == FAIL ? NULL : __libc_calloc(count, size);
}

/* ---- libpmem2's functions: one recorder for each of the few that it has */

struct pmem2_map;
typedef void (*persist_fn)(const void *, size_t);
typedef void (*drain_fn)(void);
typedef void *(*copy_fn)(void *, const void *, size_t, unsigned);
typedef void *(*set_fn)(void *, int, size_t, unsigned);

/* RTLD_NEXT does not find libpmem2: Python loads it for the extension alone. */
static int open_libpmem2(struct dl_phdr_info *info, size_t size, void *handle)
{
    (void)size;
    const char *name = strrchr(info->dlpi_name, '/');
    if (name && strncmp(name, "/libpmem2", 9) == 0)
        *(void **)handle = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
    return *(void **)handle != NULL;
}

static void *libpmem2(const char *symbol)
{
    static void *handle;
    if (!handle)
        dl_iterate_phdr(open_libpmem2, &handle);
    return dlsym(handle, symbol);
}

enum { SLOTS = 4 };

#define SLOT_OF(table, real) \
    int slot = 0; \
    while (table[slot] && table[slot] != real) \
        if (++slot == SLOTS) \
            abort(); \
    table[slot] = real

#define EACH_SLOT(make) make(0) make(1) make(2) make(3)

static persist_fn real_persist[SLOTS], real_flush[SLOTS];
static drain_fn real_drain[SLOTS];
static copy_fn real_copy[SLOTS];
static set_fn real_set[SLOTS];

#define MAKE(n) \
    static void persist##n(const void *p, size_t length) { record(PERSIST, p, length, 0); real_persist[n](p, length); } \
    static void flush##n(const void *p, size_t length) { record(FLUSH, p, length, 0); real_flush[n](p, length); } \
    static void drain##n(void) { record(DRAIN, NULL, 0, 0); real_drain[n](); } \
    static void *copy##n(void *to, const void *from, size_t length, unsigned flags) \
    { record(COPY, to, length, flags); return real_copy[n](to, from, length, flags); } \
    static void *set##n(void *to, int value, size_t length, unsigned flags) \
    { record(SET, to, length, flags); return real_set[n](to, value, length, flags); }
EACH_SLOT(MAKE)

#define GETTER(type, name, table, ...) \
    type name(struct pmem2_map *map) \
    { \
        static type (*get)(struct pmem2_map *); \
        static const type recorders[SLOTS] = {__VA_ARGS__}; \
        if (!get) \
            get = (type (*)(struct pmem2_map *))libpmem2(#name); \
        const type real = get(map); \
        SLOT_OF(table, real); \
        return recorders[slot]; \
    }
GETTER(persist_fn, pmem2_get_persist_fn, real_persist, persist0, persist1, persist2, persist3)
GETTER(persist_fn, pmem2_get_flush_fn, real_flush, flush0, flush1, flush2, flush3)
GETTER(drain_fn, pmem2_get_drain_fn, real_drain, drain0, drain1, drain2, drain3)
GETTER(copy_fn, pmem2_get_memmove_fn, real_copy, copy0, copy1, copy2, copy3)
GETTER(set_fn, pmem2_get_memset_fn, real_set, set0, set1, set2, set3)

int pmem2_deep_flush(struct pmem2_map *map, void *address, size_t length)
{
    static int (*real)(struct pmem2_map *, void *, size_t);
    if (!real)
        real = (int (*)(struct pmem2_map *, void *, size_t))libpmem2("pmem2_deep_flush");
    record(DEEP_FLUSH, address, length, 0);
    return real(map, address, length);
}
