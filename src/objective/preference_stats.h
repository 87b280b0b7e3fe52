/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OBJECTIVE_PREFERENCE_STATS_H
#define DUSK_OBJECTIVE_PREFERENCE_STATS_H

/* What a step of preference tuning reports: means over its pairs, under TRL's names.
 *
 * Every pair's numbers are kept at the pair's index in the step and summed in this
 * order at the end, so that the means have the same bits however the step was cut into
 * micro-batches. A rank that has some of the pairs leaves zeros for the others: a sum
 * of `value` over the ranks is exact. Local. */

#include "src/base/err.h"
#include "src/objective/preference.h"

enum preference_metric {
    PREFERENCE_METRIC_LOSS,           /* of the step: the sum of its pairs' shares */
    PREFERENCE_METRIC_REWARDS_CHOSEN, /* beta times log-ratio */
    PREFERENCE_METRIC_REWARDS_REJECTED,
    PREFERENCE_METRIC_REWARDS_ACCURACIES, /* 1 where chosen > rejected; 0 for a tie */
    PREFERENCE_METRIC_REWARDS_MARGINS,    /* chosen minus rejected */
    PREFERENCE_METRIC_LOGPS_CHOSEN,       /* the policy's sums, nats */
    PREFERENCE_METRIC_LOGPS_REJECTED,
    PREFERENCE_METRIC_LOGRATIO_CHOSEN, /* log-ratio per counted token, nats */
    PREFERENCE_METRIC_LOGRATIO_REJECTED,
    PREFERENCE_METRICS
};

/* "loss", "rewards/chosen", ...; in the order of the enum. TRL has no logratio/. */
extern const char *const preference_metric_names[PREFERENCE_METRICS];

/* Numbers kept of a pair: how often it was put, and one for each metric. */
enum { PREFERENCE_KEPT = 1 + PREFERENCE_METRICS };

struct preference_stats {
    int pairs, max_pairs;
    double *value; /* [pairs, PREFERENCE_KEPT] */
};

/* Room for steps of up to max_pairs pairs. preference_stats_fini frees. -1: no memory.
 */
int preference_stats_init(struct preference_stats *s, int max_pairs, struct err *err);
void preference_stats_fini(struct preference_stats *s);

/* A new step of 1 .. max_pairs pairs: all zeros. */
void preference_stats_begin(struct preference_stats *s, int pairs);

/* Pair `index` of the step (its place over all ranks and micro-batches) and its share.
 * Once for each pair of the step. */
void preference_stats_put(struct preference_stats *s, int index,
                          const struct preference_pair *pair,
                          const struct preference_share *share);

/* The metrics of a step of which every pair was put exactly once. */
void preference_stats_means(const struct preference_stats *s,
                            double mean[PREFERENCE_METRICS]);

#endif
