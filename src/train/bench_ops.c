/* SPDX-License-Identifier: Apache-2.0 */
/* Every operation of a step that is not a matrix product, in GB/s of what the algorithm
 * must read and write once, beside copy; attention in GFLOP/s (2 products forward, 5
 * backward, the causal half) beside the best product. Small models stay in caches and
 * exceed copy. */
#include "src/train/bench.h"

#include "src/base/mem.h"
#include "src/base/rng.h"
#include "src/base/tally.h"
#include "src/model/attention.h"
#include "src/model/embed.h"
#include "src/model/rmsnorm.h"
#include "src/model/rope.h"
#include "src/model/swiglu.h"
#include "src/model/xent.h"
#include "src/optim/adamw.h"

#include <omp.h>
#include <string.h>

enum { WIDE = 6, PARAMETERS = 32 << 20 };

/* Arrays of rows x the widest of the model, and what the operations take. */
struct ops {
    struct bench *b;
    int rows, hidden, ff, heads, kv_heads, head_dim, vocab;
    int64_t wide;   /* elements of each array */
    float *x[WIDE]; /* [wide] */
    float *weight, *rstd, *norm_sums, *cosine, *sine;
    struct rmsnorm norm;
    int *position, *segment_begin;
    int32_t *ids;
    struct tally tally;
    struct linear head;
    double *nll;
    void *logits;
    struct attention_dims dims;
    struct attention_work work;
    struct rows segments;
    float *lse;
    void *scratch;
    float *state[4]; /* [PARAMETERS] w m v g */
    int64_t t;
};

static void rmsnorm_f(void *context)
{
    struct ops *o = context;
    rmsnorm_forward(&o->norm, o->rows, o->x[0], o->rstd, o->x[1], NULL);
}

static void rmsnorm_b(void *context)
{
    struct ops *o = context;
    rmsnorm_backward(&o->norm, o->rows, o->x[0], o->x[1], o->rstd, o->x[2], o->x[3],
                     o->x[4], o->norm_sums);
}

static void rope(void *context)
{
    struct ops *o = context;
    rope_forward(o->rows, o->heads, o->head_dim, o->position, o->cosine, o->sine,
                 DTYPE_F32, o->x[0], o->heads * o->head_dim);
}

static void swiglu_f(void *context)
{
    struct ops *o = context;
    swiglu_forward(o->rows, o->ff, DTYPE_F32, o->x[0], o->x[1]);
}

static void swiglu_b(void *context)
{
    struct ops *o = context;
    swiglu_backward(o->rows, o->ff, DTYPE_F32, o->x[0], o->x[1]);
}

static void embed_f(void *context)
{
    struct ops *o = context;
    embed_forward(o->rows, o->hidden, DTYPE_F32, o->ids, o->head.w, o->x[0]);
}

static void embed_b(void *context)
{
    struct ops *o = context;
    embed_backward(o->rows, o->hidden, DTYPE_F32, o->ids, o->x[0], o->head.dw);
}

static void cross_entropy(void *context)
{
    struct ops *o = context;
    xent(o->b->gemm, &o->head, o->rows, o->x[0], o->ids, 1e-3f, o->logits, o->nll,
         o->x[1]);
}

static struct attention_input attention_of(const struct ops *o)
{
    int64_t q = (int64_t)o->heads * o->head_dim, k = (int64_t)o->kv_heads * o->head_dim;
    return (struct attention_input){o->x[0], o->x[1], o->x[2], q, k, k};
}

static void attention_f(void *context)
{
    struct ops *o = context;
    struct attention_input in = attention_of(o);
    attention_forward(o->b->gemm, &o->dims, &o->work, &o->segments, &in, o->x[3],
                      o->lse);
}

static void attention_b(void *context)
{
    struct ops *o = context;
    struct attention_input in = attention_of(o);
    struct attention_gradient out = {o->x[4],     o->x[5],     o->x[5] + o->wide / 2,
                                     in.q_stride, in.k_stride, in.v_stride};
    attention_backward(o->b->gemm, &o->dims, &o->work, &o->segments, &in, o->x[3],
                       o->lse, o->x[3], &out);
}

static void adamw(void *context)
{
    struct ops *o = context;
    const struct adamw a = {0.9, 0.95, 1e-8, 0.1};
    adamw_update(&a, ++o->t, 1e-4, true, 1.0, PARAMETERS, o->state[0], o->state[1],
                 o->state[2], o->state[3]);
}

