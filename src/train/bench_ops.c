/* SPDX-License-Identifier: Apache-2.0 */
/* Every operation of a step that is not a matrix product, in GB/s of what the algorithm
 * must read and write once, beside copy (the optimizer beside triad). What stays in
 * caches exceeds them. */
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

#include <stdio.h>
#include <string.h>

enum { WIDE = 5, PARAMETERS = 32 << 20, TINY_PARAMETERS = 1 << 16, XENT_SAMPLES = 5 };

/* What the operations take; x are rows of the widest kind, in dtype. */
struct ops {
    struct bench *b;
    const struct model_shape *s;
    enum dtype dtype;
    int rows;
    int64_t wide; /* elements of each x */
    void *x[WIDE];
    void *norm_w, *table; /* [D], [V, D], in dtype */
    void *dnorm_w, *dtable, *rstd, *norm_sums, *cosine, *sine; /* float */
    void *position, *ids, *nll; /* int, int32_t, double */
    void *xent_scratch, *scale; /* scale: [rows] float */
    struct rmsnorm norm;
    struct linear head;
    struct tally tally;
    int64_t parameters, t;
    void *w, *m, *v, *g; /* [parameters] float; w: masters, or bf16 weights and rests */
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
    rope_forward(o->rows, o->s->heads, o->s->head_dim, o->position, o->cosine, o->sine,
                 o->dtype, o->x[0], (int64_t)o->s->heads * o->s->head_dim);
}

static void swiglu_f(void *context)
{
    struct ops *o = context;
    swiglu_forward(o->rows, o->s->ff, o->dtype, o->x[0], o->x[1]);
}

static void swiglu_b(void *context)
{
    struct ops *o = context;
    swiglu_backward(o->rows, o->s->ff, o->dtype, o->x[0], o->x[1]);
}

static void embed_f(void *context)
{
    struct ops *o = context;
    embed_forward(o->rows, o->s->hidden, o->dtype, o->ids, o->table, o->x[0]);
}

static void embed_b(void *context)
{
    struct ops *o = context;
    embed_backward(o->rows, o->s->hidden, o->dtype, o->ids, o->x[0], o->dtable);
}

static void adamw(void *context)
{
    struct ops *o = context;
    const struct adamw a = {0.9, 0.95, 1e-8, 0.1};
    uint16_t *halves = o->w;
    if (o->dtype == DTYPE_F32)
        adamw_update(&a, ++o->t, 1e-4, true, 1.0, o->parameters, o->w, o->m, o->v,
                     o->g);
    else
        adamw_update_bf16(&a, ++o->t, 1e-4, true, 1.0, o->parameters, halves,
                          (int16_t *)(halves + o->parameters), o->m, o->v, o->g);
}

static void norm_of_gradients(void *context)
{
    struct ops *o = context;
    *(double *)o->nll = sum_of_squares(o->parameters, o->g);
}

static void fill(void *to, enum dtype dtype, int64_t n, uint64_t stream, double scale)
{
    float *f = to;
    uint16_t *h = to;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float x = (float)(scale * (2 * rng_uniform(3, stream, (uint64_t)i) - 1));
        if (dtype == DTYPE_BF16)
            h[i] = bf16_from_f32(x);
        else
            f[i] = x;
    }
}

static int64_t widest(const struct model_shape *s)
{
    int64_t heads = (int64_t)s->heads * s->head_dim, two_ff = 2 * (int64_t)s->ff;
    int64_t a = heads > s->hidden ? heads : s->hidden;
    return a > two_ff ? a : two_ff;
}

