/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Records the cache instructions and fences that a thread executes. x86-64 only.
 *
 * The trap flag makes the processor raise SIGTRAP after each instruction, and the handler looks at the next one. So the
 * record shows what the processor really executes, in whichever function, and the address that the instruction acts on.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define TRAP_FLAG 0x100

enum { NOTHING, CLWB = 'w', CLFLUSHOPT = 'o', CLFLUSH = 'f', MFENCE = 'm', SFENCE = 's' };

struct step {
    uint64_t kind, address;
};

static struct step steps[1 << 16];
static uint64_t used;
static volatile sig_atomic_t recording;
static void *protected;
static size_t protected_length;

static const int REGISTERS[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* 66? REX? 0F AE /6 and /7; the operand is a register with a displacement, as compilers write it in a loop. */
static struct step decode(const uint8_t *code, const greg_t *registers)
{
    const int wide = *code == 0x66 && ++code;
    const int extension = (*code & 0xf0) == 0x40 ? *code++ & 1 : 0;
    if (code[0] != 0x0f || code[1] != 0xae)
        return (struct step){NOTHING, 0};
    const int mode = code[2] >> 6, group = code[2] >> 3 & 7, base = code[2] & 7;
    if (mode == 3)
        return (struct step){wide || group < 6 ? NOTHING : group == 6 ? MFENCE : SFENCE, 0};
    const int kind = group == 7 ? (wide ? CLFLUSHOPT : CLFLUSH) : group == 6 && wide ? CLWB : NOTHING;
    int32_t displacement = 0;
    if (kind != NOTHING && (base == 4 || (mode == 0 && base == 5)))
        abort(); /* an operand that this does not decode */
    if (mode == 1)
        displacement = (int8_t)code[3];
    else if (mode == 2)
        memcpy(&displacement, code + 3, 4);
    return (struct step){(uint64_t)kind, (uint64_t)registers[REGISTERS[base + 8 * extension]] + (uint64_t)displacement};
}

static void record(const greg_t *registers)
{
    const struct step step = decode((const uint8_t *)registers[REG_RIP], registers);
    if (step.kind == NOTHING)
        return;
    if (used == sizeof steps / sizeof *steps)
        abort();
    steps[used++] = step;
    if (protected_length && (step.kind == MFENCE || step.kind == SFENCE))
        recording = 0;
}

static void trap(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)number, (void)info;
    if (recording)
        record(registers);
    if (recording)
        registers[REG_EFL] |= TRAP_FLAG;
    else
        registers[REG_EFL] &= ~TRAP_FLAG;
}

static void fault(int number, siginfo_t *info, void *context)
{
    mprotect(protected, protected_length, PROT_READ | PROT_WRITE);
    recording = 1;
    trap(number, info, context);
}

static void handle(int number, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(number, &action, NULL);
}

/* Record from the first access to the memory on, up to the next fence. */
void steps_at_access(void *address, size_t length)
{
    handle(SIGTRAP, trap);
    handle(SIGSEGV, fault);
    used = 0;
    protected = address;
    protected_length = length;
    mprotect(address, length, PROT_NONE);
}

/* Record a call of a guard. */
void steps_of_call(int (*guard)(void *, uintptr_t, size_t), void *map, uintptr_t first, size_t second)
{
    handle(SIGTRAP, trap);
    used = 0;
    protected_length = 0;
    recording = 1;
    raise(SIGTRAP);
    guard(map, first, second);
    recording = 0;
}

/* Return the number of steps. */
uint64_t steps_end(const struct step **first)
{
    if (protected_length)
        mprotect(protected, protected_length, PROT_READ | PROT_WRITE);
    *first = steps;
    return used;
}
