/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/setup.h"

#include "mpi/watch.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/train/binding.h"
#include "src/train/checkpoints.h"
#include "src/train/run_spec.h"
#include "src/train/precision.h"
#include "src/train/products.h"

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- its folder ---- */

static int take_folder(struct trainer *t, struct err *err)
{
    bool took_over;
    char *lock = file_join(t->folder, "lock", err);
    int failed = !lock || file_make_folders(t->checkpoints, err) ||
                 lock_take(&t->lock, lock, t->log, &took_over, err);
    if (!failed)
        failed = checkpoints_clean(t->checkpoints, t->log, err);
    free(lock);
    return failed ? -1 : 0;
}

static int setup_folder(struct trainer *t, struct err *err)
{
    t->folder = file_join(t->run.run.dir, t->run.run.name, err);
    t->checkpoints = t->folder ? file_join(t->folder, "checkpoints", err) : NULL;
    int failed = !t->checkpoints;
    if (!failed && comm_root(t->world))
        failed = take_folder(t, err);
    if (comm_agree(t->world, failed, err))
        return -1;
    const double limits_s[WATCH_LIMITS] = {
        [WATCH_WORK] = t->run.log.timeout, [WATCH_IO] = t->run.log.io_timeout};
    failed = watch_configure(comm_watch(t->world), t->folder, limits_s, err);
    return comm_agree(t->world, failed, err);
}

static int write_text(const struct trainer *t, const char *name, const char *text,
                      struct err *err)
{
    char *path = file_join(t->folder, name, err);
    int failed = !path || file_write_atomic(path, text, strlen(text), err);
    free(path);
    return failed ? -1 : 0;
}

/* The resolved run file and the rank map. */
static int describe_folder(struct trainer *t, struct err *err)
{
    char *map =
        grid_describe(engine_grid(t->engine), engine_schedule(t->engine)->chunks,
                      engine_stages(t->engine));
    int failed = 0;
    if (comm_root(t->world)) {
        char *run = run_format(&t->run, err);
        failed = !run || write_text(t, "run.yaml", run, err) ||
                 write_text(t, "ranks.txt", map, err);
        free(run);
    }
    free(map);
    return comm_agree(t->world, failed, err);
}

/* ---- data, engine, weights ---- */

static int open_valid(struct trainer *t, const char *tokenizer, struct err *err)
{
    int n = t->run.data.valid_sets;
    t->valid = mem_array(n, sizeof *t->valid, err);
    if (comm_agree(t->world, !t->valid, err))
        return -1;
    for (int i = 0; i < n; i++) {
        const char *path = t->run.data.valid[i].path;
        if (data_set_open(&t->valid[i], t->world, path, &t->start.shape, tokenizer,
                          t->run.train.objective == RUN_DPO, err) ||
            data_set_fits(&t->valid[i], t->run.data.seq_len, false, err))
            return -1;
    }
    return 0;
}

/* The chat template of the first record set goes with the model. */
static int record_chat(struct trainer *t, struct err *err)
{
    const struct record_set *first = data_records(t->data, 0);
    if (!first)
        return 0;
    const struct record_set_info *chat = record_set_info(first);
    for (int i = 1; i < t->run.data.train_sets; i++) {
        const struct record_set_info *other = record_set_info(data_records(t->data, i));
        if (strcmp(other->template_hash, chat->template_hash) != 0)
            log_warning(t->log,
                        "%s: template %s is another than %s of the first set, which "
                        "the checkpoints will carry",
                        t->run.data.train[i].path, other->template_name,
                        chat->template_name);
    }
    return start_record_chat(&t->start, chat, err);
}

static int setup_data(struct trainer *t, struct err *err)
{
    const struct model_shape *s = &t->start.shape;
    if (t->run.data.seq_len > s->max_positions)
        return err_set(err, ERR_USAGE,
                       "data.seq_len is %d, but the model has at most %d positions "
                       "(max_position_embeddings)",
                       t->run.data.seq_len, s->max_positions);
    char tokenizer[TOKENIZER_HASH_ROOM];
    int failed = ckpt_tokenizer_hash(&t->start.info, tokenizer, sizeof tokenizer, err);
    if (comm_agree(t->world, failed, err))
        return -1;
    t->data = data_create(t->world, &t->run, s, tokenizer, err);
    if (!t->data || open_valid(t, tokenizer, err))
        return -1;
    const char *gemm = trainer_products(t), *data = data_identity(t->data);
    if (t->start.resumed)
        failed = start_check(&t->start, data, gemm, err);
    return failed || start_record(&t->start, data, gemm, err) || record_chat(t, err)
               ? -1
               : 0;
}

