/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct option known[] = {
    {"-o", "CKPT", "The output."}, {"--dtype", "keep|f32", "Type."},
    {"--json", NULL, "As JSON."},  {"--set", "a.b=VALUE...", "A key."},
    {"--size", "N", "A size."},    {NULL, NULL, NULL}};
static const struct verb verb = {
    .name = "import", .arguments = "HFDIR -o CKPT", .options = known};

enum { ARGV_MAX = 10 };

static int read_line(struct options *o, const char *const *words, int min, int max,
                     struct err *err)
{
    char *argv[ARGV_MAX + 1] = {(char *)(uintptr_t) "import"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    return options_read(o, &verb, argc, argv, min, max, err);
}

static void test_accepts(void **state)
{
    (void)state;
    static const char *const lines[][ARGV_MAX] = {
        {"dir", "-o", "x", "--dtype", "f32", "--json"},
        {"-o", "x", "--dtype=f32", "--json", "dir"},
        {"--json", "--dtype=f32", "-o", "x", "--", "dir"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct options o;
        struct err err;
        assert_int_equal(read_line(&o, lines[i], 1, 1, &err), 0);
        assert_int_equal(o.args, 1);
        assert_string_equal(o.arg[0], "dir");
        assert_string_equal(options_text(&o, "-o", ""), "x");
        assert_string_equal(options_text(&o, "--dtype", ""), "f32");
        assert_true(options_flag(&o, "--json"));
        assert_false(options_flag(&o, "--set"));
        assert_string_equal(options_text(&o, "--size", "none"), "none");
        options_fini(&o);
    }
}

static void test_repeats_and_dashes(void **state)
{
    (void)state;
    static const char *const line[] = {"--set", "a=1", "--set=b=2", "--set", "-3",
                                       "-",     "--",  "--json",    NULL};
    struct options o;
    struct err err;
    assert_int_equal(read_line(&o, line, 0, -1, &err), 0);
    assert_string_equal(options_each(&o, "--set", 0), "a=1");
    assert_string_equal(options_each(&o, "--set", 1), "b=2");
    assert_string_equal(options_each(&o, "--set", 2), "-3");
    assert_null(options_each(&o, "--set", 3));
    assert_int_equal(o.args, 2);
    assert_string_equal(o.arg[0], "-");
    assert_string_equal(o.arg[1], "--json");
    options_fini(&o);
}

static void test_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *line[ARGV_MAX], *says;
    } rows[] = {
        {{"dir", "--dtpye", "f32"}, "unknown option --dtpye: did you mean --dtype?"},
        {{"dir", "--jsn"}, "unknown option --jsn: did you mean --json?"},
        {{"dir", "--hlep"}, "unknown option --hlep: did you mean --help?"},
        {{"dir", "--frobnicate=3"}, "unknown option --frobnicate (see"},
        {{"dir", "-x"}, "unknown option -x (see"},
        {{"dir", "-o"}, "-o needs a value (CKPT), found nothing"},
        {{"dir", "-o", "--json"}, "-o needs a value (CKPT), found --json"},
        {{"dir", "--json=1"}, "--json takes no value, found \"1\""},
        {{"dir", "-o", "a", "-o", "b"}, "-o is given twice"},
        {{"--json"}, "expected arguments: HFDIR -o CKPT"},
        {{"dir", "other"}, "one argument too many: \"other\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct options o;
        struct err err = {0};
        assert_int_equal(read_line(&o, rows[i].line, 1, 1, &err), -1);
        print_message("%s\n", err.text);
        assert_int_equal(err.code, ERR_USAGE);
        assert_memory_equal(err.text, rows[i].says, strlen(rows[i].says));
        assert_non_null(strstr(err.text, "(see dusk import --help)"));
    }
}

static void test_whole_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value; /* -1: refused */
    } rows[] = {
        {"0", 0},
        {"12", 12},
        {"+7", 7},
        {"3k", 3000},
        {"2M", 2000000},
        {"5e9", 5000000000},
        {"1.5G", 1500000000},
        {"1.5e3", 1500},
        {"2.50", -1},
        {"100e-2", 1},
        {"", -1},
        {"k", -1},
        {".", -1},
        {"1.2.3", -1},
        {"12x", -1},
        {"1kk", -1},
        {"1e", -1},
        {"0x10", -1},
        {"-1", -1},
        {"9223372036854775807", INT64_MAX},
        {"1e19", -1},
        {"9223372036854775808", -1},
        {" 1", -1},
        {"nan", -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *line[] = {"--size", rows[i].text, NULL};
        struct options o;
        struct err err = {0};
        int64_t value = -7;
        assert_int_equal(read_line(&o, line, 0, 0, &err), 0);
        int failed = options_int(&o, "--size", 5, 0, INT64_MAX, &value, &err);
        print_message("\"%s\": %lld %s\n", rows[i].text, (long long)value, err.text);
        assert_int_equal(failed, rows[i].value < 0 ? -1 : 0);
        assert_int_equal(value, rows[i].value < 0 ? -7 : rows[i].value);
        options_fini(&o);
    }
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value; /* -1: refused */
    } rows[] = {{"0.25", 0.25}, {"1e-3", 1e-3}, {"1", 1},   {"1.5", -1},
                {"nan", -1},    {"inf", -1},    {"1x", -1}, {"", -1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *line[] = {"--size", rows[i].text, NULL};
        struct options o;
        struct err err = {0};
        double value = -7;
        assert_int_equal(read_line(&o, line, 0, 0, &err), 0);
        int failed = options_double(&o, "--size", 0.5, 0, 1, &value, &err);
        print_message("\"%s\": %g %s\n", rows[i].text, value, err.text);
        assert_int_equal(failed, rows[i].value < 0 ? -1 : 0);
        assert_true(value == (rows[i].value < 0 ? -7 : rows[i].value));
        options_fini(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts), cmocka_unit_test(test_repeats_and_dashes),
        cmocka_unit_test(test_refuses), cmocka_unit_test(test_whole_numbers),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
