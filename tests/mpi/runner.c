/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/runner.h"

#include "src/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* A chain of affine maps y = scale x + shift, one a stage, on whole numbers small
 * enough to be exact in floats; the loss is sum((j + 1) y_j) / 1, so that every input,
 * output and gradient is known beforehand. Every rank computes all of them, and checks
 * what the runner hands to it. */

enum { MAX_MICRO_BATCHES = 16, MAX_CHUNKS = 4 };

struct chain {
    int stages, stage, slots;
    bool backward_wanted, split;
    const int64_t *floats;
    uint64_t seed; /* of the delays; 0: none */
    const float *in[MAX_MICRO_BATCHES], *dout[MAX_MICRO_BATCHES];
    int holder[MAX_MICRO_BATCHES]; /* micro-batch in each slot, -1: free */
    int forwards, backwards, weights;
    double weight_gradient, want_gradient;
    int64_t wrong;
};

/* A rank's chunks. */
struct chains {
    struct chain chunk[MAX_CHUNKS];
};

static struct chain *chain_at(void *context, const struct runner_place *at)
{
    struct chains *all = context;
    return &all->chunk[at->chunk];
}

static int make(struct schedule *s, enum schedule_kind kind, int ranks, int chunks,
                int micro_batches, struct err *err)
{
    struct schedule_spec spec = {
        .kind = kind, .ranks = ranks, .chunks = chunks, .micro_batches = micro_batches};
    return schedule_init(s, &spec, err);
}

static float scale(int stage)
{
    return (float)(1 + stage % 3);
}

static float first_input(int micro_batch, int64_t j)
{
    return (float)((j * 7 + micro_batch * 3) % 11);
}

static float value(int stage, int micro_batch, int64_t j)
{
    float x = first_input(micro_batch, j);
    for (int s = 0; s < stage; s++)
        x = scale(s) * x + (float)s;
    return x;
}

/* Gradient of the loss by the output of `stage`. */
static float gradient(const struct chain *c, int stage, int64_t j)
{
    float g = (float)(j % 13 + 1);
    for (int s = c->stages - 1; s > stage; s--)
        g *= scale(s);
    return g;
}

static void delay(struct chain *c, int what)
{
    if (!c->seed)
        return;
    struct timespec t = {0};
    uint64_t draw = rng_u64(c->seed, (uint64_t)c->stage, (uint64_t)what);
    t.tv_nsec = draw % 4 ? 0 : (long)(draw / 4 % 3000000);
    nanosleep(&t, NULL);
}

static void forward(void *context, const struct runner_place *at, const void *from,
                    void *to)
{
    struct chain *c = chain_at(context, at);
    int i = at->micro_batch, slot = at->slot;
    const float *in = from;
    float *out = to;
    int64_t n = c->floats[i];
    c->wrong += (in == NULL) != (c->stage == 0);
    c->wrong += (out == NULL) != (c->stage == c->stages - 1);
    c->wrong += slot < 0 || slot >= c->slots || c->holder[slot] >= 0;
    if (c->backward_wanted)
        c->holder[slot] = i;
    c->in[i] = in;
    delay(c, c->forwards++);
    for (int64_t j = 0; j < n; j++) {
        float x = in ? in[j] : first_input(i, j);
        c->wrong += x != value(c->stage, i, j);
        if (out)
            out[j] = scale(c->stage) * x + (float)c->stage;
    }
}

/* The weight gradient from input and gradient, which must still be there. */
static void weight(void *context, const struct runner_place *at)
{
    struct chain *c = chain_at(context, at);
    int i = at->micro_batch, slot = at->slot;
    c->wrong += c->holder[slot] != i || c->weights++ != i;
    c->holder[slot] = -1;
    delay(c, 200 + i);
    for (int64_t j = 0; j < c->floats[i]; j++) {
        float g = c->dout[i] ? c->dout[i][j] : gradient(c, c->stage, j);
        float x = c->in[i] ? c->in[i][j] : first_input(i, j);
        c->weight_gradient += (double)g * (double)x;
        c->want_gradient +=
            (double)gradient(c, c->stage, j) * (double)value(c->stage, i, j);
    }
}

static void backward(void *context, const struct runner_place *at, const void *from,
                     void *to)
{
    struct chain *c = chain_at(context, at);
    int i = at->micro_batch, slot = at->slot;
    const float *dout = from;
    float *din = to;
    c->wrong += (din == NULL) != (c->stage == 0);
    c->wrong += (dout == NULL) != (c->stage == c->stages - 1);
    c->wrong += c->holder[slot] != i || c->backwards != i;
    delay(c, 100 + c->backwards++);
    for (int64_t j = 0; j < c->floats[i]; j++) {
        float g = dout ? dout[j] : gradient(c, c->stage, j);
        c->wrong += g != gradient(c, c->stage, j);
        if (din)
            din[j] = scale(c->stage) * g;
    }
    c->dout[i] = dout;
    if (!c->split)
        weight(context, at);
}

