/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The C half of pmem2: one translation unit, in which every function is static and cffi adds the wrappers for Python.
 *
 * The prefix of a file names its layer:
 *   os_          one interface to POSIX and to Windows
 *   cpu_         instructions of the processor
 *   guard_       C functions that check and act in one call
 *   workaround_  corrections of libpmem2
 *   batch_       many ranges or copies in one call
 *
 * Each file includes the files that it uses, so that an editor understands it alone.
 */
#include "os.c"
#include "os_zero.c"
#include "cpu_cache.c"

#include "guard_errors.c"
#include "guard_new_file.c"
#include "guard_gate.c"
#include "guard_source.c"
#include "guard_mcsafe.c"
#include "guard_badblocks.c"
#include "guard_reservation.c"
#include "guard_map_use.c"
#include "guard_pin.c"
#include "guard_map.c"
#include "guard_reservation_find.c"
#include "guard_flush.c"
#include "guard_copy.c"
#include "guard_atomics.c"
#include "guard_advice.c"

#include "batch_flush.c"
#include "batch_copy.c"
#include "guard_publish.c"

#include "python_objects.c"
