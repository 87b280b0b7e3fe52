/* SPDX-License-Identifier: Apache-2.0 */
#include "io/json_read.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void texts_that_are_no_object(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "f: not valid JSON: line 1, column 0"},
        {"{\"a\": 1\n, \"b\" 2}", "f: not valid JSON: line 2"},
        {"{\"a\": 1, \"a\": 1}", "duplicate object key"},
        {"{\"a\": NaN}", "not valid JSON"},
        {"{\"a\": \"\xff\"}", "not valid JSON"},
        {"{\"a\": \"\\u0000\"}", "not valid JSON"},
        {"{} {}", "end of file expected"},
        {"3", "not valid JSON"},
        {"[1]", "f: expected a JSON object, found a list"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        json_t *j = json_read_text(rows[i].text, strlen(rows[i].text), "f", &err);
        printf("%s\n", err.text);
        assert_null(j);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, rows[i].says));
        assert_null(strchr(err.text, '\n'));
    }
}

static void whole_numbers_of_any_size(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\": 1000000000000000019884624838656, \"12345678901234567890\": "
        "\"\\\"12345678901234567890\", \"b\": -98765432109876543210, \"c\": "
        "9223372036854775807, \"d\": 7, \"e\": 0.12345678901234567890}";
    struct err err = {0};
    int64_t i = 0;
    json_t *j = json_read_text(text, sizeof text - 1, "f", &err);
    if (!j)
        print_error("%s\n", err.text);
    assert_non_null(j);
    assert_true(json_real_value(json_object_get(j, "a")) == 1e30);
    assert_true(json_real_value(json_object_get(j, "b")) == -98765432109876543210.0);
    assert_true(json_real_value(json_object_get(j, "e")) == 0.12345678901234567890);
    assert_string_equal(json_string_value(json_object_get(j, "12345678901234567890")),
                        "\"12345678901234567890");
    assert_int_equal(json_read_int(j, "d", "f", 0, 9, &i, NULL, &err), 0);
    assert_int_equal(i, 7);
    assert_int_equal(json_read_int(j, "a", "f", 0, 9, &i, NULL, &err), -1);
    printf("%s\n", err.text);
    json_decref(j);
}

/* Texts that would cost a gigabyte, or the stack. */
static void large_and_deep_texts(void **state)
{
    (void)state;
    static const struct {
        const char *piece;
        int times;
        const char *says;
    } rows[] = {{"[],", 2000001, "at most 2000000 objects and lists"},
                {"1,", 8000001, "and 8000000 commas"},
                {"[", 1000000, "maximum parsing depth"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        size_t n = strlen(rows[i].piece), bytes = n * (size_t)rows[i].times;
        char *text = malloc(bytes);
        for (size_t k = 0; k < bytes; k += n)
            memcpy(text + k, rows[i].piece, n);
        assert_null(json_read_text(text, bytes, "f", &err));
        printf("%s\n", err.text);
        assert_non_null(strstr(err.text, rows[i].says));
        free(text);
    }
}

static void values_of_the_wrong_kind(void **state)
{
    (void)state;
    struct err err = {0};
    json_t *j = json_loads(
        "{\"i\": 7, \"r\": 1.5, \"s\": \"x\", \"t\": true, \"n\": null}", 0, NULL);
    int64_t i = 0;
    double d = 0;
    bool b = false, given;
    const char *s = "kept";
    assert_int_equal(json_read_int(j, "i", "f", 0, 7, &i, NULL, &err), 0);
    assert_int_equal(i, 7);
    assert_int_equal(json_read_int(j, "i", "f", 0, 6, &i, NULL, &err), -1);
    assert_string_equal(err.text, "f: i: expected a whole number from 0 to 6, found 7");
    assert_int_equal(json_read_int(j, "r", "f", 0, 6, &i, NULL, &err), -1);
    assert_string_equal(err.text,
                        "f: r: expected a whole number, found the real number 1.5");
    assert_int_equal(json_read_number(j, "i", "f", &d, NULL, &err), 0);
    assert_true(d == 7);
    assert_int_equal(json_read_number(j, "s", "f", &d, NULL, &err), -1);
    assert_string_equal(err.text, "f: s: expected a number, found the string \"x\"");
    assert_int_equal(json_read_bool(j, "t", "f", &b, NULL, &err), 0);
    assert_true(b);
    assert_int_equal(json_read_bool(j, "i", "f", &b, NULL, &err), -1);
    assert_string_equal(err.text, "f: i: expected true or false, found 7");
    assert_int_equal(json_read_string(j, "t", "f", &s, NULL, &err), -1);
    assert_string_equal(err.text, "f: t: expected a string, found true");
    assert_int_equal(json_read_string(j, "n", "f", &s, &given, &err), 0);
    assert_false(given);
    assert_string_equal(s, "kept");
    assert_int_equal(json_read_string(j, "absent", "f", &s, NULL, &err), -1);
    assert_string_equal(err.text, "f: key \"absent\" is missing");
    json_decref(j);
}

static void names_fit_a_line(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } rows[] = {{"a\n\tb\x7f", "a??b?"},
                {"0123456789", "0123456789"},
                {"0123456789ab", "01234567..."},
                {"012345\xc3\xa9\xc3\xa9\xc3\xa9", "012345\xc3\xa9..."},
                {"0123456\xc3\xa9\xc3\xa9\xc3\xa9", "0123456..."}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[12];
        text_printable(text, sizeof text, rows[i].from);
        printf("%s\n", text);
        assert_string_equal(text, rows[i].to);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts_that_are_no_object),
                                       cmocka_unit_test(whole_numbers_of_any_size),
                                       cmocka_unit_test(large_and_deep_texts),
                                       cmocka_unit_test(values_of_the_wrong_kind),
                                       cmocka_unit_test(names_fit_a_line)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