/* Every computation once, in no other's time; waiting is in the sums. */
static void check_trace(const struct trace *t, const struct schedule *s, bool backward,
                        double waited_s)
{
    int found[3][MAX_MICRO_BATCHES] = {0};
    double end = 0;
    for (int64_t k = 0; k < t->spans; k++) {
        const struct trace_span *span = &t->span[k];
        assert_true(span->begin_s >= end && span->end_s >= span->begin_s);
        end = span->end_s;
        if (span->kind <= TRACE_WEIGHT)
            found[span->kind][span->micro_batch]++;
    }
    for (int i = 0; i < s->micro_batches; i++) {
        assert_int_equal(found[TRACE_FORWARD][i], s->chunks);
        assert_int_equal(found[TRACE_BACKWARD][i], backward ? s->chunks : 0);
        assert_int_equal(found[TRACE_WEIGHT][i], s->split ? s->chunks : 0);
    }
    double waits = t->seconds[TRACE_RECEIVE] + t->seconds[TRACE_SEND];
    assert_true(waits > waited_s - 1e-6 && waits < waited_s + 1e-6);
    assert_true(t->exposed_s >= 0 && t->exposed_s <= waits + 1e-9);
}

static void run_once(const struct grid *g, struct runner *r, const struct schedule *s,
                     const int64_t *floats, uint64_t seed, double *wait_s)
{
    struct chains all;
    bool backward_wanted = s->kind != SCHEDULE_FORWARD;
    for (int k = 0; k < s->chunks; k++) {
        int stage = schedule_stage(s, g->stage, k);
        all.chunk[k] = (struct chain){.stages = s->stages,
                                      .stage = stage,
                                      .slots = s->slots[stage],
                                      .backward_wanted = backward_wanted,
                                      .split = s->split,
                                      .floats = floats,
                                      .seed = seed};
        for (int i = 0; i < MAX_MICRO_BATCHES; i++)
            all.chunk[k].holder[i] = -1;
    }
    int64_t bytes[MAX_MICRO_BATCHES];
    for (int i = 0; i < s->micro_batches; i++)
        bytes[i] = floats[i] * (int64_t)sizeof(float);
    struct runner_calls calls = {&all, forward, backward_wanted ? backward : NULL,
                                 s->split ? weight : NULL};
    struct err err;
    struct trace t;
    double before = *wait_s;
    assert_int_equal(trace_init(&t, trace_step_spans(s->ops[g->stage]), &err), 0);
    t.keeps = true;
    runner_set_trace(r, &t);
    runner_run(r, &calls, bytes, wait_s);
    runner_set_trace(r, NULL);
    check_trace(&t, s, backward_wanted, *wait_s - before);
    trace_fini(&t);
    for (int k = 0; k < s->chunks; k++) {
        const struct chain *c = &all.chunk[k];
        assert_int_equal(c->wrong, 0);
        assert_int_equal(c->forwards, s->micro_batches);
        assert_int_equal(c->backwards, backward_wanted ? s->micro_batches : 0);
        assert_int_equal(c->weights, c->backwards);
        if (c->weight_gradient != c->want_gradient)
            fail_msg("stage %d: weight gradient %.17g, expected %.17g", c->stage,
                     c->weight_gradient, c->want_gradient);
    }
}

static void chains_give_known_numbers(void **state)
{
    struct comm *world = *state;
    static const struct {
        enum schedule_kind kind;
        int chunks;
    } kinds[] = {{SCHEDULE_GPIPE, 1},       {SCHEDULE_1F1B, 1},
                 {SCHEDULE_ZB_H1, 1},       {SCHEDULE_FORWARD, 1},
                 {SCHEDULE_INTERLEAVED, 2}, {SCHEDULE_INTERLEAVED, 3},
                 {SCHEDULE_ZB_V, 2},        {SCHEDULE_FORWARD, 3}};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    static const int micro_batches[] = {1, 2, 3, 8, MAX_MICRO_BATCHES};
    enum { MAX_FLOATS = 20000, RUNS = 3 };
    int size = comm_size(world);
    for (int pipeline = 1; pipeline <= size; pipeline++) {
        struct err err = {0};
        struct grid g;
        if (grid_init(&g, world, pipeline, 0, &err))
            continue;
        for (int k = 0; k < KINDS; k++)
            for (int m = 0; m < 5; m++) {
                struct schedule s;
                int64_t floats[MAX_MICRO_BATCHES];
                if (kinds[k].kind == SCHEDULE_INTERLEAVED &&
                    micro_batches[m] % pipeline)
                    continue;
                for (int i = 0; i < MAX_MICRO_BATCHES; i++)
                    floats[i] =
                        (int64_t)(rng_u64(5, 0, (uint64_t)i) % (MAX_FLOATS + 1));
                floats[1] = 0;
                floats[2] = 1;
                floats[3] = MAX_FLOATS;
                assert_int_equal(make(&s, kinds[k].kind, pipeline, kinds[k].chunks,
                                      micro_batches[m], &err),
                                 0);
                struct runner *r =
                    runner_create(&g, &s, MAX_FLOATS * sizeof(float), &err);
                assert_non_null(r);
                double wait_s = 0;
                for (uint64_t run = 0; run < RUNS; run++)
                    run_once(&g, r, &s, floats, run, &wait_s);
                assert_true(wait_s >= 0 && (pipeline > 1 || wait_s < 1e-3));
                runner_destroy(r);
                schedule_fini(&s);
            }
        grid_fini(&g);
    }
}

