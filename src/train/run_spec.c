/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/run_spec.h"

#include "io/ckpt.h"
#include "src/base/check.h"
#include "src/base/file.h"
#include "src/param/layer_map.h"
#include "src/train/precision.h"

#include <inttypes.h>
#include <stdlib.h>

/* Of a schedule's file. */
enum { SCHEDULE_BYTES = 1 << 26 };

int run_share(struct comm *world, const char *path, const char *const *sets, int sets_n,
              struct run *run, struct err *err)
{
    char *text = NULL;
    int failed = 0;
    if (comm_root(world)) {
        failed = run_read(run, path, sets, sets_n, err);
        if (!failed)
            failed = !(text = run_format(run, err));
    }
    if (comm_agree(world, failed, err)) {
        free(text);
        return -1;
    }
    comm_bcast_string(world, &text, 0);
    if (!comm_root(world))
        failed = run_parse(run, path, text, err);
    free(text);
    return comm_agree(world, failed, err);
}

int run_model_shape(const struct run *run, struct model_shape *shape, struct err *err)
{
    if (!run->model.init) {
        const struct run_shape *from = &run->model.shape;
        *shape = (struct model_shape){.arch = from->window ? ARCH_MISTRAL : ARCH_LLAMA,
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
        if (shape_check(shape, err) == 0)
            return 0;
        err->code = ERR_USAGE;
        return err_prefix(err, "model.shape");
    }
    struct ckpt *k = ckpt_open(comm_self(), run->model.init, err);
    if (!k)
        return -1;
    *shape = ckpt_info(k)->shape;
    int failed = 0;
    if (run->model.layers) {
        struct layer_map map = {0};
        failed = layer_map_parse(&map, run->model.layers, shape->layers, err);
        if (failed)
            err_prefix(err, "model.layers");
        else
            shape->layers = map.layers;
        layer_map_fini(&map);
    }
    ckpt_close(k);
    return failed ? -1 : 0;
}

struct freeze run_freeze(const struct run *run)
{
    return (struct freeze){run->train.freeze_n, run->train.freeze};
}

enum schedule_kind run_schedule_kind(enum run_pipe pipe)
{
    static const enum schedule_kind kinds[] = {[RUN_GPIPE] = SCHEDULE_GPIPE,
                                               [RUN_1F1B] = SCHEDULE_1F1B,
                                               [RUN_INTERLEAVED] = SCHEDULE_INTERLEAVED,
                                               [RUN_ZB_H1] = SCHEDULE_ZB_H1,
                                               [RUN_ZB_V] = SCHEDULE_ZB_V,
                                               [RUN_PIPE_FILE] = SCHEDULE_FILE};
    return kinds[pipe];
}

int run_share_schedule(struct comm *world, const struct run *run, char **text,
                       struct err *err)
{
    const char *file = run->parallel.schedule_file;
    size_t bytes;
    *text = NULL;
    if (!file)
        return 0;
    if (comm_root(world) && !(*text = file_read(file, SCHEDULE_BYTES, &bytes, err))) {
        err->code = ERR_USAGE;
        err_prefix(err, "parallel.schedule");
    }
    if (comm_agree(world, comm_root(world) && !*text, err))
        return -1;
    comm_bcast_string(world, text, 0);
    return 0;
}

struct schedule_spec run_schedule_spec(const struct run *run, int micro_batches,
                                       const char *text)
{
    return (struct schedule_spec){.kind = run_schedule_kind(run->parallel.schedule),
                                  .ranks = run->parallel.pipeline,
                                  .chunks = run_chunks(run),
                                  .micro_batches = micro_batches,
                                  .file = run->parallel.schedule_file,
                                  .text = text};
}

int run_replicas(const struct run *run, int64_t ranks, struct err *err)
{
    int64_t pipeline = run->parallel.pipeline;
    int64_t data = run->parallel.data ? run->parallel.data : ranks / pipeline;
    if (data * pipeline == ranks)
        return to_int(data);
    return err_set(err, ERR_USAGE,
                   "parallel.pipeline x parallel.data is %" PRId64 " x %" PRId64
                   ", expected the number of ranks, %" PRId64,
                   pipeline, data, ranks);
}

int run_micro_batches(const struct run *run, int data, struct err *err)
{
    int64_t per_pass = (int64_t)data * run->train.micro_batch;
    if (run->train.global_batch % per_pass == 0)
        return (int)(run->train.global_batch / per_pass);
    return err_set(err, ERR_USAGE,
                   "train.global_batch is %d, expected a multiple of data x "
                   "micro_batch = %d x %d",
                   run->train.global_batch, data, run->train.micro_batch);
}

int run_engine_spec(const struct run *run, const struct model_shape *shape, int ranks,
                    const char *text, struct engine_spec *spec, struct err *err)
{
    int pipeline = run->parallel.pipeline;
    int data = run_replicas(run, ranks, err);
    int micro_batches = data < 0 ? -1 : run_micro_batches(run, data, err);
    if (micro_batches < 0)
        return -1;
    struct freeze freeze = run_freeze(run);
    if (freeze_check(&freeze, shape, err))
        return -1;
    int segments = 0;
    if (run->data.packing)
        segments = sft_max_segments(run->train.micro_batch, run->data.seq_len, true);
    *spec = (struct engine_spec){.shape = *shape,
                                 .pipeline = pipeline,
                                 .data = data,
                                 .split = run->parallel.split,
                                 .split_n = run->parallel.split_n,
                                 .seq_len = run->data.seq_len,
                                 .batch = run->train.micro_batch,
                                 .segments = segments,
                                 .pairs = run->train.objective == RUN_DPO,
                                 .sharing = run->dpo.prefix_sharing,
                                 .micro_batches = micro_batches,
                                 .chunks = run_chunks(run),
                                 .schedule = run_schedule_kind(run->parallel.schedule),
                                 .schedule_file = run->parallel.schedule_file,
                                 .schedule_text = text,
                                 .dtype = precision_of(run),
                                 .freeze = freeze,
                                 .accounting = run->log.accounting,
                                 .timeline_steps = run->log.timeline_steps,
                                 .training = true};
    return 0;
}
