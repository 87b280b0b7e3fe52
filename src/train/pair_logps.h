/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_PAIR_LOGPS_H
#define DUSK_TRAIN_PAIR_LOGPS_H

/* What a model gives to the answers of a set of pairs, and the figures of preference
 * tuning that follow from it and from a reference's. */

#include "src/objective/preference_stats.h"
#include "src/train/data_set.h"
#include "src/train/engine.h"

/* Of one pair: log-probabilities of both answers in nats, and how many tokens of them
 * count. Doubles, so that a sum over ranks may carry them. */
struct pair_logps {
    double chosen, rejected, chosen_tokens, rejected_tokens;
};

struct pair_logps_spec {
    struct engine *engine; /* of pairs */
    struct data_set *set;
    int seq_len, batch;  /* the engine's */
    const int64_t *pair; /* [n] which pairs of the set; NULL: 0, 1, ... */
    int (*shown)(void *context, double done, double total); /* as in evaluate.h */
    void *context;
};

/* Pairs that go through the ranks together; blocks that start at multiples of it give
 * the same bits as one call over all. */
int64_t pair_logps_block(const struct pair_logps_spec *s);

/* Of pairs `first` to first + n of the list, into logps [n], the same on all ranks. 1
 * if `shown` ended it, which leaves no result. -1 with err set on every rank.
 * Collective over the engine's world. */
int pair_logps(const struct pair_logps_spec *s, int64_t first, int64_t n,
               struct pair_logps *logps, struct err *err);

/* Means over n pairs, and the standard error of the accuracy, sqrt(a (1 - a) / n).
 * reference [n]; NULL: zeros. -1: no memory. Local. */
struct pair_figures {
    int64_t pairs;
    double mean[PREFERENCE_METRICS];
    double accuracy_error;
};
int pair_figures(const struct preference_settings *settings, int64_t n,
                 const struct pair_logps *policy, const struct pair_sums *reference,
                 struct pair_figures *figures, struct err *err);

#endif
