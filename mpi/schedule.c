/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule.h"

#include "src/base/mem.h"

#include <string.h>

const char *schedule_name(enum schedule_kind k)
{
    static const char *const names[] = {"gpipe", "1f1b", "zb-h1", "forward"};
    return names[k];
}

const char *pipe_op_name(enum pipe_op_kind k)
{
    static const char *const names[] = {"forward",      "backward",     "weight",
                                        "send_forward", "recv_forward", "send_backward",
                                        "recv_backward"};
    return names[k];
}

bool schedule_backward(enum schedule_kind k)
{
    return k != SCHEDULE_FORWARD;
}

bool schedule_split(enum schedule_kind k)
{
    return k == SCHEDULE_ZB_H1;
}

static int at_most(int a, int b)
{
    return a < b ? a : b;
}

static void push(struct schedule *s, int stage, enum pipe_op_kind kind, int micro_batch)
{
    s->op[stage][s->ops[stage]++] = (struct pipe_op){kind, micro_batch};
}

static void push_forward(struct schedule *s, int stage, int micro_batch)
{
    if (stage > 0)
        push(s, stage, PIPE_RECV_FORWARD, micro_batch);
    push(s, stage, PIPE_FORWARD, micro_batch);
    if (stage < s->stages - 1)
        push(s, stage, PIPE_SEND_FORWARD, micro_batch);
}

static void push_backward(struct schedule *s, int stage, int micro_batch)
{
    if (stage < s->stages - 1)
        push(s, stage, PIPE_RECV_BACKWARD, micro_batch);
    push(s, stage, PIPE_BACKWARD, micro_batch);
    if (stage > 0)
        push(s, stage, PIPE_SEND_BACKWARD, micro_batch);
}

int schedule_dout_buffers(const struct schedule *s, int stage)
{
    int in_use = schedule_split(s->kind) ? s->waiting[stage] : 1;
    return at_most(in_use + 1, s->micro_batches);
}

/* Micro-batches alive at once. A forward pass keeps nothing for later; two let the
 * next input arrive while one is worked on. */
static int slots_of(const struct schedule *s, int stage)
{
    switch (s->kind) {
    case SCHEDULE_GPIPE:
        return s->micro_batches;
    case SCHEDULE_1F1B:
        return at_most(s->stages - stage, s->micro_batches);
    case SCHEDULE_ZB_H1:
        return at_most(s->stages, s->micro_batches);
    case SCHEDULE_FORWARD:
        break;
    }
    return at_most(2, s->micro_batches);
}

/* Forwards ahead of the first backward. */
static int warm_up_of(const struct schedule *s, int stage)
{
    return s->kind == SCHEDULE_ZB_H1 ? at_most(s->stages - stage, s->micro_batches)
                                     : s->slots[stage];
}

/* Backward i, and the weight gradients whose turn it is: `stage` behind it, so that
 * stage s fills with the s that are left the end, when 1f1b waits for stage s - 1. */
static void push_round(struct schedule *s, int stage, int i)
{
    push_backward(s, stage, i);
    if (schedule_split(s->kind) && i >= stage)
        push(s, stage, PIPE_WEIGHT, i - stage);
}

/* A stage runs some forwards ahead, then a backward before each further forward: with
 * all micro-batches ahead this is gpipe. */
static void fill_stage(struct schedule *s, int stage)
{
    int m = s->micro_batches, ahead = warm_up_of(s, stage);
    bool backward = schedule_backward(s->kind);
    for (int i = 0; i < m; i++) {
        if (backward && i >= ahead)
            push_round(s, stage, i - ahead);
        push_forward(s, stage, i);
    }
    for (int i = m - ahead; backward && i < m; i++)
        push_round(s, stage, i);
    for (int i = m - at_most(stage, m); schedule_split(s->kind) && i < m; i++)
        push(s, stage, PIPE_WEIGHT, i);
}

int schedule_init(struct schedule *s, enum schedule_kind kind, int stages,
                  int micro_batches, struct err *err)
{
    enum { OPS_PER_MICRO_BATCH = 7 };
    memset(s, 0, sizeof *s);
    s->kind = kind;
    s->stages = stages;
    s->micro_batches = micro_batches;
    s->ops = mem_array(stages, sizeof *s->ops, err);
    s->op = mem_array(stages, sizeof *s->op, err);
    s->slots = mem_array(stages, sizeof *s->slots, err);
    s->waiting = mem_array(stages, sizeof *s->waiting, err);
    if (!s->ops || !s->op || !s->slots || !s->waiting)
        goto fail;
    for (int stage = 0; stage < stages; stage++) {
        s->op[stage] = mem_array((int64_t)micro_batches * OPS_PER_MICRO_BATCH,
                                 sizeof **s->op, err);
        if (!s->op[stage])
            goto fail;
        s->slots[stage] = slots_of(s, stage);
        s->waiting[stage] =
            schedule_split(kind) ? at_most(stage + 1, micro_batches) : 0;
        fill_stage(s, stage);
    }
    return 0;
fail:
    schedule_fini(s);
    return -1;
}

void schedule_fini(struct schedule *s)
{
    for (int stage = 0; s->op && stage < s->stages; stage++)
        mem_free(s->op[stage]);
    mem_free(s->op);
    mem_free(s->ops);
    mem_free(s->slots);
    mem_free(s->waiting);
    memset(s, 0, sizeof *s);
}
