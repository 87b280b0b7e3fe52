/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_RUN_SPEC_H
#define DUSK_TRAIN_RUN_SPEC_H

/* From a run file to what the engine needs, for those who plan or measure a run without
 * starting it. Local unless it says otherwise. */

#include "src/config/run.h"
#include "src/train/engine.h"

/* The run file and its --set overrides, read on rank 0, for every rank; run_fini frees.
 * -1 with err set on every rank. Collective over world. */
int run_share(struct comm *world, const char *path, const char *const *sets, int sets_n,
              struct run *run, struct err *err);

/* The model's shape: model.shape, or that of model.init's checkpoint (opened by this
 * process alone) through model.layers. -1 with err set. */
int run_model_shape(const struct run *run, struct model_shape *shape, struct err *err);

/* What train.freeze says, borrowed from run; freeze_check has yet to judge it. */
struct freeze run_freeze(const struct run *run);

/* parallel.schedule. */
enum schedule_kind run_schedule_kind(enum run_pipe pipe);

/* The text of a schedule's FILE.csv, read on rank 0, for every rank: *text is owned
 * (free), NULL for a schedule with a name. -1 with err set on every rank (ERR_USAGE,
 * since the run file named it). Collective over world. */
int run_share_schedule(struct comm *world, const struct run *run, char **text,
                       struct err *err);

/* Which schedule for so many micro-batches; borrows from run and text. */
struct schedule_spec run_schedule_spec(const struct run *run, int micro_batches,
                                       const char *text);

/* Replicas on so many ranks. -1 with err set (ERR_USAGE) if that is not parallel.data,
 * or no whole number. */
int run_replicas(const struct run *run, int64_t ranks, struct err *err);

/* Micro-batches of a step and replica, on data replicas. -1 with err set (ERR_USAGE) if
 * these do not share the global batch evenly. */
int run_micro_batches(const struct run *run, int data, struct err *err);

/* The engine of a training run on `ranks` ranks; split, freeze and schedule_file are
 * borrowed from run, schedule_text is `text` (run_share_schedule). -1 with err set
 * (ERR_USAGE) if ranks, batches and layers do not go together, or what is frozen is not
 * the model's. */
int run_engine_spec(const struct run *run, const struct model_shape *shape, int ranks,
                    const char *text, struct engine_spec *spec, struct err *err);

#endif
