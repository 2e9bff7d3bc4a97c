/* SPDX-License-Identifier: BSD-3-Clause */
/* What the guards need of Windows, as posix.c has it for other systems. For gcc and clang: they know __atomic_*. */

#define PMDK_UTF8_API
#define mode_t pmdk_mode_t /* not that of mingw-w64 */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <windows.h>
#include <winternl.h>

#include <libpmem2.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* PMDK 1.13 marks every function so, on Windows */

/* what names an open file */
typedef void *file_t;
#define NO_FILE INVALID_HANDLE_VALUE
#define source_get_file pmem2_source_get_handle

typedef SRWLOCK lock_t;

static lock_t library_lock = SRWLOCK_INIT;
static lock_t sigbus_lock = SRWLOCK_INIT;

/* nothing forks here */
static const uint64_t generation;

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
    case ERROR_CRC: /* what a bad block is called */
        return PMEM2_E_IO_FAIL;
    default:
        return -EIO;
    }
}

/* Every map of libpmem2 owns an index of thread-local storage, as it owns a pthread key elsewhere. */
static int spare_keys(void)
{
    enum { SPARE = 16 };
    DWORD keys[SPARE];
    int made = 0;
    while (made < SPARE && (keys[made] = TlsAlloc()) != TLS_OUT_OF_INDEXES)
        made++;
    for (int i = 0; i < made; i++)
        TlsFree(keys[i]);
    return made == SPARE ? 0 : -EAGAIN;
}

static void close_file(file_t *file)
{
    if (*file != NO_FILE)
        CloseHandle(*file);
    *file = NO_FILE;
}

static int duplicate(file_t file, file_t *own)
{
    const HANDLE self = GetCurrentProcess();
    *own = NO_FILE;
    /* those are pseudo handles, of the process and of the thread: duplicating them works, and is not what was meant */
    if (file == NO_FILE || file == GetCurrentThread())
        return -EBADF;
    if (DuplicateHandle(self, file, self, own, 0, FALSE, DUPLICATE_SAME_ACCESS))
        return 0;
    *own = NO_FILE;
    return last_error();
}

/* libpmem2 asks what only a file on a disk can answer, and reports what Windows says to that. */
static int source_from_file(struct pmem2_source **source, file_t file)
{
    const DWORD kind = GetFileType(file);
    if (kind == FILE_TYPE_CHAR || kind == FILE_TYPE_PIPE)
        return PMEM2_E_INVALID_FILE_TYPE;
    return pmem2_source_from_handle(source, file);
}

/* libpmem2 takes a handle that cannot be read, and then no map can be made from it: it is refused as elsewhere. */
static int inspect(file_t file, int *device, int *writable)
{
    PUBLIC_OBJECT_BASIC_INFORMATION information;
    if (NtQueryObject(file, ObjectBasicInformation, &information, sizeof information, NULL))
        return -EBADF;
    *device = 0;
    *writable = (information.GrantedAccess & FILE_WRITE_DATA) != 0;
    return information.GrantedAccess & FILE_READ_DATA ? 0 : PMEM2_E_INVALID_FILE_HANDLE;
}

/* Make a file as long as that: NTFS gives it space on disk then, unless it is sparse. */
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

/*
 * libpmem2's own functions read and write wherever the file pointer stands, whatever the offset. These move the file
 * pointer too, but do not depend on it; and they take handles that were opened for overlapped operations.
 */
static int transfer(file_t file, char *data, size_t size, size_t offset, int writing)
{
    DWORD done = 0;
    OVERLAPPED place = {.Offset = (DWORD)offset, .OffsetHigh = (DWORD)(offset >> 32)};
    place.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (!place.hEvent)
        return last_error();
    BOOL ok = writing ? WriteFile(file, data, (DWORD)size, NULL, &place) : ReadFile(file, data, (DWORD)size, NULL, &place);
    if (ok || GetLastError() == ERROR_IO_PENDING)
        ok = GetOverlappedResult(file, &place, &done, TRUE);
    int rc = ok ? 0 : GetLastError() == ERROR_HANDLE_EOF ? 0 : last_error();
    CloseHandle(place.hEvent);
    return !rc && writing && done < size ? -ENOSPC : rc;
}

static int read_at(struct pmem2_source *source, void *buffer, size_t size, size_t offset)
{
    file_t file;
    if (pmem2_source_get_handle(source, &file))
        return pmem2_source_pread_mcsafe(source, buffer, size, offset); /* which refuses */
    return transfer(file, buffer, size, offset, 0);
}

static int write_at(struct pmem2_source *source, void *buffer, size_t size, size_t offset)
{
    file_t file;
    if (pmem2_source_get_handle(source, &file))
        return pmem2_source_pwrite_mcsafe(source, buffer, size, offset);
    return transfer(file, buffer, size, offset, 1);
}

static uintptr_t page_size(void)
{
    SYSTEM_INFO system;
    GetSystemInfo(&system);
    return system.dwPageSize;
}

/* FlushViewOfFile alone does not wait for the disk. Through a handle that only reads there is nothing to wait for. */
static int write_back(file_t file, uintptr_t address, size_t length)
{
    if (!FlushViewOfFile((void *)address, length))
        return last_error();
    if (file == NO_FILE || FlushFileBuffers(file) || GetLastError() == ERROR_ACCESS_DENIED)
        return 0;
    return last_error();
}

static void unmap(void *address, size_t length)
{
    (void)length;
    UnmapViewOfFile(address);
}

/* libpmem2 keeps none here */
static size_t reservation_padding(size_t size)
{
    (void)size;
    return 0;
}
