/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_SEALED_PARTS_H
#define DUSK_IO_SEALED_PARTS_H

/* What the sources of io/sealed.h share; nobody else includes it.
 *
 *   sealed_table.c   the table of arrays and attributes, sending it to all ranks
 *   sealed_h5.c      HDF5 makes a layout;  sealed_h5_read.c  HDF5 tells what is there
 *   seal.c           the seal in the user block
 *   sealed_write.c, sealed_read.c   the public functions
 *
 * HDF5 never writes to the disk itself: it makes the file's skeleton in a sparse memory
 * file (sealed_h5_layout), whose bytes outside of the arrays are copied to the real
 * file at commit. A full disk is then met by our own pwrite, with its errno, and never
 * by HDF5, which crashes at exit when it could not flush. */

#include <stddef.h>
#include <stdint.h>

#include "io/sealed.h"

/* Where an array lies. A virtual or an empty array has bytes 0. */
struct sealed_place {
    int64_t offset, bytes;        /* of its data, from the start of the file */
    int64_t layers, layer_bytes;  /* layers 1 if not stacked */
    int64_t layer_blocks, blocks; /* blocks of a layer, of all layers */
    int64_t first_block;          /* of all blocks of the file, in table order */
    int64_t sums;                 /* file offset of its checksums, 8 bytes a block */
};

struct sealed_table {
    int arrays, attrs;
    struct sealed_array *array; /* owned, with their strings and lists */
    struct sealed_place *place;
    struct sealed_attr *attr; /* owned, with their strings and lists */
    int64_t blocks;           /* of all arrays */
    int64_t file_bytes;
};

/* Copies arrays and attributes and numbers the blocks. -1 with
 * err set (ERR_OTHER: no memory, a path twice). Local. */
int sealed_table_init(struct sealed_table *t, const struct sealed_array *arrays,
                      int arrays_n, const struct sealed_attr *attrs, int attrs_n,
                      struct err *err);
void sealed_table_fini(struct sealed_table *t);

/* Fills in the places from the arrays, offsets and sums as they are. */
int sealed_table_number(struct sealed_table *t, struct err *err);

/* Rank 0's table to all; the others' must be zero. Collective. */
void sealed_table_bcast(struct comm *c, struct sealed_table *t);

const struct sealed_table *sealed_table_of(const struct sealed *s); /* borrowed */

/* The block that holds byte `begin` of a layer, among all of the file; CHECKs that the
 * range is one of whole blocks. */
int64_t sealed_table_block(const struct sealed_table *t, int array, int64_t layer,
                           int64_t begin, size_t bytes);

/* "/model/norm", or "layer 3 of /model/layers/q_proj"; size >= 128. */
void sealed_table_name(const struct sealed_table *t, int array, int64_t layer,
                       char *name, size_t size);

/* Makes the skeleton in fd, an empty file: all arrays and their checksum datasets,
 * allocated, and attributes. Fills in the places' offsets and file_bytes. Local. */
int sealed_h5_layout(int fd, struct sealed_table *t, struct err *err);

/* Fills a zero table from an open file. `path` is for messages. Local. */
int sealed_h5_read(int fd, const char *path, struct sealed_table *t, struct err *err);

/* HDF5's type for t, owned (H5Tclose), -1 on failure: an hid_t, which this header keeps
 * to its users. */
int64_t sealed_h5_type(enum sealed_type t);

/* Starts HDF5 if need be. From here to the end it prints nothing, and `why`, borrowed
 * until then, gets its reason for the first call that fails. */
enum { SEALED_WHY_BYTES = 200 };
void sealed_h5_begin(char why[SEALED_WHY_BYTES]);
void sealed_h5_end(void);

enum { SEAL_BYTES = 4096, SEAL_EXTENTS = 253 };

struct seal {
    int64_t file_bytes;
    uint64_t outside; /* XXH3 of the bytes behind the user block and in no extent */
    uint64_t self;    /* XXH3 of the user block up to this field */
    int extents;      /* sorted, disjoint */
    struct {
        int64_t offset, bytes;
    } extent[SEAL_EXTENTS];
};

/* file_bytes and extents of a table whose places are known; `outside` is left alone.
 * -1 with err set (ERR_OTHER) if there are too many arrays. Local. */
int seal_of_table(struct seal *s, const struct sealed_table *t, struct err *err);

/* To the user block; sets s->self. From it: ERR_INPUT if it is none or is damaged. */
void seal_encode(struct seal *s, unsigned char block[SEAL_BYTES]);
int seal_decode(struct seal *s, const unsigned char block[SEAL_BYTES], const char *path,
                struct err *err);

/* Hash of what lies outside, read from fd; with `copy_to` >= 0 the bytes are also
 * written there at the same offsets. Local. */
int seal_hash_outside(int fd, const char *path, const struct seal *s, int copy_to,
                      uint64_t *hash, struct err *err);

#endif
