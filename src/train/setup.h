/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_SETUP_H
#define DUSK_TRAIN_SETUP_H

/* A training run made ready, phase by phase: the run file agreed on, its folder taken,
 * the start found, data opened, the engine built, weights loaded. src/train/trainer.c
 * steps it. */

#include <stdint.h>

#include "src/base/log.h"
#include "src/config/run.h"
#include "src/objective/pair_step.h"
#include "src/optim/lr.h"
#include "src/train/account.h"
#include "src/train/data.h"
#include "src/train/data_set.h"
#include "src/train/dpo.h"
#include "src/train/deadline.h"
#include "src/train/engine.h"
#include "src/train/lock.h"
#include "src/train/memory_plan.h"
#include "src/train/metrics.h"
#include "src/train/save.h"
#include "src/train/saving.h"
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
    char *schedule_text;     /* of parallel.schedule: FILE.csv, or NULL */
    struct memory_plan plan; /* of this rank */
    struct engine *engine;
    struct account *account; /* NULL: not asked for */
    struct lr lr;
    int64_t steps; /* total */
    struct position at;
    struct saving saving;
    struct deadline deadline; /* of the job */
    int stop;                 /* why the run ends early, STOP_NOT: it does not */
    int micro_batches;        /* of a replica in a step */
    int slot_words;           /* numbers of a sample, engine_slot_words */
    int32_t *tokens;          /* [samples of a replica][slot_words], then my_order */
    int32_t *my_order;        /* [samples of a replica] their numbers in the step */
    int32_t *order;           /* [global_batch] the same of all replicas, first stage */
    size_t tokens_bytes;      /* with my_order */
    struct batch *batches;    /* [micro_batches] */
    double *segment_nll;      /* [micro_batches][engine_segments] */
    double *nll;              /* [global_batch] in sample order */
    struct pair_step pairs;   /* dpo, as valid_reference */
    struct pair_sums **valid_reference; /* [run.data.valid_sets] or NULL; of their
                                           pairs, NULL: zeros */
    struct dpo_chunks chunks;           /* one but for sDPO */
    int late_failed; /* an error of this rank that the next step agrees on */
    struct err late;
};

/* Fills t (zeroed but for world, log and saving.saved_step) from PATH and --set
 * overrides, read on rank 0. -1 with err set on every rank; call trainer_fini in either
 * case. Collective. */
int trainer_setup(struct trainer *t, const char *path, const char *const *sets,
                  int sets_n, struct err *err);

/* What multiplies in this run. Local. */
const char *trainer_products(const struct trainer *t);

/* Loads weights and, resumed, the optimizer and the run's place (load.c). Collective.
 */
int trainer_load(struct trainer *t, struct err *err);

/* The learning rate of the chunk in progress, or of the run. Local. */
void trainer_set_rates(struct trainer *t);

/* Releases all, the run's lock last. Collective over world. */
void trainer_fini(struct trainer *t);

#endif
