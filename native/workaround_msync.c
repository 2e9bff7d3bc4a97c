/* SPDX-License-Identifier: BSD-3-Clause */
/* Write dirty pages back to the file: msync, or FlushViewOfFile on Windows. */
#ifndef PMEM2_WORKAROUND_MSYNC_C
#define PMEM2_WORKAROUND_MSYNC_C

#include "guard_map_state.c"
#include "os.c"
#ifndef _WIN32
#include "workaround_ext4_journal.c"
#endif

/* Addresses of whole cache lines or pages; no span if `high` is 0. */
struct span {
    uintptr_t low, high;
};

#ifdef _WIN32

/* FlushViewOfFile does not wait for the disk, FlushFileBuffers does. A read-only handle has nothing to wait for. */
static int sync_pages(const struct guarded_map *m, uintptr_t address, size_t length)
{
    if (!FlushViewOfFile((void *)address, length))
        return last_error();
    if (m->file == NO_FILE || FlushFileBuffers(m->file) || GetLastError() == ERROR_ACCESS_DENIED)
        return 0;
    return last_error();
}

static int sync_spans(const struct guarded_map *m, const struct span *spans, size_t count)
{
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++)
        rc = sync_pages(m, spans[i].low, spans[i].high - spans[i].low);
    return rc;
}

#else

/*
 * Decide whether one msync, after a sync_file_range for each range, makes all ranges durable. Note the file if so.
 * It does on ext4 and XFS: sync_file_range returns when the pages are written and the extents converted, and the msync
 * of any page commits the metadata of the whole file and flushes the disk. `nox -s disk` proves it on these two. The
 * msync of btrfs covers its own range only; nothing is known of other file systems.
 */
static void note_backing(struct guarded_map *m, file_t file, size_t offset)
{
    struct statfs status;
    char link[32], path[4096];
    if (fstatfs(file, &status) || (status.f_type != EXT4_SUPER_MAGIC && status.f_type != XFS_SUPER_MAGIC))
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return;
    path[length] = '\0';
    m->file_offset = offset;
    note_file(&m->backing, path, file);
}

/*
 * Return the noted file. Open it at its first use, and only then, because a map should not keep a descriptor; keep it
 * then, because closing one drops the record locks of the process. NO_FILE: it has moved, or no descriptor is free.
 */
static file_t backing_file(struct guarded_map *m)
{
    file_t file = __atomic_load_n(&m->file, __ATOMIC_ACQUIRE), none = NO_FILE;
    struct stat status;
    char link[32];
    if (file != NO_FILE || !m->backing.path)
        return file;
    const int place = open(m->backing.path, O_PATH | O_CLOEXEC); /* no effect on another file that is there now */
    if (place != NO_FILE && !fstat(place, &status) && status.st_dev == m->backing.device
        && status.st_ino == m->backing.inode) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", place);
        file = open(link, O_RDONLY | O_CLOEXEC);
    }
    if (place != NO_FILE)
        close(place);
    if (file != NO_FILE && !__atomic_compare_exchange_n(&m->file, &none, file, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        close(file);
        file = none; /* of another thread */
    }
    return file;
}

/* Complete an msync where it does not suffice. */
static int complete_msync(struct guarded_map *m)
{
    int suffices = __atomic_load_n(&m->msync_suffices, __ATOMIC_RELAXED);
    if (!suffices) {
        suffices = m->backing.path && needs_syncfs(m->backing.device) ? -1 : 1;
        __atomic_store_n(&m->msync_suffices, suffices, __ATOMIC_RELAXED);
    }
    const file_t file = suffices < 0 ? backing_file(m) : NO_FILE;
    return file != NO_FILE && syncfs(file) ? -errno : 0;
}

/* libpmem2's own write-back aborts the process on an error, and loops endlessly on a map made by from_existing. */
static int sync_pages(struct guarded_map *m, uintptr_t address, size_t length)
{
    const uintptr_t start = address & ~(page_size() - 1);
    int rc;
    do
        rc = msync((void *)start, address + length - start, MS_SYNC) ? -errno : 0;
    while (rc == -EINTR);
    return rc ? rc : complete_msync(m);
}

static int submit_spans(const struct guarded_map *m, file_t file, const struct span *spans, size_t count, unsigned flags)
{
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++)
        do
            rc = sync_file_range(file, (off_t)(spans[i].low - m->address + m->file_offset),
                                 (off_t)(spans[i].high - spans[i].low), flags) ? -errno : 0;
        while (rc == -EINTR);
    return rc;
}

/* Each msync waits for the disk. Where it is proven to suffice, submit all spans first and wait once. */
static int sync_spans(struct guarded_map *m, const struct span *spans, size_t count)
{
    const unsigned wait = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    const file_t file = count > 1 ? backing_file(m) : NO_FILE;
    size_t synced = 0;
    int rc = 0;
    if (file != NO_FILE) {
        rc = submit_spans(m, file, spans, count, SYNC_FILE_RANGE_WRITE);
        if (!rc)
            rc = submit_spans(m, file, spans, count, wait);
        synced = count - 1;
    }
    for (; synced < count && !rc; synced++)
        rc = sync_pages(m, spans[synced].low, spans[synced].high - spans[synced].low);
    return rc;
}

#endif

/*
 * Linux reports a failed write-back once and marks the pages clean, so that the next msync would succeed for data that
 * is on no disk. Keep the first error: every later call for this map returns it.
 */
static int keep_error(struct guarded_map *m, int rc)
{
    int none = 0;
    if (rc)
        __atomic_compare_exchange_n(&m->write_back_error, &none, rc, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    /* The kernel may have reported an error of our pages to another thread's msync. */
    return __atomic_load_n(&m->write_back_error, __ATOMIC_ACQUIRE);
}

/* Make the pages of a range durable. */
static int write_back(struct guarded_map *m, uintptr_t address, size_t length)
{
    const int error = keep_error(m, 0);
    return error || !length ? error : keep_error(m, sync_pages(m, address, length));
}

/* Make the pages of many spans durable. */
static int write_back_spans(struct guarded_map *m, const struct span *spans, size_t count)
{
    const int error = keep_error(m, 0);
    return error ? error : keep_error(m, sync_spans(m, spans, count));
}

#endif
