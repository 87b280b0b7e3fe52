/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/clones.h"
#include "src/model/attention_tile.h"
#include "src/model/lanes.h"

#include <string.h>

/* Arrays of bf16 are moved in words. */
typedef uint32_t word __attribute__((may_alias, aligned(2)));

enum { COLS = TILE_COLS, BLOCK = 8 };

/* BLOCK words. */
typedef uint32_t block __attribute__((vector_size(32)));
typedef float float_block __attribute__((vector_size(32)));
typedef uint16_t half_block __attribute__((vector_size(16)));

/* Line i of x becomes column i. */
static inline __attribute__((always_inline)) void block_transpose(block *x)
{
    block y[BLOCK], z[BLOCK];
    for (int i = 0; i < BLOCK; i += 2) { /* words of two lines by turns */
        y[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        y[i + 1] = __builtin_shufflevector(x[i], x[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < BLOCK; i += 4) /* pairs of words of four lines */
        for (int k = 0; k < 2; k++) {
            block a = y[i + k], b = y[i + k + 2];
            z[i + 2 * k] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
            z[i + 2 * k + 1] =
                __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < BLOCK / 2; i++) { /* halves */
        x[i] = __builtin_shufflevector(z[i], z[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        x[i + 4] = __builtin_shufflevector(z[i], z[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* A panel's rows of an array like q, the first `lanes` of them; the others are empty.
 */
struct lane_rows {
    int lanes;
    const char *row[COLS];
};

static struct lane_rows rows_of(const struct attention_job *j, int panel, const void *x,
                                int64_t stride)
{
    struct lane_rows l;
    int64_t bytes = (int64_t)dtype_bytes(j->d->dtype), dim = j->d->head_dim;
    int lane = panel * COLS, h = lane / j->rows, i = lane % j->rows;
    int64_t head = (int64_t)j->kv_head * j->shape.group + h;
    const char *row =
        (const char *)x + ((j->tile.begin + i) * stride + head * dim) * bytes;
    l.lanes = j->lanes - lane < COLS ? j->lanes - lane : COLS;
    for (int n = 0; n < l.lanes; n++, row += stride * bytes) {
        l.row[n] = row;
        if (++i == j->rows) { /* on to the first row of the next head */
            row += (dim - i * stride) * bytes;
            i = 0;
        }
    }
    return l;
}

void attention_pack_keys(const struct attention_job *j, struct attention_keys from,
                         void *to)
{
    size_t bytes = (size_t)j->d->head_dim * dtype_bytes(j->d->dtype);
    size_t stride = (size_t)from.stride * dtype_bytes(j->d->dtype);
    for (int u = 0; u < from.keys; u++)
        memcpy((char *)to + (size_t)u * bytes,
               (const char *)from.x + (size_t)u * stride, bytes);
    if (from.keys % 2)
        memset((char *)to + (size_t)from.keys * bytes, 0, bytes);
}

/* n words of the elements of two bf16 rows; second may be NULL: zeros. */
CLONES static void interleave(int n, const uint16_t *restrict first,
                              const uint16_t *restrict second, uint32_t *restrict to)
{
    if (second)
        for (int e = 0; e < n; e++)
            to[e] = (uint32_t)first[e] | (uint32_t)second[e] << 16;
    else
        for (int e = 0; e < n; e++)
            to[e] = first[e];
}

void attention_pack_key_steps(const struct attention_job *j, struct attention_keys from,
                              void *to)
{
    int dim = j->d->head_dim, wide = j->shape.wide, step = j->shape.step;
    uint32_t *line = to;
    for (int u = 0; u < from.keys; u += step, line += wide) {
        if (step == 1) {
            memcpy(line, (const float *)from.x + u * from.stride,
                   (size_t)dim * sizeof(float));
        } else {
            const uint16_t *x = (const uint16_t *)from.x + u * from.stride;
            interleave(dim, x, u + 1 < from.keys ? x + from.stride : NULL, line);
        }
        memset(line + dim, 0, (size_t)(wide - dim) * sizeof *line);
    }
}

/* Columns of one panel; rows beyond the lanes are zeros. */
CLONES static void transpose(const struct lane_rows *l, int words,
                             uint32_t *restrict to)
{
    for (int i = 0; i < COLS; i += BLOCK) {
        int whole = i + BLOCK <= l->lanes ? words / BLOCK * BLOCK : 0;
        for (int e = 0; e < whole; e += BLOCK) {
            block x[BLOCK];
            for (int k = 0; k < BLOCK; k++)
                memcpy(&x[k], l->row[i + k] + 4 * e, sizeof x[k]);
            block_transpose(x);
            for (int k = 0; k < BLOCK; k++)
                memcpy(to + (e + k) * COLS + i, &x[k], sizeof x[k]);
        }
        for (int k = i; k < i + BLOCK; k++)
            for (int e = whole; e < words; e++)
                to[e * COLS + k] = k < l->lanes ? ((const word *)l->row[k])[e] : 0;
    }
}

void attention_pack_lanes(const struct attention_job *j, const void *x, int64_t stride,
                          void *to)
{
    for (int n = 0; n < j->panels; n++) {
        struct lane_rows l = rows_of(j, n, x, stride);
        transpose(&l, j->shape.words,
                  (uint32_t *)to + (int64_t)n * j->shape.words * COLS);
    }
}

/* Elements [at, at + COLS) of a step of rows, zeros beyond dim. */
static void slab_line(const struct attention_job *j, const struct lane_rows *l,
                      int lane, int at, uint32_t *to)
{
    int n = j->d->head_dim - at < COLS ? j->d->head_dim - at : COLS;
    if (lane >= l->lanes)
        n = 0;
    else if (j->shape.step == 1)
        memcpy(to, (const float *)(const void *)l->row[lane] + at,
               (size_t)n * sizeof(float));
    else
        interleave(n, (const uint16_t *)(const void *)l->row[lane] + at,
                   lane + 1 < l->lanes
                       ? (const uint16_t *)(const void *)l->row[lane + 1] + at
                       : NULL,
                   to);
    memset(to + n, 0, (size_t)(COLS - n) * sizeof *to);
}

void attention_pack_lane_steps(const struct attention_job *j, const void *x,
                               int64_t stride, void *to)
{
    int step = j->shape.step;
    int64_t slab = (int64_t)j->panels * COLS / step * COLS;
    for (int n = 0; n < j->panels; n++) {
        struct lane_rows l = rows_of(j, n, x, stride);
        for (int i = 0; i < COLS; i += step)
            for (int c = 0; c < j->shape.slabs; c++)
                slab_line(j, &l, i, c * COLS,
                          (uint32_t *)to + c * slab +
                              (int64_t)(n * COLS + i) / step * COLS);
    }
}

CLONES static float dot_f32(const float *x, const float *y, int n)
{
    return lanes_dot(x, y, n);
}

static inline float widened(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

CLONES static float dot_bf16(const uint16_t *x, const uint16_t *y, int n)
{
    float lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] += widened(x[i + k]) * widened(y[i + k]);
    for (int k = 0; k < n - i; k++)
        lane[k] += widened(x[i + k]) * widened(y[i + k]);
    return lanes_sum(lane);
}

void attention_dot_lanes(const struct attention_job *j, const void *x, const void *y,
                         int64_t stride, float *dot)
{
    int dim = j->d->head_dim;
    for (int n = 0; n < j->panels; n++, dot += COLS) {
        struct lane_rows a = rows_of(j, n, x, stride), b = rows_of(j, n, y, stride);
        for (int i = 0; i < a.lanes; i++) {
            const void *p = a.row[i], *q = b.row[i];
            dot[i] = j->shape.step == 1 ? dot_f32(p, q, dim) : dot_bf16(p, q, dim);
        }
        for (int i = a.lanes; i < COLS; i++)
            dot[i] = 0.0f;
    }
}

static inline void put(enum dtype t, char *row, int e, float x)
{
    if (t == DTYPE_F32)
        ((float *)(void *)row)[e] = x;
    else
        ((uint16_t *)(void *)row)[e] = attention_round(x);
}

/* One panel: column i of from [dim][COLS] times factor[i] into row i. bf16 is rounded
 * as by attention_round. */
static inline __attribute__((always_inline)) void
unpack(const enum dtype t, const struct lane_rows *l, int dim, const float *from,
       const float *factor, char *const *to)
{
    for (int i = 0; i < l->lanes; i += BLOCK) {
        int whole = i + BLOCK <= l->lanes ? dim / BLOCK * BLOCK : 0;
        for (int e = 0; e < whole; e += BLOCK) {
            block x[BLOCK];
            for (int k = 0; k < BLOCK; k++) {
                float_block line, times;
                memcpy(&line, from + (e + k) * COLS + i, sizeof line);
                memcpy(&times, factor + i, sizeof times);
                x[k] = (block)(line * times);
            }
            block_transpose(x);
            for (int k = 0; k < BLOCK; k++) {
                half_block half = __builtin_convertvector(
                    (x[k] + 0x7fffu + (x[k] >> 16 & 1u)) >> 16, half_block);
                if (t == DTYPE_F32)
                    memcpy(to[i + k] + 4 * e, &x[k], sizeof x[k]);
                else
                    memcpy(to[i + k] + 2 * e, &half, sizeof half);
            }
        }
        for (int k = i; k < l->lanes && k < i + BLOCK; k++)
            for (int e = whole; e < dim; e++)
                put(t, to[k], e, from[e * COLS + k] * factor[k]);
    }
}

CLONES static void unpack_f32(const struct lane_rows *l, int dim, const float *from,
                              const float *factor, char *const *to)
{
    unpack(DTYPE_F32, l, dim, from, factor, to);
}

CLONES static void unpack_bf16(const struct lane_rows *l, int dim, const float *from,
                               const float *factor, char *const *to)
{
    unpack(DTYPE_BF16, l, dim, from, factor, to);
}

void attention_unpack_lanes(const struct attention_job *j, const float *from,
                            const float *factor, int64_t stride, void *x)
{
    int dim = j->d->head_dim;
    for (int n = 0; n < j->panels; n++, factor += COLS) {
        struct lane_rows l = rows_of(j, n, x, stride);
        char *to[COLS];
        for (int i = 0; i < l.lanes; i++)
            to[i] = (char *)x + (l.row[i] - (const char *)x);
        if (j->shape.step == 1)
            unpack_f32(&l, dim, from, factor, to);
        else
            unpack_bf16(&l, dim, from, factor, to);
        from += (int64_t)j->shape.wide * COLS;
    }
}
