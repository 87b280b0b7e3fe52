/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule_parts.h"

#include "src/base/mem.h"

#include <string.h>

const char *schedule_name(enum schedule_kind k)
{
    static const char *const names[] = {"gpipe", "1f1b", "interleaved", "zb-h1",
                                        "zb-v",  "file", "forward"};
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

int schedule_usual_chunks(enum schedule_kind k)
{
    return k == SCHEDULE_INTERLEAVED || k == SCHEDULE_ZB_V ? 2 : 1;
}

static int at_most(int a, int b)
{
    return a < b ? a : b;
}

static void push(struct schedule *s, enum pipe_op_kind kind, int stage, int micro_batch)
{
    int rank = s->rank_of[stage];
    s->op[rank][s->ops[rank]++] = (struct pipe_op){kind, stage, micro_batch};
}

void schedule_push(struct schedule *s, int stage, enum pipe_op_kind kind,
                   int micro_batch)
{
    bool first = stage == 0, last = stage == s->stages - 1;
    if (kind == PIPE_FORWARD && !first)
        push(s, PIPE_RECV_FORWARD, stage, micro_batch);
    if (kind == PIPE_BACKWARD && !last)
        push(s, PIPE_RECV_BACKWARD, stage, micro_batch);
    push(s, kind, stage, micro_batch);
    if (kind == PIPE_FORWARD && !last)
        push(s, PIPE_SEND_FORWARD, stage, micro_batch);
    if (kind == PIPE_BACKWARD && !first)
        push(s, PIPE_SEND_BACKWARD, stage, micro_batch);
}

int schedule_dout_buffers(const struct schedule *s, int stage)
{
    int in_use = s->split ? s->waiting[stage] : 1;
    return at_most(in_use + 1, s->micro_batches);
}

int schedule_check_sizes(enum schedule_kind kind, int ranks, int chunks,
                         int micro_batches, struct err *err)
{
    bool any = kind == SCHEDULE_INTERLEAVED || kind == SCHEDULE_FILE ||
               kind == SCHEDULE_FORWARD;
    int wanted = schedule_usual_chunks(kind);
    if (!any && chunks != wanted)
        return err_set(err, ERR_USAGE,
                       "parallel.chunks: expected %d with parallel.schedule: %s, "
                       "found %d",
                       wanted, schedule_name(kind), chunks);
    if (kind == SCHEDULE_INTERLEAVED && micro_batches % ranks)
        return err_set(err, ERR_USAGE,
                       "parallel.schedule: interleaved: expected micro-batches of a "
                       "step and replica (train.global_batch / (train.micro_batch x "
                       "data)) that are a multiple of parallel.pipeline, %d, found %d",
                       ranks, micro_batches);
    return 0;
}

/* Forwards ahead of the first backward, on a rank with one stage. */
static int warm_up_of(const struct schedule *s, int stage)
{
    switch (s->kind) {
    case SCHEDULE_GPIPE:
    case SCHEDULE_FORWARD:
        return s->micro_batches;
    default:
        return at_most(s->stages - stage, s->micro_batches);
    }
}

/* Backward i, and the weight gradients whose turn it is: `stage` behind it, so that
 * stage s fills with the s that are left the end, when 1f1b waits for stage s - 1. */
static void push_round(struct schedule *s, int stage, int i)
{
    schedule_push(s, stage, PIPE_BACKWARD, i);
    if (s->split && i >= stage)
        schedule_push(s, stage, PIPE_WEIGHT, i - stage);
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
        schedule_push(s, stage, PIPE_FORWARD, i);
    }
    for (int i = m - ahead; backward && i < m; i++)
        push_round(s, stage, i);
    for (int i = m - at_most(stage, m); s->split && i < m; i++)
        schedule_push(s, stage, PIPE_WEIGHT, i);
}

static int fill(struct schedule *s, const struct schedule_cells *cells, struct err *err)
{
    if (cells)
        schedule_cells_fill(cells, s);
    else if (s->kind == SCHEDULE_ZB_V || s->chunks > 1) {
        if (s->kind != SCHEDULE_INTERLEAVED)
            return schedule_fill_greedy(s, err);
        schedule_fill_interleaved(s);
    } else {
        for (int stage = 0; stage < s->stages; stage++)
            fill_stage(s, stage);
    }
    return 0;
}

/* What the table takes: a micro-batch is alive from the arrival of its input to the end
 * of its last computation. A forward pass keeps nothing for later; two let the next
 * input arrive while one is worked on. */
