/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/tally.h"
#include "src/model/attention_scores.h"
#include "src/model/attention_tile.h"

#include <math.h>

/* One step of online softmax for one panel. begun: the panel has sums already. */
static bool forward_panel(const struct attention_job *j, int panel,
                          struct attention_keys from, bool begun)
{
    const struct attention_scratch *s = &j->scratch;
    const struct attention_shape *n = &j->shape;
    int lane = panel * TILE_COLS;
    bool border;
    int keys = attention_panel_keys(j, panel, from, &border);
    if (!keys)
        return begun;
    j->product(attention_whole(keys), n->words, s->k, n->words, 1,
               (const float *)s->q + (int64_t)lane * n->words, NULL, s->s);
    if (border)
        attention_mask_panel(j, panel, from, keys, s->s);
    float factor[TILE_COLS];
    attention_scores_softmax(j->d->dtype, keys, n->scale, s->s,
                             (struct attention_running){s->max + lane, s->sum + lane},
                             factor, s->p);
    j->product(n->wide, keys / n->step, s->v, 1, n->wide, s->p, begun ? factor : NULL,
               s->o + (int64_t)lane * n->wide);
    return true;
}

static void finish(const struct attention_job *j, void *out, float *lse)
{
    const struct attention_scratch *s = &j->scratch;
    int heads = j->d->heads, first = j->kv_head * j->shape.group;
    if (lse)
        for (int r = 0; r < j->lanes; r++)
            lse[(int64_t)(j->tile.begin + r % j->rows) * heads + first + r / j->rows] =
                (float)((double)(s->max[r] * j->shape.scale) + log((double)s->sum[r]));
    for (int r = 0; r < j->lanes; r++)
        s->sum[r] = 1.0f / s->sum[r];
    attention_unpack_lanes(j, s->o, s->sum, (int64_t)heads * j->d->head_dim, out);
}

static void forward_tile(const struct attention_job *j, void *out, float *lse)
{
    const struct attention_scratch *s = &j->scratch;
    const struct attention_input *x = j->x;
    int begin, end;
    attention_pack_lanes(j, x->q, x->q_stride, s->q);
    for (int r = 0; r < j->panels * TILE_COLS; r++) {
        s->max[r] = -INFINITY;
        s->sum[r] = 0.0f;
    }
    attention_key_tiles(j, &begin, &end);
    for (int n = begin; n < end; n++) {
        struct attention_keys k = attention_keys_of(j, n, x->k, x->k_stride);
        attention_pack_keys(j, k, s->k);
        attention_pack_key_steps(j, attention_keys_of(j, n, x->v, x->v_stride), s->v);
        for (int panel = 0; panel < j->panels; panel++)
            s->begun[panel] = forward_panel(j, panel, k, n > begin && s->begun[panel]);
    }
    finish(j, out, lse);
}

void attention_forward(const struct gemm *g, const struct attention_dims *d,
                       const struct attention_work *w, const struct rows *rows,
                       const struct attention_input *x, void *out, float *lse)
{
    double begin_s = tally_begin(gemm_tally(g));
    int64_t jobs = (int64_t)attention_list_tiles(w, d, rows) * d->kv_heads;
#pragma omp parallel num_threads(attention_team(w))
    {
        struct attention_job j;
        attention_job_init(&j, g, d, w, rows, x, false);
        /* Backwards: a segment's last tiles see most keys and should not come last. */
#pragma omp for schedule(dynamic)
        for (int64_t n = jobs - 1; n >= 0; n--) {
            attention_job_start(&j, w->tile[n / d->kv_heads], (int)(n % d->kv_heads));
            forward_tile(&j, out, lse);
        }
    }
    tally_end(gemm_tally(g), TALLY_ATTENTION, begin_s);
}
