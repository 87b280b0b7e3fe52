/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_ROPE_H
#define DUSK_MODEL_ROPE_H

/* Rotary position embedding, rotate-half form (arXiv 2104.09864; transformers'
 * apply_rotary_pos_emb): in each head of E dims, pair (i, i + E/2) of a row at position
 * p turns by the angle p theta^(-2i/E):
 *     (a, b) -> (a cos - b sin, b cos + a sin)
 * The gradient turns back by the same angle. Inverse frequencies and angles are rounded
 * to fp32 as transformers does: at far positions that is visible in the result. Local.
 */

#include <stdint.h>

#include "src/base/dtype.h"

/* Fills cosine and sine, [positions, E/2] each. Uses all threads. */
void rope_table(int positions, int head_dim, double theta, float *cosine, float *sine);

/* Turns the first `heads` heads of each row of x in place, row t by position[t]; row t
 * begins at element t stride, of the dtype. So q and k of a fused row turn in one call.
 * Uses all threads. */
void rope_forward(int rows, int heads, int head_dim, const int *position,
                  const float *cosine, const float *sine, enum dtype dtype, void *x,
                  int64_t stride);

/* Turns dx back in place. */
void rope_backward(int rows, int heads, int head_dim, const int *position,
                   const float *cosine, const float *sine, enum dtype dtype, void *dx,
                   int64_t stride);

#endif
