/* SPDX-License-Identifier: Apache-2.0 */
#include "mpi/schedule.h"

#include "mpi/schedule_times.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const enum schedule_kind kinds[] = {SCHEDULE_GPIPE, SCHEDULE_1F1B,
                                           SCHEDULE_ZB_H1, SCHEDULE_FORWARD};
enum { KINDS = 4 };

/* A table of one stage a rank. */
static int make(struct schedule *s, enum schedule_kind kind, int ranks,
                int micro_batches, struct err *err)
{
    struct schedule_spec spec = {
        .kind = kind, .ranks = ranks, .chunks = 1, .micro_batches = micro_batches};
    return schedule_init(s, &spec, err);
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static void every_table_passes_its_check(void **state)
{
    (void)state;
    int tables = 0;
    for (int k = 0; k < KINDS; k++)
        for (int p = 1; p <= 16; p++)
            for (int m = 1; m <= 64; m++) {
                struct err err = {0};
                struct schedule s;
                assert_int_equal(make(&s, kinds[k], p, m, &err), 0);
                if (schedule_check(&s, &err))
                    fail_msg("p = %d, m = %d: %s", p, m, err.text);
                for (int i = 0; i < p; i++) {
                    int want = kinds[k] == SCHEDULE_GPIPE   ? m
                               : kinds[k] == SCHEDULE_1F1B  ? smaller(p - i, m)
                               : kinds[k] == SCHEDULE_ZB_H1 ? smaller(p, m)
                                                            : smaller(2, m);
                    assert_int_equal(s.slots[i], want);
                    int wait = kinds[k] == SCHEDULE_ZB_H1 ? smaller(i + 1, m) : 0;
                    assert_int_equal(s.waiting[i], wait);
                }
                schedule_fini(&s);
                tables++;
            }
    printf("# %d tables proven\n", tables);
}

/* No stage is promised more than it uses, so that one less of either is refused. */
static void promises_are_tight(void **state)
{
    (void)state;
    for (int p = 1; p <= 16; p++)
        for (int m = 1; m <= 64; m += m < 20 ? 1 : 11)
            for (int i = 0; i < p; i++) {
                struct err err = {0};
                struct schedule s;
                assert_int_equal(make(&s, SCHEDULE_ZB_H1, p, m, &err), 0);
                s.slots[i]--;
                assert_int_equal(schedule_check(&s, &err), -1);
                assert_non_null(strstr(err.text, "micro-batches alive in"));
                s.slots[i]++;
                s.waiting[i]--;
                assert_int_equal(schedule_check(&s, &err), -1);
                assert_non_null(strstr(err.text, "wait for weight"));
                schedule_fini(&s);
            }
}

static double length_of(enum schedule_kind kind, int p, int m, double f, double b,
                        double w, double *bubble)
{
    struct err err = {0};
    struct schedule s;
    struct schedule_times t;
    struct schedule_costs costs = {f, b, w};
    assert_int_equal(make(&s, kind, p, m, &err), 0);
    assert_int_equal(schedule_times_init(&t, &s, &costs, &err), 0);
    for (int i = 0; i < p; i++) {
        double each = kind == SCHEDULE_FORWARD ? f : f + b + w;
        assert_true(fabs(t.busy[i] - m * each) < 1e-9 * t.length);
        if (kind != SCHEDULE_FORWARD)
            assert_int_equal(t.alive[i], s.slots[i]);
    }
    double length = t.length;
    if (bubble)
        *bubble = schedule_bubble(&t);
    schedule_times_fini(&t);
    schedule_fini(&s);
    return length;
}

/* arXiv 2401.10241, section 2.3: with m >= p the step is m (F + B + W) and a bubble of
 * (p - 1)(F + B + W), of zb-h1 (p - 1)(F + B - W). With fewer micro-batches no table
 * can be shorter than p F + (p - 1) B and then, on the first stage, m (B + W). */
static void steps_are_as_long_as_the_paper_says(void **state)
{
    (void)state;
    double worst = 0;
    for (int p = 1; p <= 16; p++)
        for (int m = 1; m <= 64; m++) {
            double bubble;
            double lean = length_of(SCHEDULE_1F1B, p, m, 1, 1, 1, NULL);
            double gpipe = length_of(SCHEDULE_GPIPE, p, m, 1, 1, 1, NULL);
            double zero = length_of(SCHEDULE_ZB_H1, p, m, 1, 1, 1, &bubble);
            assert_true(lean == 3 * m + 3 * (p - 1));
            assert_true(gpipe == lean);
            if (zero != (m >= p ? 3 * m + (p - 1) : 2 * m + 2 * p - 1))
                fail_msg("p = %d, m = %d: %g units", p, m, zero);
            assert_true(fabs(bubble - (1 - 3 * m / zero)) < 1e-12);
            assert_true(length_of(SCHEDULE_FORWARD, p, m, 1, 1, 1, NULL) == m + p - 1);
            if (m >= p && p > 1) {
                double ratio = (zero - 3 * m) / (lean - 3 * m);
                worst = ratio > worst ? ratio : worst;
            }
        }
    printf("# bubble of zb-h1 / 1f1b: %.4f\n", worst);
    assert_true(worst < 0.3334);
    /* Other times, where weight gradients are no longer than the rest. */
    for (int p = 2; p <= 8; p++)
        for (int m = p; m <= 4 * p; m++) {
            assert_true(length_of(SCHEDULE_1F1B, p, m, 2, 3, 1, NULL) ==
                        6 * m + 6 * (p - 1));
            double zero = length_of(SCHEDULE_ZB_H1, p, m, 2, 3, 1, NULL);
            if (zero != 6 * m + 4 * (p - 1))
                fail_msg("F 2, B 3, W 1, p = %d, m = %d: %g units", p, m, zero);
        }
}

/* The orders of the papers, spelt out: F, B and W of each stage. */
static void orders_are_those_of_the_papers(void **state)
{
    (void)state;
    static const struct {
        enum schedule_kind kind;
        int stages, micro_batches, stage;
        const char *order;
    } rows[] = {
        {SCHEDULE_GPIPE, 2, 3, 0, "F0F1F2B0B1B2"},
        {SCHEDULE_1F1B, 1, 3, 0, "F0B0F1B1F2B2"},
        {SCHEDULE_1F1B, 4, 5, 0, "F0F1F2F3B0F4B1B2B3B4"},
        {SCHEDULE_1F1B, 4, 5, 2, "F0F1B0F2B1F3B2F4B3B4"},
        {SCHEDULE_1F1B, 4, 5, 3, "F0B0F1B1F2B2F3B3F4B4"},
        {SCHEDULE_1F1B, 4, 2, 0, "F0F1B0B1"},
        {SCHEDULE_ZB_H1, 1, 2, 0, "F0B0W0F1B1W1"},
        {SCHEDULE_ZB_H1, 4, 6, 0, "F0F1F2F3B0W0F4B1W1F5B2W2B3W3B4W4B5W5"},
        {SCHEDULE_ZB_H1, 4, 6, 1, "F0F1F2B0F3B1W0F4B2W1F5B3W2B4W3B5W4W5"},
        {SCHEDULE_ZB_H1, 4, 6, 3, "F0B0F1B1F2B2F3B3W0F4B4W1F5B5W2W3W4W5"},
        {SCHEDULE_ZB_H1, 4, 2, 3, "F0B0F1B1W0W1"},
        {SCHEDULE_ZB_H1, 4, 2, 0, "F0F1B0W0B1W1"},
        {SCHEDULE_FORWARD, 3, 4, 1, "F0F1F2F3"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct schedule s;
        char order[256] = "";
        assert_int_equal(
            make(&s, rows[i].kind, rows[i].stages, rows[i].micro_batches, &err), 0);
        for (int at = 0; at < s.ops[rows[i].stage]; at++) {
            struct pipe_op op = s.op[rows[i].stage][at];
            size_t used = strlen(order);
            if (op.kind <= PIPE_WEIGHT)
                snprintf(order + used, sizeof order - used, "%c%d", "FBW"[op.kind],
                         op.micro_batch);
        }
        assert_string_equal(order, rows[i].order);
        schedule_fini(&s);
    }
}

static int find(const struct schedule *s, int stage, enum pipe_op_kind kind,
                int micro_batch)
{
    for (int at = 0; at < s->ops[stage]; at++)
        if (s->op[stage][at].kind == kind &&
            s->op[stage][at].micro_batch == micro_batch)
            return at;
    fail_msg("no %s of %d", pipe_op_name(kind), micro_batch);
    return -1;
}

static void move(struct schedule *s, int stage, int from, int to)
{
    struct pipe_op *ops = s->op[stage], op = ops[from];
    if (from < to)
        memmove(ops + from, ops + from + 1, sizeof op * (size_t)(to - from));
    else
        memmove(ops + to + 1, ops + to, sizeof op * (size_t)(from - to));
    ops[to] = op;
}

static void drop(struct schedule *s, int stage, int at)
{
    move(s, stage, at, s->ops[stage] - 1);
    s->ops[stage]--;
}

enum change { DROP, TWICE, BEFORE, SLOTS, WAITING, KIND };

static const struct {
    enum schedule_kind kind;
    int stage; /* of 4, with 6 micro-batches */
    enum change change;
    enum pipe_op_kind op;
    int micro_batch;
    enum pipe_op_kind other; /* BEFORE: moved in front of this; KIND: becomes it */
    int other_micro_batch;
    const char *stage_named, *named;
} faults[] = {
    {SCHEDULE_1F1B, 1, DROP, PIPE_FORWARD, 5, 0, 0, "stage 1",
     "send_forward of micro-batch 5): needs forward first"},
    {SCHEDULE_GPIPE, 1, DROP, PIPE_FORWARD, 2, 0, 0, "stage 1",
     "send_forward of micro-batch 2): needs forward first"},
    {SCHEDULE_1F1B, 0, DROP, PIPE_SEND_FORWARD, 5, 0, 0, "stage 0",
     "send_forward of micro-batch 5 is missing"},
    {SCHEDULE_GPIPE, 3, DROP, PIPE_BACKWARD, 5, 0, 0, "stage 3",
     "(send_backward of micro-batch 5): needs backward first"},
    {SCHEDULE_1F1B, 2, DROP, PIPE_RECV_BACKWARD, 3, 0, 0, "stage 2",
     "(backward of micro-batch 3): needs recv_backward first"},
    {SCHEDULE_FORWARD, 2, DROP, PIPE_RECV_FORWARD, 4, 0, 0, "stage 2",
     "(forward of micro-batch 4): needs recv_forward first"},
    {SCHEDULE_1F1B, 1, TWICE, PIPE_BACKWARD, 2, 0, 0, "stage 1",
     "(backward of micro-batch 2): was done before"},
    {SCHEDULE_GPIPE, 0, TWICE, PIPE_SEND_FORWARD, 0, 0, 0, "stage 0",
     "(send_forward of micro-batch 0): was done before"},
    {SCHEDULE_GPIPE, 3, BEFORE, PIPE_BACKWARD, 2, PIPE_BACKWARD, 1, "stage 3",
     "(backward of micro-batch 2): micro-batch 1 must come first"},
    {SCHEDULE_1F1B, 1, BEFORE, PIPE_SEND_BACKWARD, 2, PIPE_BACKWARD, 2, "stage 1",
     "(send_backward of micro-batch 2): needs backward first"},
    {SCHEDULE_1F1B, 3, BEFORE, PIPE_BACKWARD, 2, PIPE_FORWARD, 2, "stage 3",
     "(backward of micro-batch 2): needs forward first"},
    {SCHEDULE_1F1B, 1, BEFORE, PIPE_FORWARD, 3, PIPE_RECV_FORWARD, 3, "stage 1",
     "(forward of micro-batch 3): needs recv_forward first"},
    {SCHEDULE_GPIPE, 0, BEFORE, PIPE_FORWARD, 2, PIPE_SEND_FORWARD, 0, "stage 0",
     "(forward of micro-batch 2): micro-batch 1 must come first"},
    {SCHEDULE_1F1B, 0, SLOTS, 0, 0, 0, 0, "stage 0",
     "(forward of micro-batch 3): 4 micro-batches alive in 3 slots"},
    {SCHEDULE_GPIPE, 2, SLOTS, 0, 0, 0, 0, "stage 2",
     "(recv_forward of micro-batch 5): 6 micro-batches alive in 5 slots"},
    {SCHEDULE_1F1B, 3, SLOTS, 0, 0, 0, 0, "stage 3", "alive in 0 slots"},
    {SCHEDULE_ZB_H1, 2, DROP, PIPE_WEIGHT, 5, 0, 0, "stage 2",
     "weight of micro-batch 5 is missing"},
    {SCHEDULE_ZB_H1, 2, DROP, PIPE_WEIGHT, 3, 0, 0, "stage 2",
     "(weight of micro-batch 4): micro-batch 3 must come first"},
    {SCHEDULE_ZB_H1, 2, DROP, PIPE_BACKWARD, 5, 0, 0, "stage 2",
     "(send_backward of micro-batch 5): needs backward first"},
    {SCHEDULE_ZB_H1, 0, TWICE, PIPE_WEIGHT, 3, 0, 0, "stage 0",
     "(weight of micro-batch 3): was done before"},
    {SCHEDULE_ZB_H1, 1, BEFORE, PIPE_WEIGHT, 0, PIPE_BACKWARD, 0, "stage 1",
     "(weight of micro-batch 0): needs backward first"},
    {SCHEDULE_ZB_H1, 3, BEFORE, PIPE_WEIGHT, 5, PIPE_WEIGHT, 4, "stage 3",
     "(weight of micro-batch 5): micro-batch 4 must come first"},
    {SCHEDULE_ZB_H1, 3, BEFORE, PIPE_FORWARD, 4, PIPE_RECV_FORWARD, 4, "stage 3",
     "(forward of micro-batch 4): needs recv_forward first"},
    {SCHEDULE_ZB_H1, 0, BEFORE, PIPE_FORWARD, 4, PIPE_WEIGHT, 0, "stage 0",
     "(forward of micro-batch 4): 5 micro-batches alive in 4 slots"},
    {SCHEDULE_ZB_H1, 2, BEFORE, PIPE_BACKWARD, 3, PIPE_WEIGHT, 0, "stage 2",
     "(backward of micro-batch 3): needs recv_backward first"},
    {SCHEDULE_ZB_H1, 3, BEFORE, PIPE_BACKWARD, 4, PIPE_SEND_BACKWARD, 3, "stage 3",
     "(backward of micro-batch 4): needs forward first"},
    {SCHEDULE_ZB_H1, 2, SLOTS, 0, 0, 0, 0, "stage 2", "alive in 3 slots"},
    {SCHEDULE_ZB_H1, 2, WAITING, 0, 0, 0, 0, "stage 2",
     "(backward of micro-batch 2): 3 micro-batches wait for weight, memory is for "
     "2"},
    {SCHEDULE_1F1B, 2, KIND, PIPE_BACKWARD, 3, PIPE_WEIGHT, 3, "stage 2",
     "(weight of micro-batch 3): this stage has no such operation"},
    {SCHEDULE_1F1B, 3, KIND, PIPE_BACKWARD, 0, PIPE_RECV_BACKWARD, 0, "stage 3",
     "(recv_backward of micro-batch 0): this stage has no such operation"},
    {SCHEDULE_FORWARD, 0, KIND, PIPE_SEND_FORWARD, 3, PIPE_BACKWARD, 0, "stage 0",
     "(backward of micro-batch 0): this stage has no such operation"},
    {SCHEDULE_GPIPE, 1, KIND, PIPE_SEND_FORWARD, 3, 77, 0, "stage 1",
     "no such kind: 77"},
    {SCHEDULE_GPIPE, 1, KIND, PIPE_RECV_FORWARD, 3, PIPE_RECV_FORWARD, 6, "stage 1",
     "there are 6 micro-batches"},
};

static void each_fault_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct err err = {0};
        struct schedule s;
        int stage = faults[i].stage;
        assert_int_equal(make(&s, faults[i].kind, 4, 6, &err), 0);
        int at = faults[i].change == SLOTS || faults[i].change == WAITING
                     ? 0
                     : find(&s, stage, faults[i].op, faults[i].micro_batch);
        switch (faults[i].change) {
        case DROP:
            drop(&s, stage, at);
            break;
        case TWICE:
            s.op[stage][s.ops[stage] - 1] = s.op[stage][at];
            break;
        case BEFORE:
            move(&s, stage, at,
                 find(&s, stage, faults[i].other, faults[i].other_micro_batch));
            break;
        case SLOTS:
            s.slots[stage]--;
            break;
        case WAITING:
            s.waiting[stage]--;
            break;
        case KIND:
            s.op[stage][at] =
                (struct pipe_op){faults[i].other, stage, faults[i].other_micro_batch};
            break;
        }
        assert_int_equal(schedule_check(&s, &err), -1);
        if (!strstr(err.text, faults[i].named) ||
            !strstr(err.text, faults[i].stage_named))
            fail_msg("row %zu: expected \"%s\", got \"%s\"", i, faults[i].named,
                     err.text);
        schedule_fini(&s);
    }
}

