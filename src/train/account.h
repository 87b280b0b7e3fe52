/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_ACCOUNT_H
#define DUSK_TRAIN_ACCOUNT_H

/* Where the time of a training run's steps goes, on all ranks: every rank's trace
 * (mpi/trace.h) is collected on rank 0 by one small gather at the end of a step, and
 * for some steps as a whole, as a timeline. The clocks are compared at the start, once
 * a minute, and around the steps of the timeline.
 *
 * A NULL account does nothing. Nothing is allocated in a step; the files of a timeline
 * are written between two. */

#include "src/train/account_figures.h"
#include "src/train/engine.h"

struct account_spec {
    bool every_step;       /* figures of each */
    int64_t timeline_from; /* number of the timeline's first step, 1: the run's first */
    int64_t timeline_steps; /* 0: none */
    const char *folder;     /* that it goes to; borrowed */
};

struct account;

/* Memory that rank `rank` of so many takes, for the plan. Pure. */
int64_t account_bytes(bool every_step, int64_t timeline_steps,
                      const struct schedule *schedule, int ranks, int rank);

/* From now on the engine's training passes and updates are recorded. Owned; *a is NULL
 * where spec asks for nothing. -1 with err set on every rank. Collective over world. */
int account_create(struct account **a, struct engine *engine,
                   const struct account_spec *spec, struct err *err);
void account_destroy(struct account *a); /* NULL is fine; before the engine. Local. */

/* What else of the step is to be recorded here, or NULL. Borrowed. */
struct trace *account_trace(struct account *a);

/* Are the clocks to be compared before the next step? Asked on rank 0, which tells all
 * by account_due. Local. */
bool account_wants(const struct account *a);
void account_due(struct account *a);

/* Before step number `step`. Collective over world. */
void account_begin(struct account *a, int64_t step);

/* At its end: figures on rank 0, where they are asked for (else, and elsewhere, false).
 * update: its wait_s counts. begin_s: clock_s() of the step's begin. Collective over
 * world. */
bool account_end(struct account *a, int64_t step, const struct zero_step *update,
                 double begin_s, struct account_figures *f);

/* Behind step number `step`: writes the timeline if it is complete, or has begun and
 * the run is over. -1 with err set on rank 0 alone (ERR_IO). Collective over world. */
int account_timeline(struct account *a, int64_t step, bool over, struct err *err);

#endif
