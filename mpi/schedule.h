/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_SCHEDULE_H
#define DUSK_MPI_SCHEDULE_H

/* Pipeline schedules as data. A schedule is one list of operations for each stage, made
 * by a pure function; the runner (mpi/runner.h) executes it, the checker proves it.
 *
 *   gpipe  all forwards, then all backwards (arXiv 1811.06965)
 *   1f1b   at most min(p - s, m) micro-batches alive at stage s (PipeDream-flush,
 *          arXiv 2006.09503)
 *   zb-h1  1f1b with the backward in two: stage s puts the weight gradients off by s
 *          micro-batches, into what would be bubble; at most min(p, m) alive at any
 *          stage (arXiv 2401.10241, sections 2.1 and 2.3: with times F, B, W its
 *          bubble is (p - 1)(F + B - W), 1f1b's (p - 1)(F + B + W))
 *   forward  forwards only, for evaluation
 *
 * Forwards, backwards and weight gradients run in rising micro-batch order in every
 * schedule, so that gradient sums, and all results, have the same bits. Pure, local. */

#include <stdbool.h>

#include "src/base/err.h"

enum pipe_op_kind {
    PIPE_FORWARD,       /* compute */
    PIPE_BACKWARD,      /* compute: input gradient; where no PIPE_WEIGHT follows,
                           weight gradients too */
    PIPE_WEIGHT,        /* compute: weight gradients */
    PIPE_SEND_FORWARD,  /* this stage's output, to the next stage */
    PIPE_RECV_FORWARD,  /* its input, from the stage before */
    PIPE_SEND_BACKWARD, /* gradient of its input, to the stage before */
    PIPE_RECV_BACKWARD  /* gradient of its output, from the next stage */
};

struct pipe_op {
    enum pipe_op_kind kind;
    int micro_batch;
};

enum schedule_kind { SCHEDULE_GPIPE, SCHEDULE_1F1B, SCHEDULE_ZB_H1, SCHEDULE_FORWARD };

struct schedule {
    enum schedule_kind kind;
    int stages, micro_batches;
    int *ops;            /* [stages] operations of each stage */
    struct pipe_op **op; /* [stages][ops[s]] */
    int *slots;          /* [stages] micro-batches alive at once, at most */
    int *waiting;        /* [stages] of them between PIPE_BACKWARD and the end of
                            PIPE_WEIGHT, at most; 0: no PIPE_WEIGHT */
};

const char *schedule_name(enum schedule_kind k); /* "gpipe", "1f1b", "zb-h1" ... */
const char *pipe_op_name(enum pipe_op_kind k);   /* "forward", "send_forward", ... */

/* stages >= 1, micro_batches >= 1. 0, or -1 with err set (no memory). */
int schedule_init(struct schedule *s, enum schedule_kind kind, int stages,
                  int micro_batches, struct err *err);
void schedule_fini(struct schedule *s);

/* Buffers of each stage for outputs and for gradients of its inputs: one is filled
 * while the other is on its way. */
enum { SCHEDULE_BUFFERS = 2 };

/* Does the schedule train? Is its backward in two? */
bool schedule_backward(enum schedule_kind k);
bool schedule_split(enum schedule_kind k);

/* Buffers for gradients of the stage's outputs, which its last computation of a
 * micro-batch reads: one more than are in use at once, so that the next can arrive. */
int schedule_dout_buffers(const struct schedule *s, int stage);

/* Proves a table: every stage runs each micro-batch's forward once and (but for
 * `forward`) backward once, in `zb-h1` in its two halves, each operation in rising
 * order; each input is received before use and each output sent once after it is made,
 * so that sends and receives between two stages match in order; never more than
 * slots[s] micro-batches alive (from the arrival of the input to the end of the last
 * computation), never more than waiting[s] between the halves; no deadlock when a send
 * completes only at its receive, outputs and gradients of inputs have SCHEDULE_BUFFERS
 * buffers each, gradients of outputs schedule_dout_buffers. 0, or -1 with err set
 * naming stage, operation and micro-batch. */
int schedule_check(const struct schedule *s, struct err *err);

#endif
