/* SPDX-License-Identifier: Apache-2.0 */
#include "src/model/attention_tile.h"

#include "src/base/check.h"
#include "src/model/attention_scores.h"

#include <math.h>
#include <omp.h>

/* Queries of a tile: enough that packing a tile of keys and adding to dk and dv cost
 * little beside the products, few enough that the tile stays in a core's own cache. */
enum { LANES_WANTED = 256 };

struct attention_shape attention_shape_of(const struct attention_dims *d)
{
    struct attention_shape s = {.group = d->heads / d->kv_heads,
                                .step = d->dtype == DTYPE_F32 ? 1 : 2,
                                .scale = 1.0f / sqrtf((float)d->head_dim)};
    int rows = LANES_WANTED / s.group / TILE_COLS * TILE_COLS;
    s.tile_rows = rows > 0 ? rows : TILE_COLS;
    s.words = d->head_dim / s.step;
    s.wide = attention_whole(d->head_dim);
    s.slabs = (d->head_dim + TILE_COLS - 1) / TILE_COLS;
    return s;
}

void attention_scratch_lay_out(struct attention_scratch *s, struct arena *a,
                               const struct attention_dims *d, int max_length,
                               bool backward)
{
    struct attention_shape n = attention_shape_of(d);
    int rows = max_length < n.tile_rows ? max_length : n.tile_rows;
    int panels = (rows * n.group + TILE_COLS - 1) / TILE_COLS;
    int lanes = panels * TILE_COLS, keys = ATTENTION_KEYS;
    int panel_scores = keys * TILE_COLS;
    s->max_lanes = lanes;
    s->q = arena_floats(a, (int64_t)lanes * n.words);
    s->s = arena_floats(a, panel_scores);
    s->o = arena_floats(a, (int64_t)lanes * n.wide);
    s->k = arena_floats(a, (int64_t)keys * n.words);
    s->v = arena_floats(a, backward ? (int64_t)keys * n.words
                                    : (int64_t)keys / n.step * n.wide);
    s->begun = arena_take(a, panels, sizeof *s->begun);
    s->first = arena_take(a, lanes, sizeof *s->first);
    s->last = arena_take(a, lanes, sizeof *s->last);
    if (!backward) {
        s->p = arena_floats(a, panel_scores / n.step);
        s->max = arena_floats(a, lanes);
        s->sum = arena_floats(a, lanes);
        return;
    }
    int64_t steps = (int64_t)n.slabs * TILE_COLS * lanes / n.step;
    s->dout = arena_floats(a, (int64_t)lanes * n.words);
    s->q_steps = arena_floats(a, steps);
    s->dout_steps = arena_floats(a, steps);
    s->k_steps = arena_floats(a, (int64_t)keys / n.step * n.wide);
    s->dp = arena_floats(a, panel_scores);
    s->p_rows = arena_floats(a, (int64_t)keys * lanes / n.step);
    s->ds_rows = arena_floats(a, (int64_t)keys * lanes / n.step);
    s->ds_steps = arena_floats(a, panel_scores / n.step);
    s->dk = arena_floats(a, (int64_t)n.slabs * panel_scores);
    s->dv = arena_floats(a, (int64_t)n.slabs * panel_scores);
    s->lse = arena_floats(a, lanes);
    s->delta = arena_floats(a, lanes);
}

void attention_work_lay_out(struct attention_work *w, struct arena *a,
                            const struct attention_dims *d, int max_rows,
                            int max_length, int threads, bool training)
{
    struct arena forward = {0}, backward = {0};
    struct attention_scratch s;
    CHECK(d->heads % d->kv_heads == 0 && d->head_dim % 2 == 0, "heads %d/%d of %d",
          d->heads, d->kv_heads, d->head_dim);
    CHECK(d->dtype == DTYPE_F32 || d->dtype == DTYPE_BF16, "%s", dtype_name(d->dtype));
    attention_scratch_lay_out(&s, &forward, d, max_length, false);
    if (training)
        attention_scratch_lay_out(&s, &backward, d, max_length, true);
    *w = (struct attention_work){
        .threads = threads,
        .max_rows = max_rows,
        .max_length = max_length,
        .thread_bytes = forward.used > backward.used ? forward.used : backward.used};
    w->tile = arena_take(a, max_rows, sizeof *w->tile);
    w->scratch = arena_take(a, threads * w->thread_bytes, 1);
    if (!training)
        return;
    w->turn = arena_take(a, (int64_t)d->kv_heads * max_rows, sizeof *w->turn);
    if (d->dtype == DTYPE_F32)
        return;
    int64_t sums = (int64_t)max_rows * d->kv_heads * d->head_dim;
    w->dk = arena_floats(a, sums);
    w->dv = arena_floats(a, sums);
}

int attention_team(const struct attention_work *w)
{
    int threads = omp_get_max_threads();
    return threads < w->threads ? threads : w->threads;
}

struct attention_span attention_span_of(const struct rows *rows, int s)
{
    return (struct attention_span){rows->segment_begin[s], rows->segment_begin[s + 1],
                                   rows->prefix ? rows->prefix[s] : 0};
}

static void check_segment(const struct attention_work *w, const struct rows *rows,
                          int s)
{
    struct attention_span own = attention_span_of(rows, s);
    CHECK(own.end - own.begin + own.prefix <= w->max_length,
          "attention: a segment of %d rows and a prefix of %d, %d planned",
          own.end - own.begin, own.prefix, w->max_length);
    if (own.prefix == 0)
        return;
    CHECK(s > 0 && own.prefix > 0, "attention: segment %d has a prefix of %d", s,
          own.prefix);
    struct attention_span before = attention_span_of(rows, s - 1);
    CHECK(before.prefix == 0 && own.prefix <= before.end - before.begin,
          "attention: a prefix of %d rows, %d there, which have one of %d", own.prefix,
          before.end - before.begin, before.prefix);
}

