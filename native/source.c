/* SPDX-License-Identifier: BSD-3-Clause */
/* A source owns its file; whoever leaves a closed one last releases it. */

struct guarded_source {
    uint64_t gate;
    struct pmem2_source *source;
    size_t dax_size;       /* of a device DAX that no NVDIMM region backs (CXL): libndctl would crash on it */
    size_t dax_alignment;
    file_t file;           /* ours, or NO_FILE */
    int device;            /* a device DAX */
    int writable;
};

static void source_release(struct guarded_source *s)
{
    pmem2_source_delete(&s->source);
    close_file(&s->file);
}

static int source_enter(struct guarded_source *s)
{
    return gate_enter(&s->gate, OPERATION);
}

static int source_leave(struct guarded_source *s, int rc)
{
    uint64_t word = gate_leave(&s->gate, OPERATION);
    if (word & CLOSED && !(word & OPERATIONS))
        source_release(s);
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
    int rc = duplicate(file, &s->file);
    if (rc)
        return rc == -EBADF ? PMEM2_E_INVALID_FILE_HANDLE : rc;
    rc = told(source_from_file(&s->source, s->file), message);
    if (!rc)
        rc = inspect(s->file, &s->device, &s->writable);
    if (rc)
        source_release(s);
    return rc;
}

static int guarded_source_from_anon(struct guarded_source *s, size_t size, char *message)
{
    s->writable = 1;
    return told(pmem2_source_from_anon(&s->source, size), message);
}

/* The last thread inside releases; with nobody inside that is this one. */
static void guarded_source_close(struct guarded_source *s)
{
    if (gate_close(&s->gate, 1) == 0)
        source_release(s);
}

static void guarded_source_drop(struct guarded_source *s)
{
    guarded_source_close(s);
    free(s);
}

static int guarded_source_closed(struct guarded_source *s)
{
    return (__atomic_load_n(&s->gate, __ATOMIC_ACQUIRE) & CLOSED) != 0;
}

static int guarded_source_get_file(struct guarded_source *s, file_t *file, char *message)
{
    int rc = source_enter(s);
    return rc ? rc : source_leave(s, told(source_get_file(s->source, file), message));
}

static int source_size(struct guarded_source *s, size_t *size, char *message)
{
    if (!s->dax_size)
        return told(pmem2_source_size(s->source, size), message);
    *size = s->dax_size;
    return 0;
}

static int source_alignment(struct guarded_source *s, size_t *alignment, char *message)
{
    if (!s->dax_size)
        return told(pmem2_source_alignment(s->source, alignment), message);
    *alignment = s->dax_alignment;
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
    return source_leave(s, s->dax_size ? PMEM2_E_NOSUPP : told(pmem2_source_device_id(s->source, id, length), message));
}

static int guarded_source_device_usc(struct guarded_source *s, uint64_t *usc, char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    return source_leave(s, s->dax_size ? PMEM2_E_NOSUPP : told(pmem2_source_device_usc(s->source, usc), message));
}

static int guarded_source_numa_node(struct guarded_source *s, int *node, char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    return source_leave(s, s->dax_size ? PMEM2_E_NOSUPP : told(pmem2_source_numa_node(s->source, node), message));
}

typedef int (*mcsafe_fn)(struct pmem2_source *src, void *buf, size_t size, size_t offset);

/* libpmem2 lets an offset past the end through, and reports a short transfer as success. */
static int mcsafe(struct guarded_source *s, mcsafe_fn transfer, char *data, size_t length, size_t offset, char *message)
{
    const size_t chunk = (size_t)1 << 30; /* the kernel moves less than 2 GiB in one call */
    size_t size, done = 0;
    int rc = s->file == NO_FILE ? 0 : source_size(s, &size, message);
    if (s->dax_size)
        rc = PMEM2_E_NOSUPP;
    if (rc)
        return rc;
    if (s->file != NO_FILE && (offset > size || length > size - offset))
        return PMEM2_E_LENGTH_OUT_OF_RANGE;
    if (s->device) {
        if ((rc = spare_keys()))
            return rc;
        lock(&sigbus_lock);
    }
    do {
        size_t now = length - done < chunk || s->device ? length - done : chunk;
        do
            rc = told(transfer(s->source, data + done, now, offset + done), message);
        while (rc == -EINTR);
        /* a write cut short by a full disk fails in earnest at its last byte */
        if (!rc && now && transfer == write_at && !s->device)
            rc = told(transfer(s->source, data + done + now - 1, 1, offset + done + now - 1), message);
        done += now;
    } while (!rc && done < length);
    if (s->device)
        unlock(&sigbus_lock);
    /* a read is short only where the file was truncated meanwhile */
    if (!rc && s->file != NO_FILE && !(rc = source_size(s, &size, message)) && (offset > size || length > size - offset))
        rc = PMEM2_E_LENGTH_OUT_OF_RANGE;
    return rc;
}

static int guarded_source_pread_mcsafe(struct guarded_source *s, char *buffer, size_t length, size_t offset,
                                       char *message)
{
    int rc = source_enter(s);
    return rc ? rc : source_leave(s, mcsafe(s, read_at, buffer, length, offset, message));
}

static int guarded_source_pwrite_mcsafe(struct guarded_source *s, char *data, size_t length, size_t offset,
                                        char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    rc = s->writable ? mcsafe(s, write_at, data, length, offset, message) : -EBADF;
    return source_leave(s, rc);
}
