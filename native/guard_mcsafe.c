/* SPDX-License-Identifier: BSD-3-Clause */
/* pread_mcsafe and pwrite_mcsafe: reads and writes that report a bad block as an error instead of SIGBUS. */
#ifndef PMEM2_GUARD_MCSAFE_C
#define PMEM2_GUARD_MCSAFE_C

#include "guard_source.c"
#include "os.c"
#include "workaround_tls_keys.c"

typedef int (*mcsafe_fn)(struct pmem2_source *src, void *buf, size_t size, size_t offset);

/* Check the range and detect short transfers: libpmem2 accepts an offset past the end and ignores a short transfer. */
static int transfer_mcsafe(struct guarded_source *s, mcsafe_fn transfer, char *data, size_t length, size_t offset,
                           char *message)
{
    const size_t chunk = (size_t)1 << 30; /* the kernel transfers less than 2 GiB in one call */
    size_t size, done = 0;
    int rc = s->file == NO_FILE ? 0 : source_size(s, &size, message);
    if (s->dax_size)
        rc = PMEM2_E_NOSUPP;
    if (rc)
        return rc;
    if (s->file != NO_FILE && (offset > size || length > size - offset))
        return PMEM2_E_LENGTH_OUT_OF_RANGE;
    if (s->device) {
        if ((rc = check_tls_keys()))
            return rc;
        lock(&sigbus_lock);
    }
    do {
        size_t part = length - done < chunk || s->device ? length - done : chunk;
        do
            rc = save_errormsg(transfer(s->source, data + done, part, offset + done), message);
        while (rc == -EINTR);
        /* After a short write to a full disk, writing the last byte alone returns the error. */
        if (!rc && part && transfer == write_at && !s->device)
            rc = save_errormsg(transfer(s->source, data + done + part - 1, 1, offset + done + part - 1), message);
        done += part;
    } while (!rc && done < length);
    if (s->device)
        unlock(&sigbus_lock);
    if (rc || s->file == NO_FILE)
        return rc;
    /* A read is short only if the file was truncated during the call. */
    rc = source_size(s, &size, message);
    return !rc && (offset > size || length > size - offset) ? PMEM2_E_LENGTH_OUT_OF_RANGE : rc;
}

static int guarded_source_pread_mcsafe(struct guarded_source *s, char *buffer, size_t length, size_t offset,
                                       char *message)
{
    int rc = source_enter(s);
    return rc ? rc : source_leave(s, transfer_mcsafe(s, read_at, buffer, length, offset, message));
}

static int guarded_source_pwrite_mcsafe(struct guarded_source *s, char *data, size_t length, size_t offset,
                                        char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    rc = s->writable ? transfer_mcsafe(s, write_at, data, length, offset, message) : -EBADF;
    return source_leave(s, rc);
}

#endif
