/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_RUNNER_H
#define DUSK_MPI_RUNNER_H

/* Executes one stage's list of a schedule: computes by callbacks, moves activations and
 * their gradients between stages. It knows no model: a message is `floats` numbers.
 *
 * Receives are posted as early as a buffer is free, sends do not wait. An input has its
 * buffer until its backward is done; there is one more than the stage's slots, so that
 * the next can arrive meanwhile. Outputs and gradients have SCHEDULE_BUFFERS each,
 * filled again only after their sends completed. Nothing is allocated after creation.
 */

#include <stdint.h>

#include "mpi/grid.h"
#include "mpi/schedule.h"

struct runner;

struct runner_calls {
    void *context;
    /* slot: micro_batch modulo the stage's slots. in is NULL on stage 0, out NULL on
     * the last stage. `in` stays unchanged until the slot's backward returns. */
    void (*forward)(void *context, int micro_batch, int slot, const float *in,
                    float *out);
    /* dout is NULL on the last stage, din NULL on stage 0. NULL in a forward schedule.
     */
    void (*backward)(void *context, int micro_batch, int slot, const float *dout,
                     float *din);
};

/* A runner for this rank's stage: messages of up to max_floats. `schedule` is borrowed
 * and must outlive it; one that schedule_check refuses is refused. Owned; NULL with err
 * set. Local. */
struct runner *runner_create(const struct grid *grid, const struct schedule *schedule,
                             int64_t max_floats, struct err *err);
void runner_destroy(struct runner *r); /* NULL is fine. Local. */

int64_t runner_bytes(const struct grid *grid, const struct schedule *schedule,
                     int64_t max_floats);

/* One pass over the table; micro-batch i moves floats[i] <= max_floats numbers. Seconds
 * spent waiting for messages are added to *wait_s. Collective over the pipeline axis.
 */
void runner_run(struct runner *r, const struct runner_calls *calls,
                const int64_t *floats, double *wait_s);

#endif
