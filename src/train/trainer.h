/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_TRAINER_H
#define DUSK_TRAIN_TRAINER_H

/* A training run from its file to its last checkpoint, in phases: read and agree on the
 * run, take its folder, find the start, build the engine, load, step, save. */

#include "mpi/comm.h"
#include "src/base/err.h"
#include "src/base/log.h"

/* Runs PATH with --set overrides (on rank 0; the others are told). 0: all steps done
 * and saved. -1 with err set on every rank; ERR_STOPPED: a signal came, the state is
 * saved, the same command goes on. Collective over world. */
int train(struct comm *world, const struct log *log, const char *path,
          const char *const *sets, int sets_n, struct err *err);

#endif
