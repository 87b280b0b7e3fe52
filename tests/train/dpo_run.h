/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_TRAIN_DPO_RUN_H
#define DUSK_TESTS_TRAIN_DPO_RUN_H

/* The oracle's pairs (tests/oracle/align/dpo_tokens.json) on an engine of any layout,
 * weighed as src/train/learn.c does. Failures print a line and abort. */

#include "src/objective/pair_step.h"
#include "tests/objective/oracle_pairs.h"
#include "tests/train/oracle.h"

/* The longest prompt with an answer has DPO_SEQ_LEN tokens. */
enum { DPO_PAIRS = ORACLE_PAIRS, DPO_SEQ_LEN = 334, DPO_BATCH = 2 };

/* What lies in align/ for all tests of DPO. */
struct dpo_oracle {
    struct facts *values, *tokens; /* dpo.json, dpo_tokens.json */
    struct oracle_model ref;
};
struct dpo_oracle dpo_oracle_load(void);
void dpo_oracle_free(struct dpo_oracle *o);

/* Slots of the pairs, [DPO_PAIRS][pairs_slot_words(DPO_SEQ_LEN)]; reference
 * [DPO_PAIRS]. Their counts are the oracle's, or this aborts. Owned (free). */
int32_t *dpo_slots(const struct dpo_oracle *o, const struct pair_sums *reference);

struct dpo_run {
    struct comm *c; /* borrowed */
    struct engine *engine;
    bool sharing;
    int pairs, mine;       /* of a pass, over all replicas and of this one */
    struct batch *batches; /* [mine / DPO_BATCH] */
    int32_t *slots;        /* [mine] */
    int32_t *index;        /* [mine] places in the pass */
    double *nll;
    struct pair_step step; /* settings are the caller's to set */
    double scale[2 * DPO_PAIRS];
};

/* An engine for passes of `pairs` pairs, with the model's weights. Collective over c,
 * which lasts as long. */
void dpo_run_init(struct dpo_run *r, struct comm *c, const struct oracle_model *m,
                  const struct oracle_layout *l, struct gemm *gemm, bool sharing,
                  int pairs);
void dpo_run_fini(struct dpo_run *r); /* collective */

/* What the engine's weights give to all pairs, on every rank: sums [DPO_PAIRS].
 * Collective over r->c. */
void dpo_forward(struct dpo_run *r, const int32_t *slots, struct pair_sums *sums);

/* A pass over r->pairs slots; replicas take them in turn. Then r->step.stats has all of
 * them, and scale [2 pairs] the weights of their answers, on every rank. Collective
 * over r->c. */
void dpo_pass(struct dpo_run *r, const int32_t *slots);

/* A number that pair i was given in the latest pass. */
double dpo_kept(const struct dpo_run *r, int i, enum preference_metric m);

#endif
