/* SPDX-License-Identifier: BSD-3-Clause */
/* Windows; os_posix.c defines the same names for other systems. Needs gcc or clang: Visual C++ lacks __atomic_*. */
#ifndef PMEM2_OS_WINDOWS_C
#define PMEM2_OS_WINDOWS_C

#define PMDK_UTF8_API
#define mode_t pmdk_mode_t /* the mode_t of mingw-w64 differs */

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <windows.h>
#include <winternl.h>

#include <libpmem2.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* PMDK 1.13 deprecates all its functions on Windows */

/* An open file: a handle. */
typedef void *file_t;
typedef wchar_t path_char_t;
#define NO_FILE INVALID_HANDLE_VALUE
#define source_get_file pmem2_source_get_handle
#define read_at pmem2_source_pread_mcsafe

typedef SRWLOCK lock_t;

static lock_t library_lock = SRWLOCK_INIT;
static lock_t devices_lock = SRWLOCK_INIT;
static lock_t sigbus_lock = SRWLOCK_INIT;
static lock_t pins_lock = SRWLOCK_INIT;
static lock_t badblocks_lock = SRWLOCK_INIT;

typedef DWORD thread_t;
#define current_thread GetCurrentThreadId

/* Windows has no fork, so the generation stays 0. */
#define GENERATION_MASK (((uint64_t)0xffff) << 20)
static const uint64_t fork_generation;

static void lock(lock_t *l)
{
    AcquireSRWLockExclusive(l);
}

static void unlock(lock_t *l)
{
    ReleaseSRWLockExclusive(l);
}

static int last_error(void)
{
    switch (GetLastError()) {
    case ERROR_INVALID_HANDLE:
        return -EBADF;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
    case ERROR_USER_MAPPED_FILE:
        return -EACCES;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_NO_SYSTEM_RESOURCES:
        return -ENOMEM;
    case ERROR_TOO_MANY_OPEN_FILES:
        return -EMFILE;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
        return -ENOSPC;
    case ERROR_FILE_TOO_LARGE:
        return -EFBIG;
    case ERROR_INVALID_PARAMETER:
    case ERROR_INVALID_ADDRESS:
    case ERROR_INVALID_FUNCTION:
        return -EINVAL;
    case ERROR_CRC: /* a bad block */
        return PMEM2_E_IO_FAIL;
    default:
        return -EIO;
    }
}

typedef DWORD tls_key_t;

static int tls_key_create(tls_key_t *key)
{
    *key = TlsAlloc();
    return *key != TLS_OUT_OF_INDEXES;
}

static void tls_key_delete(tls_key_t key)
{
    TlsFree(key);
}

static void close_file(file_t *file)
{
    if (*file != NO_FILE)
        CloseHandle(*file);
    *file = NO_FILE;
}

/* Open a file with the C runtime, whose flags Python knows, and keep the handle only. */
static int open_file(const path_char_t *path, int flags, file_t *file)
{
    *file = NO_FILE;
    const int fd = _wopen(path, flags, _S_IREAD | _S_IWRITE);
    if (fd < 0)
        return -errno;
    const HANDLE self = GetCurrentProcess();
    const BOOL ok = DuplicateHandle(self, (HANDLE)_get_osfhandle(fd), self, file, 0, FALSE, DUPLICATE_SAME_ACCESS);
    const int rc = ok ? 0 : last_error();
    if (!ok)
        *file = NO_FILE;
    _close(fd);
    return rc;
}

/* A new file, to be removed again if what it was made for fails. */
struct noted_file {
    path_char_t *path;  /* NULL: there is none */
};

static int note_file(struct noted_file *new, const path_char_t *path, file_t file)
{
    (void)file;
    new->path = _wcsdup(path);
    return new->path ? 0 : -ENOMEM;
}

static void forget_file(struct noted_file *new)
{
    free(new->path);
    new->path = NULL;
}

static void remove_noted_file(struct noted_file *new)
{
    if (new->path)
        DeleteFileW(new->path);
    forget_file(new);
}

static int duplicate_file(file_t file, file_t *own)
{
    const HANDLE self = GetCurrentProcess();
    *own = NO_FILE;
    /* The pseudo handles of the process (the value of NO_FILE) and of the thread can be duplicated but name no file. */
    if (file == NO_FILE || file == GetCurrentThread())
        return -EBADF;
    if (DuplicateHandle(self, file, self, own, 0, FALSE, DUPLICATE_SAME_ACCESS))
        return 0;
    *own = NO_FILE;
    return last_error();
}

