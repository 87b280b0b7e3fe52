/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/config/sample.h"

/* The sample with one line replaced (line numbers from 1), or added at the end (0). */
static char *edited(const char *text, int line, const char *by)
{
    size_t room = strlen(text) + strlen(by) + 2;
    char *out = malloc(room);
    assert_non_null(out);
    const char *at = text;
    for (int i = 1; line && i < line; i++)
        at = strchr(at, '\n') + 1;
    if (!line)
        at = text + strlen(text);
    const char *rest = line ? strchr(at, '\n') + 1 : at;
    snprintf(out, room, "%.*s%s%s%s", (int)(at - text), text, by, *by ? "\n" : "",
             rest);
    return out;
}

struct row {
    int line;
    const char *by, *said; /* said NULL: accepted */
};

static void check_rows(const char *text, const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct err err = {0};
        struct run r;
        char *file = edited(text, rows[i].line, rows[i].by);
        int rc = run_parse(&r, "run.yaml", file, &err);
        if (rc == 0)
            run_fini(&r);
        print_message("%s: %s\n", rows[i].by, rc ? err.text : "accepted");
        free(file);
        if (!rows[i].said) {
            if (rc)
                fail_msg("%s", err.text);
            continue;
        }
        assert_int_equal(rc, -1);
        assert_int_equal(err.code, ERR_USAGE);
        if (!strstr(err.text, rows[i].said))
            fail_msg("expected %s", rows[i].said);
        assert_int_equal(strncmp(err.text, "run.yaml:", 9), 0);
        assert_null(strchr(err.text, '\n'));
    }
}

