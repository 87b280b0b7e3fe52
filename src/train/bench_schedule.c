/* SPDX-License-Identifier: Apache-2.0 */
/* The pipeline's runner on operations that sleep instead of computing, so that more
 * ranks than cores time truly: what a schedule takes beside what its table says. A
 * forward, an input gradient and a weight gradient sleep alike long, one after the
 * other where the schedule does not split the backward; messages are a page. */
#include "src/train/bench.h"

#include "mpi/runner.h"
#include "mpi/schedule_times.h"
#include "src/base/clock.h"
#include "src/base/mem.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MESSAGE_BYTES = 4096, LEAST_STEPS = 3 };

struct sleeper {
    double op_s; /* of a chunk */
    bool split;
};

/* Until so long after now: the sleep's own start and end cost nothing. */
static void sleep_for(double seconds)
{
    double until = clock_s() + seconds;
    struct timespec t = {.tv_sec = (time_t)until};
    t.tv_nsec = (long)((until - (double)t.tv_sec) * 1e9);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}

static void forward(void *context, const struct runner_place *at, const void *in,
                    void *out)
{
    const struct sleeper *s = context;
    (void)at, (void)in, (void)out;
    sleep_for(s->op_s);
}

static void backward(void *context, const struct runner_place *at, const void *dout,
                     void *din)
{
    const struct sleeper *s = context;
    (void)at, (void)dout, (void)din;
    sleep_for(s->split ? s->op_s : 2 * s->op_s);
}

static void weight(void *context, const struct runner_place *at)
{
    const struct sleeper *s = context;
    (void)at;
    sleep_for(s->op_s);
}

/* One schedule under way. */
struct piped {
    struct bench *b;
    struct grid grid;
    struct schedule schedule;
    struct runner *runner;
    struct trace trace;
    int64_t *bytes; /* [micro_batches] */
    struct sleeper sleeper;
};

/* Of a pass of all ranks, in seconds. */
struct pass {
    double length;  /* first operation's begin to last one's end */
    double exposed; /* mean over ranks */
};

static struct pass one_pass(struct piped *p)
{
    const struct runner_calls calls = {&p->sleeper, forward, backward, weight};
    struct comm *world = p->b->world;
    double wait_s = 0;
    comm_barrier(world);
    trace_step(&p->trace);
    runner_run(p->runner, &calls, p->bytes, &wait_s);
    double ends[2] = {-clock_fix_shared(&p->trace.fix, p->trace.first_s),
                      clock_fix_shared(&p->trace.fix, p->trace.last_s)};
    double exposed = p->trace.exposed_s;
    comm_max_f64(world, ends, 2);
    comm_sum_f64(world, &exposed, 1);
    return (struct pass){ends[0] + ends[1], exposed / comm_size(world)};
}

/* The idle time of a rank: the pass without its operations, which take so long. */
static struct bench_value idle_of(struct bench_value pass, double work_s)
{
    return (struct bench_value){1e3 * (pass.median - work_s), 1e3 * (pass.low - work_s),
                                1e3 * (pass.high - work_s), pass.samples};
}

static void row(struct bench *b, const char *schedule, const char *what,
                const char *unit, struct bench_value v, double share, const char *of)
{
    char name[64];
    snprintf(name, sizeof name, "%s %s", schedule, what);
    bench_add(b, name, unit, v, share, of);
}

static void rows(struct piped *p, double ideal_s, struct pass *pass, int n)
{
    enum { OPS = 3 };
    struct bench *b = p->b;
    const char *name = schedule_name(p->schedule.kind);
    double work_s = OPS * b->op_s * b->micro_batches, x[BENCH_SAMPLES];
    for (int i = 0; i < n; i++)
        x[i] = pass[i].length;
    struct bench_value s = bench_value_of(x, n);
    struct bench_value ms = {1e3 * s.median, 1e3 * s.low, 1e3 * s.high, n};
    struct bench_value idle = idle_of(s, work_s);
    double lean = bench_median(b, b->section, "1f1b bubble");
    for (int i = 0; i < n; i++)
        x[i] = 100 * pass[i].exposed / pass[i].length;
    bench_title(b, "%s, %d stages, %d micro-batches, %g ms an operation", name,
                b->stages, b->micro_batches, 1e3 * b->op_s);
    row(b, name, "step", "ms", ms, s.median / ideal_s, "ideal");
    row(b, name, "ideal step", "ms", bench_one(1e3 * ideal_s), -1, NULL);
    row(b, name, "bubble", "ms", idle, lean > 0 ? idle.median / lean : -1, "1f1b");
    row(b, name, "ideal bubble", "ms", bench_one(1e3 * (ideal_s - work_s)), -1, NULL);
    row(b, name, "bubble of the step", "%", bench_one(100 * (1 - work_s / s.median)),
        -1, NULL);
    row(b, name, "exposed of the step", "%", bench_value_of(x, n), -1, NULL);
}

