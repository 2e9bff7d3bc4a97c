/* SPDX-License-Identifier: BSD-3-Clause */
/* return codes: 0 is success, a GUARD_* code a guard's error, a negative number libpmem2's own code or -errno */
#define GUARD_CLOSED ...
#define GUARD_RANGE ...
#define GUARD_UNREADABLE ...
#define GUARD_UNWRITABLE ...
#define GUARD_INACCESSIBLE ...
#define GUARD_UNALIGNED ...
#define GUARD_BUSY ...
#define GUARD_EXPORTED ...
#define GUARD_WRONG_RESERVATION ...
#define GUARD_OVERFLOW ...
#define GUARD_DEFERRED ...
#define GUARD_MESSAGE_SIZE ...
#define GUARD_GRANULARITY_UNSET ...
#define HAS_CACHE_FLUSH ...
#define HAS_CACHE_CONTROL ...

void guarded_immortalize(uintptr_t address);
int guarded_zero(file_t file, size_t size);
int guarded_write_zeros(file_t file, size_t offset, size_t size);
int guarded_allocate(file_t file, size_t offset, size_t size);
int guarded_truncate(file_t file, size_t size);
int guarded_sync_new_file(file_t file, const char *folder);
int memcmp(const void *a, const void *b, size_t n); /* much faster than PyPy's comparison */

struct guarded_source { size_t dax_size; size_t dax_alignment; file_t file; int device; int writable; ...; };
struct guarded_source *guarded_source_alloc(void);
int guarded_source_from_file(struct guarded_source *s, file_t file, char *message);
int guarded_source_from_anon(struct guarded_source *s, size_t size, char *message);
int guarded_source_open(struct guarded_source *s, const path_char_t *path, int flags, char *message);
void guarded_source_close(struct guarded_source *s);
void guarded_source_discard(struct guarded_source *s);
void guarded_source_drop(struct guarded_source *s);
int guarded_source_closed(struct guarded_source *s);
int guarded_source_get_file(struct guarded_source *s, file_t *file, char *message);
int guarded_source_size(struct guarded_source *s, size_t *size, char *message);
int guarded_source_alignment(struct guarded_source *s, size_t *alignment, char *message);
int guarded_source_device_id(struct guarded_source *s, char *id, size_t *length, char *message);
int guarded_source_device_usc(struct guarded_source *s, uint64_t *usc, char *message);
int guarded_source_numa_node(struct guarded_source *s, int *node, char *message);
int guarded_source_pread_mcsafe(struct guarded_source *s, char *buffer, size_t length, size_t offset, char *message);
int guarded_source_pwrite_mcsafe(struct guarded_source *s, char *data, size_t length, size_t offset, char *message);

struct guarded_reservation;
struct guarded_reservation *guarded_reservation_alloc(void);
int guarded_reservation_new(struct guarded_reservation *r, uintptr_t address, size_t size, char *message);
int guarded_reservation_close(struct guarded_reservation *r, char *message);
void guarded_reservation_drop(struct guarded_reservation *r);
int guarded_reservation_closed(struct guarded_reservation *r);
int guarded_reservation_extent(struct guarded_reservation *r, uintptr_t *address, size_t *size);
int guarded_reservation_extend(struct guarded_reservation *r, size_t size, char *message);
int guarded_reservation_shrink(struct guarded_reservation *r, size_t offset, size_t size, char *message);

struct guarded_map { uintptr_t address; size_t size; unsigned protection; enum pmem2_granularity granularity;
                     uint64_t serial; ...; };
struct guarded_map *guarded_map_alloc(void);
struct map_request { int granularity; int forced; size_t offset; size_t length; enum pmem2_sharing_type sharing;
                     unsigned protection; struct guarded_reservation *reservation; size_t reservation_offset; };
int guarded_map_new(struct guarded_map *m, struct guarded_source *s, const struct map_request *request, char *message);
int guarded_map_from_existing(struct guarded_map *m, struct guarded_source *s, uintptr_t address, size_t length,
                              enum pmem2_granularity granularity, unsigned protection, char *message);
