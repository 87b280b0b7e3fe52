/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_SLURM_H
#define DUSK_TRAIN_SLURM_H

/* What Slurm is asked, by its own commands. Rank 0 alone. Local. */

#include <stdbool.h>

#include "src/base/log.h"

bool slurm_job(void); /* does this process belong to a job? */

/* Seconds until the job's time limit (squeue %L). False if there is none, or Slurm does
 * not say. */
bool slurm_time_left(double *seconds);

/* Asks for the job to be queued again, which also ends it; says in the log what came of
 * it. */
void slurm_requeue(const struct log *log);

#endif