static const struct row key_rows[] = {
    {2, "  nmae: x", "run.yaml:2:3: unknown key \"run.nmae\": did you mean run.name?"},
    {12, "  lrr: 1",
     "run.yaml:12:3: unknown key \"optim.lrr\": did you mean optim.lr?"},
    {11, "optm:", "run.yaml:11:1: unknown key \"optm\": did you mean optim?"},
    {9, "  seq_len: 4", "did you mean data.seq_len?"},
    {0, "parallel: {vocab_size: 4}", "did you mean model.shape.vocab_size?"},
    {9, "  xyzzy: 4", "unknown key \"train.xyzzy\" (configs/reference.yaml"},
    {0, "optim.eps: 1",
     "run.yaml:13:1: unknown key \"optim.eps\": expected the "
     "section optim with eps in it"},
    {0, "log: 5", "run.yaml:13:6: log: expected a map of keys, found 5"},
    {0, "log: []", "log: expected a map of keys, found an empty list"},
    {0, "log:", NULL},
    {0, "model: {}",
     "run.yaml:13:1: key \"model\" is given twice, first at "
     "run.yaml:3:1"},
    {0, "  lr: 2", "run.yaml:13:3: key \"lr\" is given twice, first at run.yaml:12:3"},
    {2, "", "run.yaml:1:1: run.name is missing"},
    {2, "  name:", "run.yaml:2:8: run.name: expected text, found nothing"},
    {2, "  name: ''", "run.name: expected text"},
    {2, "  name: [a]", "run.yaml:2:9: run.name: expected text, found a list"},
    {2, "  name: \"a\\0b\"", "run.name: expected text"},
    {2, "  name: \"a\\nb\"", "run.name: expected text, found the text \"a?b\""},
    {2, "  name: \"a\\L\"", "run.name: expected text"},
    {2, "  name: a/b", "letters, digits and . _ -"},
    {2, "  name: ..", "letters, digits and . _ -"},
    {2, "  name: -x", "letters, digits and . _ -"},
    {2, "  name: a b", "letters, digits and . _ -"},
    {2, "  name: 7b_v1.5-x", NULL},
    {4, "", "run.yaml:3:1: model.init is missing"},
    {6, "  train: a.h5", "run.yaml:6:10: data.train: expected a list of one or more"},
    {6, "  train: []", "data.train: expected a list of one or more"},
    {6, "  train: [a.h5]",
     "data.train[0]: expected {path: FILE, weight: NUMBER}, "
     "found a.h5"},
    {6, "  train: [{weight: 1}]", "run.yaml:6:11: data.train[0]: path is missing"},
    {6, "  train: [{path: a, wieght: 1}]", "unknown key \"wieght\""},
    {6, "  train: [{path: a, name: 1}]", "unknown key \"name\""},
    {6, "  train: [{path: a, weight: 0}]",
     "data.train[0].weight: expected a number "
     "above 0, found 0"},
    {6, "  train: [{path: a}, {path: [b]}]",
     "data.train[1].path: expected a file's "
     "path, found a list"},
    {6, "  train: [{path: \"a\\x85b\"}]", "data.train[0].path: expected a file's path"},
    {6, "  train: [{path: \"a\\uFEFFb\"}]", "data.train[0].path"},
    {6, "  train: [{path: \"\\xE9\\u2581.h5\"}]", NULL},
    {7, "  seq_len: 12.5", "run.yaml:7:12: data.seq_len: expected a whole number"},
    {7, "  seq_len: '128'", "found the text \"128\""},
    {7, "  seq_len: 128\n  shuffle: yes", "data.shuffle: expected true or false"},
    {7, "  seq_len: 128\n  valid: [{path: a}]", "data.valid[0]: name is missing"},
    {7, "  seq_len: 128\n  valid: [{name: a b, path: a}]", "data.valid[0].name"},
    {7, "  seq_len: 128\n  valid: [{name: a, path: x}, {name: a, path: y}]",
     "data.valid[1].name: expected a name of its own"},
    {12, "  lr: fast",
     "run.yaml:12:7: optim.lr: expected a number above 0, at most "
     "1000, found fast"},
    {12, "  lr: 1\n  betas: 0.9", "optim.betas: expected a list of two numbers"},
    {12, "  lr: 1\n  betas: [0.9, 0.9, 0.9]", "optim.betas"},
    {12, "  lr: 1\n  betas: [0.9, 1]",
     "run.yaml:13:16: optim.betas: expected a "
     "number of at least 0 and below 1, found 1"},
    {12, "  lr: 1\n  betas: [0, 0]", NULL},
    {12, "  lr: 1\n  schedule: cosin",
     "expected one of constant, linear, cosine, "
     "wsd, found cosin; did you mean cosine?"},
    {12, "  lr: 1\n  eps: 0", "optim.eps"},
    {12, "  lr: 1\n  clip: 0", NULL},
    {9, "  steps: 1\n  objective: sft", NULL},
    {9, "  steps: 1\n  objective: stf",
     "run.yaml:10:14: train.objective: expected one of pretrain, sft, dpo, found "
     "stf"},
    {9, "  epochs: 0", "train.epochs: expected a number above 0"},
    {9, "  steps: 1\n  precision: bf16", NULL},
    {9, "  steps: 1\n  precision: fp16",
     "train.precision: expected one of fp32, bf16, found fp16"},
    {9, "  steps: 1\n  max_skipped: 0",
     "train.max_skipped: expected a whole number from 1"},
    {9, "  steps: 1\n  allow_slow_bf16: 1",
     "train.allow_slow_bf16: expected true or false"},
    {0, "log: {every: 0}", "log.every: expected a whole number from 1"},
    {0, "checkpoint: {resume_allow: data}", "expected a list of keys or sections"},
    {0, "checkpoint: {resume_allow: [data.seqlen]}",
     "found data.seqlen; did you mean data.seq_len?"},
    {0, "checkpoint: {resume_allow: [data, run.seed]}", NULL},
    {9, "  steps: 100\n  freeze: layers.0",
     "run.yaml:10:11: train.freeze: expected a list of patterns, found layers.0"},
    {9, "  steps: 100\n  freeze: [[a]]",
     "train.freeze: expected a pattern of tensors' names, found a list"},
    {9, "  steps: 100\n  freeze: [model.norm.weight, '']",
     "train.freeze: expected a pattern of tensors' names"},
    {9, "  steps: 100\n  freeze: [layers.0-1, layers.5-4]",
     "run.yaml:10:11: train.freeze: expected layers.FROM-TO, FROM <= TO, found "
     "\"layers.5-4\""},
    {9, "  steps: 100\n  freeze: [layers.12-3]", "found \"layers.12-3\""},
    {9, "  steps: 100\n  freeze: [*norm*]", "run.yaml:10:"},
    {9, "  steps: 100\n  freeze: [layers.0-23, layers.7, \"*norm*\"]", NULL},
    {9, "  steps: 100\n  freeze: []", NULL},
    {0, "checkpoint: {keep: -1}", "checkpoint.keep: expected a whole number from 0"},
};

