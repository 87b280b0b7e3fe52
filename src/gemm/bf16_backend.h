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

#endif
