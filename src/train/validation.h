/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_VALIDATION_H
#define DUSK_TRAIN_VALIDATION_H

/* Losses on data.valid during a run, into the log and metrics.jsonl. */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/err.h"

struct trainer;

bool validation_due(const struct trainer *t, int64_t step); /* after it? Local. */

/* All sets, or with `rest` those that metrics.jsonl does not have at this step. 1: a
 * stop (t->stop) came before the end; a resumed run does the rest. -1 with err set on
 * every rank. Collective. */
int validation_run(struct trainer *t, bool rest, struct err *err);

#endif
