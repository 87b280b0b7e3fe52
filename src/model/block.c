/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/block.h"

#include "src/model/element.h"
#include "src/model/rope.h"
#include "src/model/swiglu.h"

static enum dtype dtype_of(const struct block_dims *d)
{
    return d->attention.dtype;
}

static int q_dim(const struct block_dims *d)
{
    return d->attention.heads * d->attention.head_dim;
}

static int k_dim(const struct block_dims *d)
{
    return d->attention.kv_heads * d->attention.head_dim;
}

static int qkv_dim(const struct block_dims *d)
{
    return q_dim(d) + 2 * k_dim(d);
}

struct block_params block_params_of(const struct block_dims *d)
{
    enum dtype t = dtype_of(d);
    struct rmsnorm norm = {.dim = d->hidden, .dtype = t, .eps = d->eps};
    return (struct block_params){
        .qkv = linear_group_of(t, d->hidden, (int[]){q_dim(d), k_dim(d), k_dim(d)}, 3),
        .gate_up = linear_group_of(t, d->hidden, (int[]){d->ff, d->ff}, 2),
        .o = {.in = q_dim(d), .out = d->hidden, .dtype = t},
        .down = {.in = d->ff, .out = d->hidden, .dtype = t},
        .norm1 = norm,
        .norm2 = norm};
}

bool block_trains(const struct block_params *p)
{
    return p->qkv.sums || p->gate_up.sums || p->o.dw || p->down.dw || p->norm1.dw ||
           p->norm2.dw;
}

void block_keep_lay_out(struct block_keep *keep, struct arena *a,
                        const struct block_dims *d, int max_rows, bool training)
{
    enum dtype t = dtype_of(d);
    int64_t rows = max_rows;
    keep->rstd1 = arena_floats(a, rows);
    keep->rstd2 = arena_floats(a, rows);
    keep->qkv = arena_elements(a, rows * qkv_dim(d), t);
    keep->heads = arena_elements(a, rows * q_dim(d), t);
    keep->lse = training ? arena_floats(a, rows * d->attention.heads) : NULL;
    keep->middle = arena_elements(a, rows * d->hidden, t);
    keep->gate_up = arena_elements(a, rows * 2 * d->ff, t);
}

void block_context_lay_out(struct block_context *c, struct arena *a,
                           const struct block_dims *d, int max_rows, int max_length,
                           int threads, bool training)
{
    enum dtype t = dtype_of(d);
    int64_t rows = max_rows, residual = rows * d->hidden;
    c->dims = *d;
    c->normed1 = arena_elements(a, residual, t);
    c->act = arena_elements(a, rows * d->ff, t);
    attention_work_lay_out(&c->attention, a, &d->attention, max_rows, max_length,
                           threads, training);
    if (!training)
        return;
    c->normed2 = arena_elements(a, residual, t);
    c->now = (struct block_left){.act = c->act,
                                 .dmiddle = arena_elements(a, residual, t),
                                 .normed1 = c->normed1,
                                 .normed2 = c->normed2};
    c->dheads = arena_elements(a, rows * q_dim(d), t);
    c->dqkv = arena_elements(a, rows * qkv_dim(d), t);
    c->norm_sums = arena_floats(a, rmsnorm_scratch_floats(d->hidden, max_rows));
}

void block_left_lay_out(struct block_left *left, struct arena *a,
                        const struct block_dims *d, int max_rows)
{
    enum dtype t = dtype_of(d);
    int64_t rows = max_rows;
    *left = (struct block_left){.act = arena_elements(a, rows * d->ff, t),
                                .dmiddle = arena_elements(a, rows * d->hidden, t)};
}

static struct attention_input input_of(const struct block_dims *d, const void *qkv)
{
    enum dtype t = dtype_of(d);
    int64_t stride = qkv_dim(d);
    return (struct attention_input){.q = qkv,
                                    .k = element_at(t, qkv, q_dim(d)),
                                    .v = element_at(t, qkv, q_dim(d) + k_dim(d)),
                                    .q_stride = stride,
                                    .k_stride = stride,
                                    .v_stride = stride};
}

