/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Write cache lines back to memory, or drop them from all caches of this host, with the processor's own instructions.
 * libpmem2's functions cannot serve: with eADR they flush nothing, and where they flush, a line may stay in the cache.
 */
#ifndef PMEM2_CPU_CACHE_C
#define PMEM2_CPU_CACHE_C

#include "os.c"

#define CACHE_LINE ((uintptr_t)64)

#define EACH_LINE(address, length, step, instruction) \
    for (uintptr_t line = (uintptr_t)(address) & ~((step) - 1); line < (uintptr_t)(address) + (length); line += (step)) \
        __asm__ volatile(instruction ::"r"(line) : "memory") /* NOLINT(bugprone-macro-parentheses): a string literal */

/*
 * Whether libpmem2 flushes cache lines on this processor. Where it does not, as on riscv64 and loongarch64, a persist at
 * CACHE_LINE would do nothing.
 */
#ifndef HAS_CACHE_FLUSH /* a test defines it */
#if defined(__x86_64__) || defined(__aarch64__) || defined(__powerpc64__)
#define HAS_CACHE_FLUSH 1
#else
#define HAS_CACHE_FLUSH 0
#endif
#endif

#if defined(__x86_64__)

#include <cpuid.h>

#define HAS_CACHE_CONTROL 1

enum { CACHE_UNKNOWN, CACHE_CLFLUSH, CACHE_CLFLUSHOPT, CACHE_CLWB };

/* cpuid takes microseconds in a virtual machine, so ask once. */
static int cache_instruction(void)
{
    static int known = CACHE_UNKNOWN;
    int found = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (found == CACHE_UNKNOWN) {
        unsigned a, b, c, d;
        found = CACHE_CLFLUSH; /* each x86-64 processor has it */
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_CLFLUSHOPT)
            found = b & bit_CLWB ? CACHE_CLWB : CACHE_CLFLUSHOPT;
        __atomic_store_n(&known, found, __ATOMIC_RELAXED);
    }
    return found;
}

static void drop_lines(const void *address, size_t length)
{
    if (cache_instruction() == CACHE_CLFLUSH)
        EACH_LINE(address, length, CACHE_LINE, "clflush (%0)");
    else
        EACH_LINE(address, length, CACHE_LINE, "clflushopt (%0)");
}

static void write_back_lines(const void *address, size_t length)
{
    if (cache_instruction() == CACHE_CLWB)
        EACH_LINE(address, length, CACHE_LINE, "clwb (%0)");
    else
        drop_lines(address, length);
}

/* Orders clwb and clflushopt too, which sfence orders only for later stores. */
static void cache_fence(void)
{
    __asm__ volatile("mfence" ::: "memory");
}

/* Locked instructions, such as that of gate_enter, order flushes after earlier loads, and libpmem2's sfence ends them. */
static void flush_fence(void)
{
}

#elif defined(__aarch64__)

#define HAS_CACHE_CONTROL 1

/* The smallest line of all data caches. */
static uintptr_t cache_step(void)
{
    uint64_t type;
    __asm__("mrs %0, ctr_el0" : "=r"(type));
    return (uintptr_t)4 << (type >> 16 & 15);
}

static void drop_lines(const void *address, size_t length)
{
    const uintptr_t step = cache_step();
    EACH_LINE(address, length, step, "dc civac, %0");
}

static void write_back_lines(const void *address, size_t length)
{
    const uintptr_t step = cache_step();
    EACH_LINE(address, length, step, "dc cvac, %0");
}

static void cache_fence(void)
{
    __asm__ volatile("dsb sy" ::: "memory");
}

/*
 * libpmem2's drain is `dmb ishst`, which orders stores. Only a dsb for loads and stores waits for the flushes, and an
 * acquire does not order a flush after an earlier load of another line.
 */
static void flush_fence(void)
{
    cache_fence();
}

#elif defined(__powerpc64__)

#include <sys/auxv.h>

#define HAS_CACHE_CONTROL 1

static uintptr_t cache_step(void)
{
    const uintptr_t known = getauxval(AT_DCACHEBSIZE);
    return known ? known : 128;
}

static void drop_lines(const void *address, size_t length)
{
    const uintptr_t step = cache_step();
    EACH_LINE(address, length, step, "dcbf 0, %0");
}

static void write_back_lines(const void *address, size_t length)
{
    const uintptr_t step = cache_step();
    EACH_LINE(address, length, step, "dcbst 0, %0");
}

static void cache_fence(void)
{
    __asm__ volatile("sync" ::: "memory");
}

/* libpmem2's drain is a sync too, but an acquire does not order a flush after an earlier load of another line. */
static void flush_fence(void)
{
    cache_fence();
}

#else /* no instruction that every system lets programs use */

#define HAS_CACHE_CONTROL 0

static void drop_lines(const void *address, size_t length)
{
    (void)address, (void)length;
}

static void write_back_lines(const void *address, size_t length)
{
    (void)address, (void)length;
}

static void cache_fence(void)
{
}

static void flush_fence(void)
{
}

#endif
#endif
