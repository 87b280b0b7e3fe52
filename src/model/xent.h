/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_XENT_H
#define DUSK_MODEL_XENT_H

/* Head and cross-entropy in one pass over chunks of rows, so that of rows x V logits
 * never more exist at once than 32 MB or a chunk. For row t with logits z = x_t W^T,
 * target c and factor scale_t: nll_t = log sum_j exp(z_j) - z_c, dz_j = scale_t
 * (softmax(z)_j - [j = c]),  dx_t = dz W,  dW += dz^T x_t Rows whose target is negative
 * count for nothing: nll 0, dx 0. Where there are some, the rows that count are
 * gathered and only they have logits; where all count, they are read where they lie.
 * Logits and softmax are fp32; dz is of the head's dtype. A bf16 head gathers the dz of
 * several chunks, since the products that follow are faster with many rows. The lengths
 * depend on V and the number of counted rows alone. Uses all threads. Local. */

#include <stdint.h>

#include "src/model/linear.h"

/* Borrowed. */
struct xent_rows {
    int rows;
    const void *x;         /* [rows, D], of the head's dtype */
    const int32_t *target; /* [rows], each < V */
    const float *scale; /* [rows] d(objective)/d(nll); read with dx, of counted rows */
};

enum xent_use {
    XENT_LOSS,    /* xent without dx */
    XENT_AT_ONCE, /* xent with dx, or without */
    XENT_WEIGHED  /* xent_loss and xent_gradient, or xent */
};

/* Bytes of scratch for up to max_rows rows of a head [V, D], of which sizes and dtype
 * are read. */
int64_t xent_scratch_bytes(const struct linear *head, int max_rows, enum xent_use use);

/* scratch is aligned to 64 bytes. Overwrites nll [rows], in nats, and, unless NULL, dx
 * [rows, D], then also adding to head->dw. */
void xent(const struct gemm *g, const struct linear *head, const struct xent_rows *r,
          void *scratch, double *nll, void *dx);

/* xent in two halves, where the scales follow from the losses. The first overwrites
 * nll, whose bits are xent's, and does not read the scales. After it the second, of the
 * same rows with scratch as it was left and the scales set meanwhile, overwrites dx and
 * adds to head->dw: the bits of one xent with these scales. The first counted rows keep
 * their logits in between, 32 MB of them or a chunk; those of the others are computed
 * again. */
void xent_loss(const struct gemm *g, const struct linear *head,
               const struct xent_rows *r, void *scratch, double *nll);
void xent_gradient(const struct gemm *g, const struct linear *head,
                   const struct xent_rows *r, void *scratch, void *dx);

/* Makes the products of xent, and nothing else: for a rehearsal (src/gemm/bf16.h) of
 * any number of rows up to max_rows, a head of bf16. x, scratch and dx as above. */
void xent_rehearse(const struct gemm *g, const struct linear *head, int max_rows,
                   const void *x, void *scratch, void *dx);

#endif