static struct attention_gradient gradient_of(const struct block_dims *d, void *dqkv)
{
    enum dtype t = dtype_of(d);
    int64_t stride = qkv_dim(d);
    return (struct attention_gradient){.dq = dqkv,
                                       .dk = element_to(t, dqkv, q_dim(d)),
                                       .dv = element_to(t, dqkv, q_dim(d) + k_dim(d)),
                                       .dq_stride = stride,
                                       .dk_stride = stride,
                                       .dv_stride = stride};
}

/* Every product of a layer is one of these, or of block_backward_weight: the passes
 * make each where its operands are ready, block_rehearse all of them. */

static void qkv_forward(const struct block_context *c, const struct block_params *p,
                        const struct block_keep *keep, int n)
{
    linear_group_forward(c->g, &p->qkv, n, c->normed1, keep->qkv);
}

static void o_forward(const struct block_context *c, const struct block_params *p,
                      const struct block_keep *keep, int n)
{
    const struct block_dims *d = &c->dims;
    linear_forward(c->g, &p->o, n, keep->heads, q_dim(d), 1.0f, dtype_of(d),
                   keep->middle, d->hidden);
}

static void gate_up_forward(const struct block_context *c, const struct block_params *p,
                            const struct block_keep *keep, int n)
{
    linear_group_forward(c->g, &p->gate_up, n, c->normed1, keep->gate_up);
}

static void down_forward(const struct block_context *c, const struct block_params *p,
                         int n, void *y)
{
    const struct block_dims *d = &c->dims;
    linear_forward(c->g, &p->down, n, c->act, d->ff, 1.0f, dtype_of(d), y, d->hidden);
}

static void down_backward(const struct block_context *c, const struct block_params *p,
                          int n, const void *dy, void *dact)
{
    const struct block_dims *d = &c->dims;
    linear_backward_input(c->g, &p->down, n, dy, d->hidden, 0.0f, dact, d->ff);
}

static void gate_up_backward(const struct block_context *c,
                             const struct block_params *p,
                             const struct block_keep *keep, int n)
{
    linear_group_backward_input(c->g, &p->gate_up, n, keep->gate_up, c->normed2);
}

static void o_backward(const struct block_context *c, const struct block_params *p,
                       int n, const void *dmiddle)
{
    const struct block_dims *d = &c->dims;
    linear_backward_input(c->g, &p->o, n, dmiddle, d->hidden, 0.0f, c->dheads,
                          q_dim(d));
}

static void qkv_backward(const struct block_context *c, const struct block_params *p,
                         int n)
{
    linear_group_backward_input(c->g, &p->qkv, n, c->dqkv, c->normed1);
}

/* keep->middle stands in for the caller's arrays of the same shape. */
void block_rehearse(struct block_context *c, const struct block_params *p,
                    const struct block_keep *keep, int rows, bool training)
{
    qkv_forward(c, p, keep, rows);
    o_forward(c, p, keep, rows);
    gate_up_forward(c, p, keep, rows);
    down_forward(c, p, rows, keep->middle);
    if (!training)
        return;
    down_backward(c, p, rows, keep->middle, c->act);
    gate_up_backward(c, p, keep, rows);
    o_backward(c, p, rows, c->now.dmiddle);
    qkv_backward(c, p, rows);
    block_backward_weight(c, p, keep, &c->now, &(struct rows){.rows = rows},
                          keep->middle, keep->middle);
}

/* The norms lay the residual down as the start of the sum that the second product of
 * each half completes. */
