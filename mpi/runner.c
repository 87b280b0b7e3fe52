/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/runner.h"

#include "mpi/comm_mpi.h"
#include "mpi/mpx.h"
#include "mpi/tags.h"
#include "mpi/watch.h"
#include "src/base/check.h"
#include "src/base/clock.h"
#include "src/base/mem.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum {
    /* A message travels in pieces of at most 16 MiB, far below the 2 GiB where MPI's
     * int counts and some transports end. */
    PIECE_BYTES = 1 << 24,
    ALIGN_BYTES = 64,
    STAMP_BYTES = sizeof(double) /* behind each message: when it was handed over */
};

/* Messages of one direction on one side of a stage: a ring of buffers, each with the
 * requests of its message. Message i is micro-batch i's, as every kind of operation
 * rises. A lane that a stage does not have has no buffers. */
struct lane {
    int peer;          /* stage */
    const char *waits; /* what for (mpi/watch.h) */
    enum tag tag;
    int buffers;
    char *data;            /* [buffers][stride] */
    MPI_Request *requests; /* [buffers][pieces] */
    int posted, freed;     /* receives of this run: asked for; no longer needed */
};

struct runner {
    const struct comm *axis;
    const struct schedule *schedule;
    int stage;
    int64_t max_bytes, stride;
    int pieces;
    struct lane in, out, din, dout;
    struct trace *trace; /* borrowed, or NULL */
};

static int at_most(int a, int b)
{
    return a < b ? a : b;
}

/* Buffers of each lane at a stage. Of what arrives one more than is in use at once, so
 * that the next can come meanwhile. */
struct lane_sizes {
    int in, out, din, dout;
};

static struct lane_sizes sizes_of(const struct schedule *s, int stage)
{
    int m = s->micro_batches, two = at_most(SCHEDULE_BUFFERS, m);
    bool first = stage == 0, last = stage == s->stages - 1;
    bool backward = schedule_backward(s->kind);
    return (struct lane_sizes){
        .in = first ? 0 : at_most(s->slots[stage] + 1, m),
        .out = last ? 0 : two,
        .din = backward && !first ? two : 0,
        .dout = backward && !last ? schedule_dout_buffers(s, stage) : 0,
    };
}

