/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shows whether an operation on a word of memory is one instruction, in two ways.
 *
 * interrupt_store: the page of the word is read-only, so the store of the operation faults, and the handler stores first,
 * as another thread could between a load and a store.
 *
 * step: runs an operation one instruction at a time and shows what each instruction does to one word of shared memory.
 * Between two instructions, the word gets another number of eight equal bytes, as if other threads stored to it. So an
 * operation in several instructions is found on every run, and not only when threads happen to meet.
 *
 * The child protects the page of the word; its first access faults, and the parent steps from there on.
 */
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEPS = 500 }; /* from the end of the signal handler to behind the operation */
#define EQUAL_BYTES 0x0101010101010101u

struct change {
    uint64_t before, after;
};

static void *page;

static void stop(int number)
{
    (void)number;
    mprotect(page, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE);
    raise(SIGSTOP);
}

static void store_first(int number)
{
    (void)number;
    mprotect(page, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE);
    *(volatile uint64_t *)page += (uint64_t)1 << 32;
}

/* Add 2**32 to the word at the beginning of a page right before the next store to that page. */
int interrupt_store(void *address)
{
    page = address;
    signal(SIGSEGV, store_first);
    return mprotect(page, (size_t)sysconf(_SC_PAGESIZE), PROT_READ);
}

/* In the child: let the parent trace the first access to the page. */
int trace_access(void *address)
{
    page = address;
    signal(SIGSEGV, stop);
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) || mprotect(page, (size_t)sysconf(_SC_PAGESIZE), PROT_NONE);
}

static int wait_for(pid_t child, int number)
{
    int status;
    return waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == number;
}

/* In the parent: step through the access; return the number of instructions that changed the word, -1 on an error. */
long step(pid_t child, volatile uint64_t *word, struct change *changes)
{
    static uint64_t random = 88172645463325252u;
    long found = 0;
    if (!wait_for(child, SIGSEGV) || ptrace(PTRACE_CONT, child, NULL, (void *)SIGSEGV) || !wait_for(child, SIGSTOP))
        return -1;
    for (int i = 0; i < STEPS; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        const uint64_t before = (random % 4 + 1) * EQUAL_BYTES;
        *word = before;
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) || !wait_for(child, SIGTRAP))
            return -1;
        if (*word != before)
            changes[found++] = (struct change){before, *word};
    }
    ptrace(PTRACE_DETACH, child, NULL, NULL);
    return found;
}