/* Each array of `count` elements; stops at the first that fails. */
static int take(struct ops *o, struct err *err)
{
    const struct model_shape *s = o->s;
    size_t e = dtype_bytes(o->dtype), f = sizeof(float);
    int64_t table = (int64_t)s->vocab * s->hidden;
    int64_t angles = (int64_t)s->max_positions * s->head_dim / 2;
    const struct {
        void **to;
        int64_t count;
        size_t size;
    } all[] = {
        {&o->x[0], o->wide, e},
        {&o->x[1], o->wide, e},
        {&o->x[2], o->wide, e},
        {&o->x[3], o->wide, e},
        {&o->x[4], o->wide, e},
        {&o->norm_w, s->hidden, e},
        {&o->table, table, e},
        {&o->dnorm_w, s->hidden, f},
        {&o->dtable, table, f},
        {&o->rstd, o->rows, f},
        {&o->norm_sums, rmsnorm_scratch_floats(s->hidden, o->rows), f},
        {&o->cosine, angles, f},
        {&o->sine, angles, f},
        {&o->position, o->rows, sizeof(int)},
        {&o->ids, o->rows, sizeof(int32_t)},
        {&o->nll, o->rows, sizeof(double)},
        {&o->scale, o->rows, f},
        {&o->xent_scratch, xent_scratch_bytes(&o->head, o->rows, XENT_AT_ONCE), 1},
        {&o->w, o->parameters, f},
        {&o->m, o->parameters, f},
        {&o->v, o->parameters, f},
        {&o->g, o->parameters, f},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!(*all[i].to = mem_array(all[i].count, all[i].size, err)))
            return -1;
    return 0;
}

static int ops_init(struct ops *o, struct bench *b, enum dtype dtype, struct err *err)
{
    const struct model_shape *s = &b->size.shape;
    bool tiny = strcmp(b->size.name, "tiny") == 0;
    *o = (struct ops){.b = b,
                      .s = s,
                      .dtype = dtype,
                      .rows = b->size.micro_batch * b->size.seq_len,
                      .head = {.in = s->hidden, .out = s->vocab, .dtype = dtype},
                      .parameters = tiny ? TINY_PARAMETERS : PARAMETERS};
    o->wide = o->rows * widest(s);
    if (take(o, err))
        return -1;
    for (int i = 0; i < WIDE; i++)
        fill(o->x[i], dtype, o->wide, (uint64_t)i, 1);
    fill(o->table, dtype, (int64_t)s->vocab * s->hidden, 9, 0.02);
    fill(o->norm_w, dtype, s->hidden, 10, 1);
    fill(o->g, DTYPE_F32, o->parameters, 11, 1e-3);
    int32_t *ids = o->ids;
    int *position = o->position;
    float *scale = o->scale;
    for (int i = 0; i < o->rows; i++) {
        ids[i] = (int32_t)(rng_u64(4, 0, (uint64_t)i) % (uint64_t)s->vocab);
        position[i] = i % b->size.seq_len;
        scale[i] = 1e-3f;
    }
    rope_table(s->max_positions, s->head_dim, s->rope_theta, o->cosine, o->sine);
    o->norm = (struct rmsnorm){.dim = s->hidden,
                               .dtype = dtype,
                               .eps = (float)s->norm_eps,
                               .w = o->norm_w,
                               .dw = o->dnorm_w};
    o->head.w = o->table;
    o->head.dw = o->dtable;
    return 0;
}

static void ops_fini(struct ops *o)
{
    void *const all[] = {
        o->norm_w, o->table, o->dnorm_w, o->dtable,   o->rstd, o->norm_sums,
        o->cosine, o->sine,  o->ids,     o->position, o->nll,  o->xent_scratch,
        o->scale,  o->w,     o->m,       o->v,        o->g};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
    for (int i = 0; i < WIDE; i++)
        mem_free(o->x[i]);
}

static void row(struct ops *o, const char *what, void (*run)(void *), double bytes,
                double top, const char *of)
{
    struct bench_value v = bench_rate(bench_seconds(o->b, run, o), bytes * 1e-9);
    char name[64];
    snprintf(name, sizeof name, "%s %s", dtype_name(o->dtype), what);
    bench_add(o->b, name, "GB/s", v, v.median / top, of);
}

