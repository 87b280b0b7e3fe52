/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "src/base/err.h"

static void arrays_are_aligned_and_zeroed(void **state)
{
    (void)state;
    static const struct {
        int64_t count;
        size_t size;
    } rows[] = {{0, 4},       {4, 0},
                {1, 1},       {63, 1},
                {64, 1},      {65, 1},
                {1000, 12},   {(2 << 20) - 1, 1},
                {2 << 20, 1}, {(9 << 20) + 5, 1}};
    for (int round = 0; round < 2; round++) /* the second finds used memory */
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            struct err err = {0};
            unsigned char *p = mem_array(rows[i].count, rows[i].size, &err);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 64, 0);
            size_t bytes = (size_t)rows[i].count * rows[i].size;
            if (bytes >= 2 << 20)
                assert_int_equal((uintptr_t)p % (2 << 20), 0);
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

/* All pages are there before the first use, and freed memory comes back without new
 * ones. */
static void use_meets_no_page_fault(void **state)
{
    (void)state;
    enum { BYTES = 96 << 20, FEW = 20 };
    struct err err = {0};
    mem_keep_freed();
    char *p = mem_array(BYTES, 1, &err);
    assert_non_null(p);
    int64_t before = mem_page_faults();
    memset(p, 1, BYTES);
    int64_t used = mem_page_faults() - before;
    mem_free(p);
    for (int i = 0; i < 100; i++) { /* the first takes the pages */
        if (i == 1)
            before = mem_page_faults();
        char *temporary = malloc(16 << 20);
        assert_non_null(temporary);
        memset(temporary, i, 16 << 20);
        free(temporary);
    }
    int64_t again = mem_page_faults() - before;
    print_message("page faults: %lld in %d MiB, %lld in 99 x 16 MiB\n", (long long)used,
                  BYTES >> 20, (long long)again);
    assert_true(used < FEW);
    assert_true(again < FEW);
}

static void available_memory_is_known(void **state)
{
    (void)state;
    int64_t bytes = mem_available_bytes();
    print_message("%lld bytes available\n", (long long)bytes);
    assert_true(bytes == -1 || bytes > 1 << 20);
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!text) {
        assert_int_equal(mkdir(path, 0700), 0);
        return;
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* A tree of control groups as the kernel shows it. */
static void control_groups_bound_a_job(void **state)
{
    (void)state;
    char root[] = "dusk-mem-XXXXXX", groups[300], command[300];
    assert_non_null(mkdtemp(root));
    snprintf(groups, sizeof groups, "%s/groups", root);
    put(root, "groups", "0::/job_7/step_0/task_1\n");
    assert_int_equal(mem_group_room(groups, root), -1);
    assert_int_equal(mem_group_room("no such file", root), -1);
    put(root, "job_7", NULL);
    put(root, "job_7/step_0", NULL);
    put(root, "job_7/step_0/memory.max", "max\n");
    put(root, "job_7/step_0/memory.current", "10\n");
    assert_int_equal(mem_group_room(groups, root), -1);
    put(root, "job_7/memory.max", "5000\n");
    put(root, "job_7/memory.current", "1200\n");
    assert_int_equal(mem_group_room(groups, root), 3800);
    put(root, "job_7/memory.stat", "anon 900\ninactive_file 200\n");
    assert_int_equal(mem_group_room(groups, root), 4000);
    put(root, "job_7/step_0/memory.max", "300\n");
    assert_int_equal(mem_group_room(groups, root), 290);
    put(root, "job_7/step_0/memory.current", "400\n");
    assert_int_equal(mem_group_room(groups, root), 0);
    /* Version 1: the tightest of both. */
    put(root, "memory", NULL);
    put(root, "memory/a", NULL);
    put(root, "memory/a/memory.limit_in_bytes", "700\n");
    put(root, "memory/a/memory.usage_in_bytes", "100\n");
    put(root, "groups", "9:cpu,cpuacct:/a\n4:hugetlb,memory:/a/b\n");
    assert_int_equal(mem_group_room(groups, root), 600);
    put(root, "groups", "9:memory_other:/a\nnonsense\n:\n");
    assert_int_equal(mem_group_room(groups, root), -1);
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_are_aligned_and_zeroed),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(strings_of_any_length),
        cmocka_unit_test(peak_memory_grows_with_use),
        cmocka_unit_test(control_groups_bound_a_job),
        cmocka_unit_test(use_meets_no_page_fault),
        cmocka_unit_test(available_memory_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