void block_forward(struct block_context *c, const struct block_params *p,
                   const struct block_keep *keep, const struct rows *rows,
                   const void *x, void *y)
{
    const struct block_dims *d = &c->dims;
    const struct attention_dims *a = &d->attention;
    struct attention_input qkv = input_of(d, keep->qkv);
    enum dtype t = dtype_of(d);
    int n = rows->rows;
    rmsnorm_forward(&p->norm1, n, x, keep->rstd1, c->normed1, keep->middle);
    qkv_forward(c, p, keep, n);
    rope_forward(n, a->heads + a->kv_heads, a->head_dim, rows->position, c->cosine,
                 c->sine, t, keep->qkv, qkv_dim(d));
    attention_forward(c->g, a, &c->attention, rows, &qkv, keep->heads, keep->lse);
    o_forward(c, p, keep, n);

    rmsnorm_forward(&p->norm2, n, keep->middle, keep->rstd2, c->normed1, y);
    gate_up_forward(c, p, keep, n);
    swiglu_forward(n, d->ff, t, keep->gate_up, c->act);
    down_forward(c, p, n, y);
}

/* The scratch normed1 and normed2 hold the gradients by the norms' outputs until the
 * norms turn them into the outputs themselves, for weight gradients that follow at
 * once, where there are any. */
void block_backward_input(struct block_context *c, const struct block_params *p,
                          struct block_keep *keep, const struct block_left *left,
                          const struct rows *rows, const void *x, const void *dy,
                          void *dx)
{
    const struct block_dims *d = &c->dims;
    const struct attention_dims *a = &d->attention;
    struct attention_input qkv = input_of(d, keep->qkv);
    struct attention_gradient dqkv = gradient_of(d, c->dqkv);
    enum dtype t = dtype_of(d);
    int n = rows->rows;
    down_backward(c, p, n, dy, left->act);
    swiglu_backward(n, d->ff, t, keep->gate_up, left->act);
    gate_up_backward(c, p, keep, n);
    rmsnorm_backward(&p->norm2, n, c->normed2, keep->middle, keep->rstd2, dy,
                     left->dmiddle, p->gate_up.sums ? left->normed2 : NULL,
                     c->norm_sums);

    o_backward(c, p, n, left->dmiddle);
    attention_backward(c->g, a, &c->attention, rows, &qkv, keep->heads, keep->lse,
                       c->dheads, &dqkv);
    rope_backward(n, a->heads + a->kv_heads, a->head_dim, rows->position, c->cosine,
                  c->sine, t, c->dqkv, qkv_dim(d));
    qkv_backward(c, p, n);
    rmsnorm_backward(&p->norm1, n, c->normed1, x, keep->rstd1, left->dmiddle, dx,
                     p->qkv.sums ? left->normed1 : NULL, c->norm_sums);
    void *used = keep->qkv;
    keep->qkv = c->dqkv;
    c->dqkv = used;
}

/* The norm's output that the input gradient left, or if it had to be dropped, again. */
static const void *normed(const struct rmsnorm *norm, int n, const void *x,
                          const float *rstd, const void *left, void *scratch)
{
    if (left)
        return left;
    rmsnorm_output(norm, n, x, rstd, scratch);
    return scratch;
}

void block_backward_weight(struct block_context *c, const struct block_params *p,
                           const struct block_keep *keep, const struct block_left *left,
                           const struct rows *rows, const void *x, const void *dy)
{
    const struct block_dims *d = &c->dims;
    int n = rows->rows;
    linear_backward_weight(c->g, &p->down, n, dy, d->hidden, left->act, d->ff);
    if (p->gate_up.sums)
        linear_group_backward_weight(
            c->g, &p->gate_up, n, keep->gate_up,
            normed(&p->norm2, n, keep->middle, keep->rstd2, left->normed2, c->normed2));
    linear_backward_weight(c->g, &p->o, n, left->dmiddle, d->hidden, keep->heads,
                           q_dim(d));
    if (p->qkv.sums)
        linear_group_backward_weight(
            c->g, &p->qkv, n, keep->qkv,
            normed(&p->norm1, n, x, keep->rstd1, left->normed1, c->normed1));
}
