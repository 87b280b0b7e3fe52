/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void set_replaces_and_prefix_adds(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_set(&err, ERR_INPUT, "tensor %s", "q_proj"), -1);
    assert_int_equal(err_set(&err, ERR_USAGE, "layer %d", 7), -1);
    assert_int_equal(err.code, ERR_USAGE);
    assert_string_equal(err.text, "layer 7");
    assert_int_equal(err_prefix(&err, "%s:%d", "run.yaml", 12), -1);
    assert_string_equal(err.text, "run.yaml:12: layer 7");
    assert_int_equal(err.code, ERR_USAGE);
}

static void one_line_whatever_a_file_says(void **state)
{
    (void)state;
    struct err err = {0};
    err_set(&err, ERR_INPUT, "tensor %s", "\033[2Ja\nb\x7f\xc3\xa9");
    assert_string_equal(err.text, "tensor ?[2Ja?b?\xc3\xa9");
    err_prefix(&err, "%s", "c\rd");
    assert_string_equal(err.text, "c?d: tensor ?[2Ja?b?\xc3\xa9");
    errno = ENOENT;
    err_set_errno(&err, 1, "%s", "e\tf");
    assert_string_equal(err.text, "e?f: No such file or directory");
}

static void long_texts_are_cut_not_overrun(void **state)
{
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    static const int lengths[] = {0,    1,    500,  1019, 1020, 1021,
                                  1022, 1023, 1024, 1025, 2999};
    enum { LENGTHS = sizeof lengths / sizeof *lengths };
    for (int i = 0; i < LENGTHS; i++)
        for (int k = 0; k < LENGTHS; k++) {
            struct err err = {0};
            err_set(&err, ERR_IO, "%.*s", lengths[i], text);
            size_t kept = strlen(err.text);
            assert_int_equal(kept, lengths[i] < 1024 ? lengths[i] : 1023);
            err_prefix(&err, "%.*s", lengths[k], text);
            size_t whole = (size_t)lengths[k] + 2 + kept, n = strlen(err.text);
            /* near the end of the room the prefix alone may be all that is left */
            assert_true(n <= 1023 && n + 2 >= (whole < 1023 ? whole : 1023));
            if (whole <= 1023)
                assert_int_equal(n, whole);
        }
}

static void errno_tells_the_code(void **state)
{
    (void)state;
    static const struct {
        int error, reading;
        enum err_code code;
    } rows[] = {
        {ENOENT, 1, ERR_INPUT}, {ENOENT, 0, ERR_IO},     {EACCES, 1, ERR_INPUT},
        {EISDIR, 1, ERR_INPUT}, {ENOSPC, 1, ERR_IO},     {ENOSPC, 0, ERR_IO},
        {EIO, 1, ERR_IO},       {ENOTDIR, 1, ERR_INPUT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        errno = rows[i].error;
        assert_int_equal(err_set_errno(&err, rows[i].reading, "%s", "a.h5"), -1);
        print_message("%d %s\n", (int)err.code, err.text);
        char expected[256];
        snprintf(expected, sizeof expected, "a.h5: %s", strerror(rows[i].error));
        assert_string_equal(err.text, expected);
        assert_int_equal(err.code, rows[i].code);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_replaces_and_prefix_adds),
        cmocka_unit_test(one_line_whatever_a_file_says),
        cmocka_unit_test(long_texts_are_cut_not_overrun),
        cmocka_unit_test(errno_tells_the_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
