/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_BLOCK_H
#define DUSK_MODEL_BLOCK_H

/* One decoder layer (transformers' LlamaDecoderLayer):
 *     middle = x + o_proj(attention(rope(q_proj n1), rope(k_proj n1), v_proj n1)),
 *     y = middle + down_proj(silu(gate_proj n2) * up_proj n2),
 * n1, n2 the RMSNorms of x and middle. Kept for the backward pass: x (by the caller),
 * middle, the rows of q and k after rope and v, the heads' output with its log-sum-exp,
 * the rows of gate and up, and two norm factors a row; n1, n2 and the activation are
 * cheap and computed again. All but the factors and the log-sum-exp are of the dtype.
 *
 * The backward pass is two calls: the input gradient, which the next stage waits for,
 * and the weight gradients. Between the two, qkv and gate_up of the layer's keep hold
 * their gradients, and a block_left what else the second needs: the scratch, if it
 * follows at once, or arrays that wait as long as they must, with n1 and n2 computed
 * once more. (The norms' weight gradients fall off in the first.) All use all threads.
 * Local. */

#include "src/model/attention.h"
#include "src/model/linear.h"
#include "src/model/rmsnorm.h"

struct block_dims {
    int hidden, ff;
    float eps;
    struct attention_dims attention; /* its dtype is the block's */
};

/* One layer's weights and gradient sums, borrowed. */
struct block_params {
    struct linear_group qkv, gate_up;
    struct linear o, down;
    struct rmsnorm norm1, norm2; /* input_layernorm, post_attention_layernorm */
};

/* What one layer keeps of one micro-batch of R rows. */
struct block_keep {
    float *rstd1, *rstd2; /* [R] */
    void *qkv;            /* [R, (H + 2 K) E]: a row's q, then k, then v */
    void *heads;          /* [R, H E] */
    float *lse;           /* [R, H]; NULL if not training */
    void *middle;         /* [R, D] */
    void *gate_up;        /* [R, 2 F] */
};

/* What the input gradient of one layer leaves for its weight gradients. */
struct block_left {
    void *act;               /* [R, F] */
    void *dmiddle;           /* [R, D] */
    void *normed1, *normed2; /* [R, D]; NULL: computed again */
};

/* Scratch that all layers share, and what they have in common. */
struct block_context {
    const struct gemm *g;
    struct block_dims dims;
    const float *cosine, *sine; /* rope's tables */
    void *normed1;              /* [R, D] */
    void *act;                  /* [R, F] */
    void *normed2;              /* [R, D]; this and below: training */
    void *dheads;               /* [R, H E] */
    void *dqkv;                 /* as qkv */
    struct block_left now;      /* for weight gradients that follow at once */
    float *norm_sums;           /* rmsnorm_backward's */
    struct attention_work attention;
};

/* Sizes only. */
struct block_params block_params_of(const struct block_dims *d);

/* Has any of its weights a gradient sum? */
bool block_trains(const struct block_params *p);

void block_keep_lay_out(struct block_keep *keep, struct arena *a,
                        const struct block_dims *d, int max_rows, bool training);

/* Sets dims and the arrays but for the tables. */
void block_context_lay_out(struct block_context *c, struct arena *a,
                           const struct block_dims *d, int max_rows, int max_length,
                           int threads, bool training);

/* Arrays that wait, of one micro-batch in one layer. */
void block_left_lay_out(struct block_left *left, struct arena *a,
                        const struct block_dims *d, int max_rows);

/* Overwrites y [rows, D] and keep. y may be x if no backward pass follows. */
void block_forward(struct block_context *c, const struct block_params *p,
                   const struct block_keep *keep, const struct rows *rows,
                   const void *x, void *y);

/* Overwrites dx [rows, D], which is not dy, and left; turns keep's gate_up and qkv into
 * their gradients (qkv by changing arrays with the scratch). left: &c->now, or arrays
 * that wait. */
void block_backward_input(struct block_context *c, const struct block_params *p,
                          struct block_keep *keep, const struct block_left *left,
                          const struct rows *rows, const void *x, const void *dy,
                          void *dx);

/* Adds to the gradient sums of the matrices that have one. Follows block_backward_input
 * with the same left, x and dy: before another layer's if left is &c->now. */
void block_backward_weight(struct block_context *c, const struct block_params *p,
                           const struct block_keep *keep, const struct block_left *left,
                           const struct rows *rows, const void *x, const void *dy);

/* Makes all products of the calls above, and nothing else: for a rehearsal
 * (src/gemm/bf16.h) of any number of rows up to `rows`, a layer of bf16. training:
 * those of the backward pass too. */
void block_rehearse(struct block_context *c, const struct block_params *p,
                    const struct block_keep *keep, int rows, bool training);

#endif
