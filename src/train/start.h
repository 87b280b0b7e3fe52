/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_START_H
#define DUSK_TRAIN_START_H

/* Where a run starts: its own newest valid checkpoint, a checkpoint that the run file
 * names, another model's weights (with a layer map), or random weights. Rank 0 alone
 * looks at the file system; the others are told. */

#include <stdbool.h>
#include <stdint.h>

#include "io/ckpt.h"
#include "io/record_set.h"
#include "src/base/log.h"
#include "src/config/run.h"
#include "src/param/layer_map.h"

struct start {
    struct comm *world;       /* borrowed */
    const struct log *log;    /* borrowed */
    const struct run *run;    /* borrowed */
    struct ckpt *ckpt;        /* NULL: random weights */
    char *path;               /* of ckpt */
    bool resumed;             /* optimizer, step and data position go on too */
    struct layer_map map;     /* layers to take from ckpt */
    struct model_shape shape; /* of the run */
    struct ckpt_info info;    /* what the run's own checkpoints will carry on */
    int candidates, tried;    /* the run's checkpoints, newest first, on rank 0 */
    int64_t *candidate;
    char *dir; /* of the run's checkpoints */
};

/* Finds and opens the start. dir: the run's checkpoints folder. -1 with err set on
 * every rank. Collective over world; start_fini frees. */
int start_init(struct start *s, struct comm *world, const struct log *log,
               const struct run *run, const char *dir, struct err *err);
void start_fini(struct start *s);

/* After a load failed with ERR_INPUT: with resume auto, opens the next older valid
 * checkpoint, naming the bad one loudly. -1 with err set when there is none.
 * Collective. */
int start_next(struct start *s, struct err *err);

/* Does the checkpoint resumed from belong to this run? Compares model, seed, data and
 * batch (ERR_USAGE naming the first key that differs and is not in
 * checkpoint.resume_allow) and logs other differences. `data`: data_identity; `gemm`:
 * gemm_name. Local, the same on all ranks. */
int start_check(const struct start *s, const char *data, const char *gemm,
                struct err *err);

/* Writes the run's keys into s->info, for its checkpoints. Local. */
int start_record(struct start *s, const char *data, const char *gemm, struct err *err);

/* Writes the set's chat template into s->info, for its checkpoints and what is exported
 * of them, and makes its end mark the model's. Local. */
int start_record_chat(struct start *s, const struct record_set_info *set,
                      struct err *err);

#endif
