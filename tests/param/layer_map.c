/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/layer_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void ranges_give_the_layers_and_come_back(void **state)
{
    (void)state;
    static const struct {
        const char *ranges, *formatted;
        int source_layers, layers, source[16];
    } rows[] = {
        {"0:1", "0:1", 1, 1, {0}},
        {"0:4", "0:4", 4, 4, {0, 1, 2, 3}},
        {"0:3,1:4", "0:3,1:4", 4, 6, {0, 1, 2, 1, 2, 3}},
        {"0:2,1:3,1:4", "0:2,1:3,1:4", 4, 7, {0, 1, 1, 2, 1, 2, 3}},
        {"0:2, 2:4", "0:4", 4, 4, {0, 1, 2, 3}}, /* one run: the shortest text */
        {"3:4,0:1,0:1", "3:4,0:1,0:1", 4, 3, {3, 0, 0}},
        {"0:1,1:2,2:3,0:3", "0:3,0:3", 3, 6, {0, 1, 2, 0, 1, 2}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct layer_map m;
        assert_int_equal(
            layer_map_parse(&m, rows[i].ranges, rows[i].source_layers, &err), 0);
        assert_int_equal(m.source_layers, rows[i].source_layers);
        assert_int_equal(m.layers, rows[i].layers);
        assert_memory_equal(m.source, rows[i].source,
                            (size_t)m.layers * sizeof *m.source);
        char *text = layer_map_format(&m, &err);
        print_message("%s -> %s\n", rows[i].ranges, text);
        assert_string_equal(text, rows[i].formatted);
        free(text);
        layer_map_fini(&m);
    }
}

static void solar_is_24_and_24_of_32(void **state)
{
    (void)state;
    struct err err = {0};
    struct layer_map drop, ranges;
    assert_int_equal(layer_map_drop(&drop, 8, 32, &err), 0);
    assert_int_equal(layer_map_parse(&ranges, "0:24,8:32", 32, &err), 0);
    assert_int_equal(drop.layers, 48);
    assert_int_equal(ranges.layers, 48);
    for (int i = 0; i < 48; i++) {
        assert_int_equal(drop.source[i], i < 24 ? i : i - 16);
        assert_int_equal(ranges.source[i], drop.source[i]);
    }
    char *text = layer_map_format(&drop, &err);
    assert_string_equal(text, "0:24,8:32");
    free(text);
    layer_map_fini(&drop);
    layer_map_fini(&ranges);
}

static void bad_ranges_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *ranges, *said;
    } rows[] = {
        {"", "expected half-open"},
        {",", "expected half-open"},
        {"0", "'0'"},
        {"0:", "'0:'"},
        {":4", "':4'"},
        {"0-4", "'0-4'"},
        {"0:4,", "expected half-open"},
        {",0:4", "expected half-open"},
        {"0:4,,0:4", "expected half-open"},
        {"0:4 ,0:4", "'0:4 '"},
        {"0: 4", "'0: 4'"},
        {"0:4x", "'0:4x'"},
        {"0:4:5", "'0:4:5'"},
        {"-1:4", "'-1:4'"},
        {"+1:4", "'+1:4'"},
        {"0x1:4", "'0x1:4'"},
        {"a:b", "'a:b'"},
        {"2:2", "range 2:2 is empty"},
        {"0:4,3:1", "range 3:1 is reversed"},
        {"0:9", "range 0:9 is out of bounds: the source has layers 0 to 7"},
        {"8:9", "range 8:9 is out of bounds"},
        {"0:4,0:99999999999999999999", "out of bounds"},
        {"99999999999999999999:99999999999999999999", "is empty"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct layer_map m = {.layers = 7};
        assert_int_equal(layer_map_parse(&m, rows[i].ranges, 8, &err), -1);
        print_message("%s\n", err.text);
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.text, rows[i].said));
        assert_null(m.source);
    }
}

static void too_many_layers_are_refused(void **state)
{
    (void)state;
    static const char range[] = "0:1024,";
    char text[65 * sizeof range] = "";
    for (int i = 0; i < 65; i++)
        strcat(text, range);
    text[strlen(text) - 1] = '\0';
    struct err err = {0};
    struct layer_map m;
    assert_int_equal(layer_map_parse(&m, text, 1024, &err), -1);
    assert_non_null(strstr(err.text, "65536"));
    text[strlen(text) - sizeof range + 1] = '\0'; /* 64 of them: just as many */
    assert_int_equal(layer_map_parse(&m, text, 1024, &err), 0);
    assert_int_equal(m.layers, 65536);
    layer_map_fini(&m);
}

static void drop_is_between_1_and_all_but_one(void **state)
{
    (void)state;
    static const struct {
        int drop, source_layers, rc;
    } rows[] = {{0, 8, -1}, {-1, 8, -1}, {8, 8, -1}, {1, 1, -1},
                {9, 8, -1}, {1, 8, 0},   {7, 8, 0},  {1, 2, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct layer_map m;
        int rc = layer_map_drop(&m, rows[i].drop, rows[i].source_layers, &err);
        print_message("drop %d of %d: %d %s\n", rows[i].drop, rows[i].source_layers, rc,
                      err.text);
        assert_int_equal(rc, rows[i].rc);
        if (rc == 0)
            assert_int_equal(m.layers, 2 * (rows[i].source_layers - rows[i].drop));
        layer_map_fini(&m);
    }
    struct err err = {0};
    struct layer_map m;
    assert_int_equal(layer_map_identity(&m, 5, &err), 0);
    assert_int_equal(m.layers, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(m.source[i], i);
    layer_map_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_give_the_layers_and_come_back),
        cmocka_unit_test(solar_is_24_and_24_of_32),
        cmocka_unit_test(bad_ranges_are_named),
        cmocka_unit_test(too_many_layers_are_refused),
        cmocka_unit_test(drop_is_between_1_and_all_but_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
