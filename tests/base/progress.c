/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/progress.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What was written to f so far, and f emptied. */
static const char *written(FILE *f, char *text, size_t size)
{
    rewind(f);
    size_t n = fread(text, 1, size - 1, f);
    text[n] = '\0';
    rewind(f);
    return text;
}

static void logs_write_whole_lines(void **state)
{
    (void)state;
    char text[256];
    FILE *f = tmpfile();
    struct log log = {f}, silent = {NULL};
    log_line(&log, "step %d", 3);
    log_warning(&log, "%s was old", "lock");
    log_line(&silent, "nothing");
    log_warning(&silent, "nothing");
    log_line(NULL, "nothing");
    log_warning(NULL, "nothing");
    assert_string_equal(written(f, text, sizeof text),
                        "step 3\nwarning: lock was old\n");
    fclose(f);
}

static void quick_work_is_silent(void **state)
{
    (void)state;
    char text[256];
    FILE *f = tmpfile();
    struct log log = {f};
    struct progress p;
    progress_begin(&p, &log, "import", "GB", 5e9, 1e9);
    for (int i = 0; i < 1000; i++)
        progress_at(&p, i * 5e6);
    progress_end(&p);
    assert_string_equal(written(f, text, sizeof text), "");
    fclose(f);
}

/* Time is moved by shifting the start; a file is no terminal, so lines come. */
static void slow_work_says_rate_and_time_left(void **state)
{
    (void)state;
    char text[1024];
    FILE *f = tmpfile();
    struct log log = {f};
    struct progress p;
    progress_begin(&p, &log, "import", "GB", 5e9, 1e9);
    p.start_s -= 20;
    p.shown_s -= 11;
    progress_at(&p, 2e9);
    p.shown_s -= 9;
    progress_at(&p, 2.1e9); /* too soon: lines are 10 s apart */
    assert_string_equal(written(f, text, sizeof text),
                        "import: 40%, 2 of 5 GB, 0.1 GB/s, 0:30 left\n");
    progress_end(&p);
    written(f, text, sizeof text);
    print_message("%s", text);
    assert_non_null(strstr(text, "import: 5 GB in 20.0 s, 0.25 GB/s\n"));
    fclose(f);
}

/* On a terminal, here a pseudo-terminal, one line that is drawn over. */
static void a_terminal_has_a_bar(void **state)
{
    (void)state;
    char text[2048];
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    FILE *f = fopen(ptsname(master), "w");
    assert_non_null(f);
    struct log log = {f};
    struct progress p;
    progress_begin(&p, &log, "import", "GB", 5e9, 1e9);
    for (int i = 1; i <= 2; i++) {
        p.start_s -= 1e5; /* what this test itself takes does not show */
        p.shown_s -= 10;
        progress_at(&p, i * 1e9);
    }
    p.shown_s += 100;
    progress_at(&p, 2.5e9); /* too soon */
    progress_stop(&p);
    fflush(f);
    ssize_t n = read(master, text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(
        text,
        "\rimport [####....................]  20%  1 of 5 GB  1e-05 GB/s  111:06:40 "
        "left"
        "\033[K"
        "\rimport [#########...............]  40%  2 of 5 GB  1e-05 GB/s  83:20:00 left"
        "\033[K\r\033[K");
    fclose(f);
    close(master);
}

static void odd_totals_do_no_harm(void **state)
{
    (void)state;
    char text[1024];
    static const struct {
        double total, done;
        const char *said;
    } rows[] = {{0, 0, "0%, 0 of 0 s"},
                {10, 0, "0%, 0 of 10 s, 0 s/s, ? left"},
                {10, 20, "100%, 20 of 10 s"},
                {7.2e5, 20, "0%, 20 of 7.2e+05 s"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        FILE *f = tmpfile();
        struct log log = {f};
        struct progress p;
        progress_begin(&p, &log, "wait", "s", rows[i].total, 1);
        p.start_s -= 20;
        p.shown_s -= 20;
        progress_at(&p, rows[i].done);
        written(f, text, sizeof text);
        print_message("%s", text);
        assert_non_null(strstr(text, rows[i].said));
        fclose(f);
    }
    assert_non_null(strstr(text, "199:59:40 left")); /* hours, of the last row */
}

static void other_ranks_are_silent(void **state)
{
    (void)state;
    struct log silent = {NULL};
    const struct log *logs[] = {NULL, &silent};
    for (int i = 0; i < 2; i++) {
        struct progress p;
        progress_begin(&p, logs[i], "import", "GB", 5e9, 1e9);
        p.start_s -= 100;
        p.shown_s -= 100;
        progress_at(&p, 1e9);
        progress_end(&p);
        assert_int_equal(p.shown, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logs_write_whole_lines),
        cmocka_unit_test(quick_work_is_silent),
        cmocka_unit_test(slow_work_says_rate_and_time_left),
        cmocka_unit_test(a_terminal_has_a_bar),
        cmocka_unit_test(odd_totals_do_no_harm),
        cmocka_unit_test(other_ranks_are_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