static int64_t stride_of(int64_t max_bytes)
{
    return (max_bytes + STAMP_BYTES + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

static int pieces_of(int64_t bytes)
{
    return to_int((bytes + STAMP_BYTES + PIECE_BYTES - 1) / PIECE_BYTES);
}

int64_t runner_bytes(const struct grid *grid, const struct schedule *schedule,
                     int64_t max_bytes)
{
    struct lane_sizes n = sizes_of(schedule, grid->stage);
    int64_t buffers = n.in + n.out + n.din + n.dout;
    int64_t request_bytes = pieces_of(max_bytes) * (int64_t)sizeof(MPI_Request);
    return buffers * (stride_of(max_bytes) + request_bytes);
}

static int lane_init(struct runner *r, struct lane *l, int buffers, int peer,
                     enum tag tag, const char *waits, struct err *err)
{
    *l = (struct lane){.peer = peer, .waits = waits, .tag = tag, .buffers = buffers};
    if (buffers == 0)
        return 0;
    int64_t requests = (int64_t)buffers * r->pieces;
    l->data = mem_array(buffers * r->stride, 1, err);
    l->requests = mem_array(requests, sizeof(MPI_Request), err);
    if (!l->data || !l->requests)
        return -1;
    for (int64_t i = 0; i < requests; i++)
        l->requests[i] = MPI_REQUEST_NULL;
    return 0;
}

static void lane_fini(struct lane *l)
{
    mem_free(l->data);
    mem_free(l->requests);
}

struct runner *runner_create(const struct grid *grid, const struct schedule *schedule,
                             int64_t max_bytes, struct err *err)
{
    if (grid->pipeline != schedule->stages) {
        err_set(err, ERR_OTHER, "runner: a schedule of %d stages on a pipeline of %d",
                schedule->stages, grid->pipeline);
        return NULL;
    }
    if (schedule_check(schedule, err))
        return NULL;
    struct runner *r = mem_array(1, sizeof *r, err);
    if (!r)
        return NULL;
    int stage = grid->stage;
    r->axis = grid->pipe_axis;
    r->schedule = schedule;
    r->stage = stage;
    r->max_bytes = max_bytes;
    r->stride = stride_of(max_bytes);
    r->pieces = pieces_of(max_bytes);
    struct lane_sizes n = sizes_of(schedule, stage);
    if (lane_init(r, &r->in, n.in, stage - 1, TAG_FORWARD, "activations from stage",
                  err) ||
        lane_init(r, &r->out, n.out, stage + 1, TAG_FORWARD, "activations to stage",
                  err) ||
        lane_init(r, &r->din, n.din, stage - 1, TAG_BACKWARD, "a gradient to stage",
                  err) ||
        lane_init(r, &r->dout, n.dout, stage + 1, TAG_BACKWARD, "a gradient from stage",
                  err)) {
        runner_destroy(r);
        return NULL;
    }
    return r;
}

void runner_destroy(struct runner *r)
{
    if (!r)
        return;
    lane_fini(&r->in);
    lane_fini(&r->out);
    lane_fini(&r->din);
    lane_fini(&r->dout);
    mem_free(r);
}

void runner_set_trace(struct runner *r, struct trace *trace)
{
    r->trace = trace;
}

static void *buffer(const struct runner *r, const struct lane *l, int i)
{
    return l->buffers ? l->data + i % l->buffers * r->stride : NULL;
}

static MPI_Request *requests(const struct runner *r, const struct lane *l, int i)
{
    return l->requests + i % l->buffers * r->pieces;
}

/* Starts message i of so many bytes and its stamp; the two ends cut it alike. */
static void start(const struct runner *r, struct lane *l, int i, int64_t bytes,
                  bool receive)
{
    CHECK(bytes >= 0 && bytes <= r->max_bytes,
          "micro-batch %d: %lld bytes of at most %lld", i, (long long)bytes,
          (long long)r->max_bytes);
    char *data = buffer(r, l, i);
    MPI_Request *request = requests(r, l, i);
    int64_t all = bytes + STAMP_BYTES;
    for (int64_t at = 0; at < all; at += PIECE_BYTES, request++) {
        int n = all - at < PIECE_BYTES ? (int)(all - at) : PIECE_BYTES;
        if (receive)
            MPX(MPI_Irecv(data + at, n, MPI_BYTE, l->peer, l->tag, comm_mpi(r->axis),
                          request));
        else
            MPX(MPI_Isend(data + at, n, MPI_BYTE, l->peer, l->tag, comm_mpi(r->axis),
                          request));
    }
}

static void send(const struct runner *r, struct lane *l, int i, int64_t bytes)
{
    double stamp = trace_shared_now(r->trace);
    memcpy((char *)buffer(r, l, i) + bytes, &stamp, sizeof stamp);
    start(r, l, i, bytes, false);
}

static double wait_for(const struct runner *r, const struct lane *l, int i,
                       double *begin_s)
{
    *begin_s = clock_s();
    watch_for(comm_watch(r->axis), l->waits, i, l->peer);
    comm_wait(r->axis, r->pieces, requests(r, l, i));
    return clock_s();
}

/* Message i of so many bytes is here. */
static void receive(const struct runner *r, const struct lane *l, int i, int64_t bytes,
                    double *wait_s)
{
    double begin, end = wait_for(r, l, i, &begin), stamp;
    memcpy(&stamp, (const char *)buffer(r, l, i) + bytes, sizeof stamp);
    trace_wait(r->trace, TRACE_RECEIVE, i, begin, end, stamp);
    *wait_s += end - begin;
}

/* The buffer that message i is to have, or had, is away. */
static void away(const struct runner *r, const struct lane *l, int i, double *wait_s)
{
    if (l->buffers == 0)
        return;
    double begin, end = wait_for(r, l, i, &begin);
    trace_wait(r->trace, TRACE_SEND, i, begin, end, -INFINITY);
    *wait_s += end - begin;
}

/* Asks for every message that a buffer is free for. */
static void post_receives(const struct runner *r, struct lane *l, const int64_t *bytes)
{
    int m = l->buffers ? r->schedule->micro_batches : 0;
    while (l->posted < m && l->posted - l->freed < l->buffers) {
        start(r, l, l->posted, bytes[l->posted], true);
        l->posted++;
    }
}

/* The oldest micro-batch's input and gradient are needed no longer. */
static void free_received(struct runner *r)
{
    r->in.freed++;
    r->dout.freed++;
}

static void execute(struct runner *r, struct pipe_op op,
                    const struct runner_calls *calls, const int64_t *bytes,
                    double *wait_s)
{
    int i = op.micro_batch, slot = i % r->schedule->slots[r->stage];
    double begin;
    switch (op.kind) {
    case PIPE_RECV_FORWARD:
        receive(r, &r->in, i, bytes[i], wait_s);
        break;
    case PIPE_RECV_BACKWARD:
        receive(r, &r->dout, i, bytes[i], wait_s);
        break;
    case PIPE_SEND_FORWARD:
        send(r, &r->out, i, bytes[i]);
        break;
    case PIPE_SEND_BACKWARD:
        send(r, &r->din, i, bytes[i]);
        break;
    case PIPE_FORWARD:
        away(r, &r->out, i, wait_s); /* the message before in this buffer */
        begin = trace_now(r->trace);
        calls->forward(calls->context, i, slot, buffer(r, &r->in, i),
                       buffer(r, &r->out, i));
        trace_add(r->trace, TRACE_FORWARD, i, begin);
        if (!schedule_backward(r->schedule->kind))
            r->in.freed++;
        break;
    case PIPE_BACKWARD:
        away(r, &r->din, i, wait_s);
        begin = trace_now(r->trace);
        calls->backward(calls->context, i, slot, buffer(r, &r->dout, i),
                        buffer(r, &r->din, i));
        trace_add(r->trace, TRACE_BACKWARD, i, begin);
        if (!schedule_split(r->schedule->kind))
            free_received(r);
        break;
    case PIPE_WEIGHT:
        begin = trace_now(r->trace);
        calls->weight(calls->context, i, slot);
        trace_add(r->trace, TRACE_WEIGHT, i, begin);
        free_received(r);
        break;
    }
}

void runner_run(struct runner *r, const struct runner_calls *calls,
                const int64_t *bytes, double *wait_s)
{
    r->in.posted = r->in.freed = 0;
    r->dout.posted = r->dout.freed = 0;
    for (int at = 0; at < r->schedule->ops[r->stage]; at++) {
        post_receives(r, &r->in, bytes);
        post_receives(r, &r->dout, bytes);
        execute(r, r->schedule->op[r->stage][at], calls, bytes, wait_s);
    }
    int m = r->schedule->micro_batches;
    for (int i = m - r->out.buffers; i < m; i++)
        away(r, &r->out, i, wait_s);
    for (int i = m - r->din.buffers; i < m; i++)
        away(r, &r->din, i, wait_s);
}
