/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/start.h"

#include "io/hf_chat.h"
#include "io/tokenizer_load.h"
#include "src/base/check.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/train/checkpoints.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Keys that a resumed run must share with its checkpoint: the model and its
 * arithmetic's inputs. data.train is compared by the sets' seals, not by their paths.
 */
static const char *const must_match[] = {
    "model.init",         "model.layers",     "run.seed",       "data.train",
    "data.seq_len",       "data.shuffle",     "data.packing",   "train.objective",
    "train.global_batch", "dpo.loss",         "dpo.beta",       "dpo.label_smoothing",
    "dpo.rpo_alpha",      "dpo.discopop_tau", "dpo.reference",  "dpo.chunks",
    "dpo.prefix_sharing", "train.freeze",     "model.optimizer"};
enum { MUST_MATCH = sizeof must_match / sizeof *must_match };

static int list_candidates(struct start *s, struct err *err)
{
    struct checkpoints list = {0};
    int failed = 0;
    if (comm_root(s->world))
        failed = checkpoints_list(&list, s->dir, err);
    s->candidates = list.n;
    s->candidate = list.step;
    int64_t n = list.n;
    comm_bcast(s->world, &n, sizeof n, 0);
    if (comm_agree(s->world, failed, err))
        return -1;
    s->candidates = to_int(n);
    return 0;
}

/* Opens PATH (given on rank 0) as the start to resume from; of a step, unless -1. */
static int open_resume(struct start *s, char *path, int64_t step, struct err *err)
{
    comm_bcast_string(s->world, &path, 0);
    free(s->path);
    s->path = path;
    s->ckpt = ckpt_open(s->world, path, err);
    if (!s->ckpt)
        return -1;
    if (!ckpt_info(s->ckpt)->optimizer) {
        ckpt_close(s->ckpt);
        s->ckpt = NULL;
        return err_set(err, ERR_INPUT, "%s: has no optimizer state to resume from",
                       path);
    }
    int64_t found = ckpt_info(s->ckpt)->step;
    if (step >= 0 && found != step) {
        ckpt_close(s->ckpt);
        s->ckpt = NULL;
        return err_set(err, ERR_INPUT,
                       "%s: is the checkpoint of step %" PRId64 ", not of its name",
                       path, found);
    }
    s->resumed = true;
    return 0;
}

int start_next(struct start *s, struct err *err)
{
    struct err last = *err;
    ckpt_close(s->ckpt);
    s->ckpt = NULL;
    bool automatic = strcmp(s->run->checkpoint.resume, "auto") == 0;
    while (automatic && s->tried < s->candidates) {
        if (last.code != ERR_NONE)
            log_warning(s->log, "CHECKPOINT NOT USABLE, trying the one before: %s",
                        last.text);
        char *path = NULL;
        int64_t step = 0;
        int failed = 0;
        if (comm_root(s->world)) {
            step = s->candidate[s->tried];
            path = checkpoints_path(s->dir, step, err);
            failed = !path;
        }
        comm_bcast(s->world, &step, sizeof step, 0);
        if (comm_agree(s->world, failed, err))
            return -1;
        s->tried++;
        if (open_resume(s, path, step, err) == 0)
            return 0;
        if (err->code != ERR_INPUT)
            return -1;
        last = *err;
    }
    *err = last;
    if (automatic && s->candidates > 0) {
        err_prefix(err, "%s: none of its %d checkpoints can be resumed from", s->dir,
                   s->candidates);
    }
    return -1;
}

static void shape_from_run(struct model_shape *to, const struct run *run)
{
    const struct run_shape *from = &run->model.shape;
    *to = (struct model_shape){.arch = from->window ? ARCH_MISTRAL : ARCH_LLAMA,
                               .layers = from->layers,
                               .hidden = from->hidden,
                               .ff = from->ff,
                               .heads = from->heads,
                               .kv_heads = from->kv_heads,
                               .head_dim = from->head_dim,
                               .vocab = from->vocab,
                               .max_positions = from->max_positions,
                               .window = from->window,
                               .rope_theta = from->rope_theta,
                               .norm_eps = from->norm_eps,
                               .tied = from->tied,
                               .bos_id = -1,
                               .eos_id = -1};
}

/* The tokenizer files that a random model goes with: of a checkpoint, or a bare
 * tokenizer.model. */
