/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TEXT_CHUNKS_H
#define DUSK_IO_TEXT_CHUNKS_H

/* Input files cut into fixed byte ranges, so that ranks can share them. A chunk owns
 * the documents that start in it and reads on to the end of its last one; the chunks of
 * all files in order therefore give all documents in order, whoever reads which.
 *
 * A line ends at LF or the end of the file, and a CR before it is dropped. A UTF-8
 * byte-order mark at the start of a file is skipped. Documents without a byte are
 * skipped. Pure but for the reader. All local. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"

enum text_rule {
    TEXT_LINE,  /* a line */
    TEXT_BLANK, /* lines up to one that holds only spaces, tabs or nothing */
    TEXT_FILE   /* the file */
};

enum { TEXT_CHUNK_BYTES = 8 << 20, TEXT_DOCUMENT_BYTES = 64 << 20 };

struct text_chunk {
    int file;
    int64_t begin, end;
};

/* Chunks of a file of `bytes`, appended to *chunks[*n] (grown by realloc, owned by the
 * caller). chunk_bytes: TEXT_CHUNK_BYTES; tests take fewer. */
int text_chunks_append(struct text_chunk **chunks, int64_t *n, int file, int64_t bytes,
                       enum text_rule rule, int64_t chunk_bytes, struct err *err);

struct text_document {
    const char *text; /* valid until the next call */
    size_t bytes;
    int64_t offset; /* of its first byte in the file */
    bool cut;       /* longer than text_reader_cut allows: text is "" */
};

struct text_reader;

/* Reads the documents of one chunk of a file whose size is file_bytes. `path` is
 * borrowed. Owned; NULL with err set (ERR_INPUT, ERR_IO). */
struct text_reader *text_reader_open(const char *path, int64_t file_bytes,
                                     enum text_rule rule, int64_t begin, int64_t end,
                                     struct err *err);
void text_reader_close(struct text_reader *r); /* NULL is fine */

/* Of lines: one longer than `bytes` comes cut, whatever its length, instead of as an
 * error, and is not kept in memory, so that the caller may skip it. */
void text_reader_cut(struct text_reader *r, int64_t bytes);

/* 1: the next document; 0: no more; -1: err set. One of more than TEXT_DOCUMENT_BYTES
 * is ERR_INPUT naming file and line. */
int text_reader_next(struct text_reader *r, struct text_document *d, struct err *err);

/* Number of the line that holds the byte at offset, from 1: counts through the file.
 * 0 if it cannot be read. For messages. */
int64_t text_line_number(const char *path, int64_t offset);

#endif
