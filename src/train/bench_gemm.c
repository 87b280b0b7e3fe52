/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products over the shapes of a model: the three of each linear layer, in both
 * precisions and by every backend, beside what stays in registers. */
#include "src/train/bench.h"

#include "src/base/dtype.h"
#include "src/base/mem.h"
#include "src/base/rng.h"
#include "src/gemm/bf16.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

enum form { FORWARD, PACKED_FORWARD, INPUT, PACKED_INPUT, WEIGHT, FORMS };
static const char *const form_names[FORMS] = {
    "forward", "forward, packed", "input gradient", "input gradient, packed",
    "weight gradient"};

/* Y [rows, out] = X [rows, in] W^T and its gradients. */
struct layer {
    const char *name;
    int64_t rows, out, in;
};

/* Room for any form of a layer: x [rows, in], y [rows, out], w [out, in]; bf16 uses the
 * first half of each but for the fp32 sums of the weight gradient. */
struct operands {
    const struct gemm *g;
    bool bf16;
    enum form form;
    struct layer layer;
    struct gemm_packed *packed;
    void *x, *y, *w;
    float *dw;
};

static void product_f32(const struct operands *o)
{
    const struct layer *l = &o->layer;
    if (o->form == FORWARD)
        gemm_f32(o->g, GEMM_N, GEMM_T, l->rows, l->out, l->in, o->x, l->in, o->w, l->in,
                 0, o->y, l->out);
    else if (o->form == INPUT)
        gemm_f32(o->g, GEMM_N, GEMM_N, l->rows, l->in, l->out, o->y, l->out, o->w,
                 l->in, 0, o->x, l->in);
    else
        gemm_f32(o->g, GEMM_T, GEMM_N, l->out, l->in, l->rows, o->y, l->out, o->x,
                 l->in, 1, o->dw, l->in);
}

static void product_bf16(const struct operands *o)
{
    const struct layer *l = &o->layer;
    switch (o->form) {
    case FORWARD:
        gemm_bf16(o->g, GEMM_N, GEMM_T, l->rows, l->out, l->in, o->x, l->in, o->w,
                  l->in, DTYPE_BF16, 0, o->y, l->out);
        break;
    case PACKED_FORWARD:
        gemm_bf16_packed(o->g, l->rows, l->out, l->in, o->x, l->in, o->packed,
                         DTYPE_BF16, 0, o->y, l->out);
        break;
    case INPUT:
        gemm_bf16(o->g, GEMM_N, GEMM_N, l->rows, l->in, l->out, o->y, l->out, o->w,
                  l->in, DTYPE_BF16, 0, o->x, l->in);
        break;
    case PACKED_INPUT:
        gemm_bf16_packed(o->g, l->rows, l->in, l->out, o->y, l->out, o->packed,
                         DTYPE_BF16, 0, o->x, l->in);
        break;
    default:
        gemm_bf16(o->g, GEMM_T, GEMM_N, l->out, l->in, l->rows, o->y, l->out, o->x,
                  l->in, DTYPE_F32, 1, o->dw, l->in);
    }
}

static void product(void *context)
{
    const struct operands *o = context;
    if (o->bf16)
        product_bf16(o);
    else
        product_f32(o);
}

static int pack(struct operands *o, struct gemm *g, struct err *err)
{
    const struct layer *l = &o->layer;
    bool forward = o->form == PACKED_FORWARD;
    if (!forward && o->form != PACKED_INPUT)
        return 0;
    int64_t k = forward ? l->in : l->out, n = forward ? l->out : l->in;
    o->packed = gemm_packed_create(g, k, n, err);
    if (!o->packed)
        return -1;
    gemm_packed_fill(o->packed, forward ? GEMM_T : GEMM_N, o->w, l->in);
    return 0;
}

/* Numbers of the sizes that a model has: each product is about 1. */
static void fill(void *to, bool bf16, int64_t n, double scale)
{
    float *f = to;
    uint16_t *h = to;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float x = (float)((rng_uniform(1, 2, (uint64_t)i) - 0.5) * scale);
        if (bf16)
            h[i] = bf16_from_f32(x);
        else
            f[i] = x;
    }
}

static void operands_fini(struct operands *o)
{
    mem_free(o->x);
    mem_free(o->y);
    mem_free(o->w);
    mem_free(o->dw);
}

static int operands_init(struct operands *o, bool bf16, const struct layer *l,
                         struct err *err)
{
    size_t size = bf16 ? sizeof(uint16_t) : sizeof(float);
    *o = (struct operands){.bf16 = bf16, .layer = *l};
    o->x = mem_array(l->rows * l->in, size, err);
    o->y = mem_array(l->rows * l->out, size, err);
    o->w = mem_array(l->out * l->in, size, err);
    o->dw = mem_array(l->out * l->in, sizeof *o->dw, err);
    if (!o->x || !o->y || !o->w || !o->dw) {
        operands_fini(o);
        return -1;
    }
    fill(o->x, bf16, l->rows * l->in, 1);
    fill(o->y, bf16, l->rows * l->out, 1);
    fill(o->w, bf16, l->out * l->in, 0.1);
    return 0;
}

static int rate(struct bench *b, struct operands *o, struct gemm *g, enum form form,
                struct bench_value *value, struct err *err)
{
    const struct layer *l = &o->layer;
    o->g = g;
    o->form = form;
    o->packed = NULL;
    if (pack(o, g, err))
        return -1;
    double work = 2e-9 * (double)l->rows * (double)l->out * (double)l->in;
    *value = bench_rate(bench_seconds(b, product, o), work);
    gemm_packed_destroy(o->packed);
    return 0;
}

