/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule.h"

#include "src/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { KINDS = PIPE_RECV_BACKWARD + 1 };

/* How far one stage has come: how many of each kind it has done. As every kind must
 * rise from 0, these counts are all there is to know. */
struct progress {
    int done[KINDS];
};

/* Of the whole table. */
struct walk {
    struct progress *of; /* [stages] */
    int *next;           /* [ranks] operation that comes next */
};

static int refuse(struct err *err, const struct schedule *s, int rank, int at,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The operation `at` of a rank. */
static int refuse(struct err *err, const struct schedule *s, int rank, int at,
                  const char *format, ...)
{
    char why[256];
    va_list ap;
    va_start(ap, format);
    vsnprintf(why, sizeof why, format, ap);
    va_end(ap);
    struct pipe_op op = s->op[rank][at];
    if (s->cell)
        return err_set(err, ERR_USAGE,
                       "%s: row %d, cell %d: %s of stage %d, micro-batch %d: %s",
                       s->file, rank + 1, s->cell[rank][at], pipe_op_name(op.kind),
                       op.stage, op.micro_batch, why);
    return err_set(err, ERR_OTHER,
                   "schedule %s, stage %d, operation %d (%s of micro-batch %d): %s",
                   schedule_name(s->kind), op.stage, at, pipe_op_name(op.kind),
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
        return s->split;
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
    return s->split                     ? PIPE_WEIGHT
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
 * gradients, behind operation `at` of its rank. On stage 0 of a forward pass a
 * micro-batch begins and ends at once. */
static int check_alive(const struct schedule *s, int stage, int at,
                       const struct progress *p, struct err *err)
{
    int rank = s->rank_of[stage];
    int begun = p->done[stage > 0 ? PIPE_RECV_FORWARD : PIPE_FORWARD];
    int alive = begun - p->done[last_of(s)];
    if (alive > s->slots[stage] || s->slots[stage] < 1)
        return refuse(err, s, rank, at, "%d micro-batches alive in %d slots", alive,
                      s->slots[stage]);
    int waiting = p->done[PIPE_BACKWARD] - p->done[PIPE_WEIGHT];
    if (s->split && waiting > s->waiting[stage])
        return refuse(err, s, rank, at,
                      "%d micro-batches wait for weight, memory is for %d", waiting,
                      s->waiting[stage]);
    return 0;
}

/* Does the operation name what there is, on this rank? */
static int check_names(const struct schedule *s, int rank, int at, struct err *err)
{
    struct pipe_op op = s->op[rank][at];
    if ((int)op.kind < 0 || (int)op.kind >= KINDS)
        return err_set(err, ERR_OTHER,
                       "schedule %s, stage %d, operation %d: no such kind: %d",
                       schedule_name(s->kind), op.stage, at, (int)op.kind);
    if (op.stage < 0 || op.stage >= s->stages || s->rank_of[op.stage] != rank)
        return refuse(err, s, rank, at, "rank %d has no such stage", rank);
    if (!applies(s, op.stage, op.kind))
        return refuse(err, s, rank, at, "this stage has no such operation");
    if (op.micro_batch < 0 || op.micro_batch >= s->micro_batches)
        return refuse(err, s, rank, at, "there are %d micro-batches", s->micro_batches);
    return 0;
}

static int check_operation(const struct schedule *s, int rank, int at,
                           struct progress *all, struct err *err)
{
    if (check_names(s, rank, at, err))
        return -1;
    struct pipe_op op = s->op[rank][at];
    struct progress *p = &all[op.stage];
    if (op.micro_batch < p->done[op.kind])
        return refuse(err, s, rank, at, "was done before");
    if (op.micro_batch > p->done[op.kind])
        return refuse(err, s, rank, at, "micro-batch %d must come first",
                      p->done[op.kind]);
    int source = source_of(s, op.stage, op.kind);
    if (source >= 0 && op.micro_batch >= p->done[source])
        return refuse(err, s, rank, at, "needs %s first",
                      pipe_op_name((enum pipe_op_kind)source));
    int buffers, sink = sink_of(s, op.stage, op.kind, &buffers);
    if (sink >= 0 && op.micro_batch >= p->done[sink] + buffers)
        return refuse(err, s, rank, at,
                      "its buffer still holds micro-batch %d, which needs %s first",
                      p->done[sink], pipe_op_name((enum pipe_op_kind)sink));
    p->done[op.kind]++;
    return check_alive(s, op.stage, at, p, err);
}

/* Order, completeness, dependencies and slots within each stage. */
static int check_rank(const struct schedule *s, int rank, struct progress *all,
                      struct err *err)
{
    for (int at = 0; at < s->ops[rank]; at++)
        if (check_operation(s, rank, at, all, err))
            return -1;
    for (int chunk = 0; chunk < s->chunks; chunk++) {
        int stage = schedule_stage(s, rank, chunk);
        for (int kind = 0; kind < KINDS; kind++)
            if (applies(s, stage, kind) && all[stage].done[kind] < s->micro_batches)
                return err_set(err, ERR_OTHER,
                               "schedule %s, stage %d, at its end: %s of micro-batch "
                               "%d is missing",
                               schedule_name(s->kind), stage,
                               pipe_op_name((enum pipe_op_kind)kind),
                               all[stage].done[kind]);
    }
    return 0;
}

/* Must the operation wait for another stage? Outputs are held until the neighbour
 * received them, so an operation that fills a buffer waits for that. *other: which. */
static bool must_wait(const struct progress *all, struct pipe_op op, int *other)
{
    const struct progress *here = &all[op.stage];
    int i = op.micro_batch;
    bool after = op.kind == PIPE_FORWARD || op.kind == PIPE_RECV_BACKWARD;
    *other = op.stage + (after ? 1 : -1);
    switch (op.kind) {
    case PIPE_RECV_FORWARD:
        return all[*other].done[PIPE_SEND_FORWARD] <= i;
    case PIPE_RECV_BACKWARD:
        return all[*other].done[PIPE_SEND_BACKWARD] <= i;
    case PIPE_FORWARD:
        return here->done[PIPE_SEND_FORWARD] > 0 &&
               all[*other].done[PIPE_RECV_FORWARD] <= i - SCHEDULE_BUFFERS;
    case PIPE_BACKWARD:
        return here->done[PIPE_SEND_BACKWARD] > 0 &&
               all[*other].done[PIPE_RECV_BACKWARD] <= i - SCHEDULE_BUFFERS;
    case PIPE_WEIGHT:
    case PIPE_SEND_FORWARD:
    case PIPE_SEND_BACKWARD:
        break;
    }
    return false;
}

/* Runs all ranks, each as far as it can, until all are done or none moves. */
static int simulate(const struct schedule *s, struct walk *w, struct err *err)
{
    bool moved = true;
    int other;
    while (moved) {
        moved = false;
        for (int rank = 0; rank < s->ranks; rank++) {
            const struct pipe_op *op = s->op[rank];
            int *next = &w->next[rank];
            while (*next < s->ops[rank] && !must_wait(w->of, op[*next], &other)) {
                w->of[op[*next].stage].done[op[*next].kind]++;
                ++*next;
                moved = true;
            }
        }
    }
    for (int rank = 0; rank < s->ranks; rank++)
        if (w->next[rank] < s->ops[rank]) {
            must_wait(w->of, s->op[rank][w->next[rank]], &other);
            return refuse(err, s, rank, w->next[rank],
                          "deadlock: waits for ever for stage %d", other);
        }
    return 0;
}

int schedule_check(const struct schedule *s, struct err *err)
{
    struct walk w = {.of = mem_array(s->stages, sizeof *w.of, err),
                     .next = mem_array(s->ranks, sizeof *w.next, err)};
    int failed = !w.of || !w.next;
    for (int rank = 0; !failed && rank < s->ranks; rank++)
        failed = check_rank(s, rank, w.of, err);
    if (!failed) {
        memset(w.of, 0, (size_t)s->stages * sizeof *w.of);
        failed = simulate(s, &w, err);
    }
    mem_free(w.of);
    mem_free(w.next);
    return failed ? -1 : 0;
}
