/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/block.h"

#include "src/model/rmsnorm.h"
#include "src/model/rope.h"
#include "src/model/swiglu.h"

#include <string.h>

static int64_t q_dim(const struct block_dims *d)
{
    return (int64_t)d->attention.heads * d->attention.head_dim;
}

static int64_t k_dim(const struct block_dims *d)
{
    return (int64_t)d->attention.kv_heads * d->attention.head_dim;
}

void block_keep_lay_out(struct block_keep *keep, struct arena *a,
                        const struct block_dims *d, int max_rows, bool training)
{
    keep->rstd1 = arena_floats(a, max_rows);
    keep->rstd2 = arena_floats(a, max_rows);
    keep->q = arena_floats(a, max_rows * q_dim(d));
    keep->heads = arena_floats(a, max_rows * q_dim(d));
    keep->k = arena_floats(a, max_rows * k_dim(d));
    keep->v = arena_floats(a, max_rows * k_dim(d));
    keep->lse =
        training ? arena_floats(a, (int64_t)max_rows * d->attention.heads) : NULL;
    keep->middle = arena_floats(a, (int64_t)max_rows * d->hidden);
    keep->gate = arena_floats(a, (int64_t)max_rows * d->ff);
    keep->up = arena_floats(a, (int64_t)max_rows * d->ff);
}

void block_context_lay_out(struct block_context *c, struct arena *a,
                           const struct block_dims *d, int max_rows, int max_length,
                           int threads, bool training)
{
    int64_t residual = (int64_t)max_rows * d->hidden;
    c->dims = *d;
    c->normed = arena_floats(a, residual);
    c->act = arena_floats(a, (int64_t)max_rows * d->ff);
    attention_work_lay_out(&c->attention, a, &d->attention, max_rows, max_length,
                           threads, training);
    if (!training)
        return;
    c->dnormed1 = arena_floats(a, residual);
    c->dnormed2 = arena_floats(a, residual);
    c->dmiddle = arena_floats(a, residual);
    c->dheads = arena_floats(a, max_rows * q_dim(d));
    c->dq = arena_floats(a, max_rows * q_dim(d));
    c->dk = arena_floats(a, max_rows * k_dim(d));
    c->dv = arena_floats(a, max_rows * k_dim(d));
}

/* to = from + layer(x): the sum starts from the residual. */
static void add_linear(const struct block_context *c, const struct linear *l, int rows,
                       const float *from, const float *x, float *to)
{
    memcpy(to, from, (size_t)rows * (size_t)l->out * sizeof *to);
    linear_forward(c->g, l, rows, x, 1.0f, to);
}

static struct attention_input attention_input(const struct block_dims *d,
                                              const struct block_keep *keep)
{
    return (struct attention_input){.q = keep->q,
                                    .k = keep->k,
                                    .v = keep->v,
                                    .q_stride = q_dim(d),
                                    .k_stride = k_dim(d),
                                    .v_stride = k_dim(d)};
}

void block_forward(struct block_context *c, const struct block_params *p,
                   const struct block_keep *keep, const struct rows *rows,
                   const float *x, float *y)
{
    const struct attention_dims *d = &c->dims.attention;
    struct attention_input qkv = attention_input(&c->dims, keep);
    int n = rows->rows;
    rmsnorm_forward(n, c->dims.hidden, x, p->norm1, c->dims.eps, keep->rstd1,
                    c->normed);
    linear_forward(c->g, &p->q, n, c->normed, 0.0f, keep->q);
    linear_forward(c->g, &p->k, n, c->normed, 0.0f, keep->k);
    linear_forward(c->g, &p->v, n, c->normed, 0.0f, keep->v);
    rope_forward(n, d->heads, d->head_dim, rows->position, c->cosine, c->sine, keep->q);
    rope_forward(n, d->kv_heads, d->head_dim, rows->position, c->cosine, c->sine,
                 keep->k);
    attention_forward(c->g, d, &c->attention, rows, &qkv, keep->heads, keep->lse);
    add_linear(c, &p->o, n, x, keep->heads, keep->middle);

    rmsnorm_forward(n, c->dims.hidden, keep->middle, p->norm2, c->dims.eps, keep->rstd2,
                    c->normed);
    linear_forward(c->g, &p->gate, n, c->normed, 0.0f, keep->gate);
    linear_forward(c->g, &p->up, n, c->normed, 0.0f, keep->up);
    swiglu_forward((int64_t)n * c->dims.ff, keep->gate, keep->up, c->act);
    add_linear(c, &p->down, n, keep->middle, c->act, y);
}

