/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/rng.h"

static void nests_with_commas_in_place(void **state)
{
    (void)state;
    struct json j = {0};
    json_begin(&j, NULL, '{');
    json_int(&j, "step", INT64_MIN);
    json_uint(&j, "seed", UINT64_MAX);
    json_bool(&j, "yes", true);
    json_bool(&j, "no", false);
    json_text(&j, "none", NULL);
    json_begin(&j, "empty", '[');
    json_end(&j, ']');
    json_begin(&j, "list", '[');
    json_int(&j, NULL, 1);
    json_begin(&j, NULL, '{');
    json_end(&j, '}');
    json_begin(&j, NULL, '{');
    json_int(&j, "a", 2);
    json_end(&j, '}');
    json_double(&j, NULL, 0.5);
    json_end(&j, ']');
    json_int(&j, "after", 3);
    json_end(&j, '}');
    print_message("%s\n", j.text);
    assert_string_equal(
        j.text, "{\"step\": -9223372036854775808, \"seed\": 18446744073709551615, "
                "\"yes\": true, \"no\": false, \"none\": null, \"empty\": [], "
                "\"list\": [1, {}, {\"a\": 2}, 0.5], \"after\": 3}");
    assert_int_equal(strlen(j.text), j.used);
    json_fini(&j);
    assert_null(j.text);
}

static void strings_are_escaped(void **state)
{
    (void)state;
    static const struct {
        const char *text, *json;
    } rows[] = {
        {"", "\"\""},
        {"plain", "\"plain\""},
        {"\"quoted\\", "\"\\\"quoted\\\\\""},
        {"tab\tline\n", "\"tab\\u0009line\\u000a\""},
        {"\x01\x1f\x7f", "\"\\u0001\\u001f\x7f\""},
        {"/\xc3\xa9\xe2\x96\x81", "\"/\xc3\xa9\xe2\x96\x81\""}, /* UTF-8 as it is */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json j = {0};
        json_text(&j, NULL, rows[i].text);
        print_message("%s\n", j.text);
        assert_string_equal(j.text, rows[i].json);
        json_fini(&j);
        json_begin(&j, NULL, '{');
        json_int(&j, rows[i].text, 1); /* keys too */
        json_end(&j, '}');
        assert_memory_equal(j.text + 1, rows[i].json, strlen(rows[i].json));
        json_fini(&j);
    }
}

static void doubles_read_back_bit_for_bit(void **state)
{
    (void)state;
    static const double hard[] = {0,
                                  -0.0,
                                  0.1,
                                  1.0 / 3,
                                  5e-324,
                                  2.2250738585072014e-308,
                                  1.7976931348623157e308,
                                  1e23,
                                  9007199254740993.0,
                                  123456789.123456789,
                                  -1e-5};
    int checked = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        uint64_t bits = rng_u64(1, 0, i);
        double value, back;
        memcpy(&value, &bits, sizeof value);
        if (i < sizeof hard / sizeof *hard)
            value = hard[i];
        if (!isfinite(value))
            continue;
        struct json j = {0};
        json_double(&j, NULL, value);
        char *end;
        back = strtod(j.text, &end);
        if (*end || memcmp(&back, &value, sizeof value) != 0)
            fail_msg("%a was written as %s", value, j.text);
        json_fini(&j);
        checked++;
    }
    print_message("%d doubles\n", checked);
}

static void what_json_lacks_becomes_a_string(void **state)
{
    (void)state;
    struct json j = {0};
    json_begin(&j, NULL, '[');
    json_double(&j, NULL, NAN);
    json_double(&j, NULL, -NAN);
    json_double(&j, NULL, INFINITY);
    json_double(&j, NULL, -INFINITY);
    json_end(&j, ']');
    assert_string_equal(j.text, "[\"NaN\", \"NaN\", \"Infinity\", \"-Infinity\"]");
    json_fini(&j);
}

static void grows_to_any_length(void **state)
{
    (void)state;
    struct json j = {0};
    json_begin(&j, NULL, '[');
    for (int i = 0; i < 10000; i++)
        json_int(&j, NULL, i);
    json_end(&j, ']');
    char *at = j.text + 1;
    for (int i = 0; i < 10000; i++, at += 2)
        assert_int_equal(strtol(at, &at, 10), i);
    assert_string_equal(at - 2, "]");
    json_fini(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nests_with_commas_in_place),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(doubles_read_back_bit_for_bit),
        cmocka_unit_test(what_json_lacks_becomes_a_string),
        cmocka_unit_test(grows_to_any_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
