/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_ATTENTION_H
#define DUSK_MODEL_ATTENTION_H

/* Causal grouped-query attention over segments of rows, with an optional sliding
 * window.
 *
 * Query head h reads kv head h / G, G = H / K. For row t of a segment, u running over
 * the rows that t sees (src/model/rows.h):
 *     s_u = q_t . k_u / sqrt(E),  p = softmax(s),  o_t = sum_u p_u v_u
 * and lse_t = log sum_u exp(s_u) is kept for the backward pass, which computes p anew
 * from it (arXiv 2307.08691, algorithm 2):
 *     dv_u += p_u do_t,  D_t = do_t . o_t,  ds_u = p_u (do_t . v_u - D_t),
 *     dq_t = sum_u ds_u k_u / sqrt(E),  dk_u += ds_u q_t / sqrt(E)
 *
 * Work goes in tiles of query rows; the G heads of a kv head are stacked as rows of one
 * product against the keys that some row of the tile sees, so nothing beyond the
 * diagonal block or outside the window is computed. Scratch is one tile's scores a
 * thread, never T x T. Tiles depend on the shape alone and each writes its own rows
 * (forward), or tiles of one kv head run in order on one thread (backward): bits do not
 * depend on the number of threads.
 *
 * q [rows, H E] and k, v [rows, K E] have a stride each, so that the rows of one fused
 * product are used in place, and so do their gradients; out, dout [rows, H E] and
 * lse [rows, H] are dense. */

#include <stdbool.h>

#include "src/base/dtype.h"
#include "src/gemm/gemm.h"
#include "src/model/arena.h"
#include "src/model/rows.h"

struct attention_dims {
    int heads, kv_heads, head_dim;
    int window;       /* 0: none */
    enum dtype dtype; /* of all arrays but lse, which is fp32: DTYPE_F32, DTYPE_BF16 */
};

/* Row t of q begins at element t q_stride; elements of dims.dtype. Borrowed. */
struct attention_input {
    const void *q, *k, *v;
    int64_t q_stride, k_stride, v_stride;
};

/* The same for the gradients. No overlap with each other's elements. */
struct attention_gradient {
    void *dq, *dk, *dv;
    int64_t dq_stride, dk_stride, dv_stride;
};

struct attention_tile {
    int segment_begin, begin, end;
};

/* Scratch, shared by all layers. */
struct attention_work {
    int threads;                 /* at most so many work at once */
    int max_length;              /* rows of the longest segment */
    struct attention_tile *tile; /* the forward's list */
    int64_t thread_floats;
    float *scratch; /* [threads, thread_floats] */
};

/* Takes the scratch from the arena. training: the backward pass too. */
void attention_work_lay_out(struct attention_work *w, struct arena *a,
                            const struct attention_dims *d, int max_rows,
                            int max_length, int threads, bool training);

/* Overwrites out and, unless NULL, lse. Up to w->threads threads. Local. */
void attention_forward(const struct gemm *g, const struct attention_dims *d,
                       const struct attention_work *w, const struct rows *rows,
                       const struct attention_input *x, void *out, float *lse);

/* Overwrites dx, which may not overlap dout. Up to w->threads threads. Local. */
void attention_backward(const struct gemm *g, const struct attention_dims *d,
                        const struct attention_work *w, const struct rows *rows,
                        const struct attention_input *x, const void *out,
                        const float *lse, const void *dout,
                        const struct attention_gradient *dx);

#endif
