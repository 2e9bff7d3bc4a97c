/* SPDX-License-Identifier: BSD-3-Clause */
typedef void *file_t;
typedef wchar_t path_char_t;
int pmem2_source_from_handle(struct pmem2_source **src, void *handle);
int pmem2_source_get_handle(const struct pmem2_source *src, void **h);
int pmem2_source_device_idU(const struct pmem2_source *src, char *id, size_t *len);
int pmem2_source_device_idW(const struct pmem2_source *src, wchar_t *id, size_t *len);
const char *pmem2_errormsgU(void);
const wchar_t *pmem2_errormsgW(void);
void pmem2_perrorU(const char *format, ...);
void pmem2_perrorW(const wchar_t *format, ...);
