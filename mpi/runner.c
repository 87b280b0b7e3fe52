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
 * rises. A lane that a stage does not have has no buffers. Between two stages of one
 * rank nothing travels: what one lane was given to send the other copies to receive. */
struct lane {
    int peer;          /* stage */
    int rank;          /* that holds it */
    const char *waits; /* what for (mpi/watch.h) */
    int tag;
    int buffers;
    bool local;              /* the peer is this rank's */
    const struct lane *from; /* local, receives: the lane that sends */
    char *data;              /* [buffers][stride] */
    MPI_Request *requests;   /* [buffers][pieces] */
    int posted, freed;       /* receives of this run: asked for; no longer needed */
};

/* Of one stage. */
struct port {
    int stage;
    struct lane in, out, din, dout;
};

struct runner {
    const struct comm *axis;
    const struct schedule *schedule;
    int rank; /* of the pipeline */
    int64_t max_bytes, stride;
    int pieces;
    struct port *port;   /* [schedule->chunks] */
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
    int64_t buffers = 0;
    for (int chunk = 0; chunk < schedule->chunks; chunk++) {
        struct lane_sizes n =
            sizes_of(schedule, schedule_stage(schedule, grid->stage, chunk));
        buffers += n.in + n.out + n.din + n.dout;
    }
    int64_t request_bytes = pieces_of(max_bytes) * (int64_t)sizeof(MPI_Request);
    return buffers * (stride_of(max_bytes) + request_bytes);
}

/* The tag tells chunks of the receiver apart: of each it gets one kind of message of
 * either direction. */
static int lane_init(struct runner *r, struct lane *l, int buffers, int peer,
                     enum tag tag, int receiver, const char *waits, struct err *err)
{
    *l = (struct lane){.peer = peer, .waits = waits, .buffers = buffers};
    if (buffers == 0)
        return 0;
    l->rank = r->schedule->rank_of[peer];
    l->local = l->rank == r->rank;
    l->tag = (int)tag + r->schedule->chunk_of[receiver] * TAG_CHUNK;
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

static int port_init(struct runner *r, struct port *port, int stage, struct err *err)
{
    struct lane_sizes n = sizes_of(r->schedule, stage);
    port->stage = stage;
    return lane_init(r, &port->in, n.in, stage - 1, TAG_FORWARD, stage,
                     "activations from stage", err) ||
           lane_init(r, &port->out, n.out, stage + 1, TAG_FORWARD, stage + 1,
                     "activations to stage", err) ||
           lane_init(r, &port->din, n.din, stage - 1, TAG_BACKWARD, stage - 1,
                     "a gradient to stage", err) ||
           lane_init(r, &port->dout, n.dout, stage + 1, TAG_BACKWARD, stage,
                     "a gradient from stage", err);
}

static struct port *port_of(const struct runner *r, int stage)
{
    return &r->port[r->schedule->chunk_of[stage]];
}

static int ports_init(struct runner *r, struct err *err)
{
    const struct schedule *s = r->schedule;
    for (int chunk = 0; chunk < s->chunks; chunk++)
        if (port_init(r, &r->port[chunk], schedule_stage(s, r->rank, chunk), err))
            return -1;
    for (int chunk = 0; chunk < s->chunks; chunk++) {
        struct port *here = &r->port[chunk];
        if (here->in.local)
            here->in.from = &port_of(r, here->in.peer)->out;
        if (here->dout.local)
            here->dout.from = &port_of(r, here->dout.peer)->din;
    }
    return 0;
}

struct runner *runner_create(const struct grid *grid, const struct schedule *schedule,
                             int64_t max_bytes, struct err *err)
{
    if (grid->pipeline != schedule->ranks) {
        err_set(err, ERR_OTHER, "runner: a schedule of %d ranks on a pipeline of %d",
                schedule->ranks, grid->pipeline);
        return NULL;
    }
    if (schedule_check(schedule, err))
        return NULL;
    struct runner *r = mem_array(1, sizeof *r, err);
    if (!r)
        return NULL;
    r->axis = grid->pipe_axis;
    r->schedule = schedule;
    r->rank = grid->stage;
    r->max_bytes = max_bytes;
    r->stride = stride_of(max_bytes);
    r->pieces = pieces_of(max_bytes);
    r->port = mem_array(schedule->chunks, sizeof *r->port, err);
    if (!r->port || ports_init(r, err)) {
        runner_destroy(r);
        return NULL;
    }
    return r;
}

void runner_destroy(struct runner *r)
{
    if (!r)
        return;
    for (int chunk = 0; r->port && chunk < r->schedule->chunks; chunk++) {
        struct port *port = &r->port[chunk];
        lane_fini(&port->in);
        lane_fini(&port->out);
        lane_fini(&port->din);
        lane_fini(&port->dout);
    }
    mem_free(r->port);
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
            MPX(MPI_Irecv(data + at, n, MPI_BYTE, l->rank, l->tag, comm_mpi(r->axis),
                          request));
        else
            MPX(MPI_Isend(data + at, n, MPI_BYTE, l->rank, l->tag, comm_mpi(r->axis),
                          request));
    }
}

