/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/gemm.h"

#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/base/tally.h"
#include "src/gemm/gemm_backend.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    GRAIN = 96,             /* rows or columns that a thread gets at least: whole
                               register blocks (32 x 12, 6 x 16) of BLIS's families */
    THREAD_FLOPS = 1 << 20, /* less work does not pay for waking a thread */
    PACK_COST = 16          /* multiply-adds for the cost of packing one number */
};

struct gemm *gemm_create(enum gemm_backend backend, enum gemm_level level,
                         struct err *err)
{
    struct gemm *g = mem_array(1, sizeof *g, err);
    if (!g)
        return NULL;
    g->level = level;
    g->tile = backend == GEMM_REF ? gemm_ref_tile : gemm_blis_tile;
    snprintf(g->name, sizeof g->name, "ref");
    if ((backend != GEMM_REF && gemm_blis_start(level, g->name, sizeof g->name, err)) ||
        gemm_bf16_start(g, backend, err)) {
        gemm_destroy(g);
        return NULL;
    }
    return g;
}

void gemm_destroy(struct gemm *g)
{
    if (!g)
        return;
    gemm_bf16_stop(g);
    mem_free(g);
}

void gemm_set_tally(struct gemm *g, struct tally *tally)
{
    g->tally = tally;
}

struct tally *gemm_tally(const struct gemm *g)
{
    return g->tally;
}

enum gemm_level gemm_level(const struct gemm *g)
{
    return g->level;
}

const char *gemm_name(const struct gemm *g)
{
    return g->name;
}

/* k = 0: C = beta C, where beta 0 must also overwrite a NaN. */
static void scale(int64_t m, int64_t n, float beta, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
}

static struct gemm_matrix matrix(enum gemm_op op, const float *p, int64_t ld)
{
    return op == GEMM_N ? (struct gemm_matrix){p, ld, 1}
                        : (struct gemm_matrix){p, 1, ld};
}

void gemm_f32_tile(const struct gemm *g, enum gemm_op op_a, enum gemm_op op_b,
                   int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
                   const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    if (m <= 0 || n <= 0)
        return;
    if (k <= 0) {
        scale(m, n, beta, c, ldc);
        return;
    }
    g->tile(m, n, k, matrix(op_a, a, lda), matrix(op_b, b, ldb), beta, c, ldc);
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Length of the pieces of `whole` cut in about `parts` of whole grains. */
static int64_t piece(int64_t whole, int64_t parts)
{
    return ceil_div(ceil_div(whole, parts), GRAIN) * GRAIN;
}

struct gemm_tiling gemm_tiling_for(int64_t m, int64_t n, int64_t k, int threads)
{
    struct gemm_tiling best = {1, 1, m, n};
    double flops = 2.0 * (double)m * (double)n * (double)k;
    int64_t useful = flops / THREAD_FLOPS < threads ? (int64_t)(flops / THREAD_FLOPS)
                                                    : (int64_t)threads;
    double best_cost = 0;
    for (int64_t down = 1; down <= useful; down++) {
        int64_t rows = piece(m, down), cols = piece(n, useful / down);
        double cost = (double)rows * (double)cols + PACK_COST * (double)(rows + cols);
        if (down > 1 && cost >= best_cost)
            continue;
        best = (struct gemm_tiling){ceil_div(m, rows), ceil_div(n, cols), rows, cols};
        best_cost = cost;
    }
    return best;
}

void gemm_f32(const struct gemm *g, enum gemm_op op_a, enum gemm_op op_b, int64_t m,
              int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
              int64_t ldb, float beta, float *c, int64_t ldc)
{
    if (m <= 0 || n <= 0)
        return;
    struct gemm_tiling t = gemm_tiling_for(m, n, k > 0 ? k : 0, omp_get_max_threads());
    int64_t tiles = t.down * t.across;
    double begin_s = tally_begin(g->tally);
    if (tiles == 1) {
        gemm_f32_tile(g, op_a, op_b, m, n, k, a, lda, b, ldb, beta, c, ldc);
        tally_end(g->tally, TALLY_GEMM, begin_s);
        return;
    }
    int64_t step_a = op_a == GEMM_N ? lda : 1, step_b = op_b == GEMM_N ? 1 : ldb;
#pragma omp parallel for schedule(static, 1) num_threads((int)tiles)
    for (int64_t i = 0; i < tiles; i++) {
        int64_t row = i / t.across * t.rows, col = i % t.across * t.cols;
        int64_t rows = row + t.rows < m ? t.rows : m - row;
        int64_t cols = col + t.cols < n ? t.cols : n - col;
        gemm_f32_tile(g, op_a, op_b, rows, cols, k, a + row * step_a, lda,
                      b + col * step_b, ldb, beta, c + row * ldc + col, ldc);
    }
    tally_end(g->tally, TALLY_GEMM, begin_s);
}