static void measure(struct schedule *s)
{
    enum pipe_op_kind last = s->split ? PIPE_WEIGHT : PIPE_BACKWARD;
    for (int stage = 0; stage < s->stages; stage++) {
        enum pipe_op_kind first = stage > 0 ? PIPE_RECV_FORWARD : PIPE_FORWARD;
        int rank = s->rank_of[stage], alive = 0, waiting = 0;
        for (int at = 0; at < s->ops[rank]; at++) {
            struct pipe_op op = s->op[rank][at];
            if (op.stage != stage)
                continue;
            alive += op.kind == first;
            waiting += s->split && op.kind == PIPE_BACKWARD;
            s->slots[stage] = alive > s->slots[stage] ? alive : s->slots[stage];
            if (waiting > s->waiting[stage])
                s->waiting[stage] = waiting;
            alive -= op.kind == last;
            waiting -= op.kind == PIPE_WEIGHT;
        }
        if (!schedule_backward(s->kind))
            s->slots[stage] = at_most(2, s->micro_batches);
    }
}

/* Which rank holds a stage. */
static int rank_of(const struct schedule_spec *spec, const struct schedule_cells *cells,
                   int stage)
{
    int p = spec->ranks;
    if (cells)
        return schedule_cells_rank(cells, stage);
    if (spec->kind == SCHEDULE_FORWARD && spec->rank_of)
        return spec->rank_of[stage];
    if (spec->kind == SCHEDULE_ZB_V)
        return stage < p ? stage : 2 * p - 1 - stage;
    return stage % p;
}

static void place(struct schedule *s, const struct schedule_spec *spec,
                  const struct schedule_cells *cells)
{
    for (int rank = 0; rank < s->ranks; rank++)
        for (int stage = 0, chunk = 0; stage < s->stages; stage++) {
            if (rank_of(spec, cells, stage) != rank)
                continue;
            s->rank_of[stage] = rank;
            s->chunk_of[stage] = chunk;
            s->stage_of[rank * s->chunks + chunk++] = stage;
        }
}

static int alloc(struct schedule *s, struct err *err)
{
    enum { OPS_PER_MICRO_BATCH = 7 };
    int64_t ops = (int64_t)s->chunks * s->micro_batches * OPS_PER_MICRO_BATCH;
    int stages = s->stages, ranks = s->ranks;
    s->rank_of = mem_array(stages, sizeof *s->rank_of, err);
    s->chunk_of = mem_array(stages, sizeof *s->chunk_of, err);
    s->stage_of = mem_array(stages, sizeof *s->stage_of, err);
    s->slots = mem_array(stages, sizeof *s->slots, err);
    s->waiting = mem_array(stages, sizeof *s->waiting, err);
    s->ops = mem_array(ranks, sizeof *s->ops, err);
    s->op = mem_array(ranks, sizeof *s->op, err);
    s->cell = s->file ? mem_array(ranks, sizeof *s->cell, err) : NULL;
    if (!s->rank_of || !s->chunk_of || !s->stage_of || !s->slots || !s->waiting ||
        !s->ops || !s->op || (s->file && !s->cell))
        return -1;
    for (int rank = 0; rank < ranks; rank++) {
        s->op[rank] = mem_array(ops, sizeof **s->op, err);
        if (s->file)
            s->cell[rank] = mem_array(ops, sizeof **s->cell, err);
        if (!s->op[rank] || (s->file && !s->cell[rank]))
            return -1;
    }
    return 0;
}

int schedule_init(struct schedule *s, const struct schedule_spec *spec, struct err *err)
{
    bool file = spec->kind == SCHEDULE_FILE;
    struct schedule_cells *cells = NULL;
    memset(s, 0, sizeof *s);
    if (schedule_check_sizes(spec->kind, spec->ranks, spec->chunks, spec->micro_batches,
                             err))
        return -1;
    if (file && !(cells = schedule_cells_read(spec, err)))
        return -1;
    s->kind = spec->kind;
    s->split = file ? schedule_cells_split(cells)
                    : spec->kind == SCHEDULE_ZB_H1 || spec->kind == SCHEDULE_ZB_V;
    s->ranks = spec->ranks;
    s->chunks = spec->chunks;
    s->stages = spec->ranks * spec->chunks;
    s->micro_batches = spec->micro_batches;
    s->file = file ? spec->file : NULL;
    int failed = alloc(s, err);
    if (!failed) {
        place(s, spec, cells);
        failed = fill(s, cells, err);
    }
    if (!failed) {
        measure(s);
        failed = file ? schedule_check(s, err) : 0;
    }
    schedule_cells_destroy(cells);
    if (failed)
        schedule_fini(s);
    return failed ? -1 : 0;
}

void schedule_fini(struct schedule *s)
{
    for (int rank = 0; rank < s->ranks; rank++) {
        if (s->op)
            mem_free(s->op[rank]);
        if (s->cell)
            mem_free(s->cell[rank]);
    }
    mem_free(s->op);
    mem_free(s->cell);
    mem_free(s->ops);
    mem_free(s->rank_of);
    mem_free(s->chunk_of);
    mem_free(s->stage_of);
    mem_free(s->slots);
    mem_free(s->waiting);
    memset(s, 0, sizeof *s);
}
