/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_OBJECTIVE_SFT_H
#define DUSK_OBJECTIVE_SFT_H

/* From the records of a step to the rows of its micro-batches: which token of which
 * record is learnt, and which records go together.
 *
 * A sample is a record, or a pack of them. Its documents do not see each other: each is
 * a segment of its own with positions from 0. Row t of a document has token t as input
 * and token t + 1 as target if that one counts. Rows behind a document's last target
 * are left out, since nothing depends on them.
 *
 * Samples travel as slots of seq_len + 1 numbers: how many tokens, then a word for
 * each, its id with the marks "begins a document" and "counts". Pure, local. */

#include <stdbool.h>

#include "src/objective/pretrain.h"

/* Writes a sample of n tokens, at most seq_len, into slot [seq_len + 1]. counted[t]: is
 * token t learnt? end[documents]: tokens up to each document's last, rising to n. */
void sft_store(int32_t *slot, int seq_len, int64_t n, const int32_t *id,
               const uint8_t *counted, int64_t documents, const int64_t *end);

/* Tokens that are learnt: those that count but for the first of a document. */
int64_t sft_counted(const int32_t *slot);

/* Fills b from `samples` slots; b->sample says whose each segment is. 0 samples, or
 * samples in which nothing counts, give no rows. */
void sft_fill(struct batch *b, int samples, int seq_len, const int32_t *slots);

/* Segments of a micro-batch at most: a document that counts has two tokens or more. */
int sft_max_segments(int samples, int seq_len, bool packs);

/* Which sample of a step goes where: order[p] is the sample at place p, the replicas'
 * places one after the other, in each its micro-batches one after the other. Samples
 * are ordered by length, longest first, equal ones by number, so that those of a
 * micro-batch are alike, and its micro-batches are dealt out to the replicas in turn,
 * so that these have as much to do. n: a multiple of micro_batch x replicas. key [n]:
 * scratch. */
void sft_order(int n, int micro_batch, int replicas, const int64_t *length,
               int64_t *key, int32_t *order);

#endif