int guarded_map_close(struct guarded_map *m, int defer, char *message);
void guarded_map_drop(struct guarded_map *m);
int guarded_map_closed(struct guarded_map *m);
int guarded_map_mapped(struct guarded_map *m);
#define FIND_RANGE ...
#define FIND_FIRST ...
#define FIND_LAST ...
#define FIND_NEXT ...
#define FIND_PREV ...
int guarded_reservation_find(struct guarded_reservation *r, int how, size_t offset, size_t length,
                             struct guarded_map *origin, uint64_t *found, char *message);

struct guarded_pin;
struct guarded_pin *guarded_pin_alloc(void);
int guarded_pin_view(struct guarded_pin *pin, struct guarded_map *m, size_t offset, size_t length, int internal);
void guarded_unpin(struct guarded_pin *pin);
void guarded_pin_drop(struct guarded_pin *pin);
void guarded_unpin_pointer(void *owner, struct guarded_pin *pin, char *pointer);

struct guarded_piece { size_t offset; const char *data; size_t length; };
int guarded_persist(struct guarded_map *m, size_t offset, size_t length);
int guarded_flush(struct guarded_map *m, size_t offset, size_t length);
int guarded_drain(struct guarded_map *m);
int guarded_deep_flush(struct guarded_map *m, size_t offset, size_t length, char *message);
int guarded_pack_pairs(uintptr_t address, uint64_t *numbers, size_t count);
int guarded_flush_many(struct guarded_map *m, const uint64_t *ranges, size_t count, int drain);
int guarded_publish(struct guarded_map *m, size_t offset, size_t length);
int guarded_acquire(struct guarded_map *m, size_t offset, size_t length);
int guarded_publish_many(struct guarded_map *m, const uint64_t *ranges, size_t count);
int guarded_acquire_many(struct guarded_map *m, const uint64_t *ranges, size_t count);
int guarded_publish_memory(const char *memory, size_t length);
int guarded_acquire_memory(const char *memory, size_t length);
int guarded_memmove(struct guarded_map *m, size_t offset, const char *data, size_t length, unsigned flags);
int guarded_copy_map(struct guarded_map *m, size_t offset, struct guarded_map *source, unsigned flags);
int guarded_memcpy_many(struct guarded_map *m, const struct guarded_piece *pieces, size_t count,
                        struct guarded_map **sources, size_t source_count);
int guarded_memset(struct guarded_map *m, size_t offset, int value, size_t length, unsigned flags);
int guarded_get_byte(struct guarded_map *m, ptrdiff_t index);
int guarded_set_byte(struct guarded_map *m, ptrdiff_t index, unsigned char value);
ptrdiff_t guarded_find(struct guarded_map *m, size_t offset, size_t length, const char *wanted, size_t wanted_length);
int guarded_read(struct guarded_map *m, size_t start, ptrdiff_t step, size_t count, char *target);
int guarded_write(struct guarded_map *m, size_t start, ptrdiff_t step, size_t count, const char *data);
int guarded_madvise(struct guarded_map *m, int option, size_t offset, size_t length);
int guarded_prefault(struct guarded_map *m, size_t offset, size_t length);
uint64_t guarded_load_u64(struct guarded_map *m, size_t offset);
int guarded_store_u64(struct guarded_map *m, size_t offset, uint64_t value, int persist);
uint64_t guarded_compare_exchange_u64(struct guarded_map *m, size_t offset, uint64_t expected, uint64_t desired,
                                      int persist);
uint64_t guarded_fetch_add_u64(struct guarded_map *m, size_t offset, uint64_t delta, int persist);

struct guarded_badblocks { ...; };
struct guarded_badblocks *guarded_badblocks_alloc(void);
int guarded_badblocks_new(struct guarded_badblocks *b, struct guarded_source *s, char *message);
int guarded_badblocks_next(struct guarded_badblocks *b, struct pmem2_badblock *block, char *message);
int guarded_badblocks_clear(struct guarded_badblocks *b, const struct pmem2_badblock *block, char *message);
void guarded_badblocks_close(struct guarded_badblocks *b);
void guarded_badblocks_drop(struct guarded_badblocks *b);
int guarded_badblocks_closed(struct guarded_badblocks *b);
