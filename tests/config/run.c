/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/rng.h"
#include "tests/config/sample.h"

enum { SETS_MAX = 8 };

/* Reads text as the file run.yaml of a folder of its own, with overrides. */
static int read_with(struct run *r, const char *text, const char *const sets[SETS_MAX],
                     struct err *err)
{
    const char *tmp = getenv("TMPDIR");
    char folder[4096], back[4096];
    int n = 0;
    snprintf(folder, sizeof folder, "%s/dusk-run-XXXXXX", tmp ? tmp : "/tmp");
    while (n < SETS_MAX && sets && sets[n])
        n++;
    assert_non_null(getcwd(back, sizeof back));
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(file_write_atomic("run.yaml", text, strlen(text), err), 0);
    int rc = run_read(r, "run.yaml", sets, n, err);
    assert_int_equal(chdir(back), 0);
    struct err ignored;
    file_remove_tree(folder, &ignored);
    return rc;
}

static void a_short_file_gets_the_defaults(void **state)
{
    (void)state;
    struct err err = {0};
    struct run r;
    if (run_parse(&r, "run.yaml", sample, &err))
        fail_msg("%s", err.text);
    assert_string_equal(r.run.name, "first");
    assert_string_equal(r.run.dir, "runs");
    assert_true(r.run.seed == 0);
    assert_string_equal(r.model.init, "base.h5");
    assert_null(r.model.layers);
    assert_false(r.model.has_shape);
    assert_null(r.model.tokenizer);
    assert_int_equal(r.data.train_sets, 1);
    assert_string_equal(r.data.train[0].path, "a.h5");
    assert_true(r.data.train[0].weight == 1);
    assert_int_equal(r.data.valid_sets, 0);
    assert_int_equal(r.data.seq_len, 128);
    assert_true(r.data.shuffle);
    assert_int_equal(r.train.objective, RUN_PRETRAIN);
    assert_int_equal(r.train.precision, RUN_FP32);
    assert_false(r.train.allow_slow_bf16);
    assert_int_equal(r.train.max_skipped, 3);
    assert_int_equal(r.train.freeze_n, 0);
    assert_int_equal(r.train.steps, 100);
    assert_int_equal(r.train.tokens, 0);
    assert_int_equal(r.train.global_batch, 8);
    assert_int_equal(r.train.micro_batch, 1);
    assert_true(r.optim.lr == 1e-3);
    assert_true(r.optim.min_lr == 0);
    assert_int_equal(r.optim.schedule, RUN_COSINE);
    assert_int_equal(r.optim.warmup, 0);
    assert_int_equal(r.optim.decay, 0);
    assert_true(r.optim.beta1 == 0.9 && r.optim.beta2 == 0.95);
    assert_true(r.optim.eps == 1e-8);
    assert_true(r.optim.weight_decay == 0.1);
    assert_true(r.optim.clip == 1);
    assert_int_equal(r.parallel.pipeline, 1);
    assert_int_equal(r.parallel.data, 0);
    assert_int_equal(r.parallel.schedule, RUN_1F1B);
    assert_int_equal(r.parallel.split_n, 0);
    assert_int_equal(r.eval.every, 0);
    assert_int_equal(r.eval.batches, 0);
    assert_int_equal(r.checkpoint.every, 0);
    assert_int_equal(r.checkpoint.keep, 3);
    assert_int_equal(r.checkpoint.keep_every, 0);
    assert_false(r.checkpoint.best);
    assert_int_equal(r.checkpoint.on_error, RUN_STOP);
    assert_int_equal(r.model.optimizer, RUN_RESET);
    assert_string_equal(r.run.walltime, "auto");
    assert_false(r.run.requeue);
    assert_string_equal(r.checkpoint.resume, "auto");
    assert_int_equal(r.checkpoint.resume_allow_n, 0);
    assert_int_equal(r.log.every, 1);
    assert_int_equal(run_steps(&r, 0), 100);
    run_fini(&r);
}

