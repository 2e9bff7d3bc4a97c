/* SPDX-License-Identifier: BSD-3-Clause */
/* The operating system: os_posix.c and os_windows.c define the same names. */
#ifndef PMEM2_OS_C
#define PMEM2_OS_C

#ifdef _WIN32
#include "os_windows.c"
#else
#include "os_posix.c"
#endif

#endif