static int setup_batches(struct trainer *t, int rows, struct err *err)
{
    const struct run *r = &t->run;
    int data = engine_grid(t->engine)->data;
    int64_t samples = r->train.global_batch / data;
    int segments = engine_segments(t->engine);
    int64_t tokens = samples * t->slot_words;
    t->tokens = mem_array(tokens + samples, sizeof *t->tokens, err);
    t->order = mem_array(r->train.global_batch, sizeof *t->order, err);
    t->batches = mem_array(t->micro_batches, sizeof *t->batches, err);
    t->segment_nll =
        mem_array((int64_t)t->micro_batches * segments, sizeof *t->segment_nll, err);
    t->nll = mem_array(r->train.global_batch, sizeof *t->nll, err);
    if (!t->tokens || !t->order || !t->batches || !t->segment_nll || !t->nll)
        return -1;
    t->my_order = t->tokens + tokens;
    t->tokens_bytes = (size_t)(tokens + samples) * sizeof *t->tokens;
    for (int i = 0; i < t->micro_batches; i++)
        if (batch_init(&t->batches[i], rows, segments, err))
            return -1;
    return 0;
}

static int setup_engine(struct trainer *t, struct err *err)
{
    struct engine_spec spec;
    if (run_share_schedule(t->world, &t->run, &t->schedule_text, err) ||
        run_engine_spec(&t->run, &t->start.shape, comm_size(t->world), t->schedule_text,
                        &spec, err))
        return -1;
    spec.packing = products_packing(&t->start, t->gemm);
    if (memory_plan_admit(t->world, &spec, (int64_t)(t->run.parallel.node_gb * 1e9),
                          t->gemm, &t->plan, err) ||
        comm_agree(t->world, products_record(&t->start, t->gemm, spec.packing, err),
                   err))
        return -1;
    t->micro_batches = spec.micro_batches;
    t->slot_words = engine_slot_words(&spec);
    t->engine = engine_create(t->world, &spec, t->gemm, err);
    if (!t->engine)
        return -1;
    const struct grid *g = engine_grid(t->engine);
    watch_place(comm_watch(t->world), g->stage, g->replica);
    return comm_agree(t->world, setup_batches(t, engine_max_rows(&spec), err), err);
}

/* The length of a run by epochs is known only now that its samples are. */
static int set_steps(struct trainer *t, struct err *err)
{
    const struct run *r = &t->run;
    if (comm_agree(t->world, dpo_plan(t, err), err))
        return -1;
    int64_t decay = r->optim.schedule == RUN_WSD ? r->optim.decay : 0;
    for (int k = 0; k < t->chunks.n; k++) {
        int64_t steps = t->chunks.step[k + 1] - t->chunks.step[k];
        if (r->optim.warmup + decay > steps)
            return err_set(err, ERR_USAGE,
                           "optim.warmup%s: expected at most the %" PRId64
                           " steps of train.epochs %g%s, found %" PRId64,
                           decay ? " and optim.decay" : "", steps, r->train.epochs,
                           t->chunks.n > 1 ? " of a chunk" : "",
                           r->optim.warmup + decay);
    }
    return 0;
}

void trainer_set_rates(struct trainer *t)
{
    const struct dpo_chunks *c = &t->chunks;
    static const enum lr_schedule schedules[] = {[RUN_CONSTANT] = LR_CONSTANT,
                                                 [RUN_LINEAR] = LR_LINEAR,
                                                 [RUN_COSINE] = LR_COSINE,
                                                 [RUN_WSD] = LR_WSD};
    static const enum lr_decay_shape shapes[] = {[RUN_DECAY_COSINE] = LR_DECAY_COSINE,
                                                 [RUN_DECAY_LINEAR] = LR_DECAY_LINEAR,
                                                 [RUN_DECAY_SQRT] = LR_DECAY_SQRT};
    t->lr = (struct lr){.schedule = schedules[t->run.optim.schedule],
                        .decay_shape = shapes[t->run.optim.decay_shape],
                        .peak = t->run.optim.lr,
                        .min = t->run.optim.min_lr,
                        .steps = c->step[c->at + 1] - c->step[c->at],
                        .warmup = t->run.optim.warmup,
                        .decay = t->run.optim.decay};
}

/* Layers of each stage, "3 + 3 + 2"; cut where there are many. */
static void describe_split(const struct engine *e, char *text, size_t size)
{
    int stages;
    const int *split = engine_split(e, &stages);
    size_t used = 0;
    *text = '\0';
    for (int i = 0; i < stages && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%d", i ? " + " : "",
                                 split[i]);
}

