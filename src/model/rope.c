/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/rope.h"

#include "src/base/clones.h"
#include "src/model/element.h"

#include <math.h>
#include <stdint.h>

enum { POSITION_BLOCK = 128 };

/* Positions [begin, end). */
static void fill_table(int begin, int end, int head_dim, double theta, float *cosine,
                       float *sine)
{
    int half = head_dim / 2;
    for (int i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)head_dim;
        float inverse = 1.0f / (float)pow(theta, (double)exponent);
        for (int p = begin; p < end; p++) {
            float angle = (float)p * inverse;
            cosine[(int64_t)p * half + i] = (float)cos((double)angle);
            sine[(int64_t)p * half + i] = (float)sin((double)angle);
        }
    }
}

void rope_table(int positions, int head_dim, double theta, float *cosine, float *sine)
{
#pragma omp parallel for schedule(static)
    for (int begin = 0; begin < positions; begin += POSITION_BLOCK) {
        int end =
            positions - begin < POSITION_BLOCK ? positions : begin + POSITION_BLOCK;
        fill_table(begin, end, head_dim, theta, cosine, sine);
    }
}

ELEMENT_INLINE void turn_of(enum dtype t, int half, const float *restrict c,
                            const float *restrict s, float sign, void *restrict a,
                            void *restrict b)
{
    for (int i = 0; i < half; i++) {
        float p = element_get(t, a, i), q = element_get(t, b, i), sine = sign * s[i];
        element_put(t, a, i, p * c[i] - q * sine);
        element_put(t, b, i, q * c[i] + p * sine);
    }
}

/* One row; sign +1 turns forward, -1 back. */
CLONES static void turn(enum dtype t, int heads, int half, const float *c,
                        const float *s, float sign, void *x)
{
    for (int h = 0; h < heads; h++) {
        void *a = element_to(t, x, (int64_t)h * 2 * half), *b = element_to(t, a, half);
        if (t == DTYPE_F32)
            turn_of(DTYPE_F32, half, c, s, sign, a, b);
        else
            turn_of(DTYPE_BF16, half, c, s, sign, a, b);
    }
}

static void turn_rows(int rows, int heads, int head_dim, const int *position,
                      const float *cosine, const float *sine, float sign,
                      enum dtype dtype, void *x, int64_t stride)
{
    int half = head_dim / 2;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < rows; t++) {
        int64_t at = (int64_t)position[t] * half;
        turn(dtype, heads, half, cosine + at, sine + at, sign,
             element_to(dtype, x, t * stride));
    }
}

void rope_forward(int rows, int heads, int head_dim, const int *position,
                  const float *cosine, const float *sine, enum dtype dtype, void *x,
                  int64_t stride)
{
    turn_rows(rows, heads, head_dim, position, cosine, sine, 1.0f, dtype, x, stride);
}

void rope_backward(int rows, int heads, int head_dim, const int *position,
                   const float *cosine, const float *sine, enum dtype dtype, void *dx,
                   int64_t stride)
{
    turn_rows(rows, heads, head_dim, position, cosine, sine, -1.0f, dtype, dx, stride);
}
