/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/preference_stats.h"

#include "src/base/check.h"
#include "src/base/mem.h"

#include <string.h>

const char *const preference_metric_names[PREFERENCE_METRICS] = {
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "logratio/chosen",
    "logratio/rejected",
};

int preference_stats_init(struct preference_stats *s, int max_pairs, struct err *err)
{
    *s = (struct preference_stats){.max_pairs = max_pairs};
    s->value = mem_array(max_pairs, PREFERENCE_KEPT * sizeof *s->value, err);
    return s->value ? 0 : -1;
}

void preference_stats_fini(struct preference_stats *s)
{
    mem_free(s->value);
    *s = (struct preference_stats){0};
}

void preference_stats_begin(struct preference_stats *s, int pairs)
{
    CHECK(pairs >= 1 && pairs <= s->max_pairs, "%d pairs, room for %d", pairs,
          s->max_pairs);
    s->pairs = pairs;
    memset(s->value, 0, (size_t)pairs * PREFERENCE_KEPT * sizeof *s->value);
}

static double per_token(double ratio, int64_t tokens)
{
    return tokens > 0 ? ratio / (double)tokens : ratio;
}

void preference_stats_put(struct preference_stats *s, int index,
                          const struct preference_pair *pair,
                          const struct preference_share *share)
{
    CHECK(index >= 0 && index < s->pairs, "pair %d of %d", index, s->pairs);
    double *kept = s->value + (size_t)index * PREFERENCE_KEPT;
    double *value = kept + 1;
    kept[0] += 1;
    value[PREFERENCE_METRIC_LOSS] = share->loss;
    value[PREFERENCE_METRIC_REWARDS_CHOSEN] = share->reward_chosen;
    value[PREFERENCE_METRIC_REWARDS_REJECTED] = share->reward_rejected;
    value[PREFERENCE_METRIC_REWARDS_ACCURACIES] =
        share->reward_chosen > share->reward_rejected;
    value[PREFERENCE_METRIC_REWARDS_MARGINS] =
        share->reward_chosen - share->reward_rejected;
    value[PREFERENCE_METRIC_LOGPS_CHOSEN] = pair->policy_chosen;
    value[PREFERENCE_METRIC_LOGPS_REJECTED] = pair->policy_rejected;
    value[PREFERENCE_METRIC_LOGRATIO_CHOSEN] =
        per_token(pair->policy_chosen - pair->reference_chosen, pair->chosen_tokens);
    value[PREFERENCE_METRIC_LOGRATIO_REJECTED] = per_token(
        pair->policy_rejected - pair->reference_rejected, pair->rejected_tokens);
}

void preference_stats_means(const struct preference_stats *s,
                            double mean[PREFERENCE_METRICS])
{
    CHECK(s->pairs >= 1, "no step was begun");
    memset(mean, 0, PREFERENCE_METRICS * sizeof *mean);
    for (int i = 0; i < s->pairs; i++) {
        const double *kept = s->value + (size_t)i * PREFERENCE_KEPT;
        CHECK(kept[0] == 1, "pair %d of %d was put %g times", i, s->pairs, kept[0]);
        for (int m = 0; m < PREFERENCE_METRICS; m++)
            mean[m] += kept[1 + m];
    }
    for (int m = 0; m < PREFERENCE_METRICS; m++)
        if (m != PREFERENCE_METRIC_LOSS) /* shares are divided already */
            mean[m] /= s->pairs;
}
