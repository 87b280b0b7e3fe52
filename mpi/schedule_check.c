/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule.h"

#include "src/base/mem.h"

#include <stdarg.h>
#include <stdio.h>

enum { KINDS = PIPE_RECV_BACKWARD + 1 };

/* How far one stage has come: its next operation, and how many of each kind it has
 * done. As every kind must rise from 0, these counts are all there is to know. */
struct progress {
    int next;
    int done[KINDS];
};

static int refuse(struct err *err, const struct schedule *s, int stage, int at,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));

static int refuse(struct err *err, const struct schedule *s, int stage, int at,
                  const char *format, ...)
{
    char why[256];
    va_list ap;
    va_start(ap, format);
    vsnprintf(why, sizeof why, format, ap);
    va_end(ap);
    if (at >= s->ops[stage])
        return err_set(err, ERR_OTHER, "schedule %s, stage %d, at its end: %s",
                       schedule_name(s->kind), stage, why);
    struct pipe_op op = s->op[stage][at];
    return err_set(err, ERR_OTHER,
                   "schedule %s, stage %d, operation %d (%s of micro-batch %d): %s",
                   schedule_name(s->kind), stage, at, pipe_op_name(op.kind),
                   op.micro_batch, why);
}

/* Has this stage operations of this kind at all? */
static bool applies(const struct schedule *s, int stage, enum pipe_op_kind kind)
{
    bool first = stage == 0, last = stage == s->stages - 1;
    bool backward = schedule_backward(s->kind);
    switch (kind) {
    case PIPE_FORWARD:
        return true;
    case PIPE_BACKWARD:
        return backward;
    case PIPE_WEIGHT:
        return schedule_split(s->kind);
    case PIPE_RECV_FORWARD:
        return !first;
    case PIPE_SEND_FORWARD:
        return !last;
    case PIPE_SEND_BACKWARD:
        return backward && !first;
    case PIPE_RECV_BACKWARD:
        return backward && !last;
    }
    return false;
}

/* What a kind works on must have been made by this kind: -1: nothing of this stage. */
static int source_of(const struct schedule *s, int stage, enum pipe_op_kind kind)
{
    switch (kind) {
    case PIPE_FORWARD:
        return stage > 0 ? PIPE_RECV_FORWARD : -1;
    case PIPE_BACKWARD:
        return stage < s->stages - 1 ? PIPE_RECV_BACKWARD : PIPE_FORWARD;
    case PIPE_WEIGHT:
        return PIPE_BACKWARD;
    case PIPE_SEND_FORWARD:
        return PIPE_FORWARD;
    case PIPE_SEND_BACKWARD:
        return PIPE_BACKWARD;
    case PIPE_RECV_FORWARD:
        break;
    case PIPE_RECV_BACKWARD:
        return PIPE_FORWARD;
    }
    return -1;
}

/* The last computation of a micro-batch. */
static enum pipe_op_kind last_of(const struct schedule *s)
{
    return schedule_split(s->kind)      ? PIPE_WEIGHT
           : schedule_backward(s->kind) ? PIPE_BACKWARD
                                        : PIPE_FORWARD;
}

/* Who empties the buffer that a kind fills, one of `buffers`; -1: it fills none. */
static int sink_of(const struct schedule *s, int stage, enum pipe_op_kind kind,
                   int *buffers)
{
    *buffers = SCHEDULE_BUFFERS;
    if (kind == PIPE_FORWARD && stage < s->stages - 1)
        return PIPE_SEND_FORWARD;
    if (kind == PIPE_BACKWARD && stage > 0)
        return PIPE_SEND_BACKWARD;
    if (kind != PIPE_RECV_BACKWARD)
        return -1;
    *buffers = schedule_dout_buffers(s, stage);
    return (int)last_of(s);
}

/* Micro-batches of a stage that are alive, and those that wait for their weight
 * gradients. On stage 0 of a forward pass a micro-batch begins and ends at once. */
static int check_alive(const struct schedule *s, int stage, const struct progress *p,
                       struct err *err)
{
    int begun = p->done[stage > 0 ? PIPE_RECV_FORWARD : PIPE_FORWARD];
    int alive = begun - p->done[last_of(s)];
    if (alive > s->slots[stage] || s->slots[stage] < 1)
        return refuse(err, s, stage, p->next, "%d micro-batches alive in %d slots",
                      alive, s->slots[stage]);
    int waiting = p->done[PIPE_BACKWARD] - p->done[PIPE_WEIGHT];
    if (schedule_split(s->kind) && waiting > s->waiting[stage])
        return refuse(err, s, stage, p->next,
                      "%d micro-batches wait for weight, memory is for %d", waiting,
                      s->waiting[stage]);
    return 0;
}

