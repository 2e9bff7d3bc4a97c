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

/* A map owns its handle from the beginning. */
static int open_backing(struct guarded_map *m, size_t count)
{
    (void)m, (void)count;
    return 0;
}

/* FlushViewOfFile does not wait for the disk, FlushFileBuffers does. A read-only handle has nothing to wait for. */
static int sync_span(const struct guarded_map *m, struct span span)
{
    if (!FlushViewOfFile((void *)span.low, span.high - span.low))
        return last_error();
    if (m->file == NO_FILE || FlushFileBuffers(m->file) || GetLastError() == ERROR_ACCESS_DENIED)
        return 0;
    return last_error();
}

static int sync_spans(const struct guarded_map *m, const struct span *spans, size_t count)
{
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++)
        rc = sync_span(m, spans[i]);
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

static int msync_needs_syncfs(struct guarded_map *m)
{
    int suffices = __atomic_load_n(&m->msync_suffices, __ATOMIC_RELAXED);
    if (!suffices) {
        suffices = m->backing.path && needs_syncfs(m->backing.device) ? -1 : 1;
        __atomic_store_n(&m->msync_suffices, suffices, __ATOMIC_RELAXED);
    }
    return suffices < 0;
}

static file_t backing_file(const struct guarded_map *m)
{
    return __atomic_load_n(&m->file, __ATOMIC_ACQUIRE);
}

/*
 * Open the noted file for the write-back of `count` spans, if that needs it. Open it at its first use, and only then,
 * because a map should not keep a descriptor; keep it then, because closing one drops the record locks of the process.
 * Return -EMFILE or -ENFILE if no descriptor is free. If the file has moved, each span waits for the disk by itself.
 */
static int open_backing(struct guarded_map *m, size_t count)
{
    file_t file = backing_file(m), none = NO_FILE;
    struct stat status;
    char link[32];
    int rc = 0;
    if (file != NO_FILE || !m->backing.path || (count < 2 && !msync_needs_syncfs(m)))
        return 0;
    const int place = open(m->backing.path, O_PATH | O_CLOEXEC); /* no effect on another file that is there now */
    if (place == NO_FILE)
        rc = -errno;
    else if (!fstat(place, &status) && status.st_dev == m->backing.device && status.st_ino == m->backing.inode) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", place);
        file = open(link, O_RDONLY | O_CLOEXEC);
        rc = file == NO_FILE ? -errno : 0;
    }
    if (place != NO_FILE)
        close(place);
    if (file != NO_FILE && !__atomic_compare_exchange_n(&m->file, &none, file, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        close(file); /* another thread has opened it */
    return rc == -EMFILE || rc == -ENFILE ? rc : 0;
}

/* libpmem2's own write-back aborts the process on an error, and loops endlessly on a map made by from_existing. */
static int sync_span(struct guarded_map *m, struct span span)
{
    int rc;
    do
        rc = msync((void *)span.low, span.high - span.low, MS_SYNC) ? -errno : 0;
    while (rc == -EINTR);
    const file_t file = rc || !msync_needs_syncfs(m) ? NO_FILE : backing_file(m);
    return file == NO_FILE ? rc : sync_filesystem(file);
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
        if (rc == -EPERM || rc == -ENOSYS)
            rc = 0; /* a filter of system calls forbids it */
        else
            synced = count - 1;
    }
    for (; synced < count && !rc; synced++)
        rc = sync_span(m, spans[synced]);
    return rc;
}

#endif

/* The PAGE maps that share their file; under pins_lock. */
static struct guarded_map *page_maps;

static void join_page_maps(struct guarded_map *m, struct description description)
{
    m->description = description;
    lock(&pins_lock);
    m->next_page_map = page_maps;
    page_maps = m;
    unlock(&pins_lock);
}

static void leave_page_maps(struct guarded_map *m)
{
    if (!m->description.source)
        return;
    lock(&pins_lock);
    struct guarded_map **link = &page_maps;
    while (*link != m)
        link = &(*link)->next_page_map;
    *link = m->next_page_map;
    unlock(&pins_lock);
}

/* Whether two maps may have one open file description, to which the kernel reports an error once. */
static int share_description(const struct description *a, const struct description *b)
{
    const int same_file = a->file.inode && a->file.inode == b->file.inode && a->file.device == b->file.device;
    return a->source == b->source || (same_file && (a->foreign || b->foreign));
}

static void set_error(struct guarded_map *m, int rc)
{
    int none = 0;
    __atomic_compare_exchange_n(&m->write_back_error, &none, rc, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/*
 * Linux reports a failed write-back once and marks the pages clean, so that the next msync would succeed for data that
 * is on no disk. Keep the first error, for all maps to which the kernel will not report it: every later call returns it.
 */
static int keep_error(struct guarded_map *m, int rc)
{
    if (rc) {
        set_error(m, rc);
        lock(&pins_lock);
        for (struct guarded_map *other = page_maps; other; other = other->next_page_map)
            if (share_description(&other->description, &m->description))
                set_error(other, rc);
        unlock(&pins_lock);
    }
    /* The kernel may have reported an error of our pages to another thread's msync. */
    return __atomic_load_n(&m->write_back_error, __ATOMIC_ACQUIRE);
}

/* Make the pages of many spans durable. */
static int write_back_spans(struct guarded_map *m, const struct span *spans, size_t count)
{
    int rc = keep_error(m, 0);
    if (rc || !count)
        return rc;
    rc = open_backing(m, count);
    return rc ? rc : keep_error(m, sync_spans(m, spans, count)); /* without a descriptor, nothing has failed yet */
}

/* Make the pages of a range durable. */
static int write_back(struct guarded_map *m, uintptr_t address, size_t length)
{
    const struct span span = {address & ~(page_size() - 1), address + length};
    return write_back_spans(m, &span, length ? 1 : 0);
}

#endif
