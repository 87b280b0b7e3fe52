/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_RUNNER_H
#define DUSK_MPI_RUNNER_H

/* Executes one rank's list of a schedule: computes by callbacks, moves activations and
 * their gradients between stages. It knows no model: a message is so many bytes.
 * Between two stages of one rank it is copied.
 *
 * Receives are posted as early as a buffer is free, sends do not wait. An input has its
 * buffer until the last computation of its micro-batch is done, and so has the gradient
 * of an output; there is one more than are in use at once (the stage's slots; see
 * schedule_dout_buffers), so that the next can arrive meanwhile. Outputs and gradients
 * of inputs have SCHEDULE_BUFFERS each, filled again only after their sends completed.
 * Behind each message travels the time at which it was handed over, so that the
 * receiver can tell waiting for its maker from waiting for the message (mpi/trace.h).
 * Nothing is allocated after creation.
 */

#include <stdint.h>

#include "mpi/grid.h"
#include "mpi/schedule.h"
#include "mpi/trace.h"

struct runner;

/* What is to be computed. chunk: the stage's place among this rank's (schedule.h);
 * slot: micro_batch modulo the stage's slots. */
struct runner_place {
    int chunk, micro_batch, slot;
};

struct runner_calls {
    void *context;
    /* in is NULL on stage 0, out NULL on the last stage; both aligned to 64 bytes. `in`
     * stays unchanged until the slot's backward returns, or its weight where there is
     * one. */
    void (*forward)(void *context, const struct runner_place *at, const void *in,
                    void *out);
    /* dout is NULL on the last stage, din NULL on stage 0. Where the schedule's
     * backward is in two this is the first half, and dout stays unchanged until the
     * slot's weight returns. NULL in a forward schedule. */
    void (*backward)(void *context, const struct runner_place *at, const void *dout,
                     void *din);
    /* The second half; else not called. */
    void (*weight)(void *context, const struct runner_place *at);
};

/* A runner for this rank's stages: messages of up to max_bytes. `schedule` is borrowed
 * and must outlive it; one that schedule_check refuses is refused. Owned; NULL with err
 * set. Local. */
struct runner *runner_create(const struct grid *grid, const struct schedule *schedule,
                             int64_t max_bytes, struct err *err);
void runner_destroy(struct runner *r); /* NULL is fine. Local. */

int64_t runner_bytes(const struct grid *grid, const struct schedule *schedule,
                     int64_t max_bytes);

/* Passes from now on record their operations and waits in `trace`: borrowed, NULL for
 * none. Local. */
void runner_set_trace(struct runner *r, struct trace *trace);

/* One pass over the table; micro-batch i moves bytes[i] <= max_bytes. Seconds
 * spent waiting for messages are added to *wait_s. Collective over the pipeline axis.
 */
void runner_run(struct runner *r, const struct runner_calls *calls,
                const int64_t *bytes, double *wait_s);

#endif
