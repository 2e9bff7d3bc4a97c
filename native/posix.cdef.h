/* SPDX-License-Identifier: BSD-3-Clause */
typedef int file_t;
typedef char path_char_t;
int pmem2_source_get_fd(const struct pmem2_source *src, int *fd);
int pmem2_source_device_id(const struct pmem2_source *src, char *id, size_t *len);
const char *pmem2_errormsg(void);
void pmem2_perror(const char *format, ...);
long guarded_filesystem_magic(file_t file);
unsigned guarded_inode_flags(file_t file);
#define FS_APPEND_FL ...
#define FS_NOCOW_FL ...
#define O_TMPFILE ...
struct guarded_source;
int guarded_source_link(struct guarded_source *s, const path_char_t *path);
