/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_SEALED_H
#define DUSK_IO_SEALED_H

/* A sealed HDF5 file: named arrays and attributes, every byte under a checksum.
 *
 * HDF5 makes the layout: rank 0 creates every dataset contiguous, allocated early,
 * never filled, aligned to a page, and asks for its offset in the file; the bytes then
 * move by plain pwrite and pread from all ranks at once (MPI-IO has hung and corrupted
 * here, see HACKING.md). Outsiders read it with h5dump and h5py.
 *
 * Checksums: one XXH3-64 for each 64 KiB block of an array, blocks starting anew in
 * each layer (index 0 of a stacked array), in the dataset /checksums/PATH, so that they
 * do not depend on who wrote which part. The HDF5 user block (4 KiB) holds the seal:
 * magic, version, file size, the extents of all checksummed arrays, an XXH3 of every
 * byte outside of them, and an XXH3 of itself. Nothing in the file depends on time,
 * host or ranks.
 *
 * Written under a temporary name beside the final one; sealed_commit syncs on every
 * rank that wrote, seals, renames, syncs the folder. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpi/comm.h"

enum sealed_type {
    SEALED_F32,
    SEALED_BF16,
    SEALED_F16,
    SEALED_U8,
    SEALED_U16,
    SEALED_I32,
    SEALED_U32,
    SEALED_I64,
    SEALED_U64,
    SEALED_F64
};
enum { SEALED_BLOCK_BYTES = 65536, SEALED_MAX_DIMS = 3 };

size_t sealed_type_bytes(enum sealed_type t);
const char *sealed_type_name(enum sealed_type t); /* "BF16", "U8": as safetensors */

struct sealed_array {
    char path[96]; /* "/model/layers/q_proj" */
    enum sealed_type type;
    int dims;
    int64_t dim[SEALED_MAX_DIMS];
    bool stacked; /* blocks start anew at each index of dim[0] */
    /* for virtual arrays (link files): source file and, for each new layer, its source
     * layer; source_path NULL for a real array. Both borrowed by sealed_create. As read
     * back every virtual array has a list, `stacked` is false and source_layers is one
     * more than the highest source layer used. */
    const char *source_path; /* as stored: relative to the file's folder */
    const int *source_layer; /* [dim[0]] if stacked, else NULL: whole */
    int source_layers;       /* dim[0] of the source */
};

enum sealed_attr_kind { SEALED_INT, SEALED_DOUBLE, SEALED_STRING, SEALED_INTS };
struct sealed_attr {
    const char *group, *name; /* "/model", "layers"; groups are made as needed; the
                                path of an array puts it on that array */
    enum sealed_attr_kind kind;
    int64_t i;
    double d;
    const char *s;
    const int64_t *ints; /* SEALED_INTS: n of them */
    int64_t n;
};

struct sealed_writer;

/* Creates PATH.tmp-* with all arrays and attributes. Arguments matter on rank 0 only
 * (path on all). `replace`: may PATH exist? Else it is ERR_USAGE ("exists; --force").
 * Owned; NULL on every rank with err set, nothing left on disk. Collective over c. */
struct sealed_writer *sealed_create(struct comm *c, const char *path, bool replace,
                                    const struct sealed_array *arrays, int arrays_n,
                                    const struct sealed_attr *attrs, int attrs_n,
                                    struct err *err);

/* Writes bytes [begin, begin + bytes) of one layer (0 if not stacked) of an array by
 * index. begin is a multiple of SEALED_BLOCK_BYTES and the range ends on one or at the
 * layer's end. Each block must be written exactly once by one rank; sealed_commit
 * checks. data NULL: zeros, which a new file has without writing them. Local. */
int sealed_write(struct sealed_writer *w, int array, int64_t layer, int64_t begin,
                 const void *data, size_t bytes, struct err *err);

/* Finishes and frees w in any case; on failure (ERR_IO) no rank leaves anything behind
 * and an old PATH is whole. Collective. */
int sealed_commit(struct sealed_writer *w, struct err *err);
void sealed_abort(
    struct sealed_writer *w); /* frees w, removes the temporary. Collective. */

struct sealed;

/* Checks the seal on rank 0, reads table, attributes and checksums there and sends them
 * to all. A wrong seal, size or hash is ERR_INPUT naming the file and what differs.
 * Owned; NULL on every rank with err set. Collective over c. */
struct sealed *sealed_open(struct comm *c, const char *path, struct err *err);
void sealed_close(struct sealed *s); /* local */

int sealed_arrays(const struct sealed *s);
const struct sealed_array *sealed_array_at(const struct sealed *s, int i);
int sealed_find(const struct sealed *s, const char *path); /* -1: none */
int sealed_attrs(const struct sealed *s);
const struct sealed_attr *sealed_attr_at(const struct sealed *s, int i);
const struct sealed_attr *sealed_attr_find(const struct sealed *s, const char *group,
                                           const char *name); /* NULL: none */
uint64_t sealed_identity(const struct sealed *s); /* the seal's hash of itself */
const char *sealed_path(const struct sealed *s);  /* as given to sealed_open */

/* Reads whole blocks as in sealed_write and verifies their checksums; a mismatch is
 * ERR_INPUT naming file, array, layer and byte range. Virtual arrays are refused
 * (io/ckpt.h follows links). Local. */
int sealed_read(struct sealed *s, int array, int64_t layer, int64_t begin, void *data,
                size_t bytes, struct err *err);

/* Any bytes [begin, begin + bytes) of the array as one flat run, unstacked arrays only:
 * verifies each block it touches once, on the first touch. Local. */
int sealed_read_any(struct sealed *s, int array, int64_t begin, void *data,
                    size_t bytes, struct err *err);

/* Reads every block of the file's own arrays. Each one that cannot be read or does not
 * match its checksum is counted and told to `bad`; `at` hears of the progress; both may
 * be NULL. The number of damaged blocks, or -1 with err set (no memory). Local. */
int64_t sealed_verify(struct sealed *s,
                      void (*bad)(void *context, const struct err *what),
                      void (*at)(void *context, int64_t bytes_done), void *context,
                      struct err *err);

/* Opens PATH and reads every block of it, each on one rank, dealt out by the MiB, so
 * that most are read by another rank than wrote them. What is damaged or cut is
 * ERR_INPUT, on every rank. Collective over c. */
int sealed_check(struct comm *c, const char *path, struct err *err);
int64_t sealed_data_bytes(const struct sealed *s); /* that sealed_verify reads */
int64_t sealed_file_bytes(const struct sealed *s);

#endif