static void keys_and_types(void **state)
{
    (void)state;
    check_rows(sample, key_rows, sizeof key_rows / sizeof *key_rows);
}

static const struct row combination_rows[] = {
    {9, "  tokens: 5000", NULL},
    {9, "", "run.yaml:9:3: train: expected steps, tokens or epochs"},
    {9, "  steps: 5\n  tokens: 5000", "expected one of train.steps, train.tokens"},
    {9, "  epochs: 0.5", NULL},
    {9, "  steps: 5\n  epochs: 1",
     "run.yaml:10:11: train.epochs: expected one of train.steps, train.tokens and "
     "train.epochs, found 2"},
    {9, "  tokens: 5000\n  epochs: 1", "train.epochs: expected one of"},
    {9, "  tokens: 5000\n  objective: sft",
     "run.yaml:9:11: train.tokens: expected train.steps or train.epochs with"},
    {9, "  epochs: 3\n  objective: sft", NULL},
    {7, "  seq_len: 32\n  packing: true",
     "run.yaml:8:12: data.packing: expected false without train.objective: sft"},
    {9, "  steps: 1000000000000\n  micro_batch: 8", NULL},
    {10, "  global_batch: 16777216\n  micro_batch: 16384", NULL},
    {9, "  steps: 3\n  micro_batch: 3",
     "train.global_batch: expected a multiple of train.micro_batch (3), found 8"},
    {9, "  steps: 3\n  micro_batch: 16", "train.global_batch"},
    {0, "parallel: {data: 4}", NULL},
    {0, "parallel: {data: 3}",
     "run.yaml:10:17: train.global_batch: expected a "
     "multiple of parallel.data x train.micro_batch (3 x 1 "
     "= 3), found 8"},
    {0, "parallel: {pipeline: 2, split: [3, 3]}", NULL},
    {0, "parallel: {pipeline: 3, split: [3, 3]}",
     "parallel.split: expected one entry for each of the 3 stages"},
    {0, "parallel: {split: [3, 3]}", "each of the 1 stages"},
    {0, "parallel: {pipeline: 3, split: [3, 0, 3]}", "parallel.split[1]"},
    {0, "parallel: {pipeline: 3, split: [0, 3, 0]}", NULL},
    {0, "parallel: {pipeline: 2, split: [0, 0]}", "sum to"},
    {0, "parallel: {pipeline: 2, split: [1, -1]}", "parallel.split: expected a whole"},
    {0, "parallel: {split: all}", "parallel.split: expected auto or a list"},
    {0, "parallel: {split: []}", "parallel.split: expected auto or a list"},
    {4, "  init: b\n  layers: \"0:4,2:6\"\nparallel: {pipeline: 8}", NULL},
    {4, "  init: b\n  layers: \"0:4,2:6\"\nparallel: {pipeline: 9}",
     "parallel.pipeline: expected at most the model's 8 layers, found 9"},
    {4, "  init: b\n  layers: 0:4,2:6\nparallel: {pipeline: 2, split: [4, 3]}",
     "sum to the model's layers (8), found a sum of 7"},
    {4, "  init: b\n  layers: 4:2", "model.layers: expected half-open ranges"},
    {4, "  init: b\n  layers: 0:4,", "run.yaml:5:11: model.layers"},
    {4, "  init: b\n  layers: 8", "model.layers"},
    {4, "  init: b\n  layers: [0, 4]", "model.layers: expected text, found a list"},
    {4, "  init: b\n  layers: \"0:60000,0:60000\"", "model.layers"},
    {4, "  init: b\n  tokenizer: t",
     "run.yaml:5:14: model.tokenizer: expected nothing "
     "without model.init: random, found t"},
    {4, "  init: b\n  init_std: 0.1", "model.init_std: expected nothing"},
    {4, "  init: b\n  shape: {vocab_size: 5}",
     "model.shape.vocab_size: expected "
     "nothing without model.init: random"},
    {4, "  init: b\n  shape: ~\n  init_std: null", NULL},
    {4, "  init: random",
     "model.shape.num_hidden_layers is missing, needed with "
     "model.init: random"},
    {12, "  lr: 1e-3\n  min_lr: 1e-4", NULL},
    {12, "  lr: 1e-3\n  min_lr: 1e-2",
     "run.yaml:13:11: optim.min_lr: expected at most optim.lr (0.001), found 0.01"},
    {12, "  lr: 1\n  schedule: linear\n  min_lr: 0", NULL},
    {12, "  lr: 1\n  schedule: linear\n  min_lr: 0.1",
     "optim.min_lr: expected 0 with optim.schedule linear, which ends at 0, found "
     "0.1"},
    {12, "  lr: 1\n  schedule: constant\n  min_lr: 0.1", "schedule constant"},
    {12, "  lr: 1\n  warmup: 100", NULL},
    {12, "  lr: 1\n  warmup: 101",
     "optim.warmup: expected at most the run's 100 steps, found 101"},
    {12, "  lr: 1\n  schedule: wsd",
     "run.yaml:11:1: optim.decay is missing, needed "
     "with optim.schedule: wsd"},
    {12, "  lr: 1\n  schedule: wsd\n  decay: 100\n  min_lr: 0.1", NULL},
    {12, "  lr: 1\n  schedule: wsd\n  decay: 60\n  warmup: 41",
     "optim.decay: expected at most the 59 steps that optim.warmup (41) leaves"},
    {12, "  lr: 1\n  decay: 10",
     "optim.decay: expected nothing without "
     "optim.schedule: wsd, found 10"},
    {12, "  lr: 1\n  decay_shape: sqrt", "optim.decay_shape: expected nothing"},
    {0, "eval: {every: 5}", "eval.every: expected 0 without sets in data.valid"},
    {7, "  seq_len: 4\n  valid: [{name: a, path: b}]\neval: {every: 5}", NULL},
    {0, "checkpoint: {every: 5, keep_every: 20}", NULL},
    {0, "checkpoint: {every: 5, keep_every: 21}",
     "checkpoint.keep_every: expected 0 or a multiple of checkpoint.every (5), "
     "found "
     "21"},
    {0, "checkpoint: {keep_every: 5}", "checkpoint.keep_every"},
    {0, "checkpoint: {best: true}", "checkpoint.best: expected false without eval"},
    {0, "checkpoint: {on_error: retry}", "checkpoint.on_error: expected"},
    {2, "  name: a\n  walltime: 1:2:3:4", "run.walltime: expected auto, none or"},
    {2, "  name: a\n  walltime: \"0\"", "run.yaml:3:13: run.walltime"},
    {2, "  name: a\n  walltime: -5", "run.walltime"},
    {2, "  name: a\n  walltime: 2-12:00:00", NULL},
    {2, "  name: a\n  walltime: 90", NULL},
    {2, "  name: a\n  walltime: none", NULL},
    {4, "  init: b\n  optimizer: map", NULL},
    {4, "  init: b\n  optimizer: keep", "model.optimizer: expected"},
};