/* Orders that are sound on each stage alone, but in which the stages wait for each
 * other. */
static void a_deadlock_is_found(void **state)
{
    (void)state;
    struct err err = {0};
    struct schedule s;

    /* Stage 0 wants the first gradient before it sends the second micro-batch; stage 1
     * runs all forwards first. */
    assert_int_equal(make(&s, SCHEDULE_GPIPE, 2, 2, &err), 0);
    move(&s, 0, find(&s, 0, PIPE_RECV_BACKWARD, 0), find(&s, 0, PIPE_FORWARD, 1));
    assert_int_equal(schedule_check(&s, &err), -1);
    print_message("# %s\n", err.text);
    assert_non_null(strstr(err.text, "stage 0, operation 2 (recv_backward of "
                                     "micro-batch 0): deadlock"));
    schedule_fini(&s);

    /* Stage 0 makes three outputs before it sends one: it has two buffers. */
    assert_int_equal(make(&s, SCHEDULE_FORWARD, 2, 3, &err), 0);
    move(&s, 0, find(&s, 0, PIPE_SEND_FORWARD, 1), 4);
    move(&s, 0, find(&s, 0, PIPE_SEND_FORWARD, 0), 3);
    assert_int_equal(schedule_check(&s, &err), -1);
    print_message("# %s\n", err.text);
    assert_non_null(strstr(err.text, "(forward of micro-batch 2): its buffer still "
                                     "holds micro-batch 0, which needs send_forward"));
    schedule_fini(&s);

    /* Stage 1 holds its two gradient buffers until stage 0 takes them, and stage 0
     * first wants stage 1 to take its third output. */
    assert_int_equal(make(&s, SCHEDULE_GPIPE, 2, 8, &err), 0);
    struct schedule lean;
    assert_int_equal(make(&lean, SCHEDULE_1F1B, 1, 8, &err), 0);
    s.ops[1] = 0;
    for (int at = 0; at < lean.ops[0]; at++) {
        struct pipe_op op = lean.op[0][at];
        if (op.kind == PIPE_FORWARD)
            s.op[1][s.ops[1]++] =
                (struct pipe_op){PIPE_RECV_FORWARD, 1, op.micro_batch};
        op.stage = 1;
        s.op[1][s.ops[1]++] = op;
        if (op.kind == PIPE_BACKWARD)
            s.op[1][s.ops[1]++] =
                (struct pipe_op){PIPE_SEND_BACKWARD, 1, op.micro_batch};
    }
    assert_int_equal(schedule_check(&s, &err), -1);
    print_message("# %s\n", err.text);
    assert_non_null(strstr(err.text, "deadlock"));
    schedule_fini(&lean);
    schedule_fini(&s);
}