static void a_random_model_takes_its_shape_from_the_file(void **state)
{
    (void)state;
    struct err err = {0};
    struct run r;
    const char *const sets[SETS_MAX] = {"model.shape.num_key_value_heads=2",
                                        "model.shape.sliding_window=100",
                                        "model.shape.tie_word_embeddings=true"};
    if (read_with(&r, sample_random, sets, &err))
        fail_msg("%s", err.text);
    assert_null(r.model.init);
    assert_true(r.model.has_shape);
    assert_int_equal(r.model.shape.layers, 4);
    assert_int_equal(r.model.shape.hidden, 64);
    assert_int_equal(r.model.shape.ff, 176);
    assert_int_equal(r.model.shape.heads, 4);
    assert_int_equal(r.model.shape.kv_heads, 2);
    assert_int_equal(r.model.shape.head_dim, 16); /* 64 / 4 */
    assert_int_equal(r.model.shape.vocab, 512);
    assert_int_equal(r.model.shape.max_positions, 4096);
    assert_int_equal(r.model.shape.window, 100);
    assert_true(r.model.shape.rope_theta == 10000 && r.model.shape.norm_eps == 1e-5);
    assert_true(r.model.shape.tied);
    assert_true(r.model.init_std == 0.02);
    run_fini(&r);
    assert_int_equal(run_parse(&r, "run.yaml", sample_random, &err), 0);
    assert_int_equal(r.model.shape.kv_heads, 4); /* as many as heads */
    assert_int_equal(r.model.shape.window, 0);
    run_fini(&r);
}

static void overrides_are_yaml(void **state)
{
    (void)state;
    static const char *const sets[SETS_MAX] = {
        "train.steps=null",
        "train.tokens=1.5e4",
        "optim={lr: 2e-5, betas: [0.8, 0.99]}", /* a whole section */
        "optim.lr=3e-5",                        /* the last one counts */
        "data.train=[{path: \"b c.h5\", weight: 2.5}, {path: d.h5}]",
        "data.valid=[{name: held-out, path: e.h5}]",
        "parallel={pipeline: 3, split: [1, 0x1]}",
        "parallel.split=[0, 5, 1]",
    };
    struct err err = {0};
    struct run r;
    if (read_with(&r, sample, sets, &err))
        fail_msg("%s", err.text);
    assert_int_equal(r.train.steps, 0);
    assert_int_equal(r.train.tokens, 15000);
    assert_int_equal(run_steps(&r, 0), 15); /* of 1,024 tokens: 14.6 rounded up */
    assert_true(r.optim.lr == 3e-5 && r.optim.beta1 == 0.8 && r.optim.beta2 == 0.99);
    assert_int_equal(r.data.train_sets, 2);
    assert_string_equal(r.data.train[0].path, "b c.h5");
    assert_true(r.data.train[0].weight == 2.5);
    assert_string_equal(r.data.valid[0].name, "held-out");
    assert_int_equal(r.parallel.split_n, 3);
    assert_int_equal(r.parallel.split[1], 5);
    run_fini(&r);
}