void block_backward_input(struct block_context *c, const struct block_params *p,
                          const struct block_keep *keep, const struct rows *rows,
                          const float *x, const float *dy, float *dx)
{
    const struct attention_dims *d = &c->dims.attention;
    struct attention_input qkv = attention_input(&c->dims, keep);
    struct attention_gradient dqkv = {.dq = c->dq,
                                      .dk = c->dk,
                                      .dv = c->dv,
                                      .dq_stride = q_dim(&c->dims),
                                      .dk_stride = k_dim(&c->dims),
                                      .dv_stride = k_dim(&c->dims)};
    int n = rows->rows;
    linear_backward_input(c->g, &p->down, n, dy, 0.0f, c->act);
    swiglu_backward((int64_t)n * c->dims.ff, keep->gate, keep->up, c->act);
    linear_backward_input(c->g, &p->gate, n, keep->gate, 0.0f, c->dnormed2);
    linear_backward_input(c->g, &p->up, n, keep->up, 1.0f, c->dnormed2);
    rmsnorm_backward_input(n, c->dims.hidden, c->dnormed2, keep->middle, p->norm2,
                           keep->rstd2, dy, c->dmiddle);

    linear_backward_input(c->g, &p->o, n, c->dmiddle, 0.0f, c->dheads);
    attention_backward(c->g, d, &c->attention, rows, &qkv, keep->heads, keep->lse,
                       c->dheads, &dqkv);
    rope_backward(n, d->heads, d->head_dim, rows->position, c->cosine, c->sine, c->dq);
    rope_backward(n, d->kv_heads, d->head_dim, rows->position, c->cosine, c->sine,
                  c->dk);
    linear_backward_input(c->g, &p->q, n, c->dq, 0.0f, c->dnormed1);
    linear_backward_input(c->g, &p->k, n, c->dk, 1.0f, c->dnormed1);
    linear_backward_input(c->g, &p->v, n, c->dv, 1.0f, c->dnormed1);
    rmsnorm_backward_input(n, c->dims.hidden, c->dnormed1, x, p->norm1, keep->rstd1,
                           c->dmiddle, dx);
}

void block_backward_weight(struct block_context *c, const struct block_params *p,
                           const struct block_keep *keep, const struct rows *rows,
                           const float *x, const float *dy)
{
    int n = rows->rows, hidden = c->dims.hidden;
    linear_backward_weight(c->g, &p->down, n, dy, c->act);
    rmsnorm_again(n, hidden, keep->middle, p->norm2, keep->rstd2, c->normed);
    linear_backward_weight(c->g, &p->gate, n, keep->gate, c->normed);
    linear_backward_weight(c->g, &p->up, n, keep->up, c->normed);
    rmsnorm_backward_weight(n, hidden, c->dnormed2, keep->middle, keep->rstd2,
                            p->dnorm2);

    linear_backward_weight(c->g, &p->o, n, c->dmiddle, keep->heads);
    rmsnorm_again(n, hidden, x, p->norm1, keep->rstd1, c->normed);
    linear_backward_weight(c->g, &p->q, n, c->dq, c->normed);
    linear_backward_weight(c->g, &p->k, n, c->dk, c->normed);
    linear_backward_weight(c->g, &p->v, n, c->dv, c->normed);
    rmsnorm_backward_weight(n, hidden, c->dnormed1, x, keep->rstd1, p->dnorm1);
}
