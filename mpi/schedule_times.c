/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule_times.h"

#include "src/base/check.h"
#include "src/base/mem.h"

#include <string.h>

enum { LANES = 2 };

struct clocks {
    const struct schedule *s;
    const struct schedule_costs *costs;
    struct schedule_times *t;
};

double schedule_cost(const struct schedule *s, const struct schedule_costs *costs,
                     enum pipe_op_kind kind)
{
    switch (kind) {
    case PIPE_FORWARD:
        return costs->forward;
    case PIPE_BACKWARD:
        return costs->input_gradient + (s->split ? 0 : costs->weight_gradient);
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

/* One operation of the rank, if what it needs was sent. */
static bool step(struct clocks *c, int rank)
{
    const struct schedule *s = c->s;
    struct schedule_times *t = c->t;
    struct pipe_op op = s->op[rank][t->next[rank]];
    int lane = lane_of(c, op.stage, op.kind);
    double *now = &t->now[rank];
    if (op.kind == PIPE_RECV_FORWARD || op.kind == PIPE_RECV_BACKWARD) {
        if (t->sent[lane] <= op.micro_batch)
            return false;
        double at = t->sent_at[(int64_t)lane * s->micro_batches + op.micro_batch];
        *now = at > *now ? at : *now;
    } else if (lane >= 0) {
        t->sent_at[(int64_t)lane * s->micro_batches + op.micro_batch] = *now;
        t->sent[lane]++;
    }
    double cost = schedule_cost(s, c->costs, op.kind);
    t->start[rank][t->next[rank]++] = *now;
    t->busy[rank] += cost;
    *now += cost;
    if (*now > t->length)
        t->length = *now;
    return true;
}

void schedule_times_price(struct schedule_times *t, const struct schedule *s,
                          const struct schedule_costs *costs)
{
    struct clocks c = {s, costs, t};
    size_t ranks = (size_t)s->ranks;
    memset(t->next, 0, ranks * sizeof *t->next);
    memset(t->now, 0, ranks * sizeof *t->now);
    memset(t->sent, 0, LANES * (size_t)s->stages * sizeof *t->sent);
    memset(t->busy, 0, ranks * sizeof *t->busy);
    t->length = 0;
    bool moved = true;
    while (moved) {
        moved = false;
        for (int rank = 0; rank < s->ranks; rank++)
            while (t->next[rank] < s->ops[rank] && step(&c, rank))
                moved = true;
    }
    for (int rank = 0; rank < s->ranks; rank++)
        CHECK(t->next[rank] == s->ops[rank], "rank %d waits for ever at %d", rank,
              t->next[rank]);
}

/* As schedule_check counts them: of one stage, or of all that the rank holds (-1). */
static int alive_of(const struct schedule *s, int rank, int stage)
{
    enum pipe_op_kind last = s->split                     ? PIPE_WEIGHT
                             : schedule_backward(s->kind) ? PIPE_BACKWARD
                                                          : PIPE_FORWARD;
    int alive = 0, most = 0;
    for (int at = 0; at < s->ops[rank]; at++) {
        struct pipe_op op = s->op[rank][at];
        if (stage >= 0 && op.stage != stage)
            continue;
        alive += op.kind == (op.stage > 0 ? PIPE_RECV_FORWARD : PIPE_FORWARD);
        most = alive > most ? alive : most;
        alive -= op.kind == last;
    }
    return most;
}

static int times_alloc(struct schedule_times *t, const struct schedule *s,
                       struct err *err)
{
    int64_t lanes = (int64_t)LANES * s->stages;
    t->ranks = s->ranks;
    t->busy = mem_array(s->ranks, sizeof *t->busy, err);
    t->alive = mem_array(s->stages, sizeof *t->alive, err);
    t->held = mem_array(s->ranks, sizeof *t->held, err);
    t->start = mem_array(s->ranks, sizeof *t->start, err);
    t->next = mem_array(s->ranks, sizeof *t->next, err);
    t->now = mem_array(s->ranks, sizeof *t->now, err);
    t->sent = mem_array(lanes, sizeof *t->sent, err);
    t->sent_at = mem_array(lanes * s->micro_batches, sizeof *t->sent_at, err);
    if (!t->busy || !t->alive || !t->held || !t->start || !t->next || !t->now ||
        !t->sent || !t->sent_at)
        return -1;
    for (int rank = 0; rank < s->ranks; rank++) {
        t->start[rank] = mem_array(s->ops[rank], sizeof **t->start, err);
        if (!t->start[rank])
            return -1;
        t->held[rank] = alive_of(s, rank, -1);
    }
    for (int stage = 0; stage < s->stages; stage++)
        t->alive[stage] = alive_of(s, s->rank_of[stage], stage);
    return 0;
}

int schedule_times_init(struct schedule_times *t, const struct schedule *s,
                        const struct schedule_costs *costs, struct err *err)
{
    *t = (struct schedule_times){0};
    if (times_alloc(t, s, err)) {
        schedule_times_fini(t);
        return -1;
    }
    schedule_times_price(t, s, costs);
    return 0;
}

int64_t schedule_times_bytes(const struct schedule *s)
{
    enum { A_RANK = 2 * sizeof(double) + 2 * sizeof(int) + sizeof(double *) };
    int64_t ops = 0, lanes = (int64_t)LANES * s->stages;
    for (int rank = 0; rank < s->ranks; rank++)
        ops += s->ops[rank];
    return s->ranks * (int64_t)A_RANK + (s->stages + lanes) * (int64_t)sizeof(int) +
           (ops + lanes * s->micro_batches) * (int64_t)sizeof(double);
}

void schedule_times_fini(struct schedule_times *t)
{
    for (int rank = 0; t->start && rank < t->ranks; rank++)
        mem_free(t->start[rank]);
    mem_free(t->start);
    mem_free(t->busy);
    mem_free(t->alive);
    mem_free(t->held);
    mem_free(t->next);
    mem_free(t->now);
    mem_free(t->sent);
    mem_free(t->sent_at);
    memset(t, 0, sizeof *t);
}

double schedule_bubble(const struct schedule_times *t)
{
    double busy = 0;
    for (int rank = 0; rank < t->ranks; rank++)
        busy += t->busy[rank];
    return t->length > 0 ? 1 - busy / (t->length * t->ranks) : 0;
}
