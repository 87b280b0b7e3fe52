/* SPDX-License-Identifier: Apache-2.0 */
/* When a run stops for its time limit. */
#include "src/train/deadline.h"

#include "src/base/clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void stops_while_there_is_time_for_a_step_and_a_save(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        double left_s, step_s, eval_s, save_s, assumed_s;
        bool validates, before_step, in_eval;
    } rows[] = {
        {"no end", INFINITY, 1e9, 1e9, 1e9, 1e9, true, false, false},
        {"ample", 1000, 10, 100, 100, 0, true, false, false},
        {"a step too many", 1000, 600, 0, 100, 0, false, true, false},
        {"a step that still fits", 1000, 500, 0, 100, 0, false, false, false},
        {"its validation does not", 1000, 500, 100, 100, 0, true, true, false},
        {"only the save fits", 1000, 10, 0, 700, 0, false, true, true},
        {"no save was measured", 1000, 10, 0, 0, 990, false, true, false},
        {"one was", 1000, 10, 0, 1, 990, false, false, false},
        {"over", -5, 0, 0, 0, 0, false, true, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct deadline d = {.end_s = clock_s() + rows[i].left_s,
                             .margin_s = 1,
                             .assumed_save_s = rows[i].assumed_s};
        deadline_took_step(&d, rows[i].step_s);
        deadline_took_eval(&d, rows[i].eval_s);
        deadline_took_save(&d, rows[i].save_s);
        bool before_step = deadline_before_step(&d, rows[i].validates);
        bool in_eval = deadline_in_eval(&d);
        print_message("%s: before a step %d, in validation %d; expected %d, %d\n",
                      rows[i].what, before_step, in_eval, rows[i].before_step,
                      rows[i].in_eval);
        assert_int_equal(before_step, rows[i].before_step);
        assert_int_equal(in_eval, rows[i].in_eval);
    }
}

static void a_slow_step_is_forgotten_slowly(void **state)
{
    (void)state;
    struct deadline d = {.end_s = INFINITY};
    deadline_took_step(&d, 100);
    deadline_took_step(&d, 1);
    print_message("%g s\n", d.step_s);
    assert_true(d.step_s > 90 && d.step_s < 100);
    for (int i = 0; i < 400; i++)
        deadline_took_step(&d, 1);
    print_message("%g s\n", d.step_s);
    assert_true(d.step_s == 1);
}

static void only_the_run_file_sets_an_end_without_slurm(void **state)
{
    (void)state;
    static const struct {
        const char *walltime;
        bool decides;
        double least_s, most_s;
    } rows[] = {{"auto", true, INFINITY, INFINITY},
                {"none", true, INFINITY, INFINITY},
                {"10", false, INFINITY, INFINITY},
                {"10", true, 0, 600},
                {"1-00:00:00", true, 85000, 86400}};
    struct log silent = {0};
    unsetenv("SLURM_JOB_ID");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct run run = {.run.walltime = (char *)rows[i].walltime};
        struct deadline d;
        deadline_init(&d, rows[i].decides, &run, 1000000000000, &silent);
        double left_s = d.end_s - clock_s();
        print_message("%s: %g s left, margin %g s, a save %g s\n", rows[i].walltime,
                      left_s, d.margin_s, d.assumed_save_s);
        assert_true(left_s >= rows[i].least_s && left_s <= rows[i].most_s);
        if (isfinite(left_s)) {
            assert_true(d.margin_s >= 0.3 && d.margin_s <= 60);
            assert_true(fabs(d.assumed_save_s - fmin(5000, left_s / 4)) < 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stops_while_there_is_time_for_a_step_and_a_save),
        cmocka_unit_test(a_slow_step_is_forgotten_slowly),
        cmocka_unit_test(only_the_run_file_sets_an_end_without_slurm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
