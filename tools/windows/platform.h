/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Declarations that PMDK's Windows sources expect from Visual C++ and its SDK, and mingw-w64 lacks. Included before each
 * source file, instead of PMDK's own platform.h.
 */

#pragma once

#define _CRT_RAND_S
#define mode_t mingw_mode_t /* PMDK defines it differently */
#include <sys/types.h>
#undef mode_t

#include <windows.h>
#include <winioctl.h>

#include <direct.h>
#include <errno.h>
#include <fcntl.h>
#include <intrin.h>
#include <io.h>
#include <malloc.h>
#include <process.h>
#include <signal.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

/* gcc's AVX-512 and MOVDIR64B intrinsics need headers that PMDK does not include on Windows */
#define AVX512F_AVAILABLE 0
#define MOVDIR64B_AVAILABLE 0

typedef int mode_t;
typedef long long os_off_t;
typedef unsigned long long sigset_t;
#ifndef PATH_MAX
#define PATH_MAX MAX_PATH
#endif
#define ELIBACC 79
#define O_SYNC 0
#define strtok_r strtok_s
#define setlinebuf(file) setvbuf(file, NULL, _IOLBF, BUFSIZ)
#define _set_abort_behavior(flags, mask) 0 /* not in msvcrt.dll */
#define MSVC_CONSTR(function)
#define MSVC_DESTR(function)
#define _Use_decl_annotations_

/* Windows 10, version 1803 */
#ifndef MEM_RESERVE_PLACEHOLDER
#define MEM_COALESCE_PLACEHOLDERS 0x1
#define MEM_PRESERVE_PLACEHOLDER 0x2
#define MEM_REPLACE_PLACEHOLDER 0x4000
#define MEM_RESERVE_PLACEHOLDER 0x40000
#endif
#ifndef FILE_DAX_VOLUME
#define FILE_DAX_VOLUME 0x20000000
#endif

typedef struct {
    DWORD Version, Size, UnsafeShutdownCount;
} STORAGE_DEVICE_UNSAFE_SHUTDOWN_COUNT;