static void send(const struct runner *r, struct lane *l, int i, int64_t bytes)
{
    if (l->local)
        return;
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
    if (l->local) {
        memcpy(buffer(r, l, i), buffer(r, l->from, i), (size_t)bytes);
        return;
    }
    double begin, end = wait_for(r, l, i, &begin), stamp;
    memcpy(&stamp, (const char *)buffer(r, l, i) + bytes, sizeof stamp);
    trace_wait(r->trace, TRACE_RECEIVE, i, begin, end, stamp);
    *wait_s += end - begin;
}

/* The buffer that message i is to have, or had, is away. */
static void away(const struct runner *r, const struct lane *l, int i, double *wait_s)
{
    if (l->buffers == 0 || l->local)
        return;
    double begin, end = wait_for(r, l, i, &begin);
    trace_wait(r->trace, TRACE_SEND, i, begin, end, -INFINITY);
    *wait_s += end - begin;
}

/* Asks for every message that a buffer is free for. */
static void post_receives(const struct runner *r, struct lane *l, const int64_t *bytes)
{
    int m = l->buffers && !l->local ? r->schedule->micro_batches : 0;
    while (l->posted < m && l->posted - l->freed < l->buffers) {
        start(r, l, l->posted, bytes[l->posted], true);
        l->posted++;
    }
}

/* The oldest micro-batch's input and gradient are needed no longer. */
static void free_received(struct port *port)
{
    port->in.freed++;
    port->dout.freed++;
}

static void compute(const struct runner *r, struct port *port, struct pipe_op op,
                    const struct runner_calls *calls, double *wait_s)
{
    const struct schedule *s = r->schedule;
    int i = op.micro_batch;
    struct runner_place at = {s->chunk_of[op.stage], i, i % s->slots[op.stage]};
    if (op.kind == PIPE_FORWARD)
        away(r, &port->out, i, wait_s); /* the message before in this buffer */
    if (op.kind == PIPE_BACKWARD)
        away(r, &port->din, i, wait_s);
    double begin = trace_now(r->trace);
    switch (op.kind) {
    case PIPE_FORWARD:
        calls->forward(calls->context, &at, buffer(r, &port->in, i),
                       buffer(r, &port->out, i));
        trace_add(r->trace, TRACE_FORWARD, i, begin);
        if (!schedule_backward(s->kind))
            port->in.freed++;
        break;
    case PIPE_BACKWARD:
        calls->backward(calls->context, &at, buffer(r, &port->dout, i),
                        buffer(r, &port->din, i));
        trace_add(r->trace, TRACE_BACKWARD, i, begin);
        if (!s->split)
            free_received(port);
        break;
    default:
        calls->weight(calls->context, &at);
        trace_add(r->trace, TRACE_WEIGHT, i, begin);
        free_received(port);
        break;
    }
}

static void execute(const struct runner *r, struct pipe_op op,
                    const struct runner_calls *calls, const int64_t *bytes,
                    double *wait_s)
{
    struct port *port = port_of(r, op.stage);
    int i = op.micro_batch;
    trace_chunk(r->trace, r->schedule->chunk_of[op.stage]);
    switch (op.kind) {
    case PIPE_RECV_FORWARD:
        receive(r, &port->in, i, bytes[i], wait_s);
        break;
    case PIPE_RECV_BACKWARD:
        receive(r, &port->dout, i, bytes[i], wait_s);
        break;
    case PIPE_SEND_FORWARD:
        send(r, &port->out, i, bytes[i]);
        break;
    case PIPE_SEND_BACKWARD:
        send(r, &port->din, i, bytes[i]);
        break;
    case PIPE_FORWARD:
    case PIPE_BACKWARD:
    case PIPE_WEIGHT:
        compute(r, port, op, calls, wait_s);
        break;
    }
}

void runner_run(struct runner *r, const struct runner_calls *calls,
                const int64_t *bytes, double *wait_s)
{
    const struct schedule *s = r->schedule;
    for (int chunk = 0; chunk < s->chunks; chunk++) {
        struct port *port = &r->port[chunk];
        port->in.posted = port->in.freed = 0;
        port->dout.posted = port->dout.freed = 0;
    }
    for (int at = 0; at < s->ops[r->rank]; at++) {
        for (int chunk = 0; chunk < s->chunks; chunk++) {
            post_receives(r, &r->port[chunk].in, bytes);
            post_receives(r, &r->port[chunk].dout, bytes);
        }
        execute(r, s->op[r->rank][at], calls, bytes, wait_s);
    }
    int m = s->micro_batches;
    for (int chunk = 0; chunk < s->chunks; chunk++) {
        struct port *port = &r->port[chunk];
        trace_chunk(r->trace, chunk);
        for (int i = m - port->out.buffers; i < m; i++)
            away(r, &port->out, i, wait_s);
        for (int i = m - port->din.buffers; i < m; i++)
            away(r, &port->din, i, wait_s);
    }
    trace_chunk(r->trace, 0);
}
