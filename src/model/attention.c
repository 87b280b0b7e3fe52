/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/attention.h"

#include "src/base/check.h"
#include "src/base/clones.h"
#include "src/base/tally.h"
#include "src/model/lanes.h"
#include "src/model/vexp.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Query rows that a tile stacks up, and the bounds of its length. */
enum { STACKED = 256, TILE_MAX = 64, TILE_MIN = 16 };

static int tile_rows(const struct attention_dims *d)
{
    int n = STACKED / (d->heads / d->kv_heads);
    return n > TILE_MAX ? TILE_MAX : n < TILE_MIN ? TILE_MIN : n;
}

static int64_t padded(int64_t n)
{
    return (n + LANES - 1) / LANES * LANES;
}

/* One tile of one kv head on one thread: which rows, which keys, and the scratch. */
struct job {
    const struct gemm *g;
    const struct attention_dims *d;
    int begin, rows; /* query rows of each head */
    int key, keys;   /* first row that a query sees, and their number */
    int kv_head;
    int head, stacked; /* first query head; row h x rows + i is head h's row i */
    int64_t ld;        /* of p and dp */
    float *p, *dp;     /* [stacked, ld] scores, then probabilities; gradients */
    float *q, *o;      /* [stacked, E] packed queries; outputs or their gradient */
    float *factor;     /* [stacked] */
};

/* Floats of each array of a thread's scratch, in the order p, q, o, factor, dp. */
struct sizes {
    int64_t scores, packed, stacked;
};

static struct sizes largest(const struct attention_dims *d, int max_length)
{
    int64_t keys = max_length, rows = tile_rows(d);
    if (d->window && keys > d->window + rows - 1)
        keys = d->window + rows - 1;
    int64_t stacked = rows * (d->heads / d->kv_heads);
    return (struct sizes){stacked * padded(keys), padded(stacked * d->head_dim),
                          padded(stacked)};
}

void attention_work_lay_out(struct attention_work *w, struct arena *a,
                            const struct attention_dims *d, int max_rows,
                            int max_length, int threads, bool training)
{
    struct sizes n = largest(d, max_length);
    w->threads = threads;
    w->max_length = max_length;
    w->thread_floats = (training ? 2 : 1) * n.scores + 2 * n.packed + n.stacked;
    w->tile = arena_take(a, max_rows, sizeof *w->tile);
    w->scratch = arena_floats(a, threads * w->thread_floats);
}

static struct job job_of(const struct gemm *g, const struct attention_dims *d,
                         const struct attention_work *w, struct attention_tile tile,
                         int kv_head)
{
    int group = d->heads / d->kv_heads, key = tile.segment_begin;
    if (d->window && tile.begin - d->window + 1 > key)
        key = tile.begin - d->window + 1;
    struct job j = {.g = g,
                    .d = d,
                    .begin = tile.begin,
                    .rows = tile.end - tile.begin,
                    .key = key,
                    .keys = tile.end - key,
                    .head = kv_head * group,
                    .stacked = (tile.end - tile.begin) * group,
                    .ld = padded(tile.end - key)};
    j.kv_head = kv_head;
    struct sizes n = largest(d, w->max_length);
    j.p = w->scratch + omp_get_thread_num() * w->thread_floats;
    j.q = j.p + n.scores;
    j.o = j.q + n.packed;
    j.factor = j.o + n.packed;
    j.dp = j.factor + n.stacked;
    return j;
}

/* Columns [from, to) of p are what the tile's row i sees. */
static void visible(const struct job *j, int i, int *from, int *to)
{
    int row = j->begin + i, first = row - j->d->window + 1;
    *from = j->d->window && first > j->key ? first - j->key : 0;
    *to = row - j->key + 1;
}

/* Where packed row r lies in arrays shaped like q. */
static int64_t unpacked_at(const struct job *j, int r, int64_t stride)
{
    int h = r / j->rows, i = r % j->rows;
    return (j->begin + i) * stride + (int64_t)(j->head + h) * j->d->head_dim;
}

/* Where the first key lies in arrays shaped like k. */
static int64_t key_at(const struct job *j, int64_t stride)
{
    return j->key * stride + (int64_t)j->kv_head * j->d->head_dim;
}

static int64_t dense(const struct job *j)
{
    return (int64_t)j->d->heads * j->d->head_dim;
}

CLONES static void scale_row(const float *restrict from, float factor, int n,
                             float *restrict to)
{
    for (int e = 0; e < n; e++)
        to[e] = from[e] * factor;
}

