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

/* Fills cosine and sine, [positions, E/2] each. Uses all threads. */
void rope_table(int positions, int head_dim, double theta, float *cosine, float *sine);

/* Turns x [rows, heads E] in place, row t by position[t]. Uses all threads. */
void rope_forward(int rows, int heads, int head_dim, const int *position,
                  const float *cosine, const float *sine, float *x);

/* Turns dx [rows, heads E] back in place. */
void rope_backward(int rows, int heads, int head_dim, const int *position,
                   const float *cosine, const float *sine, float *dx);

#endif
