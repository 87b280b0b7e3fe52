/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_GEMM_BF16_BACKEND_H
#define DUSK_GEMM_BF16_BACKEND_H

/* What the backends of src/gemm/bf16.h bring. Private to the folder. */

#include "src/gemm/bf16.h"
#include "src/gemm/gemm_backend.h"

/* Any bf16 matrix, by strides: element (i, j) is p[i * row + j * col]. */
struct bf16_matrix {
    const uint16_t *p;
    int64_t row, col;
};

/* Where a product goes; C row-major. */
struct bf16_target {
    void *c;
    int64_t ldc;
    enum dtype dtype;
    float beta;
};

struct gemm_packed {
    struct gemm *g;
    int64_t k, n;
    uint16_t *data;
    void *own; /* what is freed with it */
};

/* C[m,n] = A[m,k] B[k,n] + beta C on the calling thread, sums in double; any k. */
void bf16_ref_tile(int64_t m, int64_t n, int64_t k, struct bf16_matrix a,
                   struct bf16_matrix b, struct bf16_target t);

/* oneDNN (bf16_onednn.c; without it bf16_onednn_none.c refuses). Not used by several
 * threads at once, but for what they do inside. Strides are those of A and B as
 * products take them; packed operands are the format's blocks of columns.
 *
 * prepare builds what products of this form need with any number of rows up to the one
 * given (m, or k of a sum over rows; see bf16.h), fill_prepare what fill needs: 0, or
 * -1 with err set. The others build what they still lack, and die by CHECK where that
 * fails. */
int bf16_onednn_built(void);
struct bf16_onednn *bf16_onednn_create(enum gemm_level level, int threads, char *name,
                                       size_t size, struct err *err);
void bf16_onednn_destroy(struct bf16_onednn *o);             /* NULL is fine */
int64_t bf16_onednn_bytes(const struct bf16_onednn *o);      /* of scratchpads */
int64_t bf16_onednn_primitives(const struct bf16_onednn *o); /* built so far */
int64_t bf16_onednn_packed_bytes(struct bf16_onednn *o, int64_t k, int64_t n,
                                 struct err *err); /* -1 with err set */
int bf16_onednn_fill_prepare(struct bf16_onednn *o, int64_t k, int64_t n,
                             struct bf16_matrix b, struct err *err);
void bf16_onednn_fill(struct bf16_onednn *o, int64_t k, int64_t n, struct bf16_matrix b,
                      uint16_t *to);
int bf16_onednn_prepare(struct bf16_onednn *o, int64_t m, int64_t n, int64_t k,
                        struct bf16_matrix a, struct bf16_matrix b, int packed,
                        struct bf16_target t, struct err *err);
void bf16_onednn_all(struct bf16_onednn *o, int64_t m, int64_t n, int64_t k,
                     struct bf16_matrix a, struct bf16_matrix b, const uint16_t *packed,
                     struct bf16_target t);

#endif