/* Whole numbers of any spelling, and what is no whole number. */
static void numbers_are_read_strictly(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        long long steps; /* -1: refused */
    } rows[] = {
        {"1", 1},
        {"1000000000000", 1000000000000},
        {"1e3", 1000},
        {"1.5e2", 150},
        {"2E+1", 20},
        {"1e0", 1},
        {"0", -1},
        {"-1", -1},
        {"+5", -1},
        {"1.0", -1},
        {"1.55e1", -1},
        {"1e-1", -1},
        {"0x10", -1},
        {"010", -1},
        {"1_000", -1},
        {"1e99", -1},
        {"1e999999999999999999999", -1},
        {"1.5e-99999999999999", -1},
        {"1e", -1},
        {"e3", -1},
        {"99999999999999999999999", -1},
        {"1000000000001", -1},
        {"'5'", -1},
        {"true", -1},
        {"[5]", -1},
        {".inf", -1},
        {"5 steps", -1},
        {"18446744073709551617", -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char set[64];
        struct err err = {0};
        struct run r;
        snprintf(set, sizeof set, "train.steps=%s", rows[i].value);
        const char *const sets[SETS_MAX] = {set};
        int rc = read_with(&r, sample, sets, &err);
        print_message("%s: %d %s\n", rows[i].value, rc, err.text);
        assert_int_equal(rc, rows[i].steps < 0 ? -1 : 0);
        if (rc == 0)
            assert_int_equal(r.train.steps, rows[i].steps);
        run_fini(&r);
    }
    static const struct {
        const char *value;
        double lr; /* 0: refused */
    } reals[] = {{"1e-3", 1e-3}, {"0.001", 1e-3}, {".5", 0.5}, {"5.", 5},
                 {"1", 1},       {"+2e-1", 0.2},  {"0", 0},    {"-1", 0},
                 {"nan", 0},     {".nan", 0},     {"inf", 0},  {"1e400", 0},
                 {"1e-400", 0},  {"0x1p-3", 0},   {"1,5", 0},  {".", 0},
                 {"1e", 0},      {"\"1\"", 0},    {"1001", 0}, {"1e-3x", 0}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        char set[64];
        struct err err = {0};
        struct run r;
        snprintf(set, sizeof set, "optim.lr=%s", reals[i].value);
        const char *const sets[SETS_MAX] = {set};
        int rc = read_with(&r, sample, sets, &err);
        print_message("%s: %d %s\n", reals[i].value, rc, err.text);
        assert_int_equal(rc, reals[i].lr > 0 ? 0 : -1);
        if (rc == 0)
            assert_true(r.optim.lr == reals[i].lr);
        run_fini(&r);
    }
}

/* Every key and every value, whatever it is: format, parse, format gives the same text
 * and the same bits. */
