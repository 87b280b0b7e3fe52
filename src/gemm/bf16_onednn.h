/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_GEMM_BF16_ONEDNN_H
#define DUSK_GEMM_BF16_ONEDNN_H

/* What the parts of the oneDNN backend share: bf16_onednn.c cuts products into pieces,
 * bf16_onednn_cache.c keeps a primitive for each shape of a piece, and
 * bf16_onednn_version.c hides what differs between oneDNN 2 and 3. Included by these
 * three only. All local. */

#include "src/gemm/bf16_backend.h"

#include <oneapi/dnnl/dnnl.h>

/* Columns of a packed block, and of a piece of C. */
enum { ONEDNN_COLS = 512 };

/* Sets err to oneDNN's version, what failed and its status; -1. */
int onednn_fail(struct err *err, const char *what, dnnl_status_t status);

/* Memory descriptors are structs in oneDNN 2 and handles in 3; a view is how either is
 * read. A descriptor that was made is freed once; a view lives as long as it, or as the
 * primitive descriptor that gave it. */
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t onednn_view;
#else
typedef const dnnl_memory_desc_t *onednn_view;
#endif

onednn_view onednn_view_of(const dnnl_memory_desc_t *d);

/* Matrices of dims[0] x dims[1]: by strides; bf16 in the format that the library
 * likes best; as another. */
dnnl_status_t onednn_desc_strided(dnnl_memory_desc_t *d, dnnl_dims_t dims,
                                  dnnl_data_type_t type, dnnl_dims_t strides);
dnnl_status_t onednn_desc_any(dnnl_memory_desc_t *d, dnnl_dims_t dims);
dnnl_status_t onednn_desc_copy(dnnl_memory_desc_t *d, onednn_view from);
void onednn_desc_free(dnnl_memory_desc_t *d);

/* Adds the old content of the result. */
dnnl_status_t onednn_append_sum(dnnl_post_ops_t ops);
dnnl_status_t onednn_matmul_desc(dnnl_primitive_desc_t *p, dnnl_engine_t engine,
                                 onednn_view a, onednn_view b, onednn_view c,
                                 dnnl_primitive_attr_t attr);

/* Everything that a primitive depends on; compared as bytes, so without gaps. A
 * product of m x n x k, B plain (by strides) or one packed block; or the packing of a
 * block of k x n, B by strides. Fields that do not apply are 0. */
enum onednn_kind { ONEDNN_PRODUCT, ONEDNN_PRODUCT_PACKED, ONEDNN_REORDER };
struct onednn_key {
    int64_t kind, m, n, k, a_row, a_col, b_row, b_col, c_row, to, beta;
};

struct onednn_entry;  /* a primitive */
struct onednn_format; /* of packed blocks of one shape */

struct bf16_onednn {
    dnnl_engine_t engine;
    int threads;
    dnnl_stream_t *stream;        /* [threads] */
    struct onednn_entry **table;  /* open addressing; written outside of */
    int64_t slots, entries;       /* parallel regions only */
    struct onednn_format *format; /* [formats], a handful */
    int64_t formats;
    void **scratch; /* [threads] */
    void **piece;   /* [threads] one of C, dense */
    int64_t scratch_bytes;
};

/* Builds the key's primitive, for one thread, if it is not there yet. 0, or -1 with err
 * set. Outside of parallel regions. */
int onednn_build(struct bf16_onednn *o, const struct onednn_key *key, struct err *err);

/* Runs a primitive that was built, on the calling thread; threads of one team may do so
 * at once. A reorder goes from a to c, its b is NULL. Allocates nothing of dusk's. */
void onednn_run(const struct bf16_onednn *o, const struct onednn_key *key,
                const void *a, const void *b, void *c);

/* Bytes of a packed block of k x n, whole cache lines; -1 with err set. The format is
 * chosen at the first call for the shape, which is outside of parallel regions. */
int64_t onednn_block_bytes(struct bf16_onednn *o, int64_t k, int64_t n,
                           struct err *err);

/* Ends all primitives and formats. */
void onednn_cache_fini(struct bf16_onednn *o);

#endif
