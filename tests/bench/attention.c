/* SPDX-License-Identifier: Apache-2.0 */
/* Attention's GFLOP/s, 2 products forward and 5 backward with the causal half counted,
 * and their share of the best product of the same dtype at 1024 x 4096 x 4096.
 * Usage: tests/bench/attention [seconds a row [dtype: bf16 | f32]]. Threads:
 * OMP_NUM_THREADS. Rows are measured in turn with the product: medians, and
 * the shares of the shortest times, which a busy machine disturbs least. */
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/gemm/bf16.h"
#include "src/model/attention.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GEMM_M = 1024, GEMM_N_K = 4096, SAMPLES = 1000 };

static const struct shape {
    int heads, kv_heads, dim, rows, segments;
} shapes[] = {
    {32, 8, 128, 2048, 1}, {32, 8, 64, 2048, 1},   {32, 8, 32, 2048, 1},
    {32, 8, 128, 1024, 1}, {16, 4, 64, 1024, 1},   {8, 4, 32, 256, 8},
    {32, 8, 128, 8192, 1}, {32, 32, 128, 2048, 1}, {8, 2, 16, 512, 4},
};

/* All arrays of one row; q, k, v and their gradients are fused rows. */
struct arrays {
    void *qkv, *dqkv, *out, *dout, *work;
    float *lse;
};

static void fill(enum dtype t, void *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float value = (float)((i * 7919 + i / 64 * 104729) % 2003) / 1001.0f - 1.0f;
        dtype_from_f32(t, &value, 1, (char *)x + (size_t)i * dtype_bytes(t));
    }
}

static int arrays_create(struct arrays *a, struct attention_work *w,
                         const struct attention_dims *d, int rows, int length,
                         struct err *err)
{
    int64_t wide = (int64_t)d->heads * d->head_dim;
    int64_t fused = wide + 2ll * d->kv_heads * d->head_dim;
    size_t bytes = dtype_bytes(d->dtype);
    struct arena arena = {0};
    attention_work_lay_out(w, &arena, d, rows, length, omp_get_max_threads(), true);
    a->work = arena.base = mem_array(arena.used, 1, err);
    arena.used = 0;
    a->qkv = mem_array(rows * fused, bytes, err);
    a->dqkv = mem_array(rows * fused, bytes, err);
    a->out = mem_array(rows * wide, bytes, err);
    a->dout = mem_array(rows * wide, bytes, err);
    a->lse = mem_array((int64_t)rows * d->heads, sizeof *a->lse, err);
    if (!a->work || !a->qkv || !a->dqkv || !a->out || !a->dout || !a->lse)
        return -1;
    attention_work_lay_out(w, &arena, d, rows, length, omp_get_max_threads(), true);
    fill(d->dtype, a->qkv, rows * fused);
    fill(d->dtype, a->dout, rows * wide);
    return 0;
}

static void arrays_destroy(struct arrays *a)
{
    mem_free(a->work);
    mem_free(a->qkv);
    mem_free(a->dqkv);
    mem_free(a->out);
    mem_free(a->dout);
    mem_free(a->lse);
}

/* The product that attention is held against. */
struct product {
    enum dtype dtype;
    const struct gemm *g;
    struct gemm_packed *packed; /* bf16 */
    void *a, *b, *c;
};

static int product_create(struct product *p, struct gemm *g, enum dtype t,
                          struct err *err)
{
    int64_t m = GEMM_M, n = GEMM_N_K;
    *p = (struct product){.dtype = t, .g = g};
    p->a = mem_array(m * n, dtype_bytes(t), err);
    p->b = mem_array(n * n, dtype_bytes(t), err);
    p->c = mem_array(m * n, dtype_bytes(t), err);
    if (!p->a || !p->b || !p->c)
        return -1;
    fill(t, p->a, m * n);
    fill(t, p->b, n * n);
    if (t == DTYPE_F32)
        return 0;
    p->packed = gemm_packed_create(g, n, n, err);
    if (!p->packed)
        return -1;
    gemm_packed_fill(p->packed, GEMM_T, p->b, n);
    return 0;
}

static void product_destroy(struct product *p)
{
    gemm_packed_destroy(p->packed);
    mem_free(p->a);
    mem_free(p->b);
    mem_free(p->c);
}

