/* SPDX-License-Identifier: Apache-2.0 */
/* GFLOP/s of products beside this core's register-only peaks.
 * Usage: tests/bench/gemm [seconds a row [f32|own|onednn]]. Threads: OMP_NUM_THREADS.
 */
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/gemm/bf16.h"
#include "src/gemm/gemm.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Forms of a Linear with W[n,k]; rows m of activations. Tiles run on one thread each,
 * from inside a parallel region on all threads at once. */
enum form { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, FORMS, TILE };

static const int64_t sizes[][3] = {{1024, 4096, 14336},
                                   {1024, 4096, 4096},
                                   {1024, 1024, 3584},
                                   {2048, 256, 688},
                                   {2048, 688, 256}};

static const struct row {
    enum gemm_op op_a, op_b;
    int64_t m, n, k;
    enum dtype to;
    float beta;
} tiles[] = {
    {GEMM_N, GEMM_T, 128, 128, 128, DTYPE_F32, 0}, /* S = Q K^T, dP = dO V^T */
    {GEMM_N, GEMM_T, 256, 256, 128, DTYPE_F32, 0},
    {GEMM_N, GEMM_T, 256, 512, 64, DTYPE_F32, 0},
    {GEMM_N, GEMM_T, 256, 512, 32, DTYPE_F32, 0},
    {GEMM_N, GEMM_T, 64, 64, 64, DTYPE_F32, 0},
    {GEMM_N, GEMM_N, 128, 128, 128, DTYPE_F32, 1}, /* O += P V, dQ += dS K */
    {GEMM_N, GEMM_N, 256, 128, 256, DTYPE_F32, 1},
    {GEMM_N, GEMM_N, 256, 64, 512, DTYPE_F32, 1},
    {GEMM_N, GEMM_N, 256, 32, 512, DTYPE_F32, 1},
    {GEMM_T, GEMM_N, 128, 128, 128, DTYPE_F32, 1}, /* dV += P^T dO, dK += dS^T Q */
    {GEMM_T, GEMM_N, 256, 128, 256, DTYPE_F32, 1},
    {GEMM_T, GEMM_N, 512, 64, 256, DTYPE_F32, 1},
    {GEMM_T, GEMM_N, 512, 32, 256, DTYPE_F32, 1},
    {GEMM_N, GEMM_T, 8, 8, 8, DTYPE_F32, 0},
};

struct work {
    struct gemm *g;
    int bf16; /* or fp32 */
    struct gemm_packed *packed;
    struct row row;
    const void *a, *b;
    void *c;
};

static void *filled(int64_t n, int bf16, struct err *err)
{
    void *x = mem_array(n, bf16 ? sizeof(uint16_t) : sizeof(float), err);
    for (int64_t i = 0; x && i < n; i++) {
        float value = (float)(i * 37 % 101) / 101.0f - 0.5f;
        if (bf16)
            ((uint16_t *)x)[i] = bf16_from_f32(value);
        else
            ((float *)x)[i] = value;
    }
    return x;
}

static void product(const struct work *w)
{
    const struct row *r = &w->row;
    int64_t lda = r->op_a == GEMM_N ? r->k : r->m;
    int64_t ldb = r->op_b == GEMM_N ? r->n : r->k;
    if (w->packed)
        gemm_bf16_packed(w->g, r->m, r->n, r->k, w->a, lda, w->packed, r->to, r->beta,
                         w->c, r->n);
    else if (w->bf16)
        gemm_bf16(w->g, r->op_a, r->op_b, r->m, r->n, r->k, w->a, lda, w->b, ldb, r->to,
                  r->beta, w->c, r->n);
    else
        gemm_f32(w->g, r->op_a, r->op_b, r->m, r->n, r->k, w->a, lda, w->b, ldb,
                 r->beta, w->c, r->n);
}