static void the_resolved_file_reads_back(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sets[SETS_MAX];
    } rows[] = {
        {sample, {NULL}},
        {sample_random, {NULL}},
        {sample,
         {"run.seed=18446744073709551615", "model.layers=\"0:3, 1:4\"",
          "parallel={pipeline: 2, split: [0, 6], data: 4, schedule: gpipe}",
          "checkpoint.resume_allow=[data, run.seed, model.shape]"}},
        {sample,
         {"train.freeze=[layers.0-23, \"*norm*\", 'a\\\"b', \"model.layers.[01].*\"]",
          "checkpoint.resume_allow=[train.freeze]"}},
        {sample,
         {"optim.schedule=wsd", "optim.decay=20", "optim.decay_shape=sqrt",
          "optim.min_lr=1e-4", "optim.warmup=80"}},
        {sample,
         {"train.steps=~", "train.tokens=1e18", "run.dir=\"a \\\\ \\\"b\\\"\"",
          "model.init=\"random\"", "checkpoint.resume=/x/step-1"}},
        {sample_random,
         {"model.tokenizer=t.model", "model.shape.sliding_window=7", "model.init_std=0",
          "data.shuffle=false"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct run r, back;
        if (read_with(&r, rows[i].text, rows[i].sets, &err))
            fail_msg("%s", err.text);
        char *text = run_format(&r, &err);
        if (run_parse(&back, "resolved", text, &err))
            fail_msg("%s", err.text);
        char *again = run_format(&back, &err);
        assert_string_equal(text, again);
        for (int k = 0; run_key(k); k++) {
            char *a = run_value(&r, run_key(k), &err);
            char *b = run_value(&back, run_key(k), &err);
            char line[4200];
            assert_string_equal(a, b);
            snprintf(line, sizeof line, " %s: %s\n", strrchr(run_key(k), '.') + 1, a);
            /* keys of a section that does not apply are not listed one by one */
            if (strcmp(a, "null") != 0)
                assert_non_null(strstr(text, line));
            free(a);
            free(b);
        }
        free(text);
        free(again);
        run_fini(&r);
        run_fini(&back);
    }
}

static void doubles_survive_bit_for_bit(void **state)
{
    (void)state;
    int checked = 0;
    for (uint64_t i = 0; i < 500; i++) {
        uint64_t bits = rng_u64(5, 0, i);
        double lr;
        char file[sizeof sample + 64];
        bits = (bits & 0x000fffffffffffffu) | (uint64_t)(700 + i % 330) << 52;
        memcpy(&lr, &bits, sizeof lr);
        snprintf(file, sizeof file, "%.*s  lr: %.17g\n",
                 (int)(strstr(sample, "  lr:") - sample), sample, lr);
        struct err err = {0};
        struct run r, back;
        if (run_parse(&r, "run.yaml", file, &err))
            fail_msg("%s", err.text);
        char *text = run_format(&r, &err);
        assert_int_equal(run_parse(&back, "resolved", text, &err), 0);
        assert_memory_equal(&back.optim.lr, &lr, sizeof lr);
        checked++;
        free(text);
        run_fini(&r);
        run_fini(&back);
    }
    print_message("%d rates from 1e-97 to 100\n", checked);
}

static void single_values_and_sections(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value;
    } rows[] = {
        {"data.seq_len", "128"},
        {"run.name", "\"first\""},
        {"optim.betas", "[0.9, 0.95]"},
        {"parallel.split", "auto"},
        {"parallel.data", "null"},
        {"train.tokens", "null"},
        {"model.shape", "null"},
        {"model.shape.vocab_size", "null"},
        {"data.train", "[{path: \"a.h5\", weight: 1}]"},
        {"data.valid", "[]"},
        {"train.freeze", "[]"},
        {"model", "{init: \"base.h5\", layers: null, optimizer: reset, tokenizer: "
                  "null, init_std: null, "
                  "shape: null}"},
        {"eval", "{every: 0, batches: 0}"},
    };
    struct err err = {0};
    struct run r;
    assert_int_equal(run_parse(&r, "run.yaml", sample, &err), 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *value = run_value(&r, rows[i].key, &err);
        assert_string_equal(value, rows[i].value);
        free(value);
    }
    assert_null(run_value(&r, "optim.lrr", &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_null(run_key(-1));
    assert_string_equal(run_key(0), "run.name");
    assert_null(run_key(1000));
    run_fini(&r);
}

static void keys_that_may_differ_on_resume(void **state)
{
    (void)state;
    static const char *const sets[SETS_MAX] = {
        "checkpoint.resume_allow=[data, run.seed, model.shape]"};
    static const struct {
        const char *key;
        bool may;
    } rows[] = {{"data", true},
                {"data.train", true},
                {"data.seq_len", true},
                {"run.seed", true},
                {"run.name", false},
                {"run", false},
                {"model.shape.head_dim", true},
                {"model.init", false},
                {"train.global_batch", false}};
    struct err err = {0};
    struct run r;
    if (read_with(&r, sample, sets, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        print_message("%s: %d\n", rows[i].key, run_may_differ(&r, rows[i].key));
        assert_true(run_may_differ(&r, rows[i].key) == rows[i].may);
    }
    run_fini(&r);
}

static void a_missing_file_is_a_usage_error(void **state)
{
    (void)state;
    static const char *const paths[] = {"/nonexistent/run.yaml", "/tmp"};
    for (int i = 0; i < 2; i++) {
        struct err err = {0};
        struct run r;
        assert_int_equal(run_read(&r, paths[i], NULL, 0, &err), -1);
        print_message("%s\n", err.text);
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.text, paths[i]));
        run_fini(&r); /* of a run that was refused: nothing to free */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_file_gets_the_defaults),
        cmocka_unit_test(a_random_model_takes_its_shape_from_the_file),
        cmocka_unit_test(overrides_are_yaml),
        cmocka_unit_test(numbers_are_read_strictly),
        cmocka_unit_test(the_resolved_file_reads_back),
        cmocka_unit_test(doubles_survive_bit_for_bit),
        cmocka_unit_test(single_values_and_sections),
        cmocka_unit_test(keys_that_may_differ_on_resume),
        cmocka_unit_test(a_missing_file_is_a_usage_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
