/* SPDX-License-Identifier: BSD-3-Clause */
/* pread_mcsafe and pwrite_mcsafe: reads and writes that report a bad block as an error instead of SIGBUS. */
#ifndef PMEM2_GUARD_MCSAFE_C
#define PMEM2_GUARD_MCSAFE_C

#include "guard_source.c"
#include "os.c"
#include "workaround_chdir.c"
#include "workaround_tls_keys.c"

typedef int (*mcsafe_fn)(struct pmem2_source *src, void *buf, size_t size, size_t offset);

#define MAX_TRANSFER ((size_t)1 << 30) /* the kernel transfers less than 2 GiB in one call */

static int lies_inside(size_t size, size_t offset, size_t length)
{
    return offset <= size && length <= size - offset;
}

/* Check a range against the present size: libpmem2 accepts an offset past the end. */
static int check_inside(struct guarded_source *s, size_t offset, size_t length, char *message)
{
    size_t size;
    if (s->file == NO_FILE || s->dax_size) /* the transfer returns the error */
        return 0;
    int rc = source_size(s, &size, message);
    if (rc)
        return rc;
    __atomic_store_n(&s->known_size, size, __ATOMIC_RELAXED);
    return lies_inside(size, offset, length) ? 0 : PMEM2_E_LENGTH_OUT_OF_RANGE;
}

struct transfer_call {
    mcsafe_fn transfer;
    struct pmem2_source *source;
    char *data;
    size_t length, offset;
};

static int call_transfer(void *argument)
{
    const struct transfer_call *call = argument;
    return call->transfer(call->source, call->data, call->length, call->offset);
}

/* Transfer on a device, where libpmem2 handles SIGBUS, or find out that the source has no file. */
static int transfer_device(struct guarded_source *s, mcsafe_fn transfer, char *data, size_t length, size_t offset,
                           char *message)
{
    struct transfer_call call = {transfer, s->source, data, length, offset};
    int rc = s->dax_size ? PMEM2_E_NOSUPP : check_tls_keys();
    if (rc)
        return rc;
    lock(&sigbus_lock);
    rc = save_errormsg(call_in_own_directory(call_transfer, &call), message);
    unlock(&sigbus_lock);
    return rc;
}

static int is_file(const struct guarded_source *s)
{
    return s->file != NO_FILE && !s->device && !s->dax_size;
}

/* Read a file ourselves: libpmem2 ignores a short read. One that ends early was truncated after the check. */
static int read_whole(struct guarded_source *s, char *data, size_t length, size_t offset)
{
    size_t done = 0, part;
    int rc = 0;
    while (done < length && !rc) {
        rc = read_file(s->file, data + done, length - done < MAX_TRANSFER ? length - done : MAX_TRANSFER,
                       offset + done, &part);
        done += rc ? 0 : part;
        if (!rc && !part)
            rc = PMEM2_E_LENGTH_OUT_OF_RANGE;
        else if (rc == -EINTR)
            rc = 0;
    }
    return rc;
}

static int write_whole(struct guarded_source *s, char *data, size_t length, size_t offset, char *message)
{
    int rc = 0;
    for (size_t done = 0; done < length && !rc; done += MAX_TRANSFER) {
        const size_t part = length - done < MAX_TRANSFER ? length - done : MAX_TRANSFER;
        do
            rc = save_errormsg(write_at(s->source, data + done, part, offset + done), message);
        while (rc == -EINTR);
        /* After a short write to a full disk, writing the last byte alone returns the error. */
        if (!rc)
            rc = save_errormsg(write_at(s->source, data + done + part - 1, 1, offset + done + part - 1), message);
    }
    return rc;
}

/* The size is looked up only if the range exceeds the last known one: mostly a read is one system call. */
static int guarded_source_pread_mcsafe(struct guarded_source *s, char *buffer, size_t length, size_t offset,
                                       char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    if (!length || !lies_inside(__atomic_load_n(&s->known_size, __ATOMIC_RELAXED), offset, length))
        rc = check_inside(s, offset, length, message);
    if (!rc && !is_file(s))
        rc = transfer_device(s, read_at, buffer, length, offset, message);
    else if (!rc)
        rc = read_whole(s, buffer, length, offset);
    return source_leave(s, rc);
}

static int guarded_source_pwrite_mcsafe(struct guarded_source *s, char *data, size_t length, size_t offset,
                                        char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    rc = s->writable ? check_inside(s, offset, length, message) : -EBADF;
    if (!rc && !is_file(s))
        rc = transfer_device(s, write_at, data, length, offset, message);
    else if (!rc)
        rc = write_whole(s, data, length, offset, message);
    if (!rc && s->file != NO_FILE) /* the file may have been truncated during the call */
        rc = check_inside(s, offset, length, message);
    return source_leave(s, rc);
}

#endif
