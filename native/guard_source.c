/* SPDX-License-Identifier: BSD-3-Clause */
/* Sources. A source owns its file. The last thread that leaves a closed source releases it. */
#ifndef PMEM2_GUARD_SOURCE_C
#define PMEM2_GUARD_SOURCE_C

#include "guard_errors.c"
#include "guard_gate.c"
#include "os.c"

/* The open file description (open(2)) of a source, as far as it is known. */
struct description {
    struct file_id file;
    uint64_t source;  /* numbers the sources */
    int foreign;      /* made from a descriptor of the caller, which may be a duplicate of any other of that file */
};

struct guarded_source {
    uint64_t gate;
    struct pmem2_source *source;
    size_t dax_size;       /* nonzero for device DAX without an NVDIMM region (CXL), on which libndctl would crash */
    size_t dax_alignment;
    size_t huge_page;      /* bytes, on hugetlbfs; else 0 */
    file_t file;           /* a duplicate that the source owns, or NO_FILE */
    struct description description;
    size_t known_size;     /* the size when it was last looked up */
    struct noted_file created;
    struct guarded_source *next;  /* in the list `closing_sources` */
    int device;            /* a character device: device DAX */
    int writable;
};

static void source_release(struct guarded_source *s)
{
    pmem2_source_delete(&s->source);
    close_file(&s->file);
}

/* The closed sources that the last operation has yet to release; under pins_lock. */
static struct guarded_source *closing_sources;

#ifndef _WIN32
/* Release them in a child: the threads of those operations exist in the parent only. */
static void release_closing_sources(void)
{
    for (; closing_sources; closing_sources = closing_sources->next)
        source_release(closing_sources);
}

__attribute__((constructor)) static void register_release(void)
{
    pthread_atfork(NULL, NULL, release_closing_sources);
}
#endif

static int source_enter(struct guarded_source *s)
{
    return gate_enter(&s->gate, OPERATION);
}

static int source_leave(struct guarded_source *s, int rc)
{
    uint64_t word = gate_leave(&s->gate, OPERATION);
    if (word & CLOSED && !(word & OPERATIONS)) {
        lock(&pins_lock);
        struct guarded_source **link = &closing_sources;
        while (*link != s)
            link = &(*link)->next;
        *link = s->next;
        unlock(&pins_lock);
        source_release(s);
    }
    return rc;
}

static struct guarded_source *guarded_source_alloc(void)
{
    struct guarded_source *s = calloc(1, sizeof *s);
    if (s)
        s->file = NO_FILE;
    return s;
}

static int guarded_source_from_file(struct guarded_source *s, file_t file, char *message)
{
    static uint64_t last_source;
    int rc = duplicate_file(file, &s->file);
    if (rc)
        return rc == -EBADF ? PMEM2_E_INVALID_FILE_HANDLE : rc;
    rc = save_errormsg(source_from_file(&s->source, s->file), message);
    if (!rc)
        rc = stat_file(s->file, &s->device, &s->writable);
    if (rc)
        source_release(s);
    else
        s->huge_page = huge_page_size(s->file);
    s->description = (struct description){
        identify_file(s->file), __atomic_add_fetch(&last_source, 1, __ATOMIC_RELAXED), .foreign = 1};
    return rc;
}

static int guarded_source_from_anon(struct guarded_source *s, size_t size, char *message)
{
    s->writable = 1;
    return save_errormsg(pmem2_source_from_anon(&s->source, size), message);
}

/* Open a file. With O_EXCL it is new, and removed again unless the source is closed with guarded_source_close. */
static int guarded_source_open(struct guarded_source *s, const path_char_t *path, int flags, char *message)
{
    file_t opened;
    int rc = open_file(path, flags, &opened);
    if (rc)
        return rc;
    if (flags & O_EXCL)
        rc = note_file(&s->created, path, opened);
    if (!rc)
        rc = guarded_source_from_file(s, opened, message);
    s->description.foreign = 0;
    close_file(&opened);
    if (rc)
        remove_noted_file(&s->created);
    return rc;
}

#ifndef _WIN32
/* Give a file that was opened with O_TMPFILE its name, unless a file has that name (-EEXIST). */
static int guarded_source_link(struct guarded_source *s, const path_char_t *path)
{
    char unnamed[32];
    snprintf(unnamed, sizeof unnamed, "/proc/self/fd/%d", s->file);
    return linkat(AT_FDCWD, unnamed, AT_FDCWD, path, AT_SYMLINK_FOLLOW) ? -errno : 0;
}
#endif

/* Release the source now, or leave that to the last thread inside (source_leave). */
static void guarded_source_close(struct guarded_source *s)
{
    lock(&pins_lock);
    const int rc = gate_close(&s->gate, 1);
    if (rc == GUARD_DEFERRED) {
        s->next = closing_sources;
        closing_sources = s;
    }
    unlock(&pins_lock);
    if (rc == 0)
        source_release(s);
}

/* Close the source, and remove the file that it has created, even if the source was closed before. */
static void guarded_source_discard(struct guarded_source *s)
{
    guarded_source_close(s);
    remove_noted_file(&s->created);
}

static void guarded_source_drop(struct guarded_source *s)
{
    if (gate_closed(&s->gate))
        forget_file(&s->created);
    guarded_source_discard(s);
    free(s);
}

static int guarded_source_closed(struct guarded_source *s)
{
    return gate_closed(&s->gate);
}

static int guarded_source_get_file(struct guarded_source *s, file_t *file, char *message)
{
    int rc = source_enter(s);
    return rc ? rc : source_leave(s, save_errormsg(source_get_file(s->source, file), message));
}

static int source_size(struct guarded_source *s, size_t *size, char *message)
{
    if (!s->dax_size)
        return save_errormsg(pmem2_source_size(s->source, size), message);
    *size = s->dax_size;
    return 0;
}

static int source_alignment(struct guarded_source *s, size_t *alignment, char *message)
{
    const size_t own = s->dax_size ? s->dax_alignment : s->huge_page; /* libpmem2 knows neither */
    if (!own)
        return save_errormsg(pmem2_source_alignment(s->source, alignment), message);
    *alignment = own;
    return 0;
}

static int guarded_source_size(struct guarded_source *s, size_t *size, char *message)
{
    int rc = source_enter(s);
    return rc ? rc : source_leave(s, source_size(s, size, message));
}

static int guarded_source_alignment(struct guarded_source *s, size_t *alignment, char *message)
{
    int rc = source_enter(s);
    return rc ? rc : source_leave(s, source_alignment(s, alignment, message));
}

static int guarded_source_device_id(struct guarded_source *s, char *id, size_t *length, char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    rc = s->dax_size ? PMEM2_E_NOSUPP : save_errormsg(pmem2_source_device_id(s->source, id, length), message);
    return source_leave(s, rc);
}

static int guarded_source_device_usc(struct guarded_source *s, uint64_t *usc, char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    rc = s->dax_size ? PMEM2_E_NOSUPP : save_errormsg(pmem2_source_device_usc(s->source, usc), message);
    return source_leave(s, rc);
}

static int guarded_source_numa_node(struct guarded_source *s, int *node, char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    rc = s->dax_size ? PMEM2_E_NOSUPP : save_errormsg(pmem2_source_numa_node(s->source, node), message);
    return source_leave(s, rc);
}

#endif
