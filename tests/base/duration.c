/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/duration.h"
#include "src/base/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static void times_as_slurm_writes_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double seconds; /* 0: refused */
    } rows[] = {{"90", 5400},
                {"1:30", 90},
                {"0:05", 5},
                {"12:00:00", 43200},
                {"00:00:01", 1},
                {"2-12", 216000},
                {"2-12:30", 217800},
                {"2-12:30:15", 217815},
                {"1-00:00:00", 86400},
                {"0-0:1", 60},
                {"", 0},
                {"0", 0},
                {"0-0", 0},
                {"-5", 0},
                {"1-", 0},
                {"1--2", 0},
                {"1:", 0},
                {":5", 0},
                {"1:2:3:4", 0},
                {"1-1:2:3:4", 0},
                {"1.5", 0},
                {"5 ", 0},
                {" 5", 0},
                {"12:00:00x", 0},
                {"99999999", 0},
                {"UNLIMITED", 0},
                {"NOT_SET", 0},
                {"INVALID", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double found = 0;
        if (!duration_parse(rows[i].text, &found))
            found = 0;
        print_message("\"%s\": %g s, expected %g\n", rows[i].text, found,
                      rows[i].seconds);
        assert_true(found == rows[i].seconds);
    }
}

static void a_process_knows_its_age(void **state)
{
    (void)state;
    struct timespec nap = {.tv_nsec = 50000000};
    double before_s = process_age_s();
    nanosleep(&nap, NULL);
    double after_s = process_age_s();
    print_message("%g s, then %g s\n", before_s, after_s);
    assert_true(after_s - before_s >= 0.045 && after_s - before_s < 60);
    assert_true(after_s < 600);
    assert_true(process_born((long)getpid()) > 0);
    assert_true(process_born((long)getpid()) >= process_born((long)getppid()));
    assert_int_equal(process_born(-1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_as_slurm_writes_them),
        cmocka_unit_test(a_process_knows_its_age),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