static void combinations(void **state)
{
    (void)state;
    check_rows(sample, combination_rows,
               sizeof combination_rows / sizeof *combination_rows);
}

static void shapes_of_random_models(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {3, "  init: random\n  layers: 0:4",
         "model.layers: expected nothing without a checkpoint in model.init"},
        {5, "", "run.yaml:4:3: model.shape.num_hidden_layers is missing"},
        {6, "    hidden_sise: 64", "did you mean model.shape.hidden_size?"},
        {6, "    hidden_size: 66",
         "model.shape.hidden_size: expected a multiple of "
         "num_attention_heads (4)"},
        {6, "    hidden_size: 66\n    head_dim: 16", NULL},
        {6, "    hidden_size: 64\n    head_dim: 15",
         "model.shape.head_dim: expected an even"},
        {6, "    hidden_size: 60", "model.shape.head_dim: expected an even number"},
        {8, "    num_attention_heads: 4\n    num_key_value_heads: 3",
         "model.shape.num_key_value_heads: expected a divisor of num_attention_heads "
         "(4)"},
        {9, "    vocab_size: 512\n    max_position_embeddings: 100",
         "data.seq_len: expected at most model.shape.max_position_embeddings (100), "
         "found "
         "128"},
        {0, "parallel: {pipeline: 5}", "at most the model's 4 layers, found 5"},
        {0, "parallel: {pipeline: 2, split: [2, 3]}", "layers (4), found a sum of 5"},
        {0, "parallel: {pipeline: 4}", NULL},
    };
    check_rows(sample_random, rows, sizeof rows / sizeof *rows);
}