static int borrow_tokenizer(struct start *s, struct err *err)
{
    const char *path = s->run->model.tokenizer;
    size_t n = strlen(path);
    if (n > 6 && strcmp(path + n - 6, ".model") == 0) {
        char *bytes = NULL;
        size_t size = 0;
        int failed = 0;
        if (comm_root(s->world))
            failed = !(bytes = file_read(path, (size_t)64 << 20, &size, err));
        if (comm_agree(s->world, failed, err)) {
            free(bytes);
            return -1;
        }
        comm_bcast(s->world, &size, sizeof size, 0);
        if (!comm_root(s->world))
            bytes = malloc(size + 1);
        struct ckpt_file *file = calloc(1, sizeof *file);
        char *name = strdup("tokenizer.model");
        if (comm_agree(s->world,
                       bytes && file && name
                           ? 0
                           : err_set(err, ERR_OTHER, "%s: no memory", path),
                       err))
            return -1;
        comm_bcast(s->world, bytes, size, 0);
        *file = (struct ckpt_file){
            .name = name, .data = (unsigned char *)bytes, .bytes = size};
        s->info.file = file;
        s->info.files = 1;
    } else {
        struct ckpt *k = ckpt_open(s->world, path, err);
        if (!k)
            return -1;
        int failed = ckpt_info_copy(&s->info, ckpt_info(k), err);
        ckpt_close(k);
        if (comm_agree(s->world, failed, err))
            return -1;
        ckpt_info_clear_source(&s->info);
    }
    const struct ckpt_file *model = ckpt_info_file(&s->info, "tokenizer.model");
    if (!model)
        return 0;
    struct tokenizer *t = tokenizer_of_files(&s->info, path, err);
    if (!t)
        return -1;
    s->shape.bos_id = tokenizer_bos(t);
    s->shape.eos_id = tokenizer_eos(t);
    int tokens = tokenizer_vocab(t);
    tokenizer_destroy(t);
    return tokens <= s->shape.vocab
               ? 0
               : err_set(err, ERR_INPUT,
                         "%s: has %d tokens, but model.shape.vocab_size is %d", path,
                         tokens, s->shape.vocab);
}

static int start_random(struct start *s, struct err *err)
{
    shape_from_run(&s->shape, s->run);
    int failed = shape_check(&s->shape, err);
    if (failed) {
        err_prefix(err, "model.shape");
        err->code = ERR_USAGE;
    }
    if (!failed && s->run->model.tokenizer)
        failed = borrow_tokenizer(s, err);
    if (!failed)
        failed = layer_map_identity(&s->map, s->shape.layers, err);
    return failed ? -1 : 0;
}

/* Takes shape and carried facts from the opened checkpoint, through the layer map. */
static int adopt(struct start *s, struct err *err)
{
    const struct ckpt_info *info = ckpt_info(s->ckpt);
    if (!s->resumed && s->run->model.optimizer == RUN_MAP && !info->optimizer)
        return err_set(err, ERR_INPUT,
                       "%s: has no optimizer state for model.optimizer: map; expected "
                       "a checkpoint of a run, or reset",
                       s->path);
    if (ckpt_info_copy(&s->info, info, err))
        return -1;
    const char *ranges = s->resumed ? NULL : s->run->model.layers;
    if (ranges) {
        if (layer_map_parse(&s->map, ranges, info->shape.layers, err))
            return err_prefix(err, "model.layers");
        ckpt_info_clear_source(&s->info);
        const char *base = strrchr(s->path, '/');
        s->info.layers = layer_map_format(&s->map, err);
        s->info.source = mem_printf(err, "%s seal %016" PRIx64,
                                    base ? base + 1 : s->path, ckpt_identity(s->ckpt));
        s->info.source_layers = info->shape.layers;
        if (!s->info.layers || !s->info.source)
            return -1;
    } else if (layer_map_identity(&s->map, info->shape.layers, err)) {
        return -1;
    }
    s->shape = info->shape;
    s->shape.layers = s->map.layers;
    return 0;
}

static int open_start(struct start *s, struct err *err)
{
    const char *resume = s->run->checkpoint.resume;
    bool automatic = strcmp(resume, "auto") == 0, never = strcmp(resume, "never") == 0;
    if (never && s->candidates > 0)
        return err_set(err, ERR_USAGE,
                       "checkpoint.resume is never, but %s holds %d checkpoints of an "
                       "earlier run; give run.name another value, or resume",
                       s->dir, s->candidates);
    if (automatic && s->candidates > 0) {
        *err = (struct err){0};
        return start_next(s, err);
    }
    if (!automatic && !never)
        return open_resume(s, comm_root(s->world) ? strdup(resume) : NULL, -1, err);
    if (!s->run->model.init)
        return 0;
    s->path = strdup(s->run->model.init);
    s->ckpt = ckpt_open(s->world, s->path, err);
    return s->ckpt ? 0 : -1;
}

