/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OBJECTIVE_PAIRS_H
#define DUSK_OBJECTIVE_PAIRS_H

/* From the pairs of a step of preference tuning to the rows of its micro-batches.
 *
 * A pair is a prompt of P ids with a chosen answer of C and a rejected one of R. Each
 * answer is a segment of its own, 2 i and 2 i + 1 of pair i, so that the sums of a
 * segment's losses are the negated log-probabilities of its answer:
 *
 *   chosen     prompt and chosen answer but its last id, P + C - 1 rows
 *   rejected   likewise P + R - 1 rows, or with `sharing` the prompt's last id and the
 *              rejected answer but its last id, R rows that see the first P - 1 rows of
 *              the chosen segment before them (the prefix of src/model/rows.h)
 *
 * With sharing the prompt is run once, and its last id once for each of the ids that
 * follow it (arXiv 2410.20305). Positions are those of an answer behind its prompt in
 * both forms. Rows behind an answer's last counted id are left out.
 *
 * Pairs travel as slots of pairs_slot_words numbers: lengths, what the reference gives
 * to both answers, then a word for each token. Pure, local. */

#include <stdbool.h>

#include "src/objective/pretrain.h"

/* Words of a slot whose prompts with one answer have at most seq_len tokens. */
int pairs_slot_words(int seq_len);

/* Rows of a pair at most: a micro-batch has room for `pairs` times as many. */
int pairs_max_rows(int seq_len);

/* One pair as it is read: id and counted are [end[2]], end after prompt (may be 0),
 * chosen and rejected. */
struct pair_tokens {
    const int32_t *id;
    const uint8_t *counted; /* is the token learnt? none of the prompt is */
    const int64_t *end;     /* [3] */
};

/* Log-probabilities of the answers, nats. */
struct pair_sums {
    double chosen, rejected;
};

/* Writes a pair into a slot. The prompt with either answer has at most seq_len tokens;
 * each answer has a counted token behind the first of all. */
void pairs_store(int32_t *slot, int seq_len, const struct pair_tokens *pair,
                 struct pair_sums reference);

struct pair_sums pairs_reference(const int32_t *slot);

/* Counted tokens of both answers, and tokens of all three parts. */
struct pair_count {
    int64_t chosen, rejected, tokens;
};
struct pair_count pairs_count(const int32_t *slot);

/* About the rows of a pair with parts of so many tokens: what it costs. */
int64_t pairs_cost(const int64_t length[3], bool sharing);

/* Fills b from `pairs` slots. */
void pairs_fill(struct batch *b, int pairs, int seq_len, const int32_t *slots,
                bool sharing);

#endif
