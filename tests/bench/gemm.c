/* SPDX-License-Identifier: Apache-2.0 */
/* GFLOP/s of fp32 products beside this core's register-only peak.
 * Usage: tests/bench/gemm [seconds a row]. Threads: OMP_NUM_THREADS. */
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/gemm/gemm.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

static const struct row {
    enum gemm_op op_a, op_b;
    int64_t m, n, k;
    int tile; /* one thread, from inside a parallel region on all threads at once */
} rows[] = {
    {GEMM_N, GEMM_T, 1024, 4096, 4096, 0}, /* a Linear forward */
    {GEMM_N, GEMM_N, 1024, 4096, 4096, 0}, /* its input gradient */
    {GEMM_T, GEMM_N, 4096, 4096, 1024, 0}, /* its weight gradient */
    {GEMM_N, GEMM_T, 256, 688, 256, 0},    {GEMM_N, GEMM_T, 64, 512, 32, 1},
    {GEMM_N, GEMM_N, 64, 32, 512, 1},      {GEMM_T, GEMM_N, 512, 32, 64, 1},
    {GEMM_N, GEMM_T, 8, 8, 8, 1},
};

static float *filled(int64_t n, struct err *err)
{
    float *x = mem_array(n, sizeof *x, err);
    for (int64_t i = 0; x && i < n; i++)
        x[i] = (float)(i * 37 % 101) / 101.0f - 0.5f;
    return x;
}

static double once(const struct gemm *g, const struct row *r, const float *a,
                   const float *b, float *c)
{
    int64_t lda = r->op_a == GEMM_N ? r->k : r->m;
    int64_t ldb = r->op_b == GEMM_N ? r->n : r->k;
    double begin = clock_s();
    if (!r->tile) {
        gemm_f32(g, r->op_a, r->op_b, r->m, r->n, r->k, a, lda, b, ldb, 0, c, r->n);
        return clock_s() - begin;
    }
    enum { CALLS = 100 };
#pragma omp parallel
    for (int i = 0; i < CALLS; i++)
        gemm_f32_tile(g, r->op_a, r->op_b, r->m, r->n, r->k, a, lda, b, ldb, 0,
                      c + omp_get_thread_num() * r->m * r->n, r->n);
    return (clock_s() - begin) / (CALLS * omp_get_max_threads());
}

static int run_row(const struct gemm *g, const struct row *r, double peak, double s,
                   struct err *err)
{
    float *a = filled(r->m * r->k, err), *b = filled(r->n * r->k, err);
    float *c =
        mem_array(r->m * r->n * (r->tile ? omp_get_max_threads() : 1), sizeof *c, err);
    int failed = !a || !b || !c;
    double best_s = 1e9, end = clock_s() + s;
    while (!failed && clock_s() < end) {
        double took = once(g, r, a, b, c);
        best_s = took < best_s ? took : best_s;
    }
    double rate = 2e-9 * (double)r->m * (double)r->n * (double)r->k / best_s;
    printf("%c%c %5lld x %5lld x %5lld %s %8.1f GFLOP/s  %.2f of peak  %.1f us\n",
           r->op_a == GEMM_N ? 'N' : 'T', r->op_b == GEMM_N ? 'N' : 'T',
           (long long)r->m, (long long)r->n, (long long)r->k, r->tile ? "tile" : "    ",
           rate, rate / peak, best_s * 1e6);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct err err = {0};
    double s = argc > 1 ? atof(argv[1]) : 1.0;
    struct gemm *g = gemm_create(GEMM_BLIS, gemm_level_here(), &err);
    int failed = !g;
    if (g) {
        int threads = omp_get_max_threads();
        double core = gemm_peak_f32_gflops(s), peak = core * threads;
        printf("%s, %d threads, peak %.1f GFLOP/s a core\n", gemm_name(g), threads,
               core);
        for (size_t i = 0; !failed && i < sizeof rows / sizeof *rows; i++)
            failed = run_row(g, &rows[i], peak, s, &err);
    }
    if (failed)
        fprintf(stderr, "bench gemm: %s\n", err.text);
    gemm_destroy(g);
    return failed ? 1 : 0;
}
