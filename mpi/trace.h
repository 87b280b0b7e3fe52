/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_TRACE_H
#define DUSK_MPI_TRACE_H

/* Where one rank's step goes: seconds of each kind of operation, added up as they end,
 * and where a timeline is wanted each operation with its begin and end. Two readings of
 * the clock an operation, no allocation, nothing shared: what ranks tell each other of
 * it is the business of others (src/train/account.h, src/train/timeline.h).
 *
 * Exposed communication is waiting for a message after its producer has handed it over,
 * on the shared clock (mpi/clock_sync.h): waiting before that is the schedule's bubble
 * or imbalance. The producer's time travels behind the message. Waiting for a buffer
 * whose message is not away yet is exposed in whole.
 *
 * A NULL or switched-off trace does nothing and reads no clock. Local. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/clock_sync.h"
#include "src/base/err.h"

enum trace_kind {
    TRACE_FORWARD,   /* computing, as enum pipe_op_kind */
    TRACE_BACKWARD,  /* the input gradient; where the schedule does not split, both */
    TRACE_WEIGHT,    /* the weight gradient of its own */
    TRACE_RECEIVE,   /* waiting for a stage's message */
    TRACE_SEND,      /* waiting for a buffer to be away */
    TRACE_REDUCE,    /* gradients to the owners of their elements, and the norm */
    TRACE_OPTIMIZER, /* AdamW on the owned elements */
    TRACE_PUBLISH,   /* weights from their owners */
    TRACE_DATA,      /* the step's samples read, agreed on and sent down the pipeline */
    TRACE_LOSS,      /* the loss summed over all ranks, with waiting for the last */
    TRACE_STEP,      /* all of a step; its micro-batch is the step's number, from the
                        first one kept */
    TRACE_KINDS
};

struct trace_span {
    double begin_s, end_s; /* clock_s() of this rank */
    int32_t micro_batch;   /* -1: none */
    uint16_t kind;         /* enum trace_kind */
    uint16_t chunk;        /* place of the stage among the rank's */
};

struct trace {
    bool on;
    bool keeps; /* spans too */
    int chunk;  /* whose operations these are */
    struct clock_fix fix;
    /* Of the step under way: */
    double seconds[TRACE_KINDS];
    double exposed_s;
    double first_s, last_s; /* of the pass's computing: begin of the first operation,
                               end of the last; clock_s(), both 0: none yet */
    /* Kept: */
    int64_t spans, room;
    struct trace_span *span; /* [room]; owned */
};

const char *trace_kind_name(enum trace_kind k); /* "forward", "receive_wait", ... */

/* On, keeping nothing yet; room spans at most are kept, 0: none ever. trace_fini frees.
 * -1 with err set (no memory). */
int trace_init(struct trace *t, int64_t room, struct err *err);
void trace_fini(struct trace *t);
int64_t trace_bytes(int64_t room);

/* Spans of a step at most, with a pass of so many operations of a schedule. Pure. */
int64_t trace_step_spans(int pass_ops);

/* Sums are zero again. */
void trace_step(struct trace *t);

/* clock_s() for one that is on, else 0. */
double trace_now(const struct trace *t);

/* The shared time, to travel with a message. */
double trace_shared_now(const struct trace *t);

/* What follows is of the rank's stage at place `chunk`. */
void trace_chunk(struct trace *t, int chunk);

/* An operation from begin_s to now. */
void trace_add(struct trace *t, enum trace_kind kind, int micro_batch, double begin_s);

/* A wait; what was waited for was there from ready_s on, in shared time (-INFINITY: all
 * of it is exposed). */
void trace_wait(struct trace *t, enum trace_kind kind, int micro_batch, double begin_s,
                double end_s, double ready_s);

#endif
