/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_XENT_H
#define DUSK_MODEL_XENT_H

/* Head and cross-entropy in one pass over chunks of rows, so that rows x V logits never
 * exist at once. For row t with logits z = x_t W^T and target c:
 *     nll_t = log sum_j exp(z_j) - z_c,
 *     dz_j = scale (softmax(z)_j - [j = c]),  dx_t = dz W,  dW += dz^T x_t
 * Rows whose target is negative count for nothing: nll 0, dz 0. The chunk's length
 * depends on V alone. Uses all threads. Local. */

#include <stdint.h>

#include "src/model/linear.h"

/* Elements of scratch that xent needs for up to max_rows rows. */
int64_t xent_scratch_floats(int vocab, int max_rows);

/* x [rows, D]; head [V, D]; target [rows], each < V. Overwrites nll [rows], in nats,
 * and, unless NULL, dx [rows, D], then also adding to head->dw. */
void xent(const struct gemm *g, const struct linear *head, int rows, const float *x,
          const int32_t *target, float scale, float *scratch, double *nll, float *dx);

#endif