static void product_run(const struct product *p)
{
    int64_t m = GEMM_M, n = GEMM_N_K;
    if (p->dtype == DTYPE_F32)
        gemm_f32(p->g, GEMM_N, GEMM_T, m, n, n, p->a, n, p->b, n, 0, p->c, n);
    else
        gemm_bf16_packed(p->g, m, n, n, p->a, n, p->packed, DTYPE_BF16, 0, p->c, n);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[n / 2];
}

static int run_row(const struct gemm *g, const struct shape *s, struct product *p,
                   double seconds, struct err *err)
{
    struct attention_dims d = {s->heads, s->kv_heads, s->dim, 0, p->dtype};
    struct attention_work w;
    struct arrays a;
    int begin[64], total = s->rows * s->segments;
    for (int i = 0; i <= s->segments; i++)
        begin[i] = i * s->rows;
    struct rows rows = {.rows = total, .segments = s->segments, .segment_begin = begin};
    int failed = arrays_create(&a, &w, &d, total, s->rows, err);
    int64_t wide = (int64_t)d.heads * d.head_dim,
            narrow = (int64_t)d.kv_heads * d.head_dim;
    int64_t stride = wide + 2 * narrow;
    size_t bytes = dtype_bytes(d.dtype), k = (size_t)wide * bytes;
    size_t v = k + (size_t)narrow * bytes;
    struct attention_input x = {
        a.qkv, (char *)a.qkv + k, (char *)a.qkv + v, stride, stride, stride};
    struct attention_gradient dx = {
        a.dqkv, (char *)a.dqkv + k, (char *)a.dqkv + v, stride, stride, stride};
    static double forward[SAMPLES], backward[SAMPLES], product[SAMPLES];
    int n = 0;
    double end = clock_s() + seconds;
    while (!failed && n < SAMPLES && (n < 3 || clock_s() < end)) {
        double t0 = clock_s();
        attention_forward(g, &d, &w, &rows, &x, a.out, a.lse);
        double t1 = clock_s();
        attention_backward(g, &d, &w, &rows, &x, a.out, a.lse, a.dout, &dx);
        double t2 = clock_s();
        product_run(p);
        product[n] = clock_s() - t2;
        forward[n] = t1 - t0;
        backward[n++] = t2 - t1;
    }
    arrays_destroy(&a);
    if (failed)
        return -1;
    double flops = 1e-9 * s->segments * s->heads * s->dim * (double)s->rows * s->rows;
    double rate = 2e-9 * GEMM_M * GEMM_N_K * (double)GEMM_N_K / median(product, n);
    double f = 2 * flops / median(forward, n), b = 5 * flops / median(backward, n);
    double best = 2e-9 * GEMM_M * GEMM_N_K * (double)GEMM_N_K / product[0];
    double best_f = 2 * flops / forward[0], best_b = 5 * flops / backward[0];
    printf("%2d/%2d heads of %3d, %d x %4d: forward %6.1f GFLOP/s %.2f, backward %6.1f "
           "%.2f of %6.1f; best %.2f %.2f\n",
           s->heads, s->kv_heads, s->dim, s->segments, s->rows, f, f / rate, b,
           b / rate, rate, best_f / best, best_b / best);
    return 0;
}

int main(int argc, char **argv)
{
    struct err err = {0};
    double seconds = argc > 1 ? atof(argv[1]) : 3.0;
    enum dtype t = argc > 2 && strcmp(argv[2], "f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
    struct product p = {0};
    struct gemm *g = gemm_create(GEMM_BLIS, gemm_level_here(), &err);
    int failed = !g || product_create(&p, g, t, &err);
    if (!failed) {
        int threads = omp_get_max_threads();
        double core =
            t == DTYPE_F32 ? gemm_peak_f32_gflops(0.2) : gemm_peak_bf16_gflops(0.2);
        printf("%s, %d threads, peak %.1f GFLOP/s a core\n",
               t == DTYPE_F32 ? gemm_name(g) : gemm_bf16_name(g), threads, core);
        for (size_t i = 0; !failed && i < sizeof shapes / sizeof *shapes; i++)
            failed = run_row(g, &shapes[i], &p, seconds, &err);
    }
    if (failed)
        fprintf(stderr, "bench attention: %s\n", err.text);
    product_destroy(&p);
    gemm_destroy(g);
    return failed ? 1 : 0;
}
