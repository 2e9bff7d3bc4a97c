/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Call libpmem2 without a change of the working directory: pmem2_map_new, and mcsafe on device DAX, which maps it, walk
 * /sys/bus/nd/devices, with fchdir there and back.
 */
#ifndef PMEM2_WORKAROUND_CHDIR_C
#define PMEM2_WORKAROUND_CHDIR_C

#include "os.c"

typedef int (*library_call)(void *argument);

#ifdef _WIN32

static int call_in_own_directory(library_call call, void *argument)
{
    return call(argument);
}

#else

#include <sched.h>
#include <sys/wait.h>

#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#else
#define __libc_single_threaded 0
#endif

#define REGIONS "/sys/bus/nd/devices"
#define NAMESPACES "/proc/thread-self/ns/"

struct running_call {
    library_call call;
    void *argument;
    int rc;
    int returned;
};

static int run_call(void *argument)
{
    struct running_call *running = argument;
    running->rc = running->call(running->argument);
    running->returned = 1;
    return 0;
}

/* Valgrind and the sanitizers do not understand such a process. */
static int can_share_memory = 1;

__attribute__((constructor)) static void detect_tools(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    can_share_memory = 0;
#endif
    const char *preloaded = getenv("LD_PRELOAD"); /* NOLINT(concurrency-mt-unsafe): at import, as any extension may */
    if (preloaded && strstr(preloaded, "vgpreload"))
        can_share_memory = 0;
}

/*
 * Return whether the next child would be the init process of a new PID namespace (unshare(2)), which ends with it. The
 * kernel shows a namespace only once it has an init process.
 */
static int next_child_is_init(void)
{
    return !access(NAMESPACES "pid", F_OK) && access(NAMESPACES "pid_for_children", F_OK);
}

/* Block all signals but those that an instruction causes: their handlers belong to the thread that waits. */
static void block_signals(sigset_t *before)
{
    static const int synchronous[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t others;
    sigfillset(&others);
    for (size_t i = 0; i < sizeof synchronous / sizeof *synchronous; i++)
        sigdelset(&others, synchronous[i]);
    pthread_sigmask(SIG_SETMASK, &others, before);
}

/*
 * Run a call in a process that shares the memory and the descriptors of this one, but has a working directory of its
 * own. As with vfork, this thread waits until it has ended, so that it may use the thread-local memory too, for errno and
 * libpmem2's error text.
 */
static void run_in_process(struct running_call *running)
{
    enum { STACK_SIZE = 256 * 1024 };
    char *stack = malloc(STACK_SIZE);
    if (!stack)
        return;
    sigset_t before;
    block_signals(&before);
    const int child = clone(run_call, stack + STACK_SIZE, CLONE_VM | CLONE_VFORK | CLONE_FILES, running);
    if (child != -1)
        waitpid(child, NULL, __WALL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    free(stack);
}

/*
 * Make a call in such a process. Where no other thread could see the change, there is nothing to walk, or no such process
 * is possible (a limit, a filter of system calls, valgrind), make it in this thread.
 */
static int call_in_own_directory(library_call call, void *argument)
{
    struct running_call running = {call, argument, 0, 0};
    if (!__libc_single_threaded && can_share_memory && !access(REGIONS, F_OK) && !next_child_is_init())
        run_in_process(&running);
    if (!running.returned)
        run_call(&running);
    return running.rc;
}

#endif

#endif
