/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/attention_scores.h"

#include "src/base/clones.h"
#include "src/gemm/tile.h"
#include "src/model/vexp.h"

#include <math.h>
#include <string.h>

enum { COLS = TILE_COLS };

CLONES static void mask(int keys, int key0, const int *restrict first,
                        const int *restrict last, float *restrict s)
{
    for (int u = 0; u < keys; u++) {
        int key = key0 + u;
        float *line = s + (int64_t)u * COLS;
        for (int j = 0; j < COLS; j++)
            line[j] = key > last[j] || key < first[j] ? -INFINITY : line[j];
    }
}

void attention_scores_mask(int keys, int key0, const int *first, const int *last,
                           float *s)
{
    mask(keys, key0, first, last, s);
}

/* A bf16 in the upper half, rounded to nearest even. NaNs made from bf16 values and by
 * arithmetic have zeros in the lower half and stay NaN. */
static inline uint32_t rounded(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits + 0x7fffu + ((bits >> 16) & 1u);
}

static inline uint32_t pair(uint32_t first, uint32_t second)
{
    return first >> 16 | (second & 0xffff0000u);
}

/* Arrays of lanes come in as pointers: compilers take local arrays apart into scalars.
 * Four lines at a time, or each step waits for the last one's store. */
CLONES static void raise_max(int keys, const float *restrict s, float *restrict max)
{
    int u = 0;
    for (; u + 4 <= keys; u += 4, s += 4 * COLS)
        for (int j = 0; j < COLS; j++) {
            float a = s[j] > s[COLS + j] ? s[j] : s[COLS + j];
            float b =
                s[2 * COLS + j] > s[3 * COLS + j] ? s[2 * COLS + j] : s[3 * COLS + j];
            a = a > b ? a : b;
            max[j] = a > max[j] ? a : max[j];
        }
    for (; u < keys; u++, s += COLS)
        for (int j = 0; j < COLS; j++)
            max[j] = s[j] > max[j] ? s[j] : max[j];
}

CLONES static void softmax_f32(int keys, float scale, const float *restrict s,
                               const float *restrict base, float *restrict total,
                               float *restrict p)
{
    for (int u = 0; u < keys; u++, s += COLS, p += COLS)
        for (int j = 0; j < COLS; j++) {
            p[j] = vexp_below((s[j] - base[j]) * scale);
            total[j] += p[j];
        }
}

/* scale2: for powers of 2. */
CLONES static void softmax_bf16(int keys, float scale2, const float *restrict s,
                                const float *restrict base, float *restrict total,
                                uint32_t *restrict p)
{
    for (int u = 0; u < keys; u += 2, s += 2 * COLS, p += COLS)
        for (int j = 0; j < COLS; j++) {
            float x = vexp2((s[j] - base[j]) * scale2);
            float y = vexp2((s[COLS + j] - base[j]) * scale2);
            total[j] += x + y;
            p[j] = pair(rounded(x), rounded(y));
        }
}

/* max was the maximum before, top is it now. */
CLONES static void rescale(float scale, const float *restrict top, float *restrict max,
                           float *restrict base, float *restrict factor)
{
    for (int j = 0; j < COLS; j++) {
        base[j] = top[j] > -INFINITY ? top[j] : 0.0f;
        factor[j] = vexp_below((max[j] - base[j]) * scale);
        max[j] = top[j];
    }
}

CLONES static void add_up(const float *restrict factor, const float *restrict total,
                          float *restrict sum)
{
    for (int j = 0; j < COLS; j++)
        sum[j] = sum[j] * factor[j] + total[j];
}

static float base2(float scale)
{
    return scale * (float)M_LOG2E;
}

void attention_scores_softmax(enum dtype dtype, int keys, float scale, const float *s,
                              struct attention_running r, float *factor, void *p)
{
    float top[COLS], base[COLS], total[COLS] = {0};
    memcpy(top, r.max, sizeof top);
    raise_max(keys, s, top);
    rescale(scale, top, r.max, base, factor);
    if (dtype == DTYPE_F32)
        softmax_f32(keys, scale, s, base, total, p);
    else
        softmax_bf16(keys, base2(scale), s, base, total, p);
    add_up(factor, total, r.sum);
}

CLONES static void gradient_f32(int keys, float scale, const float *restrict s,
                                const float *restrict dp, const float *restrict lse,
                                const float *restrict delta, int64_t ld,
                                float *restrict p, float *restrict ds,
                                float *restrict steps)
{
    for (int u = 0; u < keys; u++, s += COLS, dp += COLS, p += ld, ds += ld)
        for (int j = 0; j < COLS; j++) {
            float x = vexp_below(s[j] * scale - lse[j]), d = x * (dp[j] - delta[j]);
            p[j] = x;
            ds[j] = d;
            steps[u * COLS + j] = d;
        }
}

/* A step of two keys. */
static inline void gradient_step(float scale2, const float *restrict s,
                                 const float *restrict dp, const float *restrict lse2,
                                 const float *restrict delta, uint16_t *restrict p0,
                                 uint16_t *restrict p1, uint16_t *restrict ds0,
                                 uint16_t *restrict ds1, uint32_t *restrict step)
{
    for (int j = 0; j < COLS; j++) {
        float x = vexp2(s[j] * scale2 - lse2[j]);
        float y = vexp2(s[COLS + j] * scale2 - lse2[j]);
        uint32_t dx = rounded(x * (dp[j] - delta[j]));
        uint32_t dy = rounded(y * (dp[COLS + j] - delta[j]));
        p0[j] = (uint16_t)(rounded(x) >> 16);
        p1[j] = (uint16_t)(rounded(y) >> 16);
        ds0[j] = (uint16_t)(dx >> 16);
        ds1[j] = (uint16_t)(dy >> 16);
        step[j] = pair(dx, dy);
    }
}

CLONES static void gradient_bf16(int keys, float scale2, const float *restrict s,
                                 const float *restrict dp, const float *restrict lse2,
                                 const float *restrict delta, int64_t ld,
                                 uint16_t *restrict p, uint16_t *restrict ds,
                                 uint32_t *restrict steps)
{
    for (int u = 0; u < keys; u += 2)
        gradient_step(scale2, s + u * COLS, dp + u * COLS, lse2, delta, p + u * ld,
                      p + (u + 1) * ld, ds + u * ld, ds + (u + 1) * ld,
                      steps + u / 2 * COLS);
}

void attention_scores_gradient(enum dtype dtype, int keys, float scale, const float *s,
                               const float *dp, const float *lse, const float *delta,
                               struct attention_gradients to)
{
    if (dtype == DTYPE_F32)
        gradient_f32(keys, scale, s, dp, lse, delta, to.ld, to.p, to.ds, to.ds_steps);
    else {
        float lse2[COLS];
        for (int j = 0; j < COLS; j++)
            lse2[j] = base2(lse[j]);
        gradient_bf16(keys, base2(scale), s, dp, lse2, delta, to.ld, to.p, to.ds,
                      to.ds_steps);
    }
}
