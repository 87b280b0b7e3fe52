/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/trace.h"

#include "src/base/clock.h"

#include <math.h>
#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A clock that started 100 s later and gains 20 us a second on the shared one. */
static double local_of(double shared_s)
{
    return (shared_s - 100) * (1 + 2e-5);
}

static struct clock_fix estimate(double shared_s)
{
    double local = local_of(shared_s);
    return (struct clock_fix){.at_s = local, .offset_s = shared_s - local};
}

static void a_line_through_two_estimates_is_the_clock(void **state)
{
    (void)state;
    struct clock_fix a = estimate(1000), b = estimate(1060);
    struct clock_fix line = clock_fix_through(&a, &b, 0);
    static const double at[] = {1000, 1007.5, 1060, 1600}; /* between and beyond */
    for (int i = 0; i < 4; i++) {
        double found = clock_fix_shared(&line, local_of(at[i]));
        printf("# shared %.9f, expected %.9f\n", found, at[i]);
        assert_true(fabs(found - at[i]) < 1e-9);
    }
    /* One estimate alone is off by the drift. */
    double late = clock_fix_shared(&a, local_of(1060)) - 1060;
    assert_true(fabs(late - 60 * 2e-5) < 1e-6);
}

static void estimates_that_are_near_give_no_rate(void **state)
{
    (void)state;
    struct clock_fix a = {.at_s = 10, .offset_s = 1, .rate = 3e-6};
    struct clock_fix b = {.at_s = 12, .offset_s = 1.001};
    assert_true(clock_fix_through(&a, &b, 10).rate == a.rate);
    assert_true(clock_fix_through(&a, &b, 10).offset_s == b.offset_s);
    assert_true(fabs(clock_fix_through(&a, &b, 0).rate - 5e-4) < 1e-12);
    assert_true(clock_fix_through(&a, &a, 0).rate == a.rate); /* no time between */
}

/* begin, end, and since when the message was there, in shared time: the trace's clock
 * is 5 s behind. */
static void waiting_is_exposed_from_the_message_on(void **state)
{
    (void)state;
    static const struct {
        double begin_s, end_s, ready_s, exposed_s;
    } rows[] = {{10, 12, 16.5, 0.5},     /* 1.5 s for its maker, 0.5 s for it */
                {10, 12, 14, 2},         /* it was there before: all of it */
                {10, 12, 17.25, 0},      /* clocks that differ a little */
                {10, 12, -INFINITY, 2}}; /* a buffer on its way */
    double sum = 0, waited = 0;
    struct err err;
    struct trace t;
    assert_int_equal(trace_init(&t, 0, &err), 0);
    t.fix.offset_s = 5;
    for (int i = 0; i < 4; i++) {
        trace_wait(&t, TRACE_RECEIVE, i, rows[i].begin_s, rows[i].end_s,
                   rows[i].ready_s);
        sum += rows[i].exposed_s;
        waited += 2;
        assert_true(fabs(t.exposed_s - sum) < 1e-12);
        assert_true(fabs(t.seconds[TRACE_RECEIVE] - waited) < 1e-12);
    }
    trace_step(&t);
    assert_true(t.exposed_s == 0 && t.seconds[TRACE_RECEIVE] == 0);
    trace_fini(&t);
}

static void sums_and_keeps_what_it_is_told(void **state)
{
    (void)state;
    struct err err;
    struct trace t;
    assert_int_equal(trace_init(&t, 4, &err), 0);
    assert_int_equal(trace_bytes(4), sizeof t + 4 * sizeof(struct trace_span));
    double start = trace_now(&t);
    assert_true(start > 0);
    trace_add(&t, TRACE_DATA, -1, start); /* not kept yet, not computing */
    assert_true(t.first_s == 0 && t.spans == 0);
    t.keeps = true;
    double first = trace_now(&t);
    trace_add(&t, TRACE_FORWARD, 3, first);
    trace_add(&t, TRACE_WEIGHT, 2, trace_now(&t));
    trace_wait(&t, TRACE_SEND, 7, 20, 20 + 1e-7, -INFINITY); /* no wait worth a span */
    trace_wait(&t, TRACE_SEND, 8, 20, 21, -INFINITY);
    assert_int_equal(t.spans, 3);
    static const int kinds[] = {TRACE_FORWARD, TRACE_WEIGHT, TRACE_SEND};
    static const int micro_batches[] = {3, 2, 8};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(t.span[i].kind, kinds[i]);
        assert_int_equal(t.span[i].micro_batch, micro_batches[i]);
        assert_true(t.span[i].end_s >= t.span[i].begin_s);
    }
    assert_true(t.first_s == first && t.last_s == t.span[1].end_s);
    trace_fini(&t);
}

static void none_and_off_do_nothing(void **state)
{
    (void)state;
    struct err err;
    struct trace t;
    assert_int_equal(trace_init(&t, 1, &err), 0);
    t.on = false;
    t.keeps = true;
    struct trace *const traces[] = {NULL, &t};
    for (int i = 0; i < 2; i++) {
        assert_true(trace_now(traces[i]) == 0 && trace_shared_now(traces[i]) == 0);
        trace_step(traces[i]);
        trace_add(traces[i], TRACE_FORWARD, 0, 1);
        trace_wait(traces[i], TRACE_SEND, 0, 1, 2, 0);
    }
    assert_true(t.spans == 0 && t.exposed_s == 0 && t.seconds[TRACE_FORWARD] == 0);
    trace_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_through_two_estimates_is_the_clock),
        cmocka_unit_test(estimates_that_are_near_give_no_rate),
        cmocka_unit_test(waiting_is_exposed_from_the_message_on),
        cmocka_unit_test(sums_and_keeps_what_it_is_told),
        cmocka_unit_test(none_and_off_do_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
