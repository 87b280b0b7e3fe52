/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_EVALUATE_H
#define DUSK_TRAIN_EVALUATE_H

/* Loss of a model on a set. Of tokens: windows of seq_len inputs, the next token of
 * each position as target; the last window may be short. Every token of the stream but
 * the first is predicted once. Of records: each record alone, also of a packed set, the
 * tokens that count as targets. */

#include <stdint.h>

#include "src/train/data_set.h"
#include "src/train/engine.h"

struct evaluation {
    int64_t windows, count;  /* windows or records run, targets counted */
    double nll_sum;          /* nats: sums of each in double, added in their order */
    double loss, perplexity; /* nll_sum / count, exp of it */
};

/* Windows of seq_len in a token set, or its records. */
int64_t evaluate_samples(const struct data_set *set, int seq_len);

/* Runs the first `limit` windows or records (0: all), records of at most seq_len.
 * Groups of the engine's batch go to replicas in turn, whatever their number: same bits
 * on any ranks. shown(context, done, windows), if not NULL, is called on every rank as
 * work proceeds; what it returns must be the same on all of them, and if that is not 0,
 * the rest is left undone: 1, without a result. -1 with err set on every rank.
 * Collective over the engine's world. */
int evaluate(struct engine *e, struct data_set *set, int seq_len, int batch,
             int64_t limit, int (*shown)(void *context, double done, double total),
             void *context, struct evaluation *result, struct err *err);

#endif
