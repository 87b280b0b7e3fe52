/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/learn.h"

#include "src/objective/sft.h"
#include "src/train/setup.h"

#include <string.h>

/* Slot i of this replica. */
static const int32_t *slot_at(const struct trainer *t, int64_t i)
{
    return t->tokens + i * t->slot_words;
}

static void count(const struct trainer *t, int n, struct amount *mine)
{
    for (int i = 0; i < n; i++) {
        struct pair_count pair;
        switch (t->run.train.objective) {
        case RUN_PRETRAIN:
            mine->counted += t->run.data.seq_len;
            mine->tokens += t->run.data.seq_len;
            break;
        case RUN_SFT:
            mine->counted += sft_counted(slot_at(t, i));
            mine->tokens += slot_at(t, i)[0];
            break;
        case RUN_DPO:
            pair = pairs_count(slot_at(t, i));
            mine->counted += pair.chosen + pair.rejected;
            mine->chosen += pair.chosen;
            mine->tokens += pair.tokens;
            break;
        }
    }
}

int learn_read(struct trainer *t, struct amount *mine, struct err *err)
{
    const struct grid *g = engine_grid(t->engine);
    int n = t->run.train.global_batch / g->data;
    if (data_order(t->data, t->at.samples, g->data, t->order, err))
        return -1;
    memcpy(t->my_order, t->order + g->replica * n, (size_t)n * sizeof *t->order);
    if (data_read(t->data, t->at.samples, n, t->my_order, t->tokens, err))
        return -1;
    count(t, n, mine);
    return 0;
}

/* Weighs a micro-batch of pairs (engine_objective). */
static void weigh(void *context, int micro_batch, const double *nll, float *scale)
{
    struct trainer *t = context;
    int n = t->run.train.micro_batch;
    int64_t first = (int64_t)micro_batch * n;
    struct pair_batch b = {.pairs = n,
                           .seq_len = t->run.data.seq_len,
                           .slots = slot_at(t, first),
                           .index = t->my_order + first};
    pair_step_weigh(&t->pairs, &b, nll, scale);
}

void learn_begin(struct trainer *t, const struct amount *all,
                 struct engine_objective *objective)
{
    const struct run *r = &t->run;
    int n = r->train.micro_batch, seq_len = r->data.seq_len;
    *objective = (struct engine_objective){.counted = all->counted};
    for (int i = 0; i < t->micro_batches; i++) {
        const int32_t *tokens = slot_at(t, (int64_t)i * n);
        struct batch *b = &t->batches[i];
        switch (r->train.objective) {
        case RUN_PRETRAIN:
            pretrain_fill(b, n, seq_len, NULL, tokens);
            break;
        case RUN_SFT:
            sft_fill(b, n, seq_len, tokens);
            break;
        case RUN_DPO:
            pairs_fill(b, n, seq_len, tokens, r->dpo.prefix_sharing);
            break;
        }
    }
    if (r->train.objective != RUN_DPO)
        return;
    t->pairs.totals = (struct preference_step){.pairs = r->train.global_batch,
                                               .chosen_tokens = all->chosen};
    preference_stats_begin(&t->pairs.stats, r->train.global_batch);
    objective->weigh = weigh;
    objective->context = t;
}

static double pairs_loss(struct trainer *t, double *mean)
{
    struct preference_stats *s = &t->pairs.stats;
    comm_sum_f64(t->world, s->value, (int64_t)s->pairs * PREFERENCE_KEPT);
    preference_stats_means(s, mean);
    return mean[PREFERENCE_METRIC_LOSS];
}

double learn_loss(struct trainer *t, const struct amount *all, double *mean)
{
    const struct run *r = &t->run;
    int n = engine_segments(t->engine);
    if (r->train.objective == RUN_DPO)
        return pairs_loss(t, mean);
    memset(t->nll, 0, (size_t)r->train.global_batch * sizeof *t->nll);
    for (int i = 0; i < t->micro_batches && engine_has_head(t->engine); i++) {
        const struct batch *b = &t->batches[i];
        const int32_t *order = t->my_order + i * r->train.micro_batch;
        for (int s = 0; s < b->rows.segments; s++)
            t->nll[order[b->sample[s]]] += t->segment_nll[(int64_t)i * n + s];
    }
    comm_sum_f64(t->world, t->nll, r->train.global_batch);
    double sum = 0;
    for (int i = 0; i < r->train.global_batch; i++)
        sum += t->nll[i];
    return sum / (double)all->counted;
}
