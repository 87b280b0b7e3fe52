/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/tile.h"

#include "src/base/check.h"
#include "src/base/clones.h"
#include "src/gemm/gemm_backend.h"
#include "src/gemm/tile_vector.h"

#include <string.h>

/* Two bf16, whatever type they were written as. */
typedef uint32_t word __attribute__((may_alias));

/* sum (+ old C) into one row of C. */
static inline void finish(const float *restrict sum, const float *restrict keep,
                          float *restrict c)
{
    for (int j = 0; j < TILE_COLS; j++)
        c[j] = keep ? sum[j] + c[j] * keep[j] : sum[j];
}

CLONES static void portable_f32(int m, int k, const void *a, int64_t a_row,
                                int64_t a_step, const void *b, const float *keep,
                                float *c)
{
    for (int i = 0; i < m; i++) {
        const float *x = (const float *)a + i * a_row, *y = b;
        float sum[TILE_COLS] = {0};
        for (int l = 0; l < k; l++, x += a_step, y += TILE_COLS)
            for (int j = 0; j < TILE_COLS; j++)
                sum[j] += *x * y[j];
        finish(sum, keep, c + i * TILE_COLS);
    }
}

/* The value in the lower and in the upper half of a word. */
static inline float low(uint32_t bits)
{
    bits <<= 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline float high(uint32_t bits)
{
    bits &= 0xffff0000u;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

CLONES static void portable_bf16(int m, int k, const void *a, int64_t a_row,
                                 int64_t a_step, const void *b, const float *keep,
                                 float *c)
{
    for (int i = 0; i < m; i++) {
        const word *x = (const word *)a + i * a_row, *y = b;
        float sum[TILE_COLS] = {0};
        for (int l = 0; l < k; l++, x += a_step, y += TILE_COLS) {
            float first = low(*x), second = high(*x);
            for (int j = 0; j < TILE_COLS; j++)
                sum[j] = (sum[j] + first * low(y[j])) + second * high(y[j]);
        }
        finish(sum, keep, c + i * TILE_COLS);
    }
}

gemm_tile_product *gemm_tile(const struct gemm *g, enum dtype dtype)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16, "dtype %d", (int)dtype);
    gemm_tile_product *f = tile_vector(g->level, dtype);
    if (f)
        return f;
    return dtype == DTYPE_F32 ? portable_f32 : portable_bf16;
}
