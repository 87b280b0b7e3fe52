/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule.h"

#include "src/base/mem.h"

#include <stdbool.h>
#include <string.h>

const char *schedule_name(enum schedule_kind k)
{
    static const char *const names[] = {"gpipe", "1f1b", "forward"};
    return names[k];
}

const char *pipe_op_name(enum pipe_op_kind k)
{
    static const char *const names[] = {"forward",       "backward",
                                        "send_forward",  "recv_forward",
                                        "send_backward", "recv_backward"};
    return names[k];
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

/* Micro-batches alive at once. A forward pass keeps nothing for later; two let the
 * next input arrive while one is worked on. */
static int slots_of(const struct schedule *s, int stage)
{
    switch (s->kind) {
    case SCHEDULE_GPIPE:
        return s->micro_batches;
    case SCHEDULE_1F1B:
        return at_most(s->stages - stage, s->micro_batches);
    case SCHEDULE_FORWARD:
        break;
    }
    return at_most(2, s->micro_batches);
}

/* A stage runs `slots` forwards ahead, then a backward before each further forward:
 * with all micro-batches in slots this is gpipe. */
static void fill_stage(struct schedule *s, int stage)
{
    int m = s->micro_batches, slots = s->slots[stage];
    bool backward = s->kind != SCHEDULE_FORWARD;
    for (int i = 0; i < m; i++) {
        if (backward && i >= slots)
            push_backward(s, stage, i - slots);
        push_forward(s, stage, i);
    }
    for (int i = m - slots; backward && i < m; i++)
        push_backward(s, stage, i);
}

int schedule_init(struct schedule *s, enum schedule_kind kind, int stages,
                  int micro_batches, struct err *err)
{
    enum { OPS_PER_MICRO_BATCH = 6 };
    memset(s, 0, sizeof *s);
    s->kind = kind;
    s->stages = stages;
    s->micro_batches = micro_batches;
    s->ops = mem_array(stages, sizeof *s->ops, err);
    s->op = mem_array(stages, sizeof *s->op, err);
    s->slots = mem_array(stages, sizeof *s->slots, err);
    if (!s->ops || !s->op || !s->slots)
        goto fail;
    for (int stage = 0; stage < stages; stage++) {
        s->op[stage] = mem_array((int64_t)micro_batches * OPS_PER_MICRO_BATCH,
                                 sizeof **s->op, err);
        if (!s->op[stage])
            goto fail;
        s->slots[stage] = slots_of(s, stage);
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
    memset(s, 0, sizeof *s);
}
