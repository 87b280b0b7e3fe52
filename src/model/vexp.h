/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_VEXP_H
#define DUSK_MODEL_VEXP_H

/* exp in fp32 without a branch or a call, so that loops over it become vector code.
 *
 * x = n ln 2 + r, |r| <= ln 2 / 2; exp r by a polynomial of degree 6 whose coefficients
 * are a minimax fit of (exp r - 1 - r) / r^2 in relative error; then a scaling by 2^n
 * in two steps, so that results fade through the subnormals and overflow to infinity.
 * Error at most 1 unit in the last place over all floats (1 of the smallest subnormal
 * there); exp(-inf) = 0, exp(inf) = inf, NaN gives NaN. */

#include <stdint.h>
#include <string.h>

/* The same for x <= 89. One bound fewer: compilers make branches of two. */
static inline float vexp_below(float x)
{
    float c = x < -104.0f ? -104.0f : x; /* the result is 0 all the same; NaN passes */

    /* Adding 1.5 x 2^23 rounds to an integer, which then sits in the low bits. */
    float shifted = c * 0x1.715476p0f + 0x1.8p23f;
    float n = shifted - 0x1.8p23f;
    /* ln 2 = 355/512 + a rest: n x 355/512 is exact. */
    float r = (c - n * 0x1.63p-1f) - n * -0x1.bd0106p-13f;

    float q = 0x1.6a23fp-10f;
    q = q * r + 0x1.123a0ap-7f;
    q = q * r + 0x1.5558f2p-5f;
    q = q * r + 0x1.555492p-3f;
    q = q * r + 0x1.fffffcp-2f;
    float p = ((r * r) * q + r) + 1.0f;

    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    int32_t e = (int32_t)(bits - 0x4b400000u);
    int32_t half = e >> 1;
    uint32_t bits1 = (uint32_t)(half + 127) << 23;
    uint32_t bits2 = (uint32_t)(e - half + 127) << 23;
    float scale1, scale2;
    memcpy(&scale1, &bits1, sizeof scale1);
    memcpy(&scale2, &bits2, sizeof scale2);
    return p * scale1 * scale2;
}

static inline float vexp(float x)
{
    return vexp_below(x > 89.0f ? 89.0f : x);
}
/* 2^x for x <= 1, where a relative error of 3e-6 does (values that are rounded to
 * bf16): half the work. 2^x as 2^n 2^r, |r| <= 1/2, 2^r by a polynomial of degree 4,
 * minimax in relative error with value 1 at 0. vexp2(0) = 1; 0 where x < -126.5; NaN
 * gives NaN. */
static inline float vexp2(float x)
{
    float c = x < -127.0f ? -127.0f : x;
    float shifted = c + 0x1.8p23f;
    float n = shifted - 0x1.8p23f;
    float r = c - n;

    float q = 0x1.3a02ccp-7f;
    q = q * r + 0x1.c9fc46p-5f;
    q = q * r + 0x1.ec0378p-3f;
    q = q * r + 0x1.62e12cp-1f;
    float p = q * r + 1.0f;

    /* From 0x4b400000 + n to the bits of 2^n, those of 0 if n = -127. */
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

#endif