static void norm(void *context)
{
    struct ops *o = context;
    o->nll[0] = sum_of_squares(PARAMETERS, o->state[3]);
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void fill(struct ops *o)
{
    for (int a = 0; a < WIDE; a++) {
        float *x = o->x[a];
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < o->wide; i++)
            x[i] = (float)(2 * rng_uniform(3, (uint64_t)a, (uint64_t)i) - 1);
    }
    for (int i = 0; i < o->hidden; i++)
        o->weight[i] = 1;
    for (int i = 0; i < o->rows; i++) {
        o->ids[i] = (int32_t)(rng_u64(4, 0, (uint64_t)i) % (uint64_t)o->vocab);
        o->position[i] = i % o->b->size.seq_len;
    }
    for (int i = 0; i <= o->b->size.micro_batch; i++)
        o->segment_begin[i] = i * o->b->size.seq_len;
}

static int attention_init(struct ops *o, struct err *err)
{
    const struct bench_size *z = &o->b->size;
    o->dims = (struct attention_dims){.heads = o->heads,
                                      .kv_heads = o->kv_heads,
                                      .head_dim = o->head_dim,
                                      .window = z->shape.window,
                                      .dtype = DTYPE_F32};
    o->segments = (struct rows){.rows = o->rows,
                                .segments = z->micro_batch,
                                .segment_begin = o->segment_begin,
                                .position = o->position};
    struct arena a = {0};
    attention_work_lay_out(&o->work, &a, &o->dims, o->rows, z->seq_len,
                           omp_get_max_threads(), true);
    a = (struct arena){.base = o->scratch = mem_array(a.used, 1, err)};
    if (!o->scratch)
        return -1;
    attention_work_lay_out(&o->work, &a, &o->dims, o->rows, z->seq_len,
                           omp_get_max_threads(), true);
    return 0;
}

static int ops_init(struct ops *o, struct bench *b, struct err *err)
{
    const struct model_shape *s = &b->size.shape;
    *o = (struct ops){.b = b,
                      .rows = b->size.micro_batch * b->size.seq_len,
                      .hidden = s->hidden,
                      .ff = s->ff,
                      .heads = s->heads,
                      .kv_heads = s->kv_heads,
                      .head_dim = s->head_dim,
                      .vocab = s->vocab};
    int64_t q = (int64_t)s->heads * s->head_dim;
    o->wide = o->rows * max64(max64(s->hidden, 2 * s->ff), 2 * q);
    int64_t table = (int64_t)s->vocab * s->hidden;
    int64_t angles = (int64_t)s->max_positions * s->head_dim / 2;
    bool ok = true;
    for (int i = 0; i < WIDE; i++)
        ok = (o->x[i] = mem_array(o->wide, sizeof(float), err)) && ok;
    for (int i = 0; i < 4; i++)
        ok = (o->state[i] = mem_array(PARAMETERS, sizeof(float), err)) && ok;
    o->head = (struct linear){.in = s->hidden, .out = s->vocab};
    float *w = mem_array(table, sizeof *w, err);
    o->head.w = w;
    o->head.dw = mem_array(table, sizeof(float), err);
    o->weight = mem_array(s->hidden, sizeof(float), err);
    o->rstd = mem_array(o->rows, sizeof(float), err);
    o->lse = mem_array((int64_t)o->rows * s->heads, sizeof(float), err);
    o->cosine = mem_array(angles, sizeof(float), err);
    o->sine = mem_array(angles, sizeof(float), err);
    o->position = mem_array(o->rows, sizeof(int), err);
    o->segment_begin = mem_array(b->size.micro_batch + 1, sizeof(int), err);
    o->ids = mem_array(o->rows, sizeof(int32_t), err);
    o->nll = mem_array(o->rows, sizeof(double), err);
    o->logits =
        mem_array(xent_scratch_bytes(DTYPE_F32, s->vocab, o->rows, true), 1, err);
    o->norm_sums =
        mem_array(rmsnorm_scratch_floats(s->hidden, o->rows), sizeof(float), err);
    float *dnorm = mem_array(s->hidden, sizeof *dnorm, err);
    o->norm =
        (struct rmsnorm){.dim = s->hidden, .eps = 1e-5f, .w = o->weight, .dw = dnorm};
    if (!ok || !w || !o->head.dw || !o->weight || !o->rstd || !o->lse || !o->cosine ||
        !o->sine || !o->position || !o->segment_begin || !o->ids || !o->nll ||
        !o->logits || !o->norm_sums || !dnorm || attention_init(o, err))
        return -1;
    fill(o);
    rope_table(s->max_positions, s->head_dim, s->rope_theta, o->cosine, o->sine);
    return 0;
}

