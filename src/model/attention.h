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
 * Both passes go by tiles of keys with online softmax, by the recurrences of
 * FlashAttention-2 (arXiv 2307.08691, algorithms 1 and 2). Forward, for a tile of
 * queries and each tile j of its keys, with m = -inf, l = 0, o = 0 before the first: m'
 * = max(m, rowmax s_j),  f = exp(m - m'),  p = exp(s_j - m'), l = f l + rowsum p,  o =
 * f o + p v_j,  and last o / l, lse = m + log l. Backward, for a tile of queries and
 * each tile of its keys: the sums above. Key tiles beyond the diagonal, outside of the
 * window or in another segment are not visited; masks are laid on border tiles only. No
 * array is T x T: a thread's scratch does not depend on T, and the sums for dk and dv
 * are the size of k and v. A segment's prefix is visited where it lies, in the tiles of
 * the segment that it belongs to, the last of them cut at the prefix's end.
 *
 * The G heads of a kv head are stacked as the columns of one product. In bf16, scores,
 * softmax and all sums are fp32; p and ds are rounded to bf16 for the products that
 * read them, and exp has a relative error of 3e-6. In fp32, exp is good to the last
 * place.
 *
 * Work is shared out by (query tile, segment, kv head). Several query tiles add to the
 * same dk and dv: each computes its part on its own, then adds it when its turn comes,
 * later rows first, a branch's before those of the segment that it sees. So every sum
 * has one order: bits depend on the shapes and the CPU level, not on the number of
 * threads or on addresses.
 *
 * q [rows, H E] and k, v [rows, K E] have a stride each, so that the rows of one fused
 * product are used in place, and so do their gradients; out, dout [rows, H E] and
 * lse [rows, H] are dense. */

#include <stdatomic.h>
#include <stdbool.h>

#include "src/base/dtype.h"
#include "src/gemm/gemm.h"
#include "src/model/arena.h"
#include "src/model/rows.h"

struct attention_dims {
    int heads, kv_heads; /* kv_heads divides heads */
    int head_dim;        /* even */
    int window;          /* 0: none */
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

/* Rows [begin, end) of a segment. */
struct attention_tile {
    int segment, begin, end;
};

/* Scratch, shared by all layers. */
struct attention_work {
    int threads;                 /* at most so many work at once */
    int max_rows, max_length;    /* of all segments together; of the longest, its
                                  * prefix included */
    struct attention_tile *tile; /* [max_rows] the call's query tiles */
    int64_t thread_bytes;
    char *scratch; /* [threads, thread_bytes] */
    /* training */
    atomic_int *turn; /* [K, max_rows], by a key tile's first row: begin of the query
                       * tile that may add to it next */
    float *dk, *dv;   /* [max_rows, K E] sums; NULL in fp32, where dx holds them */
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
