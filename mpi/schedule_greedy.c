/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule_parts.h"

#include "src/base/check.h"
#include "src/base/mem.h"

#include <limits.h>

/* A simulation in units of time, in each of which a rank computes one operation. What
 * each rank does next it takes from what could run now, so that no order can wait for
 * ever; buffers count as in schedule_check. */

struct sim {
    struct schedule *s;
    int (*done)[PIPE_WEIGHT + 1]; /* [stages] of F, B and W */
};

/* zb-v: micro-batches alive at a stage. A rank's two add up to 2 p. */
static int room_of(const struct schedule *s, int stage)
{
    if (s->kind != SCHEDULE_ZB_V)
        return INT_MAX;
    return stage < s->ranks ? s->stages - 1 - stage : s->stages - stage;
}

/* Could the stage's next operation of this kind run, after all that is done? */
static bool ready(const struct sim *x, int stage, enum pipe_op_kind kind)
{
    const struct schedule *s = x->s;
    bool first = stage == 0, last = stage == s->stages - 1;
    const int *here = x->done[stage];
    int i = here[kind];
    switch (kind) {
    case PIPE_FORWARD:
        return i < s->micro_batches && (first || x->done[stage - 1][kind] > i) &&
               (last || i - x->done[stage + 1][kind] < SCHEDULE_BUFFERS) &&
               (!schedule_backward(s->kind) ||
                i - here[PIPE_WEIGHT] < room_of(s, stage));
    case PIPE_BACKWARD:
        return schedule_backward(s->kind) && i < here[PIPE_FORWARD] &&
               (last || x->done[stage + 1][kind] > i) &&
               (first || i - x->done[stage - 1][kind] < SCHEDULE_BUFFERS);
    case PIPE_WEIGHT:
        return i < here[PIPE_BACKWARD];
    default:
        return false;
    }
}

/* Input gradients first, as other stages wait for them, those of the earliest stage,
 * for which the most waits; then forwards, the latest stage's; weight gradients in what
 * would be bubble, where the most wait. {stage, kind}; stage -1: nothing can run. */
static struct pipe_op choose(const struct sim *x, int rank)
{
    const struct schedule *s = x->s;
    struct pipe_op best = {.stage = -1};
    int most = 0;
    for (int c = s->chunks - 1; c >= 0; c--) {
        int stage = schedule_stage(s, rank, c);
        if (ready(x, stage, PIPE_BACKWARD))
            best = (struct pipe_op){PIPE_BACKWARD, stage, 0};
    }
    for (int c = s->chunks - 1; best.stage < 0 && c >= 0; c--) {
        int stage = schedule_stage(s, rank, c);
        if (ready(x, stage, PIPE_FORWARD))
            best = (struct pipe_op){PIPE_FORWARD, stage, 0};
    }
    if (best.stage >= 0)
        return best;
    for (int c = s->chunks - 1; c >= 0; c--) {
        int stage = schedule_stage(s, rank, c);
        int waiting = x->done[stage][PIPE_BACKWARD] - x->done[stage][PIPE_WEIGHT];
        if (waiting > most) {
            most = waiting;
            best = (struct pipe_op){PIPE_WEIGHT, stage, 0};
        }
    }
    return best;
}

/* One unit of time; false: nothing was left to do. */
static bool tick(struct sim *x, struct pipe_op *chosen)
{
    struct schedule *s = x->s;
    bool any = false;
    for (int rank = 0; rank < s->ranks; rank++)
        chosen[rank] = choose(x, rank);
    for (int rank = 0; rank < s->ranks; rank++) {
        struct pipe_op op = chosen[rank];
        if (op.stage < 0)
            continue;
        schedule_push(s, op.stage, op.kind, x->done[op.stage][op.kind]++);
        any = true;
    }
    return any;
}

int schedule_fill_greedy(struct schedule *s, struct err *err)
{
    struct sim x = {.s = s, .done = mem_array(s->stages, sizeof *x.done, err)};
    struct pipe_op *chosen = mem_array(s->ranks, sizeof *chosen, err);
    bool failed = !x.done || !chosen;
    while (!failed && tick(&x, chosen))
        continue;
    enum pipe_op_kind last = schedule_backward(s->kind) ? PIPE_WEIGHT : PIPE_FORWARD;
    for (int stage = 0; !failed && stage < s->stages; stage++)
        CHECK(x.done[stage][last] == s->micro_batches, "%s: stage %d ends after %d",
              schedule_name(s->kind), stage, x.done[stage][last]);
    mem_free(x.done);
    mem_free(chosen);
    return failed ? -1 : 0;
}
