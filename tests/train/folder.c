/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a run folder: checkpoints and `latest`, metrics.jsonl, the lock. */
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/train/checkpoints.h"
#include "src/train/lock.h"
#include "src/train/metrics.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[256];

static int make_dir(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/dusk-folder-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    struct err err;
    return file_remove_tree(dir, &err);
}

static char *in_dir(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void put(const char *name, const char *text)
{
    struct err err;
    assert_int_equal(file_write_atomic(in_dir(name), text, strlen(text), &err), 0);
}

static char *get(const char *name)
{
    struct err err;
    size_t bytes;
    char *text = file_read(in_dir(name), 1 << 20, &bytes, &err);
    assert_non_null(text);
    return text;
}

static void make_step(int64_t step)
{
    struct err err;
    char *path = checkpoints_path(dir, step, &err);
    assert_int_equal(file_make_folders(path, &err), 0);
    free(path);
    char name[64];
    snprintf(name, sizeof name, "step-%08lld/state.h5", (long long)step);
    put(name, "x");
}

static void lists_newest_first_and_only_whole_names(void **state)
{
    (void)state;
    struct err err;
    struct checkpoints list;
    assert_int_equal(checkpoints_list(&list, in_dir("absent"), &err), 0);
    assert_int_equal(list.n, 0);
    static const int64_t steps[] = {5, 40, 123456789, 7};
    for (int i = 0; i < 4; i++)
        make_step(steps[i]);
    static const char *const others[] = {"step-5", "step-00000009.tmp-77", "latest",
                                         "step-0000001x", "other"};
    for (int i = 0; i < 5; i++)
        assert_int_equal(file_make_folders(in_dir(others[i]), &err), 0);
    assert_int_equal(checkpoints_list(&list, dir, &err), 0);
    static const int64_t expect[] = {123456789, 40, 7, 5};
    assert_int_equal(list.n, 4);
    for (int i = 0; i < 4; i++) {
        print_message("step %lld, expected %lld\n", (long long)list.step[i],
                      (long long)expect[i]);
        assert_int_equal(list.step[i], expect[i]);
    }
    checkpoints_fini(&list);
}

static void keeps_the_newest_the_best_and_every_nth(void **state)
{
    (void)state;
    struct err err;
    static const struct {
        struct retention keep;
        int n;
        int64_t left[8];
    } rows[] = {{{60, 0, 0, -1}, 6, {60, 50, 40, 30, 20, 10}},
                {{60, 4, 0, -1}, 4, {60, 50, 40, 30}},
                {{60, 2, 20, -1}, 4, {60, 50, 40, 20}},
                {{60, 1, 0, -1}, 1, {60}},
                {{60, 1, 0, 30}, 2, {60, 30}},
                {{60, 2, 30, 50}, 3, {60, 50, 30}},
                /* gone back to 20: what is after 30 may be damaged */
                {{30, 1, 0, -1}, 4, {60, 50, 40, 30}},
                {{30, 1, 0, 10}, 5, {60, 50, 40, 30, 10}}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        for (int64_t s = 10; s <= 60; s += 10)
            make_step(s);
        struct checkpoints list;
        assert_int_equal(checkpoints_surplus(&list, dir, &rows[r].keep, &err), 0);
        assert_int_equal(checkpoints_remove(dir, &list, &err), 0);
        checkpoints_fini(&list);
        assert_int_equal(checkpoints_list(&list, dir, &err), 0);
        print_message("row %zu: %d left, expected %d\n", r, list.n, rows[r].n);
        assert_int_equal(list.n, rows[r].n);
        for (int i = 0; i < list.n; i++)
            assert_int_equal(list.step[i], rows[r].left[i]);
        checkpoints_fini(&list);
    }
}

static void points_latest_and_cleans_leftovers(void **state)
{
    (void)state;
    struct err err;
    make_step(10);
    make_step(20);
    char target[64] = "";
    for (int64_t s = 10; s <= 20; s += 10) {
        assert_int_equal(checkpoints_link(dir, "latest", s, &err), 0);
        ssize_t n = readlink(in_dir("latest"), target, sizeof target - 1);
        assert_true(n > 0);
        target[n] = '\0';
    }
    assert_string_equal(target, "step-00000020");
    assert_int_equal(file_make_folders(in_dir("step-00000030.tmp-9"), &err), 0);
    put("step-00000030.tmp-9/state.h5", "half");
    struct log silent = {0};
    assert_int_equal(checkpoints_clean(dir, &silent, &err), 0);
    assert_int_equal(access(in_dir("step-00000030.tmp-9"), F_OK), -1);
    assert_int_equal(access(in_dir("step-00000020/state.h5"), F_OK), 0);
}

static void metrics_are_cut_back(void **state)
{
    (void)state;
    static const struct {
        const char *before;
        int64_t step;
        const char *after;
    } rows[] = {
        {"", 0, ""},
        {"{\"step\": 1, \"a\": 2}\n{\"step\": 2}\n{\"step\": 3}\n", 2,
         "{\"step\": 1, \"a\": 2}\n{\"step\": 2}\n"},
        {"{\"step\": 1}\n{\"step\": 2}\n{\"step\": 2, \"eval\": 1}\n{\"step\": 10}\n",
         2, "{\"step\": 1}\n{\"step\": 2}\n{\"step\": 2, \"eval\": 1}\n"},
        {"{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3, \"lo", 9,
         "{\"step\": 1}\n{\"step\": 2}\n"},
        {"{\"step\": 1}\n", 0, ""},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        struct err err;
        struct metrics m;
        put("metrics.jsonl", rows[r].before);
        assert_int_equal(metrics_open(&m, in_dir("metrics.jsonl"), rows[r].step, &err),
                         0);
        for (int step = 98; step <= 99; step++) { /* the line before is forgotten */
            struct json *j = metrics_line(&m);
            json_begin(j, NULL, '{');
            json_int(j, "step", step);
            json_end(j, '}');
        }
        assert_int_equal(metrics_write(&m, &err), 0);
        metrics_close(&m);
        char expect[512];
        snprintf(expect, sizeof expect, "%s{\"step\": 99}\n", rows[r].after);
        char *text = get("metrics.jsonl");
        print_message("row %zu: %s", r, text);
        assert_string_equal(text, expect);
        free(text);
    }
}

static void metrics_wait_for_room(void **state)
{
    (void)state;
    struct err err = {0};
    struct metrics m;
    bool holds = true;
    put("metrics.jsonl", "");
    assert_int_equal(metrics_open(&m, in_dir("metrics.jsonl"), 0, &err), 0);
    int file = m.file;
    m.file = open("/dev/full", O_WRONLY);
    for (int step = 1; step <= 3000; step++) { /* more than waits without growing */
        if (step == 2999)
            m.file = (close(m.file), file);
        struct json *j = metrics_line(&m);
        json_begin(j, NULL, '{');
        json_int(j, "step", step);
        json_int(j, "eval_held_loss", 7);
        json_end(j, '}');
        assert_int_equal(metrics_write(&m, &err), step < 2999 ? -1 : 0);
    }
    print_message("%s\n", err.text);
    assert_int_equal(err.code, ERR_IO);
    assert_int_equal(metrics_holds(&m, 3000, "eval_held_loss", &holds, &err), 0);
    assert_true(holds);
    assert_int_equal(metrics_holds(&m, 300, "eval_held", &holds, &err), 0);
    assert_false(holds);
    assert_int_equal(metrics_holds(&m, 3001, "eval_held_loss", &holds, &err), 0);
    assert_false(holds);
    metrics_close(&m);
    char *text = get("metrics.jsonl");
    int lines = 0;
    for (const char *at = text; *at; at++)
        lines += *at == '\n';
    print_message("%d lines, expected 3000\n", lines);
    assert_int_equal(lines, 3000);
    free(text);
}

static void lock_names_its_holder_and_refuses_a_second(void **state)
{
    (void)state;
    struct err err = {0};
    struct log silent = {0};
    struct lock mine, other;
    bool took;
    unsetenv("SLURM_JOB_ID");
    assert_int_equal(lock_take(&mine, in_dir("lock"), &silent, &took, &err), 0);
    assert_false(took);
    assert_int_equal(lock_take(&other, in_dir("lock"), &silent, &took, &err), -1);
    print_message("%s\n", err.text);
    assert_int_equal(err.code, ERR_USAGE);
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld on ", (long)getpid());
    assert_non_null(strstr(err.text, pid));
    lock_release(&mine);
    assert_int_equal(access(in_dir("lock"), F_OK), -1);
}

static void lock_of_a_dead_process_is_taken_over(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    const char *const form = "job %s restarts %d host %s pid %ld born %d start then\n";
    static const struct {
        const char *name, *job;
        int restarts;
        bool here, alive;
        int born;
        const char *our_job, *our_restarts;
        int result;
    } rows[] = {
        {"a dead process here", "-", 0, true, false, 0, NULL, NULL, 0},
        {"a process that took the number later", "-", 0, true, true, 1, NULL, NULL, 0},
        {"a process elsewhere", "-", 0, false, false, 0, NULL, NULL, -1},
        {"our job before its requeue", "71", 0, false, false, 0, "71", "1", 0},
        {"our job, another step", "71", 1, false, false, 0, "71", "1", -1},
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        char text[512];
        snprintf(text, sizeof text, form, rows[r].job, rows[r].restarts,
                 rows[r].here ? host : "elsewhere.example",
                 (long)(rows[r].alive ? getpid() : child), rows[r].born);
        put("lock", text);
        unsetenv("SLURM_JOB_ID");
        unsetenv("SLURM_RESTART_COUNT");
        if (rows[r].our_job) {
            setenv("SLURM_JOB_ID", rows[r].our_job, 1);
            setenv("SLURM_RESTART_COUNT", rows[r].our_restarts, 1);
        }
        struct err err = {0};
        struct log silent = {0};
        struct lock lock;
        bool took;
        int result = lock_take(&lock, in_dir("lock"), &silent, &took, &err);
        print_message("%s: %d %s\n", rows[r].name, result, err.text);
        assert_int_equal(result, rows[r].result);
        assert_int_equal(took, result == 0);
        lock_release(&lock);
    }
}

int main(void)
{
#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        IN_DIR(lists_newest_first_and_only_whole_names),
        IN_DIR(keeps_the_newest_the_best_and_every_nth),
        IN_DIR(points_latest_and_cleans_leftovers),
        IN_DIR(metrics_are_cut_back),
        IN_DIR(metrics_wait_for_room),
        IN_DIR(lock_names_its_holder_and_refuses_a_second),
        IN_DIR(lock_of_a_dead_process_is_taken_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
