/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule_times.h"

#include "src/base/check.h"
#include "src/base/mem.h"

#include <string.h>

/* How far the stages have come. */
struct clocks {
    const struct schedule *s;
    const struct schedule_costs *costs;
    struct schedule_times *t;
    int *next;       /* [stages] */
    double *now;     /* [stages] end of the latest operation */
    int *sent;       /* [stages] outputs, then [stages] gradients of inputs */
    double *sent_at; /* [2 stages][micro-batches] when */
};

double schedule_cost(const struct schedule *s, const struct schedule_costs *costs,
                     enum pipe_op_kind kind)
{
    switch (kind) {
    case PIPE_FORWARD:
        return costs->forward;
    case PIPE_BACKWARD:
        return costs->input_gradient +
               (schedule_split(s->kind) ? 0 : costs->weight_gradient);
    case PIPE_WEIGHT:
        return costs->weight_gradient;
    case PIPE_SEND_FORWARD:
    case PIPE_RECV_FORWARD:
    case PIPE_SEND_BACKWARD:
    case PIPE_RECV_BACKWARD:
        break;
    }
    return 0;
}

/* The row of sent and sent_at that an operation writes or reads; -1: none. */
static int lane_of(const struct clocks *c, int stage, enum pipe_op_kind kind)
{
    switch (kind) {
    case PIPE_SEND_FORWARD:
        return stage;
    case PIPE_RECV_FORWARD:
        return stage - 1;
    case PIPE_SEND_BACKWARD:
        return c->s->stages + stage;
    case PIPE_RECV_BACKWARD:
        return c->s->stages + stage + 1;
    case PIPE_FORWARD:
    case PIPE_BACKWARD:
    case PIPE_WEIGHT:
        break;
    }
    return -1;
}

/* One operation of the stage, if what it needs was sent. */
static bool step(struct clocks *c, int stage)
{
    const struct schedule *s = c->s;
    struct pipe_op op = s->op[stage][c->next[stage]];
    int lane = lane_of(c, stage, op.kind);
    double *now = &c->now[stage];
    if (op.kind == PIPE_RECV_FORWARD || op.kind == PIPE_RECV_BACKWARD) {
        if (c->sent[lane] <= op.micro_batch)
            return false;
        double at = c->sent_at[(int64_t)lane * s->micro_batches + op.micro_batch];
        *now = at > *now ? at : *now;
    } else if (lane >= 0) {
        c->sent_at[(int64_t)lane * s->micro_batches + op.micro_batch] = *now;
        c->sent[lane]++;
    }
    double cost = schedule_cost(s, c->costs, op.kind);
    c->t->start[stage][c->next[stage]++] = *now;
    c->t->busy[stage] += cost;
    *now += cost;
    if (*now > c->t->length)
        c->t->length = *now;
    return true;
}

static void simulate(struct clocks *c)
{
    bool moved = true;
    while (moved) {
        moved = false;
        for (int stage = 0; stage < c->s->stages; stage++)
            while (c->next[stage] < c->s->ops[stage] && step(c, stage))
                moved = true;
    }
    for (int stage = 0; stage < c->s->stages; stage++)
        CHECK(c->next[stage] == c->s->ops[stage], "stage %d waits for ever at %d",
              stage, c->next[stage]);
}

/* As schedule_check counts them. */
static int alive_of(const struct schedule *s, int stage)
{
    enum pipe_op_kind first = stage > 0 ? PIPE_RECV_FORWARD : PIPE_FORWARD;
    enum pipe_op_kind last = schedule_split(s->kind)      ? PIPE_WEIGHT
                             : schedule_backward(s->kind) ? PIPE_BACKWARD
                                                          : PIPE_FORWARD;
    int alive = 0, most = 0;
    for (int at = 0; at < s->ops[stage]; at++) {
        alive += s->op[stage][at].kind == first;
        most = alive > most ? alive : most;
        alive -= s->op[stage][at].kind == last;
    }
    return most;
}

static int times_alloc(struct schedule_times *t, const struct schedule *s,
                       struct err *err)
{
    t->stages = s->stages;
    t->busy = mem_array(s->stages, sizeof *t->busy, err);
    t->alive = mem_array(s->stages, sizeof *t->alive, err);
    t->start = mem_array(s->stages, sizeof *t->start, err);
    if (!t->busy || !t->alive || !t->start)
        return -1;
    for (int stage = 0; stage < s->stages; stage++) {
        t->start[stage] = mem_array(s->ops[stage], sizeof **t->start, err);
        if (!t->start[stage])
            return -1;
        t->alive[stage] = alive_of(s, stage);
    }
    return 0;
}

int schedule_times_init(struct schedule_times *t, const struct schedule *s,
                        const struct schedule_costs *costs, struct err *err)
{
    enum { LANES = 2 };
    int64_t lanes = (int64_t)LANES * s->stages;
    *t = (struct schedule_times){0};
    struct clocks c = {.s = s, .costs = costs, .t = t};
    c.next = mem_array(s->stages, sizeof *c.next, err);
    c.now = mem_array(s->stages, sizeof *c.now, err);
    c.sent = mem_array(lanes, sizeof *c.sent, err);
    c.sent_at = mem_array(lanes * s->micro_batches, sizeof *c.sent_at, err);
    int failed = !c.next || !c.now || !c.sent || !c.sent_at || times_alloc(t, s, err);
    if (!failed)
        simulate(&c);
    mem_free(c.next);
    mem_free(c.now);
    mem_free(c.sent);
    mem_free(c.sent_at);
    if (failed)
        schedule_times_fini(t);
    return failed ? -1 : 0;
}

void schedule_times_fini(struct schedule_times *t)
{
    for (int stage = 0; t->start && stage < t->stages; stage++)
        mem_free(t->start[stage]);
    mem_free(t->start);
    mem_free(t->busy);
    mem_free(t->alive);
    memset(t, 0, sizeof *t);
}

double schedule_bubble(const struct schedule_times *t)
{
    double busy = 0;
    for (int stage = 0; stage < t->stages; stage++)
        busy += t->busy[stage];
    return t->length > 0 ? 1 - busy / (t->length * t->stages) : 0;
}
