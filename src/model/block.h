/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_BLOCK_H
#define DUSK_MODEL_BLOCK_H

/* One decoder layer (transformers' LlamaDecoderLayer):
 *     middle = x + o_proj(attention(rope(q_proj n1), rope(k_proj n1), v_proj n1)),
 *     y = middle + down_proj(silu(gate_proj n2) * up_proj n2),
 * n1, n2 the RMSNorms of x and middle. Kept for the backward pass: x (by the caller),
 * middle, q and k after rope, v, the heads' output with its log-sum-exp, gate, up, and
 * two norm factors a row; n1, n2 and the activation are cheap and computed again.
 *
 * The backward pass is two calls: the input gradient, which the next stage waits for,
 * and the weight gradients. Between the two, gate and up of the layer's keep and the
 * scratch hold what the second needs. All use all threads. Local. */

#include "src/model/attention.h"
#include "src/model/linear.h"

struct block_dims {
    int hidden, ff;
    float eps;
    struct attention_dims attention;
};

/* One layer's weights and gradient sums, borrowed. */
struct block_params {
    struct linear q, k, v, o, gate, up, down;
    const float *norm1, *norm2; /* [D] input_layernorm, post_attention_layernorm */
    float *dnorm1, *dnorm2;     /* NULL if not training */
};

/* What one layer keeps of one micro-batch of R rows. */
struct block_keep {
    float *rstd1, *rstd2; /* [R] */
    float *q, *heads;     /* [R, H E] */
    float *k, *v;         /* [R, K E] */
    float *lse;           /* [R, H]; NULL if not training */
    float *middle;        /* [R, D] */
    float *gate, *up;     /* [R, F] */
};

/* Scratch that all layers share, and what they have in common. */
struct block_context {
    const struct gemm *g;
    struct block_dims dims;
    const float *cosine, *sine;           /* rope's tables */
    float *normed;                        /* [R, D] */
    float *act;                           /* [R, F] */
    float *dnormed1, *dnormed2, *dmiddle; /* [R, D]; these and below: training */
    float *dheads, *dq;                   /* [R, H E] */
    float *dk, *dv;                       /* [R, K E] */
    struct attention_work attention;
};

void block_keep_lay_out(struct block_keep *keep, struct arena *a,
                        const struct block_dims *d, int max_rows, bool training);

/* Sets dims and the arrays but for the tables. */
void block_context_lay_out(struct block_context *c, struct arena *a,
                           const struct block_dims *d, int max_rows, int max_length,
                           int threads, bool training);

/* Overwrites y [rows, D] and keep. y may be x if no backward pass follows. */
void block_forward(struct block_context *c, const struct block_params *p,
                   const struct block_keep *keep, const struct rows *rows,
                   const float *x, float *y);

/* Overwrites dx [rows, D], which is not dy; turns keep->gate and up into their
 * gradients. */
void block_backward_input(struct block_context *c, const struct block_params *p,
                          const struct block_keep *keep, const struct rows *rows,
                          const float *x, const float *dy, float *dx);

/* Adds to the weights' gradient sums. Follows block_backward_input with the same x and
 * dy before another layer's. */
void block_backward_weight(struct block_context *c, const struct block_params *p,
                           const struct block_keep *keep, const struct rows *rows,
                           const float *x, const float *dy);

#endif
