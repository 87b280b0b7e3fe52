/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_LOCK_H
#define DUSK_TRAIN_LOCK_H

/* The lock of a run folder: a file that names who holds it (job, host, pid, start), so
 * that two jobs never train into one folder, and a job that died does not lock it for
 * ever.
 *
 * A holder is stale when it can be shown dead: a process of this host that is gone or
 * has another start time; the same Slurm job after a requeue; a Slurm job that squeue
 * no longer knows. All else counts as live. Rank 0 alone uses it. Local. */

#include <stdbool.h>

#include "src/base/err.h"
#include "src/base/log.h"

struct lock {
    char *path; /* owned; NULL: not held */
};

/* Takes the lock file at path. A live holder is ERR_USAGE naming it; a stale one is
 * taken over with a log line and *took_over set. */
int lock_take(struct lock *lock, const char *path, const struct log *log,
              bool *took_over, struct err *err);
void lock_release(struct lock *lock); /* removes the file; not held is fine */

#endif