/* Seconds of one product, of many in each thread. */
static double tile_s(const struct work *w)
{
    enum { CALLS = 50 };
    const struct row *r = &w->row;
    int64_t lda = r->op_a == GEMM_N ? r->k : r->m;
    int64_t ldb = r->op_b == GEMM_N ? r->n : r->k;
    double begin = clock_s();
#pragma omp parallel
    {
        float *c = (float *)w->c + omp_get_thread_num() * r->m * r->n;
        for (int i = 0; i < CALLS; i++)
            if (w->bf16)
                gemm_bf16_tile(w->g, r->op_a, r->op_b, r->m, r->n, r->k, w->a, lda,
                               w->b, ldb, r->to, r->beta, c, r->n);
            else
                gemm_f32_tile(w->g, r->op_a, r->op_b, r->m, r->n, r->k, w->a, lda, w->b,
                              ldb, r->beta, c, r->n);
    }
    return (clock_s() - begin) / (CALLS * omp_get_max_threads());
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median and best rate of a product for about s seconds. */
static int run_row(struct work w, int tile, const char *what, double peak, double s,
                   struct err *err)
{
    enum { MOST = 1000 };
    static double took[MOST];
    const struct row *r = &w.row;
    void *a = filled(r->m * r->k, w.bf16, err), *b = filled(r->n * r->k, w.bf16, err);
    float *c =
        mem_array(r->m * r->n * (tile ? omp_get_max_threads() : 1), sizeof *c, err);
    w.a = a, w.b = b, w.c = c;
    int failed = !a || !b || !c, count = 0;
    if (!failed && strstr(what, "packed")) {
        w.packed = gemm_packed_create(w.g, r->k, r->n, err);
        failed = !w.packed;
        if (!failed)
            gemm_packed_fill(w.packed, r->op_b, b, r->op_b == GEMM_N ? r->n : r->k);
    }
    if (!failed && w.bf16 && !tile) {
        gemm_bf16_rehearse(w.g, err);
        product(&w);
        gemm_bf16_rehearse(w.g, NULL);
        failed = err->code != ERR_NONE ||
                 (!w.packed && gemm_bf16_prepare_shared(w.g, r->m, r->n, r->k, err));
    }
    if (!failed && !tile)
        product(&w);
    double end = clock_s() + s;
    while (!failed && count < MOST && (count < 3 || clock_s() < end)) {
        double begin = clock_s();
        if (!tile)
            product(&w);
        took[count++] = tile ? tile_s(&w) : clock_s() - begin;
    }
    if (!failed) {
        qsort(took, (size_t)count, sizeof *took, by_value);
        double flops = 2e-9 * (double)r->m * (double)r->n * (double)r->k;
        double median = flops / took[count / 2], best = flops / took[0];
        printf("%-24s %c%c %5lld x %5lld x %5lld -> %-4s%s %8.1f %8.1f %6.2f %6.2f\n",
               what, r->op_a == GEMM_N ? 'N' : 'T', r->op_b == GEMM_N ? 'N' : 'T',
               (long long)r->m, (long long)r->n, (long long)r->k,
               dtype_name(w.bf16 ? r->to : DTYPE_F32), r->beta == 0.0f ? "  " : " +",
               median, best, median / peak, best / peak);
    }
    gemm_packed_destroy(w.packed);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    return failed ? -1 : 0;
}

static int run_backend(enum gemm_backend backend, double s, struct err *err)
{
    struct gemm *g = gemm_create(backend, gemm_level_here(), err);
    if (!g)
        return -1;
    int failed = 0, threads = omp_get_max_threads(), bf16 = backend != GEMM_BLIS;
    double core = bf16 ? gemm_peak_bf16_gflops(s) : gemm_peak_f32_gflops(s);
    double peak = core * threads;
    printf("%s, %d threads, peak %.1f GFLOP/s a core\n",
           bf16 ? gemm_bf16_name(g) : gemm_name(g), threads, core);
    printf("%-56s %8s %8s %13s\n", "", "median", "best", "of peak");
    for (size_t i = 0; !failed && i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t m = sizes[i][0], out = sizes[i][1], in = sizes[i][2];
        enum dtype act = DTYPE_BF16;
        struct row forward = {GEMM_N, GEMM_T, m, out, in, act, 0};
        struct row input = {GEMM_N, GEMM_N, m, in, out, act, 0};
        struct row weight = {GEMM_T, GEMM_N, out, in, m, DTYPE_F32, 1};
        struct work w = {.g = g, .bf16 = bf16};
        w.row = forward;
        failed = run_row(w, 0, "forward", peak, s, err) ||
                 (bf16 && run_row(w, 0, "forward, packed", peak, s, err));
        w.row = input;
        failed = failed || run_row(w, 0, "input gradient", peak, s, err) ||
                 (bf16 && run_row(w, 0, "input gradient, packed", peak, s, err));
        w.row = weight;
        failed = failed || run_row(w, 0, "weight gradient", peak, s, err);
    }
    for (size_t i = 0; !failed && i < sizeof tiles / sizeof *tiles; i++)
        failed = backend != GEMM_ONEDNN && /* own kernels serve its tiles */
                 run_row((struct work){.g = g, .bf16 = bf16, .row = tiles[i]}, 1,
                         "tile", peak, s, err);
    gemm_destroy(g);
    return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum gemm_backend backend;
    } backends[] = {{"f32", GEMM_BLIS}, {"own", GEMM_OWN}, {"onednn", GEMM_ONEDNN}};
    double s = argc > 1 ? atof(argv[1]) : 1.0;
    int failed = 0;
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        struct err err = {0};
        if (argc > 2 && strcmp(argv[2], backends[i].name) != 0)
            continue;
        if (run_backend(backends[i].backend, s, &err)) {
            fprintf(stderr, "bench gemm %s: %s\n", backends[i].name, err.text);
            failed = 1;
        }
    }
    return failed;
}
