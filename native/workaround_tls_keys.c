/* SPDX-License-Identifier: BSD-3-Clause */
/* Refuse a map when the process is about to run out of keys for thread-local storage. */
#ifndef PMEM2_WORKAROUND_TLS_KEYS_C
#define PMEM2_WORKAROUND_TLS_KEYS_C

#include "os.c"

/*
 * Every map of libpmem2 1.x owns a key (an index on Windows), and libpmem2 does not notice that none is left: deleting
 * such a map would delete key 0, which belongs to other code. Fail while a few keys are still free for other code.
 */
static int check_tls_keys(void)
{
    enum { SPARE = 16 };
    tls_key_t keys[SPARE];
    int created = 0;
    while (created < SPARE && tls_key_create(&keys[created]))
        created++;
    for (int i = 0; i < created; i++)
        tls_key_delete(keys[i]);
    return created == SPARE ? 0 : -EAGAIN;
}

#endif
