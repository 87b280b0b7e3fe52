/* SPDX-License-Identifier: Apache-2.0 */
#include "src/config/rules.h"

#include "src/base/duration.h"
#include "src/config/path.h"
#include "src/config/schema.h"

#include <stdlib.h>
#include <string.h>

static const char digits[] = "0123456789";
static const char alphanumerics[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/* For names of runs and of sets, which become folders and keys of metrics. */
static bool made_of(const char *name, const char *marks, const char *first_marks)
{
    if (!strchr(alphanumerics, name[0]) && !strchr(first_marks, name[0]))
        return false;
    for (const char *c = name; *c; c++)
        if (!strchr(alphanumerics, *c) && !strchr(marks, *c))
            return false;
    return true;
}

static int check_names(const struct run *r, const struct tree_node *root,
                       struct err *err)
{
    char shown[TREE_SHOWN];
    if (!made_of(r->run.name, "._-", "_"))
        return tree_error(
            err, path_place(root, "run.name"),
            "run.name: expected letters, digits and . _ - after the first "
            "letter or digit, found \"%s\"",
            tree_shown(r->run.name, shown));
    struct tree_place at = path_place(root, "data.valid");
    for (int i = 0; i < r->data.valid_sets; i++) {
        const char *name = r->data.valid[i].name;
        if (!made_of(name, "_-", "_-"))
            return tree_error(err, at,
                              "data.valid[%d].name: expected letters, digits, _ and -, "
                              "found \"%s\"",
                              i, tree_shown(name, shown));
        for (int j = 0; j < i; j++)
            if (strcmp(name, r->data.valid[j].name) == 0)
                return tree_error(err, at,
                                  "data.valid[%d].name: expected a name of its own, "
                                  "found \"%s\" as in data.valid[%d]",
                                  i, tree_shown(name, shown), j);
    }
    return 0;
}

/* Layers that "0:24,8:32" makes, or -1 if it is not of that form. */
static long count_layers(const char *ranges)
{
    enum { LAYERS_MAX = 65536 };
    long layers = 0;
    for (;; ranges++) {
        long end[2];
        ranges += strspn(ranges, " ");
        for (int i = 0; i < 2; i++) {
            size_t n = strspn(ranges, digits);
            if (n < 1 || n > 6 || (i == 0 && ranges[n] != ':'))
                return -1;
            end[i] = 0;
            for (size_t k = 0; k < n; k++)
                end[i] = 10 * end[i] + (ranges[k] - '0');
            ranges += n + (i == 0);
        }
        layers += end[1] - end[0];
        if (end[0] >= end[1] || layers > LAYERS_MAX)
            return -1;
        if (*ranges != ',')
            return *ranges ? -1 : layers;
    }
}

static void resolve_shape(struct run *r)
{
    struct run_shape *s = &r->model.shape;
    if (!s->kv_heads)
        s->kv_heads = s->heads;
    if (!s->head_dim && s->hidden % s->heads == 0)
        s->head_dim = s->hidden / s->heads;
}

static int check_shape(const struct run *r, const struct tree_node *root,
                       struct err *err)
{
    const struct run_shape *s = &r->model.shape;
    if (s->heads % s->kv_heads)
        return tree_error(err, path_place(root, "model.shape.num_key_value_heads"),
                          "model.shape.num_key_value_heads: expected a divisor of "
                          "num_attention_heads (%d), found %d",
                          s->heads, s->kv_heads);
    if (!s->head_dim)
        return tree_error(err, path_place(root, "model.shape.hidden_size"),
                          "model.shape.hidden_size: expected a multiple of "
                          "num_attention_heads (%d) since head_dim is not given, found "
                          "%d",
                          s->heads, s->hidden);
    if (s->head_dim % 2)
        return tree_error(err, path_place(root, "model.shape.head_dim"),
                          "model.shape.head_dim: expected an even number (rotary "
                          "embedding turns pairs), found %d",
                          s->head_dim);
    if (r->data.seq_len > s->max_positions)
        return tree_error(err, path_place(root, "data.seq_len"),
                          "data.seq_len: expected at most "
                          "model.shape.max_position_embeddings (%d), found %d",
                          s->max_positions, r->data.seq_len);
    return 0;
}

static int check_model(struct run *r, const struct tree_node *root, struct err *err)
{
    char shown[TREE_SHOWN];
    r->model.has_shape = !r->model.init;
    if (r->model.layers && count_layers(r->model.layers) < 0)
        return tree_error(err, path_place(root, "model.layers"),
                          "model.layers: expected half-open ranges FROM:TO, FROM < TO, "
                          "such as 0:24,8:32, found \"%s\"",
                          tree_shown(r->model.layers, shown));
    if (r->model.init)
        return 0;
    resolve_shape(r);
    return check_shape(r, root, err);
}

static int check_length(const struct run *r, const struct tree_node *root,
                        struct err *err)
{
    bool epochs = r->train.epochs > 0, in_tokens = r->train.tokens;
    int given = (r->train.steps ? 1 : 0) + (in_tokens ? 1 : 0) + (epochs ? 1 : 0);
    const char *last = in_tokens && !epochs ? "train.tokens" : "train.epochs";
    if (!given)
        return tree_error(err, path_place(root, "train"),
                          "train: expected steps, tokens or epochs (the length of the "
                          "run), found none");
    if (given > 1)
        return tree_error(err, path_place(root, last),
                          "%s: expected one of train.steps, train.tokens and "
                          "train.epochs, found %d; null unsets one",
                          last, given);
    if (in_tokens && r->train.objective != RUN_PRETRAIN)
        return tree_error(err, path_place(root, last),
                          "train.tokens: expected train.steps or train.epochs with "
                          "train.objective: %s, whose samples have any length",
                          r->train.objective == RUN_SFT ? "sft" : "dpo");
    double tokens = (double)run_steps(r, 0) * r->train.global_batch * r->data.seq_len;
    if (tokens > 4e18)
        return tree_error(err, path_place(root, "train.steps"),
                          "train.steps: expected at most 4e18 tokens in all (steps x "
                          "global_batch x seq_len), found %.3g",
                          tokens);
    return 0;
}

static int check_batch(const struct run *r, const struct tree_node *root,
                       struct err *err)
{
    int data = r->parallel.data ? r->parallel.data : 1;
    int64_t unit = (int64_t)data * r->train.micro_batch;
    if (r->train.global_batch % unit == 0)
        return 0;
    if (r->parallel.data)
        return tree_error(err, path_place(root, "train.global_batch"),
                          "train.global_batch: expected a multiple of parallel.data x "
                          "train.micro_batch (%d x %d = %lld), found %d",
                          r->parallel.data, r->train.micro_batch, (long long)unit,
                          r->train.global_batch);
    return tree_error(err, path_place(root, "train.global_batch"),
                      "train.global_batch: expected a multiple of train.micro_batch "
                      "(%d), found %d",
                      r->train.micro_batch, r->train.global_batch);
}

static int check_rate(const struct run *r, const struct tree_node *root,
                      struct err *err)
{
    bool ends_low = r->optim.schedule == RUN_COSINE || r->optim.schedule == RUN_WSD;
    int64_t steps = run_steps(r, 0), warmup = r->optim.warmup;
    if (r->optim.min_lr > r->optim.lr)
        return tree_error(err, path_place(root, "optim.min_lr"),
                          "optim.min_lr: expected at most optim.lr (%g), found %g",
                          r->optim.lr, r->optim.min_lr);
    if (r->optim.min_lr > 0 && !ends_low)
        return tree_error(err, path_place(root, "optim.min_lr"),
                          "optim.min_lr: expected 0 with optim.schedule %s, found %g; "
                          "cosine and wsd end at min_lr",
                          r->optim.schedule == RUN_LINEAR ? "linear, which ends at 0"
                                                          : "constant",
                          r->optim.min_lr);
    if (!steps) /* by epochs: the run checks when it knows its samples */
        return 0;
    if (warmup > steps)
        return tree_error(err, path_place(root, "optim.warmup"),
                          "optim.warmup: expected at most the run's %lld steps, found "
                          "%lld",
                          (long long)steps, (long long)warmup);
    if (r->optim.schedule == RUN_WSD && r->optim.decay > steps - warmup)
        return tree_error(
            err, path_place(root, "optim.decay"),
            "optim.decay: expected at most the %lld steps that optim.warmup "
            "(%lld) leaves of the run's %lld, found %lld",
            (long long)(steps - warmup), (long long)warmup, (long long)steps,
            (long long)r->optim.decay);
    return 0;
}

static int check_split_entries(const struct run *r, struct tree_place at, long *sum,
                               struct err *err)
{
    int n = r->parallel.split_n;
    *sum = 0;
    for (int i = 0; i < n; i++) {
        if (r->parallel.split[i] == 0 && i > 0 && i < n - 1)
            return tree_error(err, at,
                              "parallel.split[%d]: expected 1 or more layers (only the "
                              "first and the last stage may have none), found 0",
                              i);
        *sum += r->parallel.split[i];
    }
    return 0;
}

/* Which schedules go with how many chunks and micro-batches. */
static int check_schedule(const struct run *r, const struct tree_node *root,
                          struct err *err)
{
    enum run_pipe s = r->parallel.schedule;
    int chunks = run_chunks(r), data = r->parallel.data;
    int wanted = s == RUN_ZB_V ? 2 : 1;
    if (s != RUN_INTERLEAVED && s != RUN_PIPE_FILE && chunks != wanted)
        return tree_error(err, path_place(root, "parallel.chunks"),
                          "parallel.chunks: expected %d with parallel.schedule: %s, "
                          "found %d",
                          wanted, schema_find("parallel.schedule")->choices[s], chunks);
    if (s != RUN_INTERLEAVED || !data)
        return 0;
    int m = r->train.global_batch / (data * r->train.micro_batch);
    if (m % r->parallel.pipeline == 0)
        return 0;
    return tree_error(
        err, path_place(root, "parallel.schedule"),
        "parallel.schedule: interleaved: expected micro-batches of a step "
        "and replica (train.global_batch / (train.micro_batch x "
        "parallel.data)) that are a multiple of parallel.pipeline, %d, "
        "found %d",
        r->parallel.pipeline, m);
}

static int check_parallel(const struct run *r, const struct tree_node *root,
                          struct err *err)
{
    struct tree_place at = path_place(root, "parallel.split");
    bool chunked = run_chunks(r) > 1;
    int n = r->parallel.split_n, stages = r->parallel.pipeline * run_chunks(r);
    long sum = 0, layers = -1; /* -1: the checkpoint's, not known here */
    if (!r->model.init)
        layers = r->model.shape.layers;
    else if (r->model.layers)
        layers = count_layers(r->model.layers);
    if (n && n != stages)
        return tree_error(
            err, at,
            "parallel.split: expected one entry for each of the %d stages "
            "of parallel.pipeline%s, found %d",
            stages, chunked ? " x parallel.chunks" : "", n);
    if (check_split_entries(r, at, &sum, err) < 0)
        return -1;
    if (n && (layers >= 0 ? sum != layers : sum == 0))
        return tree_error(err, at,
                          "parallel.split: expected entries that sum to the model's "
                          "layers (%ld), found a sum of %ld",
                          layers >= 0 ? layers : 1, sum);
    if (!n && layers >= 0 && stages > layers)
        return tree_error(
            err, path_place(root, "parallel.pipeline"),
            "parallel.pipeline%s: expected at most the model's %ld layers, "
            "found %d",
            chunked ? " x parallel.chunks" : "", layers, stages);
    return 0;
}

static int check_events(const struct run *r, const struct tree_node *root,
                        struct err *err)
{
    if (r->eval.every && !r->data.valid_sets)
        return tree_error(
            err, path_place(root, "eval.every"),
            "eval.every: expected 0 without sets in data.valid, found %lld",
            (long long)r->eval.every);
    int64_t every = r->checkpoint.every, for_ever = r->checkpoint.keep_every;
    if (for_ever && (!every || for_ever % every))
        return tree_error(err, path_place(root, "checkpoint.keep_every"),
                          "checkpoint.keep_every: expected 0 or a multiple of "
                          "checkpoint.every (%lld), found %lld",
                          (long long)every, (long long)for_ever);
    if (r->checkpoint.best && !r->eval.every)
        return tree_error(err, path_place(root, "checkpoint.best"),
                          "checkpoint.best: expected false without eval.every, found "
                          "true");
    return 0;
}

static int check_walltime(const struct run *r, const struct tree_node *root,
                          struct err *err)
{
    const char *text = r->run.walltime;
    char shown[TREE_SHOWN];
    double seconds;
    if (strcmp(text, "auto") == 0 || strcmp(text, "none") == 0 ||
        duration_parse(text, &seconds))
        return 0;
    return tree_error(
        err, path_place(root, "run.walltime"),
        "run.walltime: expected auto, none or a time such as 90 (minutes), "
        "12:00:00 or 2-12:00:00, found \"%s\"",
        tree_shown(text, shown));
}

/* Of "layers.5" and "layers.0-23" the numbers; other patterns are the model's to
 * judge. */
static bool layers_rise(const char *pattern)
{
    static const char prefix[] = "layers.";
    size_t n = sizeof prefix - 1;
    if (strncmp(pattern, prefix, n) != 0)
        return true;
    const char *from = pattern + n, *to = from + strspn(from, digits);
    if (*to != '-' || to == from || !to[1] || to[1 + strspn(to + 1, digits)])
        return true;
    return strtol(from, NULL, 10) <= strtol(to + 1, NULL, 10);
}

static int check_freeze(const struct run *r, const struct tree_node *root,
                        struct err *err)
{
    char shown[TREE_SHOWN];
    for (int i = 0; i < r->train.freeze_n; i++)
        if (!layers_rise(r->train.freeze[i]))
            return tree_error(
                err, path_place(root, "train.freeze"),
                "train.freeze: expected layers.FROM-TO, FROM <= TO, found "
                "\"%s\"",
                tree_shown(r->train.freeze[i], shown));
    return 0;
}

static int check_objective(const struct run *r, const struct tree_node *root,
                           struct err *err)
{
    if (r->data.packing && r->train.objective != RUN_SFT)
        return tree_error(err, path_place(root, "data.packing"),
                          "data.packing: expected false without train.objective: sft, "
                          "found true");
    return 0;
}

/* sDPO: one set that is cut into chunks, each with steps, beside the start model. */
static int check_chunks(const struct run *r, const struct tree_node *root,
                        struct err *err)
{
    if (r->train.objective != RUN_DPO || r->dpo.chunks == 1)
        return 0;
    if (strcmp(r->dpo.reference, "init") != 0)
        return tree_error(err, path_place(root, "dpo.reference"),
                          "dpo.reference: expected init with dpo.chunks %d, each of "
                          "which starts from the one before, found %s",
                          r->dpo.chunks, r->dpo.reference);
    if (r->dpo.cache)
        return tree_error(err, path_place(root, "dpo.cache"),
                          "dpo.cache: expected null with dpo.chunks %d, whose "
                          "references lie in the run's folder",
                          r->dpo.chunks);
    if (r->data.train_sets > 1)
        return tree_error(err, path_place(root, "data.train"),
                          "data.train: expected one set with dpo.chunks %d, found %d",
                          r->dpo.chunks, r->data.train_sets);
    if (r->train.steps && r->train.steps < r->dpo.chunks)
        return tree_error(err, path_place(root, "train.steps"),
                          "train.steps: expected at least one for each of the %d of "
                          "dpo.chunks, found %lld",
                          r->dpo.chunks, (long long)r->train.steps);
    return 0;
}

static int check_dpo(const struct run *r, const struct tree_node *root, struct err *err)
{
    if (r->train.objective != RUN_DPO)
        return 0;
    if (r->dpo.cache && !strcmp(r->dpo.reference, "none"))
        return tree_error(err, path_place(root, "dpo.cache"),
                          "dpo.cache: expected null with dpo.reference: none");
    if (r->dpo.cache && r->data.train_sets > 1)
        return tree_error(err, path_place(root, "dpo.cache"),
                          "dpo.cache: expected null with %d sets in data.train; it is "
                          "a file of one set",
                          r->data.train_sets);
    return check_chunks(r, root, err);
}

int rules_check(struct run *r, const struct tree_node *root, struct err *err)
{
    if (check_names(r, root, err) < 0 || check_model(r, root, err) < 0 ||
        check_objective(r, root, err) < 0 || check_length(r, root, err) < 0 ||
        check_batch(r, root, err) < 0 || check_rate(r, root, err) < 0 ||
        check_schedule(r, root, err) < 0 || check_parallel(r, root, err) < 0 ||
        check_dpo(r, root, err) < 0 || check_freeze(r, root, err) < 0 ||
        check_walltime(r, root, err) < 0)
        return -1;
    return check_events(r, root, err);
}
