/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_BINDING_H
#define DUSK_TRAIN_BINDING_H

/* Which cores the ranks run on: bound by the launcher (sched_getaffinity), shared or
 * not. Two ranks on one core take turns, and each waits for the other in every message:
 * a step is then far slower than half the speed. */

#include "mpi/comm.h"
#include "src/base/log.h"

/* One line with ranks, hosts, cores and threads, and a warning where ranks of a host
 * have more threads than the cores that they may use. Collective over world; the log
 * speaks on rank 0. -1 with err set (no memory) on every rank. */
int binding_report(struct comm *world, const struct log *log, struct err *err);

#endif
