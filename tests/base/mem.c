/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"

static void arrays_are_aligned_and_zeroed(void **state)
{
    (void)state;
    static const struct {
        int64_t count;
        size_t size;
    } rows[] = {{0, 4}, {4, 0}, {1, 1}, {63, 1}, {64, 1}, {65, 1}, {1000, 12}};
    for (int round = 0; round < 2; round++) /* the second finds used memory */
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            struct err err = {0};
            unsigned char *p = mem_array(rows[i].count, rows[i].size, &err);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 64, 0);
            size_t bytes = (size_t)rows[i].count * rows[i].size;
            for (size_t k = 0; k < bytes; k++)
                assert_int_equal(p[k], 0);
            memset(p, 0xff, bytes);
            mem_free(p);
        }
    mem_free(NULL);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    static const struct {
        int64_t count;
        size_t size;
    } rows[] = {{-1, 4}, {INT64_MAX, 4}, {1ll << 62, 8}, {INT64_MAX, 2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        assert_null(mem_array(rows[i].count, rows[i].size, &err));
        print_message("%s\n", err.text);
        assert_int_equal(err.code, ERR_OTHER);
        assert_non_null(strstr(err.text, "memory"));
    }
}

static void strings_of_any_length(void **state)
{
    (void)state;
    struct err err = {0};
    char *s = mem_printf(&err, "%s-%05d", "step", 42);
    assert_string_equal(s, "step-00042");
    free(s);
    s = mem_printf(&err, "%*d", 10000, 7);
    assert_int_equal(strlen(s), 10000);
    free(s);
}

static void peak_memory_grows_with_use(void **state)
{
    (void)state;
    enum { BYTES = 64 << 20 };
    struct err err = {0};
    int64_t before = mem_peak_rss_bytes();
    char *p = mem_array(BYTES, 1, &err);
    assert_non_null(p);
    int64_t after = mem_peak_rss_bytes();
    print_message("%lld -> %lld bytes\n", (long long)before, (long long)after);
    assert_true(before > 1 << 19);
    assert_true(after >= (int64_t)BYTES);
    mem_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_are_aligned_and_zeroed),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(strings_of_any_length),
        cmocka_unit_test(peak_memory_grows_with_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
