/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/clones.h"
#include "src/base/tally.h"
#include "src/model/attention_scores.h"
#include "src/model/attention_tile.h"

#include <sched.h>
#include <string.h>

enum { COLS = TILE_COLS, KEYS = ATTENTION_KEYS, SPINS = 1000, NOBODY = -1 };

static const float ones[COLS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

/* One pass's arguments. */
struct backward {
    const struct attention_work *w;
    const void *out, *dout;
    const float *lse;
    const struct attention_gradient *dx;
};

/* Where one gradient of the keys is summed, and where it goes in the end. */
struct key_gradient {
    const float *part; /* [slabs][KEYS][COLS] */
    float *sum;        /* of the first key, and from key to key */
    int64_t sum_stride;
    void *out;
    int64_t out_stride;
    float scale;
};

/* held: so many of the keys have a sum; the others' is begun. */
CLONES static void add_tile(int keys, int dim, int held, const float *restrict part,
                            float *restrict sum, int64_t stride)
{
    for (int at = 0; at < dim; at += COLS, part += KEYS * COLS, sum += COLS)
        for (int u = 0; u < keys; u++) {
            const float *from = part + u * COLS;
            float *to = sum + u * stride;
            int n = dim - at < COLS ? dim - at : COLS;
            if (u < held)
                for (int e = 0; e < n; e++)
                    to[e] += from[e];
            else
                for (int e = 0; e < n; e++)
                    to[e] = from[e];
        }
}

CLONES static void scale_tile(int keys, int dim, float scale, float *x, int64_t stride)
{
    for (int u = 0; u < keys; u++, x += stride)
        for (int e = 0; e < dim; e++)
            x[e] *= scale;
}

CLONES static void round_tile(int keys, int dim, float scale, const float *restrict x,
                              int64_t stride, uint16_t *restrict to, int64_t to_stride)
{
    for (int u = 0; u < keys; u++, x += stride, to += to_stride)
        for (int e = 0; e < dim; e++)
            to[e] = attention_round(x[e] * scale);
}

static void add_part(const struct attention_job *j, int keys, int held, bool last,
                     const struct key_gradient *g)
{
    int dim = j->d->head_dim;
    add_tile(keys, dim, held, g->part, g->sum, g->sum_stride);
    if (!last)
        return;
    if (j->d->dtype == DTYPE_F32)
        scale_tile(keys, dim, g->scale, g->sum, g->sum_stride);
    else
        round_tile(keys, dim, g->scale, g->sum, g->sum_stride, g->out, g->out_stride);
}

/* In fp32 the result itself holds the sum. */
static struct key_gradient key_gradient(const struct attention_job *j, int row,
                                        const float *part, float *sum, void *out,
                                        int64_t stride, float scale)
{
    int64_t dim = j->d->head_dim, at = j->kv_head * dim;
    struct key_gradient g = {.part = part, .out_stride = stride, .scale = scale};
    if (j->d->dtype == DTYPE_F32) {
        g.sum = (float *)out + row * stride + at;
        g.sum_stride = stride;
    } else {
        g.out = (uint16_t *)out + row * stride + at;
        g.sum_stride = j->d->kv_heads * dim;
        g.sum = sum + row * g.sum_stride + at;
    }
    return g;
}

/* Begin of the query tile of the segment that has the row. */
static int tile_of(const struct attention_job *j, const struct attention_span *s,
                   int64_t row)
{
    int n = j->shape.tile_rows;
    return s->begin + (int)(row - s->begin) / n * n;
}

/* Begin of the last query tile of the segment that sees a key tile with that last
 * place; NOBODY: none does. */
static int last_tile(const struct attention_job *j, const struct attention_span *s,
                     int place)
{
    int64_t row = (int64_t)place + j->d->window - 1;
    if (!j->d->window || row >= s->end)
        row = s->end - 1;
    return row < s->begin ? NOBODY : tile_of(j, s, row);
}

/* Begin of the last query tile of segment s, not of a branch of it, that sees its key
 * tile from that row on. */
static int last_own_tile(const struct attention_job *j, const struct attention_span *s,
                         int row)
{
    return last_tile(j, s, row + KEYS < s->end ? row + KEYS - 1 : s->end - 1);
}

/* How many of the tile's own keys from that row on a branch of the segment sees, and
 * so has added to before any tile of the segment does. */
static int held_by_branch(const struct attention_job *j, int row)
{
    int s = j->tile.segment + 1;
    if (s == j->of->segments || !j->of->prefix)
        return 0;
    struct attention_span branch = attention_span_of(j->of, s);
    int keys = branch.prefix - (row - j->own.begin);
    if (keys > KEYS)
        keys = KEYS;
    int place = branch.begin - branch.prefix + (row - j->own.begin) + keys - 1;
    return keys > 0 && last_tile(j, &branch, place) != NOBODY ? keys : 0;
}

/* Where a tile stands among those that add to a tile of keys. */
struct turn {
    int held; /* of its keys, so many have been added to before */
    int next; /* begin of the query tile that adds next; NOBODY: this is the last */
};

static struct turn turn_at_own(const struct attention_job *j, struct attention_keys k)
{
    struct turn t = {k.keys, j->tile.begin - j->shape.tile_rows};
    if (j->tile.begin == last_own_tile(j, &j->own, k.row))
        t.held = held_by_branch(j, k.row);
    if (j->tile.begin == tile_of(j, &j->own, k.row))
        t.next = NOBODY;
    return t;
}

static struct turn turn_at_prefix(const struct attention_job *j,
                                  struct attention_keys k)
{
    struct turn t = {k.keys, j->tile.begin - j->shape.tile_rows};
    if (j->tile.begin == last_tile(j, &j->own, k.key + k.keys - 1))
        t.held = 0;
    if (j->tile.begin == j->own.begin) {
        struct attention_span before = attention_span_of(j->of, j->tile.segment - 1);
        t.next = last_own_tile(j, &before, k.row);
    }
    return t;
}

/* Adds the tile's part to dk and dv after the tiles of later rows, which began before
 * (see attention_backward): the wait ends. A prefix's keys are added to by its branch's
 * tiles, then by those of their own segment. */
static void add_in_turn(const struct attention_job *j, const struct backward *b,
                        struct attention_keys k)
{
    atomic_int *turn = b->w->turn + (int64_t)j->kv_head * b->w->max_rows + k.row;
    struct turn t = k.row < j->own.begin ? turn_at_prefix(j, k) : turn_at_own(j, k);
    struct key_gradient dk = key_gradient(j, k.row, j->scratch.dk, b->w->dk, b->dx->dk,
                                          b->dx->dk_stride, j->shape.scale);
    struct key_gradient dv = key_gradient(j, k.row, j->scratch.dv, b->w->dv, b->dx->dv,
                                          b->dx->dv_stride, 1.0f);
    if (t.held)
        for (int n = 0;
             atomic_load_explicit(turn, memory_order_acquire) != j->tile.begin; n++)
            if (n >= SPINS)
                sched_yield();
    add_part(j, k.keys, t.held, t.next == NOBODY, &dk);
    add_part(j, k.keys, t.held, t.next == NOBODY, &dv);
    if (t.next != NOBODY)
        atomic_store_explicit(turn, t.next, memory_order_release);
}

/* p and ds of one panel, and its part of dq. Returns the keys that it has to do with.
 */
static int backward_panel(const struct attention_job *j, int panel,
                          struct attention_keys from)
{
    const struct attention_scratch *s = &j->scratch;
    const struct attention_shape *n = &j->shape;
    int lane = panel * COLS, lanes = j->panels * COLS;
    size_t bytes = dtype_bytes(j->d->dtype);
    struct attention_gradients to = {.p = (char *)s->p_rows + (size_t)lane * bytes,
                                     .ds = (char *)s->ds_rows + (size_t)lane * bytes,
                                     .ld = lanes,
                                     .ds_steps = s->ds_steps};
    bool border;
    int keys = attention_panel_keys(j, panel, from, &border);
    for (int u = keys; u < from.keys; u++) {
        size_t at = (size_t)u * (size_t)lanes * bytes;
        memset((char *)to.p + at, 0, COLS * bytes);
        memset((char *)to.ds + at, 0, COLS * bytes);
    }
    if (!keys)
        return 0;
    int whole = attention_whole(keys);
    int64_t at = (int64_t)lane * n->words;
    float *dq = s->o + (int64_t)lane * n->wide;
    j->product(whole, n->words, s->k, n->words, 1, (const float *)s->q + at, NULL,
               s->s);
    j->product(whole, n->words, s->v, n->words, 1, (const float *)s->dout + at, NULL,
               s->dp);
    if (border)
        attention_mask_panel(j, panel, from, keys, s->s);
    attention_scores_gradient(j->d->dtype, keys, n->scale, s->s, s->dp, s->lse + lane,
                              s->delta + lane, to);
    j->product(n->wide, keys / n->step, s->k_steps, 1, n->wide, s->ds_steps,
               s->begun[panel] ? ones : NULL, dq);
    s->begun[panel] = true;
    return keys;
}

/* One slab of dk or dv: lanes of `lines` times rows. The tile's queries have to do with
 * the first `most` of its keys. */
static void key_part(const struct attention_job *j, int most, int keys,
                     const void *lines, const void *rows, float *part)
{
    int steps = j->panels * COLS / j->shape.step;
    j->product(attention_whole(most), steps, lines, steps, 1, rows, NULL, part);
    if (most < keys)
        memset(part + most * COLS, 0, (size_t)(keys - most) * COLS * sizeof *part);
}

static void backward_keys(const struct attention_job *j, const struct backward *b,
                          int tile)
{
    const struct attention_scratch *s = &j->scratch;
    const struct attention_input *x = j->x;
    struct attention_keys k = attention_keys_of(j, tile, x->k, x->k_stride);
    attention_pack_keys(j, k, s->k);
    attention_pack_key_steps(j, k, s->k_steps);
    attention_pack_keys(j, attention_keys_of(j, tile, x->v, x->v_stride), s->v);
    int most = 0;
    for (int panel = 0; panel < j->panels; panel++) {
        int keys = backward_panel(j, panel, k);
        most = keys > most ? keys : most;
    }
    int steps = j->panels * COLS / j->shape.step;
    for (int c = 0; c < j->shape.slabs; c++) {
        const float *dout = (const float *)s->dout_steps + (int64_t)c * steps * COLS;
        const float *q = (const float *)s->q_steps + (int64_t)c * steps * COLS;
        key_part(j, most, k.keys, s->p_rows, dout, s->dv + (int64_t)c * KEYS * COLS);
        key_part(j, most, k.keys, s->ds_rows, q, s->dk + (int64_t)c * KEYS * COLS);
    }
    add_in_turn(j, b, k);
}

static void backward_tile(const struct attention_job *j, const struct backward *b)
{
    const struct attention_scratch *s = &j->scratch;
    const struct attention_input *x = j->x;
    int heads = j->d->heads, head = j->kv_head * j->shape.group, begin, end;
    int64_t dense = (int64_t)heads * j->d->head_dim;
    attention_pack_lanes(j, x->q, x->q_stride, s->q);
    attention_pack_lanes(j, b->dout, dense, s->dout);
    attention_pack_lane_steps(j, x->q, x->q_stride, s->q_steps);
    attention_pack_lane_steps(j, b->dout, dense, s->dout_steps);
    attention_dot_lanes(j, b->dout, b->out, dense, s->delta);
    memset(s->lse, 0, (size_t)j->panels * COLS * sizeof *s->lse);
    for (int r = 0; r < j->lanes; r++)
        s->lse[r] =
            b->lse[(int64_t)(j->tile.begin + r % j->rows) * heads + head + r / j->rows];
    memset(s->begun, 0, (size_t)j->panels * sizeof *s->begun);
    attention_key_tiles(j, &begin, &end);
    for (int n = begin; n < end; n++)
        backward_keys(j, b, n);
    for (int r = 0; r < j->lanes; r++)
        s->lse[r] = j->shape.scale;
    attention_unpack_lanes(j, s->o, s->lse, b->dx->dq_stride, b->dx->dq);
}

void attention_backward(const struct gemm *g, const struct attention_dims *d,
                        const struct attention_work *w, const struct rows *rows,
                        const struct attention_input *x, const void *out,
                        const float *lse, const void *dout,
                        const struct attention_gradient *dx)
{
    struct backward b = {w, out, dout, lse, dx};
    double begin_s = tally_begin(gemm_tally(g));
    int64_t jobs = (int64_t)attention_list_tiles(w, d, rows) * d->kv_heads;
    for (int64_t n = 0; n < (int64_t)d->kv_heads * w->max_rows; n++)
        atomic_store_explicit(w->turn + n, NOBODY, memory_order_relaxed);
#pragma omp parallel num_threads(attention_team(w))
    {
        struct attention_job j;
        attention_job_init(&j, g, d, w, rows, x, true);
        /* Jobs are handed out in rising order, so the lowest that is not done is being
         * done and waits for none: nobody waits for ever. */
#pragma omp for schedule(monotonic : dynamic)
        for (int64_t n = jobs - 1; n >= 0; n--) {
            attention_job_start(&j, w->tile[n / d->kv_heads], (int)(n % d->kv_heads));
            backward_tile(&j, &b);
        }
    }
    tally_end(gemm_tally(g), TALLY_ATTENTION, begin_s);
}
