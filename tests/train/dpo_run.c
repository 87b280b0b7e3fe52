/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/train/dpo_run.h"

#include "tests/support/need.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dpo_oracle dpo_oracle_load(void)
{
    return (struct dpo_oracle){.values = oracle_dpo(),
                               .tokens = facts_load("../align/dpo_tokens.json"),
                               .ref = oracle_load("../align/ref")};
}

void dpo_oracle_free(struct dpo_oracle *o)
{
    facts_destroy(o->values);
    facts_destroy(o->tokens);
    oracle_free(&o->ref);
}

static int words(void)
{
    return pairs_slot_words(DPO_SEQ_LEN);
}

/* Pair i as the oracle has it; every token behind the prompt counts. */
static void store(const struct dpo_oracle *o, int i, struct pair_sums reference,
                  int32_t *slot)
{
    static const char *const parts[] = {"prompt_ids", "chosen_ids", "rejected_ids"};
    int32_t id[3 * DPO_SEQ_LEN];
    uint8_t counted[3 * DPO_SEQ_LEN];
    int64_t end[3], at = 0;
    for (int k = 0; k < 3; k++) {
        char place[64];
        int n;
        snprintf(place, sizeof place, "pairs/%d/%s", i, parts[k]);
        int32_t *ids = facts_ints(o->tokens, place, &n);
        need(n <= DPO_SEQ_LEN ? ids : NULL, place, "too long");
        memcpy(id + at, ids, (size_t)n * sizeof *id);
        memset(counted + at, k > 0, (size_t)n);
        end[k] = at += n;
        free(ids);
    }
    struct pair_tokens pair = {.id = id, .counted = counted, .end = end};
    pairs_store(slot, DPO_SEQ_LEN, &pair, reference);
}

int32_t *dpo_slots(const struct dpo_oracle *o, const struct pair_sums *reference)
{
    int32_t *slots = need(calloc((size_t)(DPO_PAIRS * words()), sizeof *slots), "slots",
                          "no memory");
    struct preference_pair pair[DPO_PAIRS];
    oracle_pairs(o->values, oracle_cases[0], pair);
    need(facts_count(o->tokens, "pairs") == DPO_PAIRS ? slots : NULL, "pairs",
         "another number of them");
    for (int i = 0; i < DPO_PAIRS; i++) {
        int32_t *slot = slots + i * words();
        store(o, i, reference[i], slot);
        struct pair_count n = pairs_count(slot);
        bool same =
            n.chosen == pair[i].chosen_tokens && n.rejected == pair[i].rejected_tokens;
        need(same ? slots : NULL, "pairs", "counts differ");
    }
    return slots;
}

void dpo_run_init(struct dpo_run *r, struct comm *c, const struct oracle_model *m,
                  const struct oracle_layout *l, struct gemm *gemm, bool sharing,
                  int pairs)
{
    struct err err = {0};
    int mine = pairs / l->data, batches = mine / DPO_BATCH;
    *r = (struct dpo_run){.c = c, .sharing = sharing, .pairs = pairs, .mine = mine};
    struct engine_spec spec = {.shape = m->shape,
                               .pipeline = l->pipeline,
                               .data = l->data,
                               .split = l->split,
                               .split_n = l->split[0] ? l->pipeline : 0,
                               .seq_len = DPO_SEQ_LEN,
                               .batch = DPO_BATCH,
                               .pairs = true,
                               .sharing = sharing,
                               .micro_batches = batches,
                               .schedule = l->schedule,
                               .training = true};
    r->engine = need(engine_create(c, &spec, gemm, &err), m->name, err.text);
    oracle_set_weights(r->engine, m);
    size_t n = (size_t)mine;
    r->batches = need(calloc(n, sizeof *r->batches), m->name, "no memory");
    r->slots = need(calloc(n * (size_t)words(), sizeof *r->slots), m->name, "none");
    r->index = need(calloc(n, sizeof *r->index), m->name, "no memory");
    r->nll = need(calloc(2 * n, sizeof *r->nll), m->name, "no memory");
    int failed = preference_stats_init(&r->step.stats, pairs, &err);
    for (int i = 0; i < batches && !failed; i++)
        failed = batch_init(&r->batches[i], engine_max_rows(&spec),
                            engine_segments(r->engine), &err);
    need(failed ? NULL : r, m->name, err.text);
}

void dpo_run_fini(struct dpo_run *r)
{
    for (int i = 0; i < r->mine / DPO_BATCH; i++)
        batch_fini(&r->batches[i]);
    preference_stats_fini(&r->step.stats);
    free(r->batches);
    free(r->slots);
    free(r->index);
    free(r->nll);
    engine_destroy(r->engine);
}

void dpo_forward(struct dpo_run *r, const int32_t *slots, struct pair_sums *sums)
{
    const struct grid *g = engine_grid(r->engine);
    double flat[2 * DPO_PAIRS] = {0};
    engine_forward_pairs(r->engine, DPO_PAIRS, slots, sums);
    for (int i = 0; i < DPO_PAIRS && g->stage == g->pipeline - 1 && g->replica == 0;
         i++) {
        flat[2 * i] = sums[i].chosen;
        flat[2 * i + 1] = sums[i].rejected;
    }
    comm_sum_f64(r->c, flat, 2 * DPO_PAIRS);
    for (int i = 0; i < DPO_PAIRS; i++)
        sums[i] = (struct pair_sums){flat[2 * i], flat[2 * i + 1]};
}

static void weigh(void *context, int micro_batch, const double *nll, float *scale)
{
    struct dpo_run *r = context;
    int first = micro_batch * DPO_BATCH;
    struct pair_batch b = {.pairs = DPO_BATCH,
                           .seq_len = DPO_SEQ_LEN,
                           .slots = r->slots + first * words(),
                           .index = r->index + first};
    pair_step_weigh(&r->step, &b, nll, scale);
    for (int i = 0; i < DPO_BATCH; i++)
        for (int side = 0; side < 2; side++)
            r->scale[2 * b.index[i] + side] += (double)scale[2 * i + side];
}

void dpo_pass(struct dpo_run *r, const int32_t *slots)
{
    const struct grid *g = engine_grid(r->engine);
    struct preference_stats *stats = &r->step.stats;
    r->step.totals = (struct preference_step){.pairs = r->pairs};
    for (int i = 0; i < r->pairs; i++)
        r->step.totals.chosen_tokens += pairs_count(slots + i * words()).chosen;
    for (int i = 0; i < r->mine; i++) {
        r->index[i] = i * g->data + g->replica;
        memcpy(r->slots + i * words(), slots + r->index[i] * words(),
               (size_t)words() * sizeof *slots);
    }
    for (int i = 0; i < r->mine / DPO_BATCH; i++)
        pairs_fill(&r->batches[i], DPO_BATCH, DPO_SEQ_LEN,
                   r->slots + i * DPO_BATCH * words(), r->sharing);
    preference_stats_begin(stats, r->pairs);
    memset(r->scale, 0, sizeof r->scale);
    struct engine_objective objective = {.weigh = weigh, .context = r};
    double wait_s = 0;
    engine_pass(r->engine, r->batches, &objective, r->nll, &wait_s);
    comm_sum_f64(r->c, stats->value, (int64_t)r->pairs * PREFERENCE_KEPT);
    comm_sum_f64(r->c, r->scale, 2 * r->pairs);
}

double dpo_kept(const struct dpo_run *r, int i, enum preference_metric m)
{
    return r->step.stats.value[i * PREFERENCE_KEPT + 1 + (int)m];
}
