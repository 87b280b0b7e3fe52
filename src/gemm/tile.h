/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_GEMM_TILE_H
#define DUSK_GEMM_TILE_H

/* Products of small tiles whose operands the caller has laid out himself, for loops
 * that build something larger than a product (src/model/attention.h).
 *
 * All is counted in words of 4 bytes: a float, or two bf16 that follow each other along
 * k, the first in the lower half. C[m,32] = A[m,k] B[k,32] + C diag(keep), sums in
 * fp32:
 * - A's row i, word l is at a[i a_row + l a_step], so that either of the two may be 1;
 *   m is a multiple of TILE_ROWS.
 * - B is k rows of TILE_COLS words, one after the other.
 * - C is m rows of TILE_COLS floats, one after the other. keep [TILE_COLS] or NULL, and
 *   C is overwritten (may hold NaN).
 *
 * Runs on the calling thread, allocates nothing. Each element is one chain of sums over
 * k in rising order: its bits depend on k, the dtype and the level of g only. bf16
 * values below 2^-126 may be read as zero. */

#include <stdint.h>

#include "src/base/dtype.h"
#include "src/gemm/gemm.h"

enum { TILE_ROWS = 8, TILE_COLS = 32 };

typedef void gemm_tile_product(int m, int k, const void *a, int64_t a_row,
                               int64_t a_step, const void *b, const float *keep,
                               float *c);

/* The fastest for g's CPU level. dtype: DTYPE_F32 or DTYPE_BF16. */
gemm_tile_product *gemm_tile(const struct gemm *g, enum dtype dtype);

#endif