static int piped_init(struct piped *p, enum schedule_kind kind, struct err *err)
{
    const struct bench *b = p->b;
    int data = comm_size(b->world) / b->stages;
    if (grid_init(&p->grid, b->world, b->stages, data, err))
        return -1;
    struct schedule_spec spec = {.kind = kind,
                                 .ranks = b->stages,
                                 .chunks = schedule_usual_chunks(kind),
                                 .micro_batches = b->micro_batches};
    int failed = schedule_init(&p->schedule, &spec, err);
    /* Each chunk sleeps for its part of an operation. */
    p->sleeper = (struct sleeper){b->op_s / spec.chunks, p->schedule.split};
    failed = failed || trace_init(&p->trace, 0, err) ||
             !(p->bytes = mem_array(b->micro_batches, sizeof *p->bytes, err)) ||
             !(p->runner = runner_create(&p->grid, &p->schedule, MESSAGE_BYTES, err));
    if (comm_agree(b->world, failed, err))
        return -1;
    for (int i = 0; i < b->micro_batches; i++)
        p->bytes[i] = MESSAGE_BYTES;
    runner_set_trace(p->runner, &p->trace);
    p->trace.fix = clock_sync(&p->grid);
    return 0;
}

static void piped_fini(struct piped *p)
{
    runner_destroy(p->runner);
    mem_free(p->bytes);
    trace_fini(&p->trace);
    schedule_fini(&p->schedule);
    grid_fini(&p->grid);
}

static int ideal_length(const struct piped *p, double *length, struct err *err)
{
    double op_s = p->sleeper.op_s;
    const struct schedule_costs costs = {op_s, op_s, op_s};
    struct schedule_times t;
    int failed = schedule_times_init(&t, &p->schedule, &costs, err);
    if (comm_agree(p->b->world, failed, err))
        return -1;
    *length = t.length;
    schedule_times_fini(&t);
    return 0;
}

/* The first pass warms up; the others take about 10 times the seconds of a row. */
static int measure(struct bench *b, enum schedule_kind kind, struct err *err)
{
    struct piped p = {.b = b};
    struct pass pass[BENCH_SAMPLES];
    double ideal_s, spent = 0;
    int n = 0;
    int failed = piped_init(&p, kind, err) || ideal_length(&p, &ideal_s, err);
    if (!failed) {
        one_pass(&p);
        while (n < LEAST_STEPS || (n < BENCH_SAMPLES && spent < 10 * b->seconds)) {
            pass[n] = one_pass(&p);
            spent += pass[n++].length;
        }
        rows(&p, ideal_s, pass, n);
    }
    piped_fini(&p);
    return failed ? -1 : 0;
}

int bench_schedule(struct bench *b, struct err *err)
{
    static const enum schedule_kind kinds[] = {SCHEDULE_GPIPE, SCHEDULE_1F1B,
                                               SCHEDULE_INTERLEAVED, SCHEDULE_ZB_H1,
                                               SCHEDULE_ZB_V};
    b->section = "schedule";
    if (comm_size(b->world) % b->stages)
        return err_set(
            err, ERR_USAGE,
            "bench schedule: --stages is %d, expected a divisor of the number "
            "of ranks, %d (mpirun --oversubscribe -n %d)",
            b->stages, comm_size(b->world), b->stages);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        bool all = strcmp(b->only_schedule, "all") == 0;
        if (!all && strcmp(b->only_schedule, schedule_name(kinds[i])) != 0)
            continue;
        if (measure(b, kinds[i], err))
            return -1;
    }
    return 0;
}
