/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_SAVING_H
#define DUSK_TRAIN_SAVING_H

/* The checkpoints of a run in progress: that no step is saved twice, which one is the
 * best, and what follows one that cannot be written (checkpoint.on_error). */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/err.h"

struct trainer;

struct saving {
    int64_t saved_step; /* of the newest checkpoint, -1: none */
    bool failed;        /* the last one could not be written, */
    struct err failure; /* and why */
    int64_t best_step;  /* -1: none; the same on all ranks, as is */
    double best_loss;
    double valid_loss; /* of the first set at this step, NAN: not evaluated */
    bool metrics_late; /* lines of metrics.jsonl wait for room */
};

/* As it is before the first step; a resumed run's best is in its checkpoint, which must
 * still be there. Collective. */
int saving_init(struct trainer *t, struct err *err);

/* Saves the state, unless this step is saved already. With on_error: continue a disk
 * that fails is a loud line and 0; but -1 if the checkpoint `must` be there. -1 with
 * err set on every rank. Collective. */
int saving_save(struct trainer *t, bool must, struct err *err);

/* The step that was evaluated is saved already: it may be the best. Collective. */
int saving_evaluated_late(struct trainer *t, struct err *err);

/* A line of metrics.jsonl could not be written (failed, why): with on_error: continue
 * it waits in memory, which is said once, and 0; else -1. Local. */
int saving_excuse_metrics(struct trainer *t, int failed, const struct err *why);

/* At the end of the run: the last checkpoint and all metrics must be written. -1 with
 * err set on every rank (ERR_IO). Collective. */
int saving_end(struct trainer *t, struct err *err);

#endif
