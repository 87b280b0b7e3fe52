/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_SCHEDULE_TIMES_H
#define DUSK_MPI_SCHEDULE_TIMES_H

/* What a table would take if computing were all that takes time: every operation starts
 * as soon as the one before it on its rank has ended and what it needs was sent;
 * messages take none, and buffers are never waited for. Pure, local. */

#include <stdint.h>

#include "mpi/schedule.h"

/* Of one operation of any stage, in any unit. */
struct schedule_costs {
    double forward;
    double input_gradient, weight_gradient; /* a backward that is not split: both */
};

struct schedule_times {
    int ranks;
    double length;  /* from the first operation's start to the last one's end */
    double *busy;   /* [ranks] of that, computing */
    int *alive;     /* [stages] micro-batches alive at once, at most */
    int *held;      /* [ranks] the same of all its stages together */
    double **start; /* [ranks][ops] of each operation; those of sends and receives are
                       when they are done */
    /* Of the simulation: how far each rank has come. */
    int *next;       /* [ranks] */
    double *now;     /* [ranks] end of the latest operation */
    int *sent;       /* [2 stages] outputs of each stage, then gradients of inputs */
    double *sent_at; /* [2 stages][micro-batches] when */
};

/* The time that an operation computes. */
double schedule_cost(const struct schedule *s, const struct schedule_costs *costs,
                     enum pipe_op_kind kind);

/* Simulates a table that schedule_check accepts. schedule_times_fini frees; -1 with err
 * set (no memory). */
int schedule_times_init(struct schedule_times *t, const struct schedule *s,
                        const struct schedule_costs *costs, struct err *err);
void schedule_times_fini(struct schedule_times *t);
int64_t schedule_times_bytes(const struct schedule *s); /* memory that it takes */

/* Simulates the same table anew with other costs. No allocation. */
void schedule_times_price(struct schedule_times *t, const struct schedule *s,
                          const struct schedule_costs *costs);

/* Share of the step in which ranks idle, 0..1. */
double schedule_bubble(const struct schedule_times *t);

#endif
