/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_SAFETENSORS_H
#define DUSK_IO_SAFETENSORS_H

/* The safetensors format: 8 bytes little-endian header length N, N bytes of JSON (name
 * -> dtype, shape, data_offsets, and __metadata__), then the tensors' bytes.
 *
 * Files come from anywhere, so the header is checked whole before anything is believed:
 * its length, the JSON (duplicate keys included), every dtype and shape, and that the
 * tensors, sorted by offset, start at 0, leave no hole, do not overlap and end exactly
 * at the end of the file (rules of the format's README and reader). All local. */

#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/err.h"

enum { SAFETENSORS_DIMS = 8, SAFETENSORS_HEADER_BYTES = 100000000 };

struct safetensor {
    char *name;     /* owned by the file's table */
    char dtype[12]; /* as in the header: "BF16", "I64", ... */
    int bits;       /* of one element: 8 to 64 */
    int ndim;       /* 0: a scalar */
    int64_t shape[SAFETENSORS_DIMS];
    int64_t elements; /* 1 for a scalar */
    int64_t offset;   /* first byte, from the start of the file */
    int64_t bytes;
};

struct safetensors {
    int n;
    struct safetensor
        *tensor; /* owned; sorted by offset, empty ones first among equals */
    int64_t file_bytes, data_at; /* data_at: first byte after the header */
    char *metadata;              /* __metadata__ as JSON text, or NULL; owned */
};

/* Reads and checks the header of a file. -1 with err set (ERR_INPUT; nothing to free)
 * naming the file and what is wrong. */
int safetensors_read(struct safetensors *s, const char *path, struct err *err);
void safetensors_fini(struct safetensors *s);

/* NULL if there is none of that name. Linear in n. */
const struct safetensor *safetensors_find(const struct safetensors *s,
                                          const char *name);

/* Is it F32, BF16 or F16? 0 and *t, else -1. */
int safetensor_dtype(const struct safetensor *tensor, enum dtype *t);

/* What a file to be written holds, in the order on disk. */
struct safetensors_entry {
    const char *name; /* borrowed */
    enum dtype dtype;
    int ndim;
    int64_t shape[2];
    int64_t offset; /* from the first byte after the header, filled in */
    int64_t bytes;  /* filled in */
};

/* Sorts entries as transformers lays them out (wider dtypes first, then by name), fills
 * in offsets, and makes everything that comes before the tensors: length, JSON with
 * {"format": "pt"}, padded with spaces to a multiple of 8 bytes. Owned (free), *bytes
 * long; NULL with err set (no memory). */
char *safetensors_header(struct safetensors_entry *entry, int n, size_t *bytes,
                         struct err *err);

#endif