static void overrides_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *set, *said;
    } rows[] = {
        {"optim.lrr=1",
         "--set optim.lrr: unknown key \"optim.lrr\": did you mean optim.lr?"},
        {"optim.lr", "--set optim.lr: expected KEY=VALUE"},
        {"=1", "--set : unknown key \"\""},
        {"optim.lr=", "--set optim.lr: expected a number above 0"},
        {"optim.lr=[1", "--set optim.lr: not YAML"},
        {"optim.lr=1 # x", NULL},
        {"optim.lr=&a 1", "--set optim.lr: anchors"},
        {"optim.lr=fast",
         "--set optim.lr: expected a number above 0, at most 1000, found "
         "fast"},
        {"optim=3", "--set optim: expected a map of keys, found 3"},
        {"optim={lr: 1, lr: 2}", "--set optim: key \"lr\" is given twice"},
        {"optim={lrr: 1}", "--set optim: unknown key \"optim.lrr\""},
        {"optim={}", "--set optim: optim.lr is missing"},
        {"train.global_batch=8\noptim.lr=1", "--set train.global_batch: "},
        {"optim.warmup=1e6",
         "--set optim.warmup: expected at most the run's 100 steps"},
        {"data.train[0].path=x", "--set data.train[0].path: unknown key"},
    };
    const char *tmp = getenv("TMPDIR");
    char file[4096];
    snprintf(file, sizeof file, "%s/dusk-rules-XXXXXX", tmp ? tmp : "/tmp");
    int fd = mkstemp(file);
    FILE *f = fdopen(fd, "w");
    assert_non_null(f);
    fputs(sample, f);
    fclose(f);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct run r;
        const char *const sets[] = {rows[i].set};
        int rc = run_read(&r, file, sets, 1, &err);
        print_message("%s: %s\n", rows[i].set, rc ? err.text : "accepted");
        assert_int_equal(rc, rows[i].said ? -1 : 0);
        if (rc == 0)
            run_fini(&r);
        else if (strncmp(err.text, rows[i].said, strlen(rows[i].said)) != 0)
            fail_msg("expected %s", rows[i].said);
    }
    remove(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_types),
        cmocka_unit_test(combinations),
        cmocka_unit_test(shapes_of_random_models),
        cmocka_unit_test(overrides_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
