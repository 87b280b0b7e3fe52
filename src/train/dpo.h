/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_DPO_H
#define DUSK_TRAIN_DPO_H

/* What a run with train.objective dpo has beside the others: the loss and its metrics,
 * the reference's log-probabilities of its sets, and with dpo.chunks the course of
 * sDPO.
 *
 * The reference's weights are in the engine only while they are needed, before those of
 * the run are loaded; no second model is kept. Validation is beside the run's reference
 * in every chunk, so that its figures are comparable. */

#include "src/config/run.h"
#include "src/objective/preference.h"
#include "src/train/pair_logps.h"

struct trainer;

/* The dpo section as settings; zeros for other objectives. -1: a value outside of its
 * range or one that the loss would ignore, ERR_USAGE naming the key. */
int dpo_settings(const struct run *run, struct preference_settings *s, struct err *err);

/* sDPO's chunks: 1 if there are none. */
struct dpo_chunks {
    int n, at;     /* at: the one in progress, -1: none yet */
    int64_t *step; /* [n + 1] each one's first step, then the run's steps */
    int64_t *pair; /* [pairs] from easy to hard; NULL: one chunk */
};

/* Steps of the run and of its chunks (t->chunks), with t->data open; also of runs that
 * are not of dpo. ERR_INPUT: fewer pairs than chunks. Local. */
int dpo_plan(struct trainer *t, struct err *err);

/* The references of all sets; for the training sets as of the run's start. The engine's
 * weights are undefined afterwards. Collective. */
int dpo_setup(struct trainer *t, struct err *err);

/* With the run's weights loaded, at its start and again when dpo_chunk_ends: takes the
 * chunk of t->at.step, whose reference is the model at the chunk's first step. At that
 * step the optimizer starts anew. The state must be saved there. Collective. */
int dpo_enter(struct trainer *t, struct err *err);

/* Does a chunk but the last end with the steps done? Local. */
bool dpo_chunk_ends(const struct trainer *t);

/* Figures of the i-th validation set, on the first `limit` pairs (0: all). shown,
 * called with t: as in evaluate.h; 1 if it ended the validation. Collective. */
int dpo_validate(struct trainer *t, int i, int64_t limit,
                 int (*shown)(void *context, double done, double total),
                 struct pair_figures *figures, struct err *err);

void dpo_fini(struct trainer *t); /* Local. */

#endif