int start_init(struct start *s, struct comm *world, const struct log *log,
               const struct run *run, const char *dir, struct err *err)
{
    *s = (struct start){.world = world, .log = log, .run = run};
    s->dir = mem_printf(err, "%s", dir);
    if (comm_agree(world, !s->dir, err) || list_candidates(s, err) ||
        open_start(s, err))
        return -1;
    return comm_agree(world, s->ckpt ? adopt(s, err) : start_random(s, err), err);
}

void start_fini(struct start *s)
{
    ckpt_close(s->ckpt);
    ckpt_info_fini(&s->info);
    layer_map_fini(&s->map);
    free(s->path);
    free(s->candidate);
    free(s->dir);
    *s = (struct start){0};
}

/* The run's value of a key as the checkpoint records it. */
static char *recorded_value(const struct run *run, const char *key, const char *data,
                            struct err *err)
{
    return strcmp(key, "data.train") == 0 ? mem_printf(err, "%s", data)
                                          : run_value(run, key, err);
}

/* What the checkpoint says of a key; those from before train.freeze trained all. */
static const char *value_then(const struct ckpt_info *info, const char *key)
{
    const char *value = ckpt_info_value(info, key);
    return value || strcmp(key, "train.freeze") != 0 ? value : "[]";
}

int start_check(const struct start *s, const char *data, const char *gemm,
                struct err *err)
{
    const struct ckpt_info *info = ckpt_info(s->ckpt);
    for (int i = 0; i < MUST_MATCH; i++) {
        const char *was = value_then(info, must_match[i]);
        char *now = recorded_value(s->run, must_match[i], data, err);
        if (!now)
            return -1;
        int failed = 0;
        if (was && strcmp(was, now) != 0 && !run_may_differ(s->run, must_match[i]))
            failed = err_set(err, ERR_USAGE,
                             "%s: %s was %s, now it is %s; a resumed run must keep it "
                             "(or list it in checkpoint.resume_allow)",
                             s->path, must_match[i], was, now);
        else if (was && strcmp(was, now) != 0)
            log_warning(s->log, "%s was %s, now it is %s (allowed)", must_match[i], was,
                        now);
        free(now);
        if (failed)
            return -1;
    }
    const char *was = ckpt_info_value(info, "gemm");
    if (was && strcmp(was, gemm) != 0)
        log_warning(
            s->log,
            "products were computed by %s, now by %s: bits may differ from those "
            "of an uninterrupted run",
            was, gemm);
    const char *text = ckpt_info_value(info, "run");
    struct run old;
    if (text && run_parse(&old, s->path, text, err) == 0) {
        const char *key;
        for (int k = 0; (key = run_key(k)); k++) {
            bool must = false;
            for (int i = 0; i < MUST_MATCH; i++)
                must = must || strcmp(key, must_match[i]) == 0;
            char *before = must ? NULL : run_value(&old, key, err);
            char *now = must ? NULL : run_value(s->run, key, err);
            if (before && now && strcmp(before, now) != 0)
                log_line(s->log, "%s was %s, now it is %s", key, before, now);
            free(before);
            free(now);
        }
        run_fini(&old);
    }
    return 0;
}

int start_record(struct start *s, const char *data, const char *gemm, struct err *err)
{
    for (int i = 0; i < MUST_MATCH; i++) {
        char *now = recorded_value(s->run, must_match[i], data, err);
        int failed = !now || ckpt_info_set(&s->info, must_match[i], now, err);
        free(now);
        if (failed)
            return -1;
    }
    char *text = run_format(s->run, err);
    int failed = !text || ckpt_info_set(&s->info, "run", text, err) ||
                 ckpt_info_set(&s->info, "gemm", gemm, err);
    free(text);
    return failed ? -1 : 0;
}

int start_record_chat(struct start *s, const struct record_set_info *set,
                      struct err *err)
{
    if (set->eos_id >= 0)
        s->shape.eos_id = set->eos_id;
    return ckpt_info_set(&s->info, CHAT_TEMPLATE_NAME, set->template_name, err) ||
                   ckpt_info_set(&s->info, CHAT_TEMPLATE_TEXT, set->template_text,
                                 err) ||
                   ckpt_info_set(&s->info, CHAT_TEMPLATE_HASH, set->template_hash,
                                 err) ||
                   ckpt_info_set(&s->info, CHAT_JINJA, set->jinja, err)
               ? -1
               : 0;
}