static void ops_fini(struct ops *o)
{
    union {
        const void *in;
        void *out;
    } w = {o->head.w};
    void *const all[] = {w.out,      o->head.dw,       o->weight,   o->rstd,
                         o->lse,     o->cosine,        o->sine,     o->position,
                         o->ids,     o->segment_begin, o->nll,      o->logits,
                         o->scratch, o->norm.dw,       o->norm_sums};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
    for (int i = 0; i < WIDE; i++)
        mem_free(o->x[i]);
    for (int i = 0; i < 4; i++)
        mem_free(o->state[i]);
}

static void byte_row(struct ops *o, const char *name, void (*run)(void *), double bytes,
                     double copy)
{
    struct bench_value v = bench_rate(bench_seconds(o->b, run, o), bytes * 1e-9);
    bench_add(o->b, name, "GB/s", v, v.median / copy, "copy");
}

/* Cross-entropy without its three products. */
static void xent_row(struct ops *o, double bytes, double copy)
{
    double x[5];
    gemm_set_tally(o->b->gemm, &o->tally);
    for (int i = -1; i < 5; i++) {
        o->tally = (struct tally){0};
        double begin = clock_s();
        cross_entropy(o);
        if (i >= 0)
            x[i] = clock_s() - begin - o->tally.seconds[TALLY_GEMM];
    }
    gemm_set_tally(o->b->gemm, NULL);
    struct bench_value v = bench_rate(bench_value_of(x, 5), bytes * 1e-9);
    bench_add(o->b, "cross-entropy without products", "GB/s", v, v.median / copy,
              "copy");
}

static void attention_rows(struct ops *o, double product)
{
    const struct bench_size *z = &o->b->size;
    double t = z->seq_len, heads = (double)o->heads * o->head_dim;
    double flops = 2e-9 * z->micro_batch * t * t * heads; /* 2 products */
    struct bench_value v = bench_rate(bench_seconds(o->b, attention_f, o), flops);
    bench_add(o->b, "attention forward", "GFLOP/s", v, v.median / product, "gemm");
    v = bench_rate(bench_seconds(o->b, attention_b, o), 2.5 * flops);
    bench_add(o->b, "attention backward", "GFLOP/s", v, v.median / product, "gemm");
}

static void rows(struct ops *o, double copy, double product)
{
    double rows = o->rows, hidden = 4 * rows * o->hidden, ff = 4 * rows * o->ff;
    double heads = 4 * rows * o->heads * o->head_dim;
    byte_row(o, "rmsnorm forward", rmsnorm_f, 2 * hidden, copy);
    byte_row(o, "rmsnorm backward + residual", rmsnorm_b, 5 * hidden, copy);
    byte_row(o, "rotary", rope, 2 * heads, copy);
    byte_row(o, "swiglu forward", swiglu_f, 3 * ff, copy);
    byte_row(o, "swiglu backward", swiglu_b, 6 * ff, copy);
    byte_row(o, "embedding forward", embed_f, 2 * hidden, copy);
    byte_row(o, "embedding backward", embed_b, 3 * hidden, copy);
    xent_row(o, 2 * 4 * rows * o->vocab, copy);
    byte_row(o, "norm of gradients", norm, 4.0 * PARAMETERS, copy);
    byte_row(o, "adamw, 32 bytes a parameter", adamw, 32.0 * PARAMETERS, copy);
    attention_rows(o, product);
}

int bench_ops(struct bench *b, struct err *err)
{
    struct ops o = {0};
    double copy = 0;
    struct bench_value product;
    b->section = "ops";
    int failed = bench_copy_rate(b, &copy, err) ||
                 bench_product_rate(b, false, 1024, 4096, 4096, &product, err) ||
                 ops_init(&o, b, err);
    if (!failed) {
        bench_title(b, "%s in fp32; copy %.1f GB/s, best product %.0f GFLOP/s",
                    b->size.name, copy, product.median);
        rows(&o, copy, product.median);
    }
    ops_fini(&o);
    return comm_agree(b->world, failed, err);
}