static int check_operation(const struct schedule *s, int stage, struct progress *p,
                           struct err *err)
{
    int at = p->next;
    struct pipe_op op = s->op[stage][at];
    if ((int)op.kind < 0 || (int)op.kind >= KINDS)
        return err_set(err, ERR_OTHER,
                       "schedule %s, stage %d, operation %d: no such kind: %d",
                       schedule_name(s->kind), stage, at, (int)op.kind);
    if (!applies(s, stage, op.kind))
        return refuse(err, s, stage, at, "this stage has no such operation");
    if (op.micro_batch < 0 || op.micro_batch >= s->micro_batches)
        return refuse(err, s, stage, at, "there are %d micro-batches",
                      s->micro_batches);
    if (op.micro_batch < p->done[op.kind])
        return refuse(err, s, stage, at, "was done before");
    if (op.micro_batch > p->done[op.kind])
        return refuse(err, s, stage, at, "micro-batch %d must come first",
                      p->done[op.kind]);
    int source = source_of(s, stage, op.kind);
    if (source >= 0 && op.micro_batch >= p->done[source])
        return refuse(err, s, stage, at, "needs %s first", pipe_op_name(source));
    int buffers, sink = sink_of(s, stage, op.kind, &buffers);
    if (sink >= 0 && op.micro_batch >= p->done[sink] + buffers)
        return refuse(err, s, stage, at,
                      "its buffer still holds micro-batch %d, which needs %s first",
                      p->done[sink], pipe_op_name(sink));
    p->done[op.kind]++;
    if (check_alive(s, stage, p, err))
        return -1;
    p->next++;
    return 0;
}

/* Order, completeness, dependencies and slots within one stage. */
static int check_stage(const struct schedule *s, int stage, struct err *err)
{
    struct progress p = {0};
    while (p.next < s->ops[stage])
        if (check_operation(s, stage, &p, err))
            return -1;
    for (int kind = 0; kind < KINDS; kind++)
        if (applies(s, stage, kind) && p.done[kind] < s->micro_batches)
            return refuse(err, s, stage, p.next, "%s of micro-batch %d is missing",
                          pipe_op_name(kind), p.done[kind]);
    return 0;
}

/* Must the stage wait for another before its next operation? Outputs are held until
 * the neighbour received them, so an operation that fills a buffer waits for that. */
static bool must_wait(const struct progress *all, int stage, struct pipe_op op)
{
    const struct progress *here = &all[stage];
    int i = op.micro_batch;
    switch (op.kind) {
    case PIPE_RECV_FORWARD:
        return all[stage - 1].done[PIPE_SEND_FORWARD] <= i;
    case PIPE_RECV_BACKWARD:
        return all[stage + 1].done[PIPE_SEND_BACKWARD] <= i;
    case PIPE_FORWARD:
        return here->done[PIPE_SEND_FORWARD] > 0 &&
               all[stage + 1].done[PIPE_RECV_FORWARD] <= i - SCHEDULE_BUFFERS;
    case PIPE_BACKWARD:
        return here->done[PIPE_SEND_BACKWARD] > 0 &&
               all[stage - 1].done[PIPE_RECV_BACKWARD] <= i - SCHEDULE_BUFFERS;
    case PIPE_WEIGHT:
    case PIPE_SEND_FORWARD:
    case PIPE_SEND_BACKWARD:
        break;
    }
    return false;
}

/* Runs all stages, each as far as it can, until all are done or none moves. */
static int simulate(const struct schedule *s, struct progress *all, struct err *err)
{
    bool moved = true;
    while (moved) {
        moved = false;
        for (int stage = 0; stage < s->stages; stage++) {
            struct progress *p = &all[stage];
            while (p->next < s->ops[stage] &&
                   !must_wait(all, stage, s->op[stage][p->next])) {
                p->done[s->op[stage][p->next].kind]++;
                p->next++;
                moved = true;
            }
        }
    }
    for (int stage = 0; stage < s->stages; stage++)
        if (all[stage].next < s->ops[stage])
            return refuse(err, s, stage, all[stage].next,
                          "deadlock: waits for ever for its neighbour");
    return 0;
}

int schedule_check(const struct schedule *s, struct err *err)
{
    for (int stage = 0; stage < s->stages; stage++)
        if (check_stage(s, stage, err))
            return -1;
    struct progress *all = mem_array(s->stages, sizeof *all, err);
    if (!all)
        return -1;
    int failed = simulate(s, all, err);
    mem_free(all);
    return failed;
}