static void pack(const struct job *j, const float *x, int64_t stride, float factor,
                 float *packed)
{
    int dim = j->d->head_dim;
    for (int r = 0; r < j->stacked; r++)
        scale_row(x + unpacked_at(j, r, stride), factor, dim,
                  packed + (int64_t)r * dim);
}

/* p = q k^T. */
static void scores(const struct job *j, const struct attention_input *x)
{
    int dim = j->d->head_dim;
    gemm_f32_tile(j->g, GEMM_N, GEMM_T, j->stacked, j->keys, dim, j->q, dim,
                  (const float *)x->k + key_at(j, x->k_stride), x->k_stride, 0.0f, j->p,
                  j->ld);
}

CLONES static float row_max(const float *s, int n)
{
    return lanes_max(s, n);
}

CLONES static void row_exp(float *s, float shift, int n)
{
    for (int u = 0; u < n; u++)
        s[u] = vexp(s[u] - shift);
}

CLONES static double row_total(const float *s, int n)
{
    return lanes_total(s, n);
}

static void clear_outside(const struct job *j, float *row, int from, int to)
{
    memset(row, 0, (size_t)from * sizeof *row);
    memset(row + to, 0, (size_t)(j->keys - to) * sizeof *row);
}

static void forward_tile(const struct job *j, const struct attention_input *x,
                         float *out, float *lse)
{
    int dim = j->d->head_dim;
    pack(j, x->q, x->q_stride, 1.0f / sqrtf((float)dim), j->q);
    scores(j, x);
    for (int r = 0; r < j->stacked; r++) {
        float *row = j->p + r * j->ld;
        int h = r / j->rows, i = r % j->rows, from, to;
        visible(j, i, &from, &to);
        clear_outside(j, row, from, to);
        float max = row_max(row + from, to - from);
        row_exp(row + from, max, to - from);
        double sum = row_total(row + from, to - from);
        j->factor[r] = (float)(1.0 / sum);
        if (lse)
            lse[(int64_t)(j->begin + i) * j->d->heads + j->head + h] =
                (float)((double)max + log(sum));
    }
    gemm_f32_tile(j->g, GEMM_N, GEMM_N, j->stacked, dim, j->keys, j->p, j->ld,
                  (const float *)x->v + key_at(j, x->v_stride), x->v_stride, 0.0f, j->o,
                  dim);
    for (int r = 0; r < j->stacked; r++)
        scale_row(j->o + (int64_t)r * dim, j->factor[r], dim,
                  out + unpacked_at(j, r, dense(j)));
}

static int team(const struct attention_work *w)
{
    int threads = omp_get_max_threads();
    return threads < w->threads ? threads : w->threads;
}

static struct attention_tile tile_at(const struct attention_dims *d, int segment_begin,
                                     int segment_end, int begin)
{
    int n = tile_rows(d);
    int end = segment_end - begin < n ? segment_end : begin + n;
    return (struct attention_tile){segment_begin, begin, end};
}

void attention_forward(const struct gemm *g, const struct attention_dims *d,
                       const struct attention_work *w, const struct rows *rows,
                       const struct attention_input *x, void *out, float *lse)
{
    CHECK(d->dtype == DTYPE_F32, "attention: %s", dtype_name(d->dtype));
    double begin_s = tally_begin(gemm_tally(g));
    int tiles = 0;
    for (int s = 0; s < rows->segments; s++) {
        int first = rows->segment_begin[s], end = rows->segment_begin[s + 1];
        CHECK(end - first <= w->max_length,
              "attention: a segment of %d rows, %d planned", end - first,
              w->max_length);
        for (int begin = first; begin < end; begin = w->tile[tiles++].end)
            w->tile[tiles] = tile_at(d, first, end, begin);
    }
    /* Backwards: a segment's last tiles see most keys and should not come last. */
#pragma omp parallel for schedule(dynamic) num_threads(team(w))
    for (int64_t n = (int64_t)tiles * d->kv_heads - 1; n >= 0; n--) {
        struct job j =
            job_of(g, d, w, w->tile[n / d->kv_heads], (int)(n % d->kv_heads));
        forward_tile(&j, x, out, lse);
    }
    tally_end(gemm_tally(g), TALLY_ATTENTION, begin_s);
}

CLONES static float row_dot(const float *x, const float *y, int n)
{
    return lanes_dot(x, y, n);
}

