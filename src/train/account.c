/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/account.h"

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/train/timeline.h"

#include <string.h>

/* The drift between two comparisons is taken out by its rate in the last interval; a
 * rate over less than apart_s would be made of the estimates' errors. */
static const double sync_every_s = 60, apart_s = 10;

struct account {
    struct account_spec spec;
    struct engine *engine;
    const struct grid *grid;
    const struct schedule *schedule;
    struct trace trace;
    double synced_s;
    bool due;
    struct clock_fix timeline_fix; /* at its begin */
    /* Rank 0: */
    struct account_rank *rank; /* [ranks] */
    int64_t *slowest_steps;    /* [ranks] */
    int64_t steps;
    struct schedule_times ideal;
    struct trace_span *received; /* [trace.room] */
};

/* Spans of a rank in the timeline's steps, at most on any rank. */
static int64_t room_of(const struct schedule *s, int64_t timeline_steps)
{
    int ops = 0;
    for (int rank = 0; rank < s->ranks; rank++)
        ops = s->ops[rank] > ops ? s->ops[rank] : ops;
    return timeline_steps * trace_step_spans(ops);
}

int64_t account_bytes(bool every_step, int64_t timeline_steps,
                      const struct schedule *schedule, int ranks, int rank)
{
    if (!every_step && !timeline_steps)
        return 0;
    int64_t room = room_of(schedule, timeline_steps);
    int64_t bytes = (int64_t)sizeof(struct account) + trace_bytes(room);
    if (rank > 0)
        return bytes;
    return bytes + room * (int64_t)sizeof(struct trace_span) +
           ranks * (int64_t)(sizeof(struct account_rank) + sizeof(int64_t)) +
           schedule_times_bytes(schedule);
}

static int root_init(struct account *a, int ranks, struct err *err)
{
    const struct schedule_costs costs = {1, 1, 1};
    a->rank = mem_array(ranks, sizeof *a->rank, err);
    a->slowest_steps = mem_array(ranks, sizeof *a->slowest_steps, err);
    a->received = mem_array(a->trace.room, sizeof *a->received, err);
    if (!a->rank || !a->slowest_steps || !a->received)
        return -1;
    return schedule_times_init(&a->ideal, a->schedule, &costs, err);
}

static void sync(struct account *a)
{
    struct clock_fix estimate = clock_sync(a->grid);
    a->trace.fix = clock_fix_through(&a->trace.fix, &estimate, apart_s);
    a->synced_s = clock_s();
    a->due = false;
}

int account_create(struct account **made, struct engine *engine,
                   const struct account_spec *spec, struct err *err)
{
    *made = NULL;
    if (!spec->every_step && !spec->timeline_steps)
        return 0;
    const struct grid *grid = engine_grid(engine);
    struct account *a = mem_array(1, sizeof *a, err);
    int failed = !a;
    if (!failed) {
        a->spec = *spec;
        a->engine = engine;
        a->grid = grid;
        a->schedule = engine_schedule(engine);
        failed = trace_init(&a->trace, room_of(a->schedule, spec->timeline_steps), err);
        if (!failed && comm_root(grid->world))
            failed = root_init(a, comm_size(grid->world), err);
    }
    if (comm_agree(grid->world, failed, err)) {
        account_destroy(a);
        return -1;
    }
    a->trace.on = spec->every_step;
    sync(a);
    engine_set_trace(engine, &a->trace);
    *made = a;
    return 0;
}

void account_destroy(struct account *a)
{
    if (!a)
        return;
    engine_set_trace(a->engine, NULL);
    trace_fini(&a->trace);
    schedule_times_fini(&a->ideal);
    mem_free(a->rank);
    mem_free(a->slowest_steps);
    mem_free(a->received);
    mem_free(a);
}

struct trace *account_trace(struct account *a)
{
    return a ? &a->trace : NULL;
}

bool account_wants(const struct account *a)
{
    return a && a->spec.every_step && clock_s() - a->synced_s >= sync_every_s;
}

void account_due(struct account *a)
{
    if (a)
        a->due = true;
}

void account_begin(struct account *a, int64_t step)
{
    if (!a)
        return;
    bool begins = a->spec.timeline_steps > 0 && step == a->spec.timeline_from;
    if (a->due || begins)
        sync(a);
    if (begins) {
        a->trace.on = a->trace.keeps = true;
        a->timeline_fix = a->trace.fix;
    }
    trace_step(&a->trace);
}

/* This rank's part of the figures. */
static struct account_rank mine(const struct account *a, const struct zero_step *update)
{
    const struct trace *t = &a->trace;
    const double *spent = t->seconds;
    double updating =
        spent[TRACE_REDUCE] + spent[TRACE_OPTIMIZER] + spent[TRACE_PUBLISH];
    return (struct account_rank){
        .part = {[ACCOUNT_FORWARD] = spent[TRACE_FORWARD],
                 [ACCOUNT_BACKWARD] = spent[TRACE_BACKWARD],
                 [ACCOUNT_WEIGHT] = spent[TRACE_WEIGHT],
                 [ACCOUNT_OPTIMIZER] = updating - update->wait_s,
                 [ACCOUNT_MESSAGE_WAIT] = spent[TRACE_RECEIVE] + spent[TRACE_SEND],
                 [ACCOUNT_REDUCE_WAIT] = update->wait_s},
        .exposed_s = t->exposed_s,
        .begin_s = clock_fix_shared(&t->fix, t->first_s),
        .end_s = clock_fix_shared(&t->fix, t->last_s)};
}

bool account_end(struct account *a, int64_t step, const struct zero_step *update,
                 double begin_s, struct account_figures *f)
{
    if (!a)
        return false;
    trace_add(&a->trace, TRACE_STEP, (int)(step - a->spec.timeline_from), begin_s);
    if (!a->spec.every_step)
        return false;
    struct account_rank own = mine(a, update);
    comm_collect_f64(a->grid->world, (double *)&own, ACCOUNT_FIELDS, (double *)a->rank);
    if (!comm_root(a->grid->world))
        return false;
    account_figures(a->rank, a->grid->pipeline, a->grid->data, clock_s() - begin_s, f);
    struct schedule_costs costs =
        account_costs(f, a->schedule->micro_batches * a->schedule->chunks);
    schedule_times_price(&a->ideal, a->schedule, &costs);
    f->bubble_ideal = schedule_bubble(&a->ideal);
    f->slowest_steps = ++a->slowest_steps[f->slowest];
    f->steps = ++a->steps;
    return true;
}

int account_timeline(struct account *a, int64_t step, bool over, struct err *err)
{
    if (!a || !a->trace.keeps ||
        !(over || step + 1 == a->spec.timeline_from + a->spec.timeline_steps))
        return 0;
    struct trace *t = &a->trace;
    sync(a);
    struct clock_fix fix = clock_fix_through(&a->timeline_fix, &t->fix, 0);
    struct timeline line = {.pipeline = a->grid->pipeline,
                            .data = a->grid->data,
                            .schedule = a->schedule,
                            .first_step = a->spec.timeline_from};
    for (int64_t i = 0; i < t->spans; i++)
        line.boxes += t->span[i].kind <= TRACE_WEIGHT;
    t->keeps = false;
    t->on = a->spec.every_step;
    return timeline_write(a->grid, &line, &fix, t->spans, t->span, a->received,
                          a->spec.folder, err);
}
