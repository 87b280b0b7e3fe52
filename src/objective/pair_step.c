/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/pair_step.h"

void pair_step_weigh(struct pair_step *s, const struct pair_batch *b, const double *nll,
                     float *scale)
{
    int words = pairs_slot_words(b->seq_len);
    for (int i = 0; i < b->pairs; i++) {
        const int32_t *slot = b->slots + (int64_t)i * words;
        struct pair_sums reference = pairs_reference(slot);
        struct pair_count count = pairs_count(slot);
        struct preference_pair pair = {.policy_chosen = -nll[2 * i],
                                       .policy_rejected = -nll[2 * i + 1],
                                       .reference_chosen = reference.chosen,
                                       .reference_rejected = reference.rejected,
                                       .chosen_tokens = count.chosen,
                                       .rejected_tokens = count.rejected};
        struct preference_share share =
            preference_pair_share(&s->settings, &s->totals, &pair);
        preference_stats_put(&s->stats, b->index[i], &pair, &share);
        scale[2 * i] = (float)-(share.d_chosen + share.d_chosen_token);
        scale[2 * i + 1] = (float)-share.d_rejected;
    }
}
