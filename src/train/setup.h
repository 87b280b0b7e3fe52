/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_SETUP_H
#define DUSK_TRAIN_SETUP_H

/* A training run made ready, phase by phase: the run file agreed on, its folder taken,
 * the start found, data opened, the engine built, weights loaded. src/train/trainer.c
 * steps it. */

#include <stdint.h>

#include "src/base/log.h"
#include "src/config/run.h"
#include "src/optim/lr.h"
#include "src/train/data.h"
#include "src/train/data_set.h"
#include "src/train/engine.h"
#include "src/train/lock.h"
#include "src/train/memory_plan.h"
#include "src/train/metrics.h"
#include "src/train/save.h"
#include "src/train/start.h"
#include "src/train/ticker.h"

struct trainer {
    struct comm *world;
    const struct log *log;
    struct run run;
    char *folder, *checkpoints; /* dir/name, dir/name/checkpoints */
    struct lock lock;           /* rank 0 */
    struct metrics metrics;     /* rank 0 */
    struct ticker ticker;
    struct gemm *gemm;
    struct start start;
    struct data *data;
    struct data_set *valid;  /* [run.data.valid_sets] */
    struct memory_plan plan; /* of this rank */
    struct engine *engine;
    struct lr lr;
    int64_t steps; /* total */
    struct position at;
    int64_t saved_step;    /* of the newest checkpoint, -1: none */
    int micro_batches;     /* of a replica in a step */
    int32_t *tokens;       /* [samples of a replica][seq_len + 1], then my_order */
    int32_t *my_order;     /* [samples of a replica] their numbers in the step */
    int32_t *order;        /* [global_batch] the same of all replicas, first stage */
    size_t tokens_bytes;   /* with my_order */
    struct batch *batches; /* [micro_batches] */
    double *segment_nll;   /* [micro_batches][engine_segments] */
    double *nll;           /* [global_batch] in sample order */
    int late_failed;       /* an error of this rank that the next step agrees on */
    struct err late;
};

/* Fills t (zeroed but for world, log and saved_step) from PATH and --set overrides,
 * read on rank 0. -1 with err set on every rank; call trainer_fini in either case.
 * Collective. */
int trainer_setup(struct trainer *t, const char *path, const char *const *sets,
                  int sets_n, struct err *err);

/* Releases all, the run's lock last. Collective over world. */
void trainer_fini(struct trainer *t);

#endif
