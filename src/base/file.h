/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_FILE_H
#define DUSK_BASE_FILE_H

/* Whole files, whole reads, and files that appear under their name complete or not at
 * all. Errors name the path: ERR_INPUT for a missing or unreadable input, else ERR_IO.
 * Local. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "src/base/err.h"

/* Whole content, NUL-terminated beyond *bytes; owned (free). More than `limit` bytes is
 * refused (ERR_INPUT). NULL with err set. */
char *file_read(const char *path, size_t limit, size_t *bytes, struct err *err);

/* Writes path.tmp-PID, syncs, renames to path, syncs the folder. On failure no
 * temporary is left and an old file stays as it was. */
int file_write_atomic(const char *path, const void *data, size_t bytes,
                      struct err *err);

/* The same for what is written piece by piece: `to` is a stream to path.tmp-PID until
 * file_stream_close, which with `failed` removes it instead (err stays as it was). */
struct file_stream {
    FILE *to;
    char *path, *temporary; /* owned */
};
int file_stream_open(struct file_stream *s, const char *path, struct err *err);
int file_stream_close(struct file_stream *s, int failed, struct err *err);

/* Exactly `bytes` at offset, through short counts and EINTR. A read that meets the end
 * of the file is ERR_INPUT ("... cut"). `path` is for the message. */
int file_pread(int fd, const char *path, void *data, size_t bytes, int64_t offset,
               struct err *err);
int file_pwrite(int fd, const char *path, const void *data, size_t bytes,
                int64_t offset, struct err *err);

int file_sync_folder_of(const char *path,
                        struct err *err); /* fsync of the folder it is in */
int file_make_folders(const char *path, struct err *err); /* mkdir -p */
int file_remove_tree(const char *path, struct err *err);  /* rm -r; missing is fine */

/* "dir/name", owned (free); an absolute name stays as it is. NULL with err set. */
char *file_join(const char *dir, const char *name, struct err *err);

#endif
