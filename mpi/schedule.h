/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_SCHEDULE_H
#define DUSK_MPI_SCHEDULE_H

/* Pipeline schedules as data. A schedule is one list of operations for each stage, made
 * by a pure function; the runner (mpi/runner.h) executes it, the checker proves it.
 *
 *   gpipe  all forwards, then all backwards (arXiv 1811.06965)
 *   1f1b   at most min(p - s, m) micro-batches alive at stage s (PipeDream-flush,
 *          arXiv 2006.09503)
 *   forward  forwards only, for evaluation
 *
 * Forwards and backwards run in rising micro-batch order in every schedule, so that
 * gradient sums, and all results, have the same bits. Pure, local. */

#include "src/base/err.h"

enum pipe_op_kind {
    PIPE_FORWARD,       /* compute */
    PIPE_BACKWARD,      /* compute: input and weight gradient */
    PIPE_SEND_FORWARD,  /* this stage's output, to the next stage */
    PIPE_RECV_FORWARD,  /* its input, from the stage before */
    PIPE_SEND_BACKWARD, /* gradient of its input, to the stage before */
    PIPE_RECV_BACKWARD  /* gradient of its output, from the next stage */
};

struct pipe_op {
    enum pipe_op_kind kind;
    int micro_batch;
};

enum schedule_kind { SCHEDULE_GPIPE, SCHEDULE_1F1B, SCHEDULE_FORWARD };

struct schedule {
    enum schedule_kind kind;
    int stages, micro_batches;
    int *ops;            /* [stages] operations of each stage */
    struct pipe_op **op; /* [stages][ops[s]] */
    int *slots;          /* [stages] micro-batches alive at once, at most */
};

const char *schedule_name(enum schedule_kind k); /* "gpipe", "1f1b", "forward" */
const char *pipe_op_name(enum pipe_op_kind k);   /* "forward", "send_forward", ... */

/* stages >= 1, micro_batches >= 1. 0, or -1 with err set (no memory). */
int schedule_init(struct schedule *s, enum schedule_kind kind, int stages,
                  int micro_batches, struct err *err);
void schedule_fini(struct schedule *s);

/* Buffers of each stage for outputs, and for gradients of either direction: one is
 * filled while the other is on its way. */
enum { SCHEDULE_BUFFERS = 2 };

/* Proves a table: every stage runs each micro-batch's forward once and (but for
 * `forward`) backward once, each operation in rising order; each input is received
 * before use and each output sent once after it is made, so that sends and receives
 * between two stages match in order; never more than slots[s] micro-batches alive (from
 * the arrival of the input to the end of the last computation); no deadlock when a send
 * completes only at its receive and outputs and gradients have SCHEDULE_BUFFERS buffers
 * each. 0, or -1 with err set naming stage, operation and micro-batch. */
int schedule_check(const struct schedule *s, struct err *err);

#endif
