/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_SAVE_H
#define DUSK_TRAIN_SAVE_H

/* Saving a run's state: one checkpoint folder that appears complete, then `latest`
 * and `best`, then the old ones that retention lets go. Before any of these goes, the
 * new one is read back and held against its checksums. */

#include "io/ckpt.h"
#include "src/base/log.h"
#include "src/train/checkpoints.h"
#include "src/train/engine.h"

/* Where the run stands: all that is not weights or moments. */
struct position {
    int64_t step, samples, tokens, adam_t;
    int64_t skipped, skipped_in_a_row; /* updates dropped: in all, up to here */
};

/* Saves into DIR/step-%08d. info carries what start_record put there; its numbers are
 * set here. what->newest is at->step; if what->best is too, `best` points there. Logs
 * path, bytes and rate. -1 with err set on every rank, older checkpoints whole and
 * nothing half-written left. Collective over the engine's world. */
int save_state(struct engine *e, const char *dir, struct ckpt_info *info,
               const struct position *at, const struct retention *what,
               const struct log *log, struct err *err);

/* Bytes of a state, weights and moments, that are written. Local. */
int64_t save_bytes(const struct engine *e);

/* The same into DIR/step-%08d-nonfinite, which is no checkpoint of the run: `latest`
 * and the others stay. For the state that a run was given up with. */
int save_nonfinite(struct engine *e, const char *dir, struct ckpt_info *info,
                   const struct position *at, const struct log *log, struct err *err);

#endif
