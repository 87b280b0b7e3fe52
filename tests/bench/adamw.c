/* SPDX-License-Identifier: Apache-2.0 */
/* AdamW's bytes a second beside triad's, turn by turn in one process.
 * Usage: tests/bench/adamw [million parameters [turns]]. Threads: OMP_NUM_THREADS.
 * Triad, a = b + s c, writes past the caches where the CPU can: 12 bytes an element.
 * AdamW reads 16 bytes a parameter and writes 16 (gradient cleared), in both
 * precisions. */
#include "src/base/clock.h"
#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/optim/adamw.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

struct arrays {
    int64_t n;
    float *w, *m, *v, *g;
    uint16_t *half;
    int16_t *rest;
};

static void triad_part(int64_t n, float *a, const float *b, const float *c)
{
    int64_t i = 0;
#if defined(__SSE__)
    __m128 s = _mm_set1_ps(0.5f);
    for (; i + 16 <= n; i += 16) /* a whole cache line at a time */
        for (int j = 0; j < 16; j += 4)
            _mm_stream_ps(a + i + j, _mm_add_ps(_mm_load_ps(b + i + j),
                                                _mm_mul_ps(s, _mm_load_ps(c + i + j))));
    _mm_sfence();
#endif
    for (; i < n; i++)
        a[i] = b[i] + 0.5f * c[i];
}

static double triad(struct arrays *x, int turn)
{
    enum { PART = 1 << 14 };
    (void)turn;
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < x->n; at += PART)
        triad_part(x->n - at < PART ? x->n - at : PART, x->g + at, x->m + at,
                   x->v + at);
    return 12;
}

static const struct adamw usual = {0.9, 0.95, 1e-8, 0.1};

static double fp32(struct arrays *x, int turn)
{
    adamw_update(&usual, turn, 1e-4, true, 0.5, x->n, x->w, x->m, x->v, x->g);
    return 32;
}

static double bf16(struct arrays *x, int turn)
{
    adamw_update_bf16(&usual, turn, 1e-4, true, 0.5, x->n, x->half, x->rest, x->m, x->v,
                      x->g);
    return 32;
}

static double norm(struct arrays *x, int turn)
{
    (void)turn;
    x->w[0] = (float)sum_of_squares(x->n, x->v);
    return 4;
}

static const struct {
    const char *name;
    double (*run)(struct arrays *x, int turn); /* returns bytes an element */
} rows[] = {
    {"triad", triad}, {"AdamW fp32", fp32}, {"AdamW bf16", bf16}, {"norm", norm}};
enum { ROWS = sizeof rows / sizeof *rows, MOST_TURNS = 101 };

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct arrays x = {.n = (int64_t)(1e6 * (argc > 1 ? atof(argv[1]) : 64))};
    int turns = argc > 2 ? atoi(argv[2]) : 15;
    turns = turns < 1 ? 1 : turns > MOST_TURNS ? MOST_TURNS : turns;
    x.w = mem_array(x.n, sizeof(float), &err);
    x.m = mem_array(x.n, sizeof(float), &err);
    x.v = mem_array(x.n, sizeof(float), &err);
    x.g = mem_array(x.n, sizeof(float), &err);
    x.half = mem_array(x.n, sizeof(uint16_t), &err);
    x.rest = mem_array(x.n, sizeof(int16_t), &err);
    if (!x.w || !x.m || !x.v || !x.g || !x.half || !x.rest) {
        fprintf(stderr, "bench adamw: %s\n", err.text);
        return 1;
    }
    static double rate[ROWS][MOST_TURNS];
    for (int t = 0; t < turns + 1; t++) /* the first does not count */
        for (int r = 0; r < ROWS; r++) {
            double start_s = clock_s(), bytes = rows[r].run(&x, t + 1);
            if (t > 0)
                rate[r][t - 1] = 1e-9 * bytes * (double)x.n / (clock_s() - start_s);
        }
    printf("%lld parameters, %d threads, medians of %d\n", (long long)x.n,
           omp_get_max_threads(), turns);
    for (int r = 0; r < ROWS; r++)
        qsort(rate[r], (size_t)turns, sizeof(double), rising);
    for (int r = 0; r < ROWS; r++)
        printf("%-11s %6.2f GB/s (%.2f to %.2f)  %.3f of triad\n", rows[r].name,
               rate[r][turns / 2], rate[r][0], rate[r][turns - 1],
               rate[r][turns / 2] / rate[0][turns / 2]);
    mem_free(x.w);
    mem_free(x.m);
    mem_free(x.v);
    mem_free(x.g);
    mem_free(x.half);
    mem_free(x.rest);
    return 0;
}
