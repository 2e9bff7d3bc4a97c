/* SPDX-License-Identifier: BSD-3-Clause */
/* Hints about the memory of a map: madvise, and faulting pages in. */
#ifndef PMEM2_GUARD_ADVICE_C
#define PMEM2_GUARD_ADVICE_C

#include "guard_errors.c"
#include "guard_gate.c"
#include "guard_map_state.c"
#include "guard_map_use.c"
#include "os.c"

/* Return the address of the first page of a range, and set the length of its whole pages. */
static char *whole_pages(const struct guarded_map *m, size_t offset, size_t *length)
{
    const uintptr_t start = m->address + offset, low = start & ~(m->page - 1);
    if (*length)
        *length = ((start + *length + m->page - 1) & ~(m->page - 1)) - low;
    return (char *)low;
}

static int guarded_madvise(struct guarded_map *m, int option, size_t offset, size_t length)
{
    int rc = map_enter(m, OPERATION, NEED_ANY, offset, length);
    if (rc)
        return rc;
    char *pages = whole_pages(m, offset, &length);
    return map_leave(m, advise_pages(pages, length, option));
}

/*
 * Load from each page, and store back the same word; a comparison that fails does not store, so it is repeated. Not the
 * same byte: gcc before 14 needs libatomic for that on riscv64.
 */
static void touch_pages(const struct guarded_map *m, size_t offset, size_t length)
{
    const uintptr_t page = page_size(), end = m->address + offset + length;
    for (uintptr_t address = m->address + offset; address < end; address = (address | (page - 1)) + 1) {
        uint32_t *word = (uint32_t *)(address & ~(uintptr_t)3), value = __atomic_load_n(word, __ATOMIC_RELAXED);
        while (m->protection & PMEM2_PROT_WRITE
               && !__atomic_compare_exchange_n(word, &value, value, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
    }
}

/* Fault the pages of a range in, for stores where the map allows stores. Their contents stay. */
static int guarded_prefault(struct guarded_map *m, size_t offset, size_t length)
{
    int rc = map_enter(m, OPERATION, NEED_ANY, offset, length);
    if (rc)
        return rc;
    size_t whole = length;
    char *pages = whole_pages(m, offset, &whole);
    rc = populate_pages(pages, whole, (m->protection & PMEM2_PROT_WRITE) != 0);
    if (rc == -EINVAL) { /* the system has no such call: Linux before 5.14 */
        touch_pages(m, offset, length);
        rc = 0;
    }
    return map_leave(m, rc);
}

#endif
