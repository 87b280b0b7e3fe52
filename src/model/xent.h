/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_XENT_H
#define DUSK_MODEL_XENT_H

/* Head and cross-entropy in one pass over chunks of rows, so that rows x V logits never
 * exist at once. For row t with logits z = x_t W^T and target c:
 *     nll_t = log sum_j exp(z_j) - z_c,
 *     dz_j = scale (softmax(z)_j - [j = c]),  dx_t = dz W,  dW += dz^T x_t
 * Rows whose target is negative count for nothing: nll 0, dz 0. Logits and softmax are
 * fp32; dz is of the head's dtype. A bf16 head gathers the dz of several chunks, since
 * the products that follow are faster with many rows. The lengths depend on V alone.
 * Uses all threads. Local. */

#include <stdint.h>

#include "src/model/linear.h"

/* Bytes of scratch that xent needs for up to max_rows rows; training: with dx. */
int64_t xent_scratch_bytes(enum dtype dtype, int vocab, int max_rows, bool training);

/* x [rows, D]; head [V, D]; target [rows], each < V. scratch is aligned to 64 bytes.
 * Overwrites nll [rows], in nats, and, unless NULL, dx [rows, D], then also adding to
 * head->dw. */
void xent(const struct gemm *g, const struct linear *head, int rows, const void *x,
          const int32_t *target, float scale, void *scratch, double *nll, void *dx);

/* Makes the products of xent, and nothing else: for a rehearsal (src/gemm/bf16.h) of
 * any number of rows up to max_rows, a head of bf16. x, scratch and dx as above. */
void xent_rehearse(const struct gemm *g, const struct linear *head, int max_rows,
                   const void *x, void *scratch, void *dx);

#endif
