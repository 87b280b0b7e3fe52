/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKEN_SPILL_H
#define DUSK_IO_TOKEN_SPILL_H

/* Encoded chunks on their way to a token set. Where a chunk's ids belong in the set is
 * known only when all chunks before it are encoded, so each rank first writes its own
 * to a file beside the output: for each chunk its ids, then a record for each document.
 * Any rank reads any chunk after that. Local. */

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#include "src/base/err.h"

struct spill_record {
    uint32_t ids, text_bytes;
};

/* Where a chunk lies in its rank's file, and what it holds. */
struct spill_chunk {
    int64_t ids_at, records_at; /* byte offsets */
    int64_t documents, ids, text_bytes;
};

struct spill_writer;

/* Creates (or empties) path; ids are stored in id_bytes (2 or 4). Owned; NULL with err
 * set and no file left. `path` is borrowed. */
struct spill_writer *spill_create(const char *path, size_t id_bytes, struct err *err);

/* A chunk: begin, one call a document, end, which fills *chunk. */
void spill_begin_chunk(struct spill_writer *w);
int spill_add(struct spill_writer *w, const int32_t *ids, int64_t n, size_t text_bytes,
              struct err *err);
int spill_end_chunk(struct spill_writer *w, struct spill_chunk *chunk, struct err *err);

/* Closes the file, which lets other nodes see its bytes (NFS's close-to-open rule), and
 * frees w in any case. The file stays. */
int spill_close(struct spill_writer *w, struct err *err);
void spill_abandon(struct spill_writer *w); /* frees w; NULL is fine */

/* A chunk opened for reading: its records, and its ids by position in the chunk. */
struct spill_reader {
    int fd;
    const char *path;
    size_t id_bytes;
    struct spill_chunk chunk;
    struct spill_record *record; /* [chunk.documents]; owned */
};

int spill_open_chunk(struct spill_reader *r, const char *path, size_t id_bytes,
                     const struct spill_chunk *chunk, struct err *err);
int spill_read_ids(const struct spill_reader *r, int64_t begin, int64_t n, void *ids,
                   struct err *err); /* in id_bytes each */
void spill_close_chunk(struct spill_reader *r);

#endif