int attention_list_tiles(const struct attention_work *w, const struct attention_dims *d,
                         const struct rows *rows)
{
    int tiles = 0, n = attention_shape_of(d).tile_rows;
    CHECK(rows->segment_begin[rows->segments] <= w->max_rows,
          "attention: %d rows, %d planned", rows->segment_begin[rows->segments],
          w->max_rows);
    for (int s = 0; s < rows->segments; s++) {
        struct attention_span own = attention_span_of(rows, s);
        check_segment(w, rows, s);
        for (int begin = own.begin; begin < own.end; begin = w->tile[tiles++].end)
            w->tile[tiles] = (struct attention_tile){
                s, begin, own.end - begin < n ? own.end : begin + n};
    }
    return tiles;
}

void attention_job_init(struct attention_job *j, const struct gemm *g,
                        const struct attention_dims *d, const struct attention_work *w,
                        const struct rows *rows, const struct attention_input *x,
                        bool backward)
{
    struct arena a = {.base = w->scratch + omp_get_thread_num() * w->thread_bytes};
    *j = (struct attention_job){.d = d,
                                .x = x,
                                .of = rows,
                                .shape = attention_shape_of(d),
                                .product = gemm_tile(g, d->dtype)};
    attention_scratch_lay_out(&j->scratch, &a, d, w->max_length, backward);
}

/* The first place that a row sees. */
static int first_seen(const struct attention_job *j, int row)
{
    int first = j->own.begin - j->own.prefix;
    if (j->d->window && row - first >= j->d->window)
        first = row - j->d->window + 1;
    return first;
}

void attention_job_start(struct attention_job *j, struct attention_tile tile,
                         int kv_head)
{
    j->tile = tile;
    j->own = attention_span_of(j->of, tile.segment);
    j->before = j->own.prefix ? j->of->segment_begin[tile.segment - 1] : j->own.begin;
    j->kv_head = kv_head;
    j->rows = tile.end - tile.begin;
    j->lanes = j->rows * j->shape.group;
    j->panels = (j->lanes + TILE_COLS - 1) / TILE_COLS;
    for (int r = 0; r < j->panels * TILE_COLS; r++) {
        int row = r < j->lanes ? tile.begin + r % j->rows : tile.end - 1;
        j->scratch.last[r] = row;
        j->scratch.first[r] = first_seen(j, row);
    }
}

static int prefix_tiles(const struct attention_job *j)
{
    return (j->own.prefix + ATTENTION_KEYS - 1) / ATTENTION_KEYS;
}

void attention_key_tiles(const struct attention_job *j, int *begin, int *end)
{
    int segment = j->own.begin, first = first_seen(j, j->tile.begin);
    *begin = first < segment ? (first - (segment - j->own.prefix)) / ATTENTION_KEYS
                             : prefix_tiles(j) + (first - segment) / ATTENTION_KEYS;
    *end = prefix_tiles(j) + (j->tile.end - 1 - segment) / ATTENTION_KEYS + 1;
}

struct attention_keys attention_keys_of(const struct attention_job *j, int tile,
                                        const void *x, int64_t stride)
{
    int of_prefix = prefix_tiles(j);
    bool own = tile >= of_prefix;
    int at = (own ? tile - of_prefix : tile) * ATTENTION_KEYS;
    int left = (own ? j->own.end - j->own.begin : j->own.prefix) - at;
    struct attention_keys k = {
        .key = (own ? j->own.begin : j->own.begin - j->own.prefix) + at,
        .row = (own ? j->own.begin : j->before) + at,
        .keys = left < ATTENTION_KEYS ? left : ATTENTION_KEYS,
        .stride = stride};
    int64_t element = k.row * stride + (int64_t)j->kv_head * j->d->head_dim;
    k.x = (const char *)x + element * (int64_t)dtype_bytes(j->d->dtype);
    return k;
}

int attention_panel_keys(const struct attention_job *j, int panel,
                         struct attention_keys from, bool *border)
{
    int begin = panel * TILE_COLS, end = begin + TILE_COLS;
    if (end > j->lanes)
        end = j->lanes;
    int low = j->tile.begin, high = j->tile.end - 1;
    if (begin / j->rows == (end - 1) / j->rows) { /* all of one head */
        low = j->tile.begin + begin % j->rows;
        high = j->tile.begin + (end - 1) % j->rows;
    }
    int keys = high - from.key + 1;
    if (keys > from.keys)
        keys = from.keys;
    if (keys <= 0 || from.key + keys <= first_seen(j, low))
        return 0;
    keys = (keys + j->shape.step - 1) / j->shape.step * j->shape.step;
    *border =
        from.key + keys - 1 > low || from.key < first_seen(j, high) || keys > from.keys;
    return keys;
}

void attention_mask_panel(const struct attention_job *j, int panel,
                          struct attention_keys from, int keys, float *s)
{
    int lane = panel * TILE_COLS;
    attention_scores_mask(keys, from.key, j->scratch.first + lane,
                          j->scratch.last + lane, s);
    for (int i = from.keys * TILE_COLS; i < keys * TILE_COLS; i++)
        s[i] = -INFINITY;
}
