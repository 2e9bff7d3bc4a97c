/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad-block contexts, under badblocks_lock. libpmem2 keeps only the descriptor number, so each context owns a duplicate
 * of the file.
 */
#ifndef PMEM2_GUARD_BADBLOCKS_C
#define PMEM2_GUARD_BADBLOCKS_C

#include "guard_errors.c"
#include "guard_source.c"
#include "os.c"

struct guarded_badblocks {
    struct pmem2_badblock_context *context;
    file_t file;
    int finished;
};

static struct guarded_badblocks *guarded_badblocks_alloc(void)
{
    struct guarded_badblocks *b = calloc(1, sizeof *b);
    if (b)
        b->file = NO_FILE;
    return b;
}

static int guarded_badblocks_new(struct guarded_badblocks *b, struct guarded_source *s, char *message)
{
    int rc = source_enter(s);
    if (rc)
        return rc;
    struct pmem2_source *own = NULL;
    if (s->dax_size)
        rc = PMEM2_E_NOSUPP;
    else if (s->file != NO_FILE && !(rc = duplicate_file(s->file, &b->file)))
        rc = save_errormsg(source_from_file(&own, b->file), message);
    lock(&badblocks_lock);
    if (!rc)
        rc = save_errormsg(pmem2_badblock_context_new(&b->context, own ? own : s->source), message);
    unlock(&badblocks_lock);
    pmem2_source_delete(&own);
    if (rc)
        close_file(&b->file);
    return source_leave(s, rc);
}

static int guarded_badblocks_next(struct guarded_badblocks *b, struct pmem2_badblock *block, char *message)
{
    lock(&badblocks_lock);
    int rc = GUARD_CLOSED;
    if (b->context) {
        rc = b->finished ? PMEM2_E_NO_BAD_BLOCK_FOUND : save_errormsg(pmem2_badblock_next(b->context, block), message);
        b->finished = rc == PMEM2_E_NO_BAD_BLOCK_FOUND;
    }
    unlock(&badblocks_lock);
    return rc;
}

static int guarded_badblocks_clear(struct guarded_badblocks *b, const struct pmem2_badblock *block, char *message)
{
    lock(&badblocks_lock);
    int rc = b->context ? save_errormsg(pmem2_badblock_clear(b->context, block), message) : GUARD_CLOSED;
    unlock(&badblocks_lock);
    return rc;
}

static void guarded_badblocks_close(struct guarded_badblocks *b)
{
    lock(&badblocks_lock);
    struct pmem2_badblock_context *context = b->context;
    if (context) {
        __atomic_store_n(&b->context, NULL, __ATOMIC_RELEASE); /* first: a child that is forked now must not delete it */
        pmem2_badblock_context_delete(&context);
        close_file(&b->file);
    }
    unlock(&badblocks_lock);
}

static void guarded_badblocks_drop(struct guarded_badblocks *b)
{
    guarded_badblocks_close(b);
    free(b);
}

static int guarded_badblocks_closed(struct guarded_badblocks *b)
{
    return !__atomic_load_n(&b->context, __ATOMIC_ACQUIRE); /* without the lock: a device may hang under it */
}

#endif
