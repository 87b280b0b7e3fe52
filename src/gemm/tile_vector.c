/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/tile_vector.h"

#include "src/gemm/bf16_dot.h"

#include <stddef.h>

#if defined(__x86_64__)
#include <immintrin.h>

/* 8 rows by two vectors of 16 columns: 16 sums, 2 loads and 8 broadcasts a step; the
 * sums hide each other's latency and the loads stay below the multipliers' rate. */
__attribute__((target("avx512f"))) static void avx512_f32(int m, int k, const void *a,
                                                          int64_t a_row, int64_t a_step,
                                                          const void *b,
                                                          const float *keep, float *c)
{
    for (int i = 0; i < m; i += TILE_ROWS, c += TILE_ROWS * TILE_COLS) {
        const float *x = (const float *)a + i * a_row, *y = b;
        __m512 sum[TILE_ROWS][2];
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++)
            sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        for (int l = 0; l < k; l++, x += a_step, y += TILE_COLS) {
            __m512 y0 = _mm512_loadu_ps(y), y1 = _mm512_loadu_ps(y + 16);
#pragma GCC unroll 8
            for (int r = 0; r < TILE_ROWS; r++) {
                __m512 v = _mm512_set1_ps(x[r * a_row]);
                sum[r][0] = _mm512_fmadd_ps(v, y0, sum[r][0]);
                sum[r][1] = _mm512_fmadd_ps(v, y1, sum[r][1]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) {
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                float *to = c + r * TILE_COLS + 16 * h;
                if (keep)
                    sum[r][h] = _mm512_fmadd_ps(
                        _mm512_loadu_ps(to), _mm512_loadu_ps(keep + 16 * h), sum[r][h]);
                _mm512_storeu_ps(to, sum[r][h]);
            }
        }
    }
}

/* 16 registers: 4 rows by two vectors of 8 columns. */
__attribute__((target("avx2,fma"))) static void
avx2_block_f32(int k, const float *x, int64_t a_row, int64_t a_step, const float *y,
               const float *keep, float *c)
{
    __m256 sum[4][2];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++)
        sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    for (int l = 0; l < k; l++, x += a_step, y += TILE_COLS) {
        __m256 y0 = _mm256_loadu_ps(y), y1 = _mm256_loadu_ps(y + 8);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            __m256 v = _mm256_set1_ps(x[r * a_row]);
            sum[r][0] = _mm256_fmadd_ps(v, y0, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(v, y1, sum[r][1]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            float *to = c + r * TILE_COLS + 8 * h;
            if (keep)
                sum[r][h] = _mm256_fmadd_ps(_mm256_loadu_ps(to),
                                            _mm256_loadu_ps(keep + 8 * h), sum[r][h]);
            _mm256_storeu_ps(to, sum[r][h]);
        }
    }
}

static void avx2_f32(int m, int k, const void *a, int64_t a_row, int64_t a_step,
                     const void *b, const float *keep, float *c)
{
    for (int j = 0; j < TILE_COLS; j += 16)
        for (int i = 0; i < m; i += 4)
            avx2_block_f32(k, (const float *)a + i * a_row, a_row, a_step,
                           (const float *)b + j, keep ? keep + j : NULL,
                           c + i * TILE_COLS + j);
}

#if defined(DUSK_BF16_DOT)
/* Two bf16, whatever type they were written as. */
typedef uint32_t word __attribute__((may_alias));

BF16_DOT_TARGET static void avx512_bf16(int m, int k, const void *a, int64_t a_row,
                                        int64_t a_step, const void *b,
                                        const float *keep, float *c)
{
    for (int i = 0; i < m; i += TILE_ROWS, c += TILE_ROWS * TILE_COLS) {
        const word *x = (const word *)a + i * a_row, *y = b;
        __m512 sum[TILE_ROWS][2];
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++)
            sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        for (int l = 0; l < k; l++, x += a_step, y += TILE_COLS) {
            __m512bh y0 = (__m512bh)_mm512_loadu_si512(y);
            __m512bh y1 = (__m512bh)_mm512_loadu_si512(y + 16);
#pragma GCC unroll 8
            for (int r = 0; r < TILE_ROWS; r++) {
                __m512bh v = (__m512bh)_mm512_set1_epi32((int)x[r * a_row]);
                sum[r][0] = _mm512_dpbf16_ps(sum[r][0], v, y0);
                sum[r][1] = _mm512_dpbf16_ps(sum[r][1], v, y1);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) {
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                float *to = c + r * TILE_COLS + 16 * h;
                if (keep)
                    sum[r][h] = _mm512_fmadd_ps(
                        _mm512_loadu_ps(to), _mm512_loadu_ps(keep + 16 * h), sum[r][h]);
                _mm512_storeu_ps(to, sum[r][h]);
            }
        }
    }
}
#endif
#endif

gemm_tile_product *tile_vector(enum gemm_level level, enum dtype dtype)
{
#if defined(__x86_64__)
#if defined(DUSK_BF16_DOT)
    if (dtype == DTYPE_BF16)
        return level >= GEMM_LEVEL_AVX512_BF16 ? avx512_bf16 : NULL;
#endif
    if (dtype == DTYPE_F32 && level >= GEMM_LEVEL_AVX512)
        return avx512_f32;
    if (dtype == DTYPE_F32 && level == GEMM_LEVEL_AVX2)
        return avx2_f32;
#endif
    (void)level, (void)dtype;
    return NULL;
}