/* Refuse devices and pipes: libpmem2 makes queries that only a disk file answers, and returns a misleading error. */
static int source_from_file(struct pmem2_source **source, file_t file)
{
    const DWORD kind = GetFileType(file);
    if (kind == FILE_TYPE_CHAR || kind == FILE_TYPE_PIPE)
        return PMEM2_E_INVALID_FILE_TYPE;
    return pmem2_source_from_handle(source, file);
}

struct file_id {
    uint64_t device, inode; /* 0: unknown */
};

/* Nothing is known of errors that Windows reports only once. */
static struct file_id identify_file(file_t file)
{
    (void)file;
    return (struct file_id){0, 0};
}

/* Refuses a handle without read access, as libpmem2 does on POSIX: on Windows it accepts one but cannot map it. */
static int stat_file(file_t file, int *device, int *writable)
{
    PUBLIC_OBJECT_BASIC_INFORMATION information;
    if (NtQueryObject(file, ObjectBasicInformation, &information, sizeof information, NULL))
        return -EBADF;
    *device = 0;
    *writable = (information.GrantedAccess & FILE_WRITE_DATA) != 0;
    return information.GrantedAccess & FILE_READ_DATA ? 0 : PMEM2_E_INVALID_FILE_HANDLE;
}

/* Windows files have none. */
static size_t huge_page_size(file_t file)
{
    (void)file;
    return 0;
}

/* Extend a file to `offset` + `size`: NTFS then allocates disk space, unless the file is sparse. */
static int guarded_allocate(file_t file, size_t offset, size_t size)
{
    LARGE_INTEGER now;
    FILE_END_OF_FILE_INFO end = {.EndOfFile.QuadPart = (LONGLONG)(offset + size)};
    if (!GetFileSizeEx(file, &now))
        return last_error();
    if (now.QuadPart >= end.EndOfFile.QuadPart)
        return 0;
    return SetFileInformationByHandle(file, FileEndOfFileInfo, &end, sizeof end) ? 0 : last_error();
}

static int guarded_truncate(file_t file, size_t size)
{
    FILE_END_OF_FILE_INFO end = {.EndOfFile.QuadPart = (LONGLONG)size};
    return SetFileInformationByHandle(file, FileEndOfFileInfo, &end, sizeof end) ? 0 : last_error();
}

/*
 * libpmem2's own functions ignore the offset: they read and write at the file pointer. These functions honour it, and
 * accept handles that were opened for overlapped operations. They move the file pointer too.
 */
static int transfer(file_t file, char *data, size_t size, size_t offset, int writing, DWORD *done)
{
    OVERLAPPED position = {.Offset = (DWORD)offset, .OffsetHigh = (DWORD)(offset >> 32)};
    position.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (!position.hEvent)
        return last_error();
    BOOL ok = writing ? WriteFile(file, data, (DWORD)size, NULL, &position)
                      : ReadFile(file, data, (DWORD)size, NULL, &position);
    if (ok || GetLastError() == ERROR_IO_PENDING)
        ok = GetOverlappedResult(file, &position, done, TRUE);
    int rc = ok ? 0 : GetLastError() == ERROR_HANDLE_EOF ? 0 : last_error();
    CloseHandle(position.hEvent);
    return !rc && writing && *done < size ? -ENOSPC : rc;
}

/* Read once; `done` is 0 at the end of the file. */
static int read_file(file_t file, char *data, size_t length, size_t offset, size_t *done)
{
    DWORD count = 0;
    const int rc = transfer(file, data, length, offset, 0, &count);
    *done = count;
    return rc;
}

static int write_at(struct pmem2_source *source, void *buffer, size_t size, size_t offset)
{
    file_t file;
    DWORD done = 0;
    if (pmem2_source_get_handle(source, &file))
        return pmem2_source_pwrite_mcsafe(source, buffer, size, offset); /* returns the error */
    return transfer(file, buffer, size, offset, 1, &done);
}

static const void *find_bytes(const void *memory, size_t length, const void *wanted, size_t wanted_length)
{
    const char *place = memory, *wanted_bytes = wanted;
    if (wanted_length == 0)
        return memory;
    while (length >= wanted_length) {
        const char *first = memchr(place, *wanted_bytes, length - wanted_length + 1);
        if (!first || !memcmp(first, wanted, wanted_length))
            return first;
        length -= (size_t)(first + 1 - place);
        place = first + 1;
    }
    return NULL;
}

static uintptr_t page_size(void)
{
    SYSTEM_INFO system;
    GetSystemInfo(&system);
    return system.dwPageSize;
}

static int advise_pages(void *address, size_t length, int option)
{
    (void)address, (void)length, (void)option;
    return -ENOSYS;
}

static int populate_pages(void *address, size_t length, int writable)
{
    (void)address, (void)length, (void)writable;
    return -EINVAL;
}

static void unmap(void *address, size_t length)
{
    (void)length;
    UnmapViewOfFile(address);
}

#endif