/* Any single operation left out must be refused. */
static void no_operation_is_superfluous(void **state)
{
    (void)state;
    int changed = 0;
    for (int k = 0; k < KINDS; k++)
        for (int p = 1; p <= 4; p++)
            for (int m = 1; m <= 6; m++)
                for (int stage = 0; stage < p; stage++)
                    for (int at = 0;; at++) {
                        struct err err = {0};
                        struct schedule s;
                        assert_int_equal(make(&s, kinds[k], p, m, &err), 0);
                        int end = at >= s.ops[stage];
                        if (!end) {
                            drop(&s, stage, at);
                            assert_int_equal(schedule_check(&s, &err), -1);
                            changed++;
                        }
                        schedule_fini(&s);
                        if (end)
                            break;
                    }
    printf("# %d tables with one operation less refused\n", changed);
}

/* A table priced anew is one priced first. */
static void pricing_anew_forgets_what_was(void **state)
{
    (void)state;
    static const struct schedule_costs costs[] = {{5, 1, 9}, {2, 3, 1}};
    struct err err = {0};
    struct schedule s;
    struct schedule_times anew, first;
    assert_int_equal(make(&s, SCHEDULE_ZB_H1, 5, 12, &err), 0);
    assert_int_equal(schedule_times_init(&anew, &s, &costs[0], &err), 0);
    schedule_times_price(&anew, &s, &costs[1]);
    assert_int_equal(schedule_times_init(&first, &s, &costs[1], &err), 0);
    assert_true(anew.length == first.length && first.length > 0);
    for (int stage = 0; stage < 5; stage++) {
        assert_true(anew.busy[stage] == first.busy[stage]);
        assert_int_equal(anew.alive[stage], first.alive[stage]);
        assert_memory_equal(anew.start[stage], first.start[stage],
                            (size_t)s.ops[stage] * sizeof(double));
    }
    schedule_times_fini(&anew);
    schedule_times_fini(&first);
    schedule_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_table_passes_its_check),
        cmocka_unit_test(promises_are_tight),
        cmocka_unit_test(orders_are_those_of_the_papers),
        cmocka_unit_test(steps_are_as_long_as_the_paper_says),
        cmocka_unit_test(pricing_anew_forgets_what_was),
        cmocka_unit_test(each_fault_is_refused_by_name),
        cmocka_unit_test(a_deadlock_is_found),
        cmocka_unit_test(no_operation_is_superfluous),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