/* dp = p (dp - delta). */
CLONES static void row_gradient(const float *restrict p, float delta, int n,
                                float *restrict dp)
{
    for (int u = 0; u < n; u++)
        dp[u] = p[u] * (dp[u] - delta);
}

/* p anew from the kept lse, and D into factor. */
static void probabilities_again(const struct job *j, const float *out, const float *lse)
{
    int dim = j->d->head_dim;
    for (int r = 0; r < j->stacked; r++) {
        float *row = j->p + r * j->ld;
        int h = r / j->rows, i = r % j->rows, from, to;
        visible(j, i, &from, &to);
        clear_outside(j, row, from, to);
        row_exp(row + from, lse[(int64_t)(j->begin + i) * j->d->heads + j->head + h],
                to - from);
        j->factor[r] =
            row_dot(j->o + (int64_t)r * dim, out + unpacked_at(j, r, dense(j)), dim);
    }
}

static void score_gradients(const struct job *j)
{
    for (int r = 0; r < j->stacked; r++) {
        float *row = j->dp + r * j->ld;
        int from, to;
        visible(j, r % j->rows, &from, &to);
        clear_outside(j, row, from, to);
        row_gradient(j->p + r * j->ld + from, j->factor[r], to - from, row + from);
    }
}

static void backward_tile(const struct job *j, const struct attention_input *x,
                          const float *out, const float *lse, const float *dout,
                          const struct attention_gradient *dx)
{
    int dim = j->d->head_dim;
    float scale = 1.0f / sqrtf((float)dim);
    const float *k = (const float *)x->k + key_at(j, x->k_stride);
    const float *v = (const float *)x->v + key_at(j, x->v_stride);
    float *dk = (float *)dx->dk + key_at(j, dx->dk_stride);
    float *dv = (float *)dx->dv + key_at(j, dx->dv_stride);
    pack(j, x->q, x->q_stride, scale, j->q);
    pack(j, dout, dense(j), 1.0f, j->o);
    scores(j, x);
    probabilities_again(j, out, lse);
    gemm_f32_tile(j->g, GEMM_T, GEMM_N, j->keys, dim, j->stacked, j->p, j->ld, j->o,
                  dim, 1.0f, dv, dx->dv_stride);
    gemm_f32_tile(j->g, GEMM_N, GEMM_T, j->stacked, j->keys, dim, j->o, dim, v,
                  x->v_stride, 0.0f, j->dp, j->ld);
    score_gradients(j);
    gemm_f32_tile(j->g, GEMM_T, GEMM_N, j->keys, dim, j->stacked, j->dp, j->ld, j->q,
                  dim, 1.0f, dk, dx->dk_stride);
    gemm_f32_tile(j->g, GEMM_N, GEMM_N, j->stacked, dim, j->keys, j->dp, j->ld, k,
                  x->k_stride, 0.0f, j->q, dim);
    for (int r = 0; r < j->stacked; r++)
        scale_row(j->q + (int64_t)r * dim, scale, dim,
                  (float *)dx->dq + unpacked_at(j, r, dx->dq_stride));
}

void attention_backward(const struct gemm *g, const struct attention_dims *d,
                        const struct attention_work *w, const struct rows *rows,
                        const struct attention_input *x, const void *out,
                        const float *lse, const void *dout,
                        const struct attention_gradient *dx)
{
    CHECK(d->dtype == DTYPE_F32, "attention: %s", dtype_name(d->dtype));
    double begin_s = tally_begin(gemm_tally(g));
    size_t head_bytes = (size_t)d->head_dim * sizeof(float);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(team(w))
    for (int s = 0; s < rows->segments; s++)
        for (int kv_head = 0; kv_head < d->kv_heads; kv_head++) {
            int first = rows->segment_begin[s], end = rows->segment_begin[s + 1];
            int64_t head = (int64_t)kv_head * d->head_dim;
            for (int t = first; t < end; t++) {
                memset((float *)dx->dk + t * dx->dk_stride + head, 0, head_bytes);
                memset((float *)dx->dv + t * dx->dv_stride + head, 0, head_bytes);
            }
            for (int begin = first; begin < end;) {
                struct attention_tile tile = tile_at(d, first, end, begin);
                struct job j = job_of(g, d, w, tile, kv_head);
                backward_tile(&j, x, out, lse, dout, dx);
                begin = tile.end;
            }
        }
    tally_end(gemm_tally(g), TALLY_ATTENTION, begin_s);
}