int bench_product_rate(struct bench *b, bool bf16, int64_t m, int64_t n, int64_t k,
                       struct bench_value *best, struct err *err)
{
    struct operands o;
    if (operands_init(&o, bf16, &(struct layer){"", m, n, k}, err))
        return -1;
    int failed = rate(b, &o, b->gemm, FORWARD, best, err);
    struct bench_value packed;
    if (!failed && bf16) {
        failed = rate(b, &o, b->gemm, PACKED_FORWARD, &packed, err);
        if (!failed && packed.median > best->median)
            *best = packed;
    }
    operands_fini(&o);
    return failed;
}

static double peak(bool bf16, double seconds)
{
    double sum = 0;
#pragma omp parallel reduction(+ : sum)
    sum += bf16 ? gemm_peak_bf16_gflops(seconds) : gemm_peak_f32_gflops(seconds);
    return sum;
}

static int layer_rows(struct bench *b, struct gemm *g, const char *backend, bool bf16,
                      const struct layer *l, double top, struct err *err)
{
    struct operands o;
    if (operands_init(&o, bf16, l, err))
        return -1;
    int failed = 0;
    for (int form = 0; !failed && form < FORMS; form++) {
        bool packs = form == PACKED_FORWARD || form == PACKED_INPUT;
        if (packs && !bf16)
            continue;
        struct bench_value value;
        failed = rate(b, &o, g, (enum form)form, &value, err);
        char name[64];
        snprintf(name, sizeof name, "%s %s %s", backend, l->name, form_names[form]);
        if (!failed)
            bench_add(b, name, "GFLOP/s", value, top > 0 ? value.median / top : -1,
                      "peak");
    }
    operands_fini(&o);
    return failed;
}

static int precision_rows(struct bench *b, struct gemm *g, const char *backend,
                          bool bf16, double top, struct err *err)
{
    const struct model_shape *s = &b->size.shape;
    int64_t rows = (int64_t)b->size.micro_batch * b->size.seq_len, hidden = s->hidden;
    int64_t heads = (int64_t)s->heads * s->head_dim;
    int64_t qkv = heads + 2ll * s->kv_heads * s->head_dim;
    const struct layer layers[] = {
        {"reference", 1024, 4096, 4096},
        {"qkv", rows, qkv, hidden},
        {"o_proj", rows, hidden, heads},
        {"gate_up", rows, 2ll * s->ff, hidden},
        {"down_proj", rows, hidden, s->ff},
        {"lm_head", rows < 256 ? rows : 256, s->vocab, hidden},
    };
    bool small = strcmp(b->size.name, "tiny") == 0; /* for tests: no large products */
    for (size_t i = small; i < sizeof layers / sizeof *layers; i++) {
        const struct layer *l = &layers[i];
        bench_title(b, "%s: %s, %lld rows, %lld -> %lld", backend, l->name,
                    (long long)l->rows, (long long)l->in, (long long)l->out);
        if (layer_rows(b, g, backend, bf16, l, top, err))
            return -1;
    }
    return 0;
}

/* The plain loops, on one product that they finish. */
static int ref_row(struct bench *b, bool bf16, double top, struct err *err)
{
    struct gemm *g = gemm_create(GEMM_REF, gemm_level_here(), err);
    if (!g)
        return -1;
    int failed = layer_rows(b, g, bf16 ? "bf16 ref" : "fp32 ref", bf16,
                            &(struct layer){"128x128x128", 128, 128, 128}, top, err);
    gemm_destroy(g);
    return failed;
}

static int f32_rows(struct bench *b, double *best, struct err *err)
{
    double top = peak(false, b->seconds);
    bench_title(b, "fp32 by %s", gemm_name(b->gemm));
    bench_add(b, "fp32 peak", "GFLOP/s", bench_one(top), -1, NULL);
    if (precision_rows(b, b->gemm, "fp32 blis", false, top, err) ||
        ref_row(b, false, top, err))
        return -1;
    *best = bench_median(b, "gemm", "fp32 blis down_proj forward");
    return 0;
}

static int bf16_rows(struct bench *b, double *best, struct err *err)
{
    static const enum gemm_backend backends[] = {GEMM_OWN, GEMM_ONEDNN};
    static const char *const names[] = {"bf16 own", "bf16 onednn"};
    double top = peak(true, b->seconds);
    bench_title(b, "bf16 by %s", gemm_bf16_name(b->gemm));
    if (top > 0)
        bench_add(b, "bf16 peak", "GFLOP/s", bench_one(top), -1, NULL);
    for (int i = 0; i < 2; i++) {
        struct gemm *g = gemm_create(backends[i], gemm_level_here(), err);
        if (!g)
            return -1;
        int failed = 0;
        if (gemm_bf16_backend(g) == backends[i]) /* else the build lacks it */
            failed = precision_rows(b, g, names[i], true, top, err);
        char name[64];
        snprintf(name, sizeof name, "%s down_proj forward, packed", names[i]);
        double median = bench_median(b, "gemm", name);
        *best = median > *best ? median : *best;
        gemm_destroy(g);
        if (failed)
            return -1;
    }
    return ref_row(b, true, top, err);
}

int bench_gemm(struct bench *b, struct err *err)
{
    double f32 = 0, bf16 = 0;
    b->section = "gemm";
    int failed =
        (b->fp32 && f32_rows(b, &f32, err)) || (b->bf16 && bf16_rows(b, &bf16, err));
    if (comm_agree(b->world, failed, err))
        return -1;
    if (f32 > 0 && bf16 > 0)
        bench_title(b, "faster here: %s, %.2f times (down_proj forward)",
                    bf16 > f32 ? "bf16" : "fp32", bf16 > f32 ? bf16 / f32 : f32 / bf16);
    return 0;
}