/* Cross-entropy without its three products. */
static void xent_row(struct ops *o, double bytes, double copy)
{
    double x[XENT_SAMPLES];
    struct xent_rows r = {o->rows, o->x[0], o->ids, o->scale};
    gemm_set_tally(o->b->gemm, &o->tally);
    for (int i = -1; i < XENT_SAMPLES; i++) {
        o->tally = (struct tally){0};
        double begin = clock_s();
        xent(o->b->gemm, &o->head, &r, o->xent_scratch, o->nll, o->x[1]);
        if (i >= 0)
            x[i] = clock_s() - begin - o->tally.seconds[TALLY_GEMM];
    }
    gemm_set_tally(o->b->gemm, NULL);
    struct bench_value v = bench_rate(bench_value_of(x, XENT_SAMPLES), bytes * 1e-9);
    char name[64];
    snprintf(name, sizeof name, "%s cross-entropy without products",
             dtype_name(o->dtype));
    bench_add(o->b, name, "GB/s", v, v.median / copy, "copy");
}

static void rows(struct ops *o, double copy, double triad)
{
    double rows = o->rows, e = (double)dtype_bytes(o->dtype), f = sizeof(float);
    double hidden = rows * o->s->hidden, ff = rows * o->s->ff, vocab = o->s->vocab;
    double heads = rows * o->s->heads * o->s->head_dim;
    row(o, "rmsnorm forward", rmsnorm_f, 2 * e * hidden, copy, "copy");
    row(o, "rmsnorm backward", rmsnorm_b, 5 * e * hidden, copy, "copy");
    row(o, "rotary", rope, 2 * e * heads, copy, "copy");
    row(o, "swiglu forward", swiglu_f, 3 * e * ff, copy, "copy");
    row(o, "swiglu backward", swiglu_b, 6 * e * ff, copy, "copy");
    row(o, "embedding forward", embed_f, 2 * e * hidden, copy, "copy");
    row(o, "embedding backward", embed_b, (e + 2 * f) * hidden, copy, "copy");
    xent_row(o, (f + e) * rows * vocab, copy);
    row(o, "norm of gradients", norm_of_gradients, f * (double)o->parameters, copy,
        "copy");
    /* Read and written: gradient (then cleared), weight with the rest of its master,
     * two moments. */
    row(o, "adamw, 32 bytes a parameter", adamw, 32.0 * (double)o->parameters, triad,
        "triad");
}

static int attentions(struct bench *b, enum dtype dtype, double product,
                      struct err *err)
{
    static const struct attention_dims wide[] = {
        {.heads = 32, .kv_heads = 8, .head_dim = 128},
        {.heads = 16, .kv_heads = 4, .head_dim = 64},
        {.heads = 8, .kv_heads = 4, .head_dim = 32}};
    const struct model_shape *s = &b->size.shape;
    struct attention_dims own = {.heads = s->heads,
                                 .kv_heads = s->kv_heads,
                                 .head_dim = s->head_dim,
                                 .window = s->window,
                                 .dtype = dtype};
    if (bench_attention(b, &own, b->size.micro_batch, b->size.seq_len, product, err))
        return -1;
    bool tiny = strcmp(b->size.name, "tiny") == 0;
    for (size_t i = 0; !tiny && i < sizeof wide / sizeof *wide; i++) {
        struct attention_dims d = wide[i];
        d.dtype = dtype;
        if (bench_attention(b, &d, 1, 2048, product, err))
            return -1;
    }
    return 0;
}

static int measure(struct bench *b, enum dtype dtype, double copy, double triad,
                   struct err *err)
{
    struct ops o = {0};
    struct bench_value product;
    int failed =
        bench_product_rate(b, dtype == DTYPE_BF16, 1024, 4096, 4096, &product, err) ||
        ops_init(&o, b, dtype, err);
    if (!failed) {
        bench_title(b,
                    "%s in %s; copy %.1f, triad %.1f GB/s, best product %.0f GFLOP/s",
                    b->size.name, dtype_name(dtype), copy, triad, product.median);
        rows(&o, copy, triad);
    }
    ops_fini(&o);
    return failed || attentions(b, dtype, product.median, err) ? -1 : 0;
}

int bench_ops(struct bench *b, struct err *err)
{
    double copy = 0, triad = 0;
    b->section = "ops";
    int failed = bench_copy_rates(b, &copy, &triad, err);
    if (!failed && b->fp32)
        failed = measure(b, DTYPE_F32, copy, triad, err);
    if (!failed && b->bf16)
        failed = measure(b, DTYPE_BF16, copy, triad, err);
    return comm_agree(b->world, failed, err);
}
