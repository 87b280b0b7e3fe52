/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OBJECTIVE_PAIR_STEP_H
#define DUSK_OBJECTIVE_PAIR_STEP_H

/* A step of preference tuning: from the losses of a micro-batch's segments, as
 * src/objective/pairs.h lays them out, to the weights with which they enter the
 * gradient and to the step's metrics. Local. */

#include "src/objective/pairs.h"
#include "src/objective/preference_stats.h"

struct pair_step {
    struct preference_settings settings; /* checked */
    struct preference_step totals;       /* of the step in progress */
    struct preference_stats stats;       /* likewise; the caller begins it */
};

/* One micro-batch. */
struct pair_batch {
    int pairs, seq_len;
    const int32_t *slots; /* [pairs] */
    const int32_t *index; /* [pairs] the pairs' places in the step, for the stats */
};

/* Puts the pairs' metrics into s->stats and their weights into scale: nll [2 pairs] are
 * the segments' summed cross-entropies, scale [2 pairs] the derivatives of the step's
 * loss by the cross-entropy of each counted token of the segment. */
void pair_step_weigh(struct pair_step *s, const struct pair_batch *b, const double *nll,
                     float *scale);

#endif