/* Messages of several pieces, and of one float more than whole pieces. */
static void messages_of_several_pieces(void **state)
{
    struct comm *world = *state;
    enum { PIECE = 1 << 22, M = 2 };
    struct err err = {0};
    struct grid g;
    struct schedule s;
    int64_t floats[M] = {2 * PIECE + 1, PIECE};
    if (comm_size(world) > 2)
        return;
    assert_int_equal(grid_init(&g, world, comm_size(world), 1, &err), 0);
    assert_int_equal(make(&s, SCHEDULE_1F1B, g.pipeline, 1, M, &err), 0);
    struct runner *r = runner_create(&g, &s, 4 * floats[0], &err);
    assert_non_null(r);
    double wait_s = 0;
    run_once(&g, r, &s, floats, 0, &wait_s);
    runner_destroy(r);
    schedule_fini(&s);
    grid_fini(&g);
}

/* The ranks of a test share a host and its clock: the estimate must be near it. */
static void clocks_of_one_host_agree(void **state)
{
    struct comm *world = *state;
    for (int pipeline = 1; pipeline <= comm_size(world); pipeline++) {
        struct err err = {0};
        struct grid g;
        if (grid_init(&g, world, pipeline, 0, &err))
            continue;
        struct clock_fix f = clock_sync(&g);
        printf("# rank %d: offset %.1f us\n", comm_rank(world), 1e6 * f.offset_s);
        assert_true(f.rate == 0 && f.offset_s > -0.02 && f.offset_s < 0.02);
        assert_true(comm_rank(world) > 0 || f.offset_s == 0);
        grid_fini(&g);
    }
}

static void bytes_are_those_of_the_plan(void **state)
{
    (void)state;
    /* in: slots + 1, dout: waiting + 1, but no more than micro-batches; the others two.
     * 1,000 bytes are 1,024 with their padding, and one request a buffer. */
    static const struct {
        enum schedule_kind kind;
        int stages, micro_batches, stage, buffers;
    } rows[] = {
        {SCHEDULE_1F1B, 4, 8, 0, 0 + 2 + 0 + 2},
        {SCHEDULE_1F1B, 4, 8, 1, 4 + 2 + 2 + 2},
        {SCHEDULE_1F1B, 4, 8, 3, 2 + 0 + 2 + 0},
        {SCHEDULE_GPIPE, 4, 8, 1, 8 + 2 + 2 + 2},
        {SCHEDULE_1F1B, 4, 1, 1, 1 + 1 + 1 + 1},
        {SCHEDULE_ZB_H1, 4, 8, 0, 0 + 2 + 0 + 2},
        {SCHEDULE_ZB_H1, 4, 8, 1, 5 + 2 + 2 + 3},
        {SCHEDULE_ZB_H1, 4, 8, 2, 5 + 2 + 2 + 4},
        {SCHEDULE_ZB_H1, 4, 8, 3, 5 + 0 + 2 + 0},
        {SCHEDULE_ZB_H1, 4, 2, 2, 2 + 2 + 2 + 2},
        {SCHEDULE_FORWARD, 4, 8, 1, 3 + 2},
        {SCHEDULE_1F1B, 1, 8, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct schedule s;
        struct grid g = {.pipeline = rows[i].stages, .data = 1, .stage = rows[i].stage};
        assert_int_equal(
            make(&s, rows[i].kind, rows[i].stages, 1, rows[i].micro_batches, &err), 0);
        assert_int_equal(runner_bytes(&g, &s, 1000),
                         rows[i].buffers * (1024 + (int64_t)sizeof(void *)));
        schedule_fini(&s);
    }
}

static void a_wrong_schedule_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct schedule s;
    struct grid g = {.pipeline = 1, .data = 1, .pipe_axis = comm_self()};
    assert_int_equal(make(&s, SCHEDULE_1F1B, 1, 1, 3, &err), 0);
    s.ops[0]--;
    assert_null(runner_create(&g, &s, 10, &err));
    assert_non_null(strstr(err.text, "backward of micro-batch 2 is missing"));
    s.ops[0]++;
    g.pipeline = 2;
    assert_null(runner_create(&g, &s, 10, &err));
    assert_non_null(strstr(err.text, "a schedule of 1 ranks on a pipeline of 2"));
    schedule_fini(&s);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct comm *world = comm_start(&argc, &argv, &err);
    if (!world) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(chains_give_known_numbers, comm_self()),
        cmocka_unit_test_prestate(chains_give_known_numbers, world),
        cmocka_unit_test_prestate(messages_of_several_pieces, world),
        cmocka_unit_test_prestate(clocks_of_one_host_agree, comm_self()),
        cmocka_unit_test_prestate(clocks_of_one_host_agree, world),
        cmocka_unit_test(bytes_are_those_of_the_plan),
        cmocka_unit_test(a_wrong_schedule_is_refused),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    comm_finish(world);
    return failures ? 1 : 0;
}
