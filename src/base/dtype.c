/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/dtype.h"

#include "src/base/check.h"

#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} kinds[] = {
    [DTYPE_F32] = {"F32", 4}, [DTYPE_BF16] = {"BF16", 2}, [DTYPE_F16] = {"F16", 2}};

enum { KINDS = sizeof kinds / sizeof *kinds };

size_t dtype_bytes(enum dtype t)
{
    return kinds[t].bytes;
}

const char *dtype_name(enum dtype t)
{
    return kinds[t].name;
}

int dtype_parse(const char *name, enum dtype *t)
{
    for (int i = 0; i < KINDS; i++)
        if (strcmp(name, kinds[i].name) == 0) {
            *t = (enum dtype)i;
            return 0;
        }
    return -1;
}

enum dtype dtype_widest(enum dtype a, enum dtype b)
{
    return a == b ? a : DTYPE_F32;
}

static uint32_t f32_bits(float value)
{
    uint32_t u;
    memcpy(&u, &value, sizeof u);
    return u;
}

static float f32_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float bf16_to_f32(uint16_t bits)
{
    return f32_of((uint32_t)bits << 16);
}

uint16_t bf16_from_f32(float value)
{
    uint32_t u = f32_bits(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) /* NaN: keep it one after the cut */
        return (uint16_t)((u >> 16) | ((u & 0x007f0000u) ? 0u : 0x0040u));
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1fu, fraction = h & 0x3ffu;
    if (exponent == 0x1fu)
        return f32_of(sign | 0x7f800000u | fraction << 13);
    if (exponent)
        return f32_of(sign | (exponent + 112) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f; /* subnormal or zero: exact */
    return f32_of(sign | f32_bits(magnitude));
}

uint16_t f16_from_f32(float value)
{
    uint32_t u = f32_bits(value), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) /* the same: a payload that fits stays as it is */
        return (uint16_t)(sign | 0x7c00u |
                          ((a & 0x007fe000u) ? (a >> 13) & 0x3ffu : 0x200u));
    if (a >= 0x477ff000u) /* 65520 and more round to Inf */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { /* below 2^-14: a multiple of 2^-24, rounded by the add */
        uint32_t r = f32_bits(f32_of(a) + 0.5f);
        return (uint16_t)(sign | (r - 0x3f000000u));
    }
    uint32_t r = a + 0xfffu + ((a >> 13) & 1u);
    return (uint16_t)(sign | ((r >> 13) - (112u << 10)));
}

void dtype_to_f32(enum dtype from, const void *src, int64_t n, float *dst)
{
    const uint16_t *h = src;
    switch (from) {
    case DTYPE_F32:
        memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n; i++)
            dst[i] = bf16_to_f32(h[i]);
        return;
    case DTYPE_F16:
        for (int64_t i = 0; i < n; i++)
            dst[i] = f16_to_f32(h[i]);
        return;
    }
    CHECK(0, "dtype %d", (int)from);
}

void dtype_from_f32(enum dtype to, const float *src, int64_t n, void *dst)
{
    uint16_t *h = dst;
    switch (to) {
    case DTYPE_F32:
        memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    case DTYPE_BF16:
        for (int64_t i = 0; i < n; i++)
            h[i] = bf16_from_f32(src[i]);
        return;
    case DTYPE_F16:
        for (int64_t i = 0; i < n; i++)
            h[i] = f16_from_f32(src[i]);
        return;
    }
    CHECK(0, "dtype %d", (int)to);
}
