/* SPDX-License-Identifier: Apache-2.0 */
#include "src/gemm/bf16.h"
#include "src/gemm/bf16_dot.h"
#include "src/gemm/gemm.h"

#include "src/base/clock.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Enough independent chains to hide the latency of a fused multiply-add on two units,
 * few enough to stay in 16 registers with the two factors. */
enum { CHAINS = 12, ROUNDS = 20000 };

/* Each loop does ROUNDS x CHAINS vector operations and returns something made from all
 * of them. x tends to y / (1 - 0.5): no overflow, no subnormal. */
typedef float peak_loop(float y);

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static float loop_avx512(float y)
{
    __m512 acc[CHAINS], half = _mm512_set1_ps(0.5f), add = _mm512_set1_ps(y);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_ps((float)i);
    for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_fmadd_ps(acc[i], half, add);
    }
    __m512 sum = acc[0];
    for (int i = 1; i < CHAINS; i++)
        sum = _mm512_add_ps(sum, acc[i]);
    return _mm512_cvtss_f32(sum);
}

__attribute__((target("avx2,fma"))) static float loop_avx2(float y)
{
    __m256 acc[CHAINS], half = _mm256_set1_ps(0.5f), add = _mm256_set1_ps(y);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_ps((float)i);
    for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm256_fmadd_ps(acc[i], half, add);
    }
    __m256 sum = acc[0];
    for (int i = 1; i < CHAINS; i++)
        sum = _mm256_add_ps(sum, acc[i]);
    return _mm256_cvtss_f32(sum);
}
#endif

typedef float lanes4 __attribute__((vector_size(16)));

static float loop_generic(float y)
{
    lanes4 acc[CHAINS], half = {0.5f, 0.5f, 0.5f, 0.5f}, add = {y, y, y, y};
    for (int i = 0; i < CHAINS; i++)
        acc[i] = add * (float)i;
    for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) {
#if defined(__FP_FAST_FMAF)
            for (int l = 0; l < 4; l++)
                acc[i][l] = __builtin_fmaf(acc[i][l], half[l], add[l]);
#else
            acc[i] = acc[i] * half + add;
#endif
        }
    }
    lanes4 sum = acc[0];
    for (int i = 1; i < CHAINS; i++)
        sum += acc[i];
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static double rate(peak_loop *loop, double flops, double seconds)
{
    volatile float keep = 1.0f; /* or the compiler drops or merges the calls */
    double best_s = 1e9, end = clock_s() + seconds;
    do {
        double begin = clock_s();
        keep = loop(keep > 0.0f ? 1.0f : 0.5f);
        double took = clock_s() - begin;
        best_s = took < best_s ? took : best_s;
    } while (clock_s() < end);
    return flops / best_s * 1e-9;
}

double gemm_peak_f32_gflops(double seconds)
{
    peak_loop *loop = loop_generic;
    int lanes = 4;
#if defined(__x86_64__)
    enum gemm_level level = gemm_level_here();
    if (level >= GEMM_LEVEL_AVX512) {
        loop = loop_avx512;
        lanes = 16;
    } else if (level == GEMM_LEVEL_AVX2) {
        loop = loop_avx2;
        lanes = 8;
    }
#endif
    return rate(loop, 2.0 * lanes * CHAINS * ROUNDS, seconds);
}

#if defined(DUSK_BF16_DOT)
/* Sums of zeros and of y: the rate does not depend on values. */
BF16_DOT_TARGET static float loop_dot(float y)
{
    __m512 acc[CHAINS];
    __m512bh x = (__m512bh)_mm512_set1_ps(y * 1e-30f),
             one = (__m512bh)_mm512_set1_ps(1);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_ps((float)i);
    for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_dpbf16_ps(acc[i], x, one);
    }
    __m512 sum = acc[0];
    for (int i = 1; i < CHAINS; i++)
        sum = _mm512_add_ps(sum, acc[i]);
    return _mm512_cvtss_f32(sum);
}
#endif

double gemm_peak_bf16_gflops(double seconds)
{
#if defined(DUSK_BF16_DOT)
    if (gemm_level_here() >= GEMM_LEVEL_AVX512_BF16)
        return rate(loop_dot, 2.0 * 32 * CHAINS * ROUNDS, seconds);
#endif
    (void)seconds;
    return 0;
}