static void log_setup(const struct trainer *t)
{
    const struct grid *g = engine_grid(t->engine);
    const struct model_shape *s = engine_shape(t->engine);
    const struct run *r = &t->run;
    int64_t bytes = memory_plan_total(&t->plan);
    char where[512];
    comm_max_i64(t->world, &bytes, 1);
    memory_plan_describe(&t->plan, where, sizeof where);
    char split[256], chunks[32] = "";
    describe_split(t->engine, split, sizeof split);
    if (engine_schedule(t->engine)->chunks > 1)
        snprintf(chunks, sizeof chunks, " x %d chunks",
                 engine_schedule(t->engine)->chunks);
    log_line(t->log,
             "model: %d layers, hidden %d, vocabulary %d, %.6g M parameters, %s",
             s->layers, s->hidden, s->vocab, (double)table_elements(s) * 1e-6,
             t->start.ckpt ? t->start.path : "random");
    struct freeze_count frozen = freeze_count(engine_freeze(t->engine), s);
    if (frozen.tensors)
        log_line(t->log,
                 "frozen: %d of %d tensors, %.6g M parameters; %.6g M are trained",
                 frozen.tensors, table_count(s), (double)frozen.elements * 1e-6,
                 (double)(table_elements(s) - frozen.elements) * 1e-6);
    if (t->start.info.layers)
        log_line(t->log, "layers: %s of %s", t->start.info.layers,
                 t->start.info.source);
    log_line(t->log,
             "ranks: pipeline %d%s x data %d, layers %s, %d threads a rank; %s by %s",
             g->pipeline, chunks, g->data, split, omp_get_max_threads(),
             precision_name(precision_of(r)), trainer_products(t));
    log_line(t->log, "memory: %.3f GB on the fullest rank; rank 0: %s",
             (double)bytes * 1e-9, where);
    double samples = (double)(t->steps * r->train.global_batch);
    const char *what = "windows";
    if (r->train.objective != RUN_PRETRAIN)
        what = r->data.packing                 ? "packs"
               : r->train.objective == RUN_SFT ? "records"
                                               : "pairs";
    log_line(t->log,
             "data: %" PRId64 " %s of %s%d tokens; %" PRId64 " steps of %d %s are %.2f "
             "epochs",
             data_samples(t->data), what,
             r->train.objective == RUN_PRETRAIN ? "" : "at most ", r->data.seq_len,
             t->steps, r->train.global_batch, what,
             samples / (double)data_samples(t->data));
    if (t->start.resumed)
        log_line(t->log, "resumed from %s at step %" PRId64, t->start.path, t->at.step);
}

static int setup_account(struct trainer *t, struct err *err)
{
    struct account_spec spec = {.every_step = t->run.log.accounting,
                                .timeline_from = t->run.log.timeline_from,
                                .timeline_steps = t->run.log.timeline_steps,
                                .folder = t->folder};
    return account_create(&t->account, t->engine, &spec, err);
}

static int open_metrics(struct trainer *t, struct err *err)
{
    int failed = 0;
    if (comm_root(t->world)) {
        char *path = file_join(t->folder, "metrics.jsonl", err);
        failed = !path || metrics_open(&t->metrics, path, t->at.step, err);
        free(path);
    }
    return comm_agree(t->world, failed, err);
}

int trainer_setup(struct trainer *t, const char *path, const char *const *sets,
                  int sets_n, struct err *err)
{
    if (run_share(t->world, path, sets, sets_n, &t->run, err) || setup_folder(t, err) ||
        start_init(&t->start, t->world, t->log, &t->run, t->checkpoints, err))
        return -1;
    t->gemm = products_create(t->world, t->log, &t->run, &t->start, err);
    if (!t->gemm || precision_check(&t->run, t->gemm, err) ||
        dpo_settings(&t->run, &t->pairs.settings, err) || setup_data(t, err) ||
        set_steps(t, err) || setup_engine(t, err) || dpo_setup(t, err) ||
        trainer_load(t, err) || dpo_enter(t, err) || saving_init(t, err) ||
        describe_folder(t, err) || open_metrics(t, err) || setup_account(t, err))
        return -1;
    trainer_set_rates(t);
    log_setup(t);
    deadline_init(&t->deadline, comm_root(t->world), &t->run, save_bytes(t->engine),
                  t->log);
    return binding_report(t->world, t->log, err);
}

void trainer_fini(struct trainer *t)
{
    metrics_close(&t->metrics);
    dpo_fini(t);
    for (int i = 0; t->valid && i < t->run.data.valid_sets; i++)
        data_set_close(&t->valid[i]);
    for (int i = 0; t->batches && i < t->micro_batches; i++)
        batch_fini(&t->batches[i]);
    mem_free(t->valid);
    mem_free(t->tokens);
    mem_free(t->batches);
    mem_free(t->segment_nll);
    mem_free(t->order);
    mem_free(t->nll);
    account_destroy(t->account);
    engine_destroy(t->engine);
    data_destroy(t->data);
    start_fini(&t->start);
    gemm_destroy(t->gemm);
    lock_release(&t->lock);
    free(t->folder);
    free(t->checkpoints);
    free(t->schedule_text);
    run_fini(&t->run);
}
