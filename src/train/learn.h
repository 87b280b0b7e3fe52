/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_LEARN_H
#define DUSK_TRAIN_LEARN_H

/* What a step learns from and by which loss, for each train.objective. */

#include "src/objective/preference_stats.h"
#include "src/train/engine.h"

struct trainer;

/* What a step learns from, over all replicas. */
struct amount {
    int64_t counted, tokens;
    int64_t chosen; /* counted tokens of chosen answers */
};

/* Reads this replica's samples of the step and counts them. First stages. Local. */
int learn_read(struct trainer *t, struct amount *mine, struct err *err);

/* Makes micro-batches of the samples that were read, and the objective of the step, in
 * which the losses of dpo are gathered. Local. */
void learn_begin(struct trainer *t, const struct amount *all,
                 struct engine_objective *objective);

/* The step's loss, sums of the samples of all replicas added in sample order; with dpo
 * also the other metrics: mean [PREFERENCE_METRICS]. Collective over the world. */
double learn_loss(struct trainer *t, const struct amount *all, double *mean);

#endif
