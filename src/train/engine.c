/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/engine_parts.h"

#include "src/base/mem.h"
#include "src/param/split.h"

#include <stdio.h>
#include <string.h>

/* The level is agreed, but BLIS_ARCH_TYPE in one rank's environment overrides it there.
 */
static int check_same_family(struct comm *world, const struct gemm *gemm,
                             struct err *err)
{
    char first[64] = "";
    snprintf(first, sizeof first, "%s", gemm_name(gemm));
    comm_bcast(world, first, sizeof first, 0);
    int failed = 0;
    if (strcmp(first, gemm_name(gemm)) != 0)
        failed = err_set(err, ERR_USAGE,
                         "products by %s here, by %s on rank 0; set BLIS_ARCH_TYPE on "
                         "all ranks or on none",
                         gemm_name(gemm), first);
    return comm_agree(world, failed, err);
}

struct gemm *engine_gemm(struct comm *world, enum gemm_level most, struct err *err)
{
    int64_t level = gemm_level_here() < most ? gemm_level_here() : most;
    comm_min_i64(world, &level, 1);
    struct gemm *gemm = gemm_create(GEMM_BLIS, (enum gemm_level)level, err);
    if (comm_agree(world, !gemm, err) || check_same_family(world, gemm, err)) {
        gemm_destroy(gemm);
        return NULL;
    }
    return gemm;
}

static int flow_init(struct engine *e, struct flow *f, enum schedule_kind kind,
                     int micro_batches, struct gemm *gemm, struct err *err)
{
    f->segments = e->batch * (e->pairs ? 2 : 1);
    if (schedule_init(&f->schedule, kind, e->grid.pipeline, micro_batches, err) ||
        schedule_check(&f->schedule, err))
        return -1;
    bool training = kind != SCHEDULE_FORWARD;
    struct stage_spec spec = {
        .shape = &e->shape,
        .first_layer = e->first_layer,
        .layers = e->split[e->grid.stage],
        .embed = engine_has_embed(e),
        .head = engine_has_head(e),
        .max_rows = e->max_rows,
        .max_length = e->seq_len,
        .slots = f->schedule.slots[e->grid.stage],
        .waiting = f->schedule.waiting[e->grid.stage],
        .training = training,
        .weighed = training && e->pairs,
        .dtype = e->dtype,
        .packing = e->packing,
        .din_unused = !freeze_trains_before(&e->freeze, &e->shape, e->first_layer),
        .lender = training ? NULL : e->train.stage};
    f->stage = stage_create(&spec, &e->slab, e->weights, training ? e->grads : NULL,
                            gemm, err);
    if (!f->stage)
        return -1;
    int64_t bytes = engine_row_bytes(e) * spec.max_rows;
    f->runner = runner_create(&e->grid, &f->schedule, bytes, err);
    f->bytes = mem_array(micro_batches, sizeof *f->bytes, err);
    if (!f->runner || !f->bytes)
        return -1;
    e->bytes += stage_bytes(&spec, gemm) + runner_bytes(&e->grid, &f->schedule, bytes);
    return 0;
}

static void flow_fini(struct flow *f)
{
    stage_destroy(f->stage);
    runner_destroy(f->runner);
    schedule_fini(&f->schedule);
    mem_free(f->bytes);
}

static int split_init(struct engine *e, const struct engine_spec *spec, struct err *err)
{
    int stages = e->grid.pipeline;
    e->split = mem_array(stages, sizeof *e->split, err);
    if (!e->split)
        return -1;
    if (spec->split_n) {
        if (split_check(&spec->shape, stages, spec->split, spec->split_n, err))
            return -1;
        memcpy(e->split, spec->split, (size_t)stages * sizeof *e->split);
    } else if (split_auto(&spec->shape, stages, spec->seq_len, e->split, err)) {
        return -1;
    }
    for (int s = 0; s < e->grid.stage; s++)
        e->first_layer += e->split[s];
    return 0;
}

static int weights_init(struct engine *e, bool training, struct err *err)
{
    if (slab_init(&e->slab, &e->shape, e->first_layer, e->split[e->grid.stage],
                  engine_has_embed(e), engine_has_head(e), err))
        return -1;
    slab_freeze(&e->slab, &e->freeze);
    size_t size = dtype_bytes(e->dtype);
    e->weights = mem_array(e->slab.weights, size, err);
    e->bytes += e->slab.weights * (int64_t)size;
    if (!e->weights)
        return -1;
    if (!training)
        return 0;
    e->grads = mem_array(e->slab.grads, sizeof *e->grads, err);
    e->bytes += e->slab.grads * (int64_t)sizeof *e->grads;
    return e->grads ? 0 : -1;
}

static int flows_init(struct engine *e, const struct engine_spec *spec,
                      struct gemm *gemm, struct err *err)
{
    if (spec->training &&
        flow_init(e, &e->train, spec->schedule, spec->micro_batches, gemm, err))
        return -1;
    if (spec->segments)
        e->train.segments = spec->segments;
    int n = ENGINE_FORWARD_MICRO_BATCHES;
    if (flow_init(e, &e->forward, SCHEDULE_FORWARD, n, gemm, err))
        return -1;
    e->forward_batch = mem_array(n, sizeof *e->forward_batch, err);
    e->forward_nll =
        mem_array((int64_t)n * e->forward.segments, sizeof *e->forward_nll, err);
    if (!e->forward_batch || !e->forward_nll)
        return -1;
    for (int i = 0; i < n; i++)
        if (batch_init(&e->forward_batch[i], e->max_rows, e->forward.segments, err))
            return -1;
    return 0;
}

int engine_max_rows(const struct engine_spec *spec)
{
    return spec->batch * (spec->pairs ? pairs_max_rows(spec->seq_len) : spec->seq_len);
}

int engine_slot_words(const struct engine_spec *spec)
{
    return spec->pairs ? pairs_slot_words(spec->seq_len) : spec->seq_len + 1;
}

struct engine *engine_create(struct comm *world, const struct engine_spec *spec,
                             struct gemm *gemm, struct err *err)
{
    struct engine *e = mem_array(1, sizeof *e, err);
    if (comm_agree(world, !e, err)) {
        mem_free(e);
        return NULL;
    }
    e->shape = spec->shape;
    e->dtype = spec->dtype;
    e->packing = spec->packing;
    e->freeze = spec->freeze;
    e->batch = spec->batch;
    e->seq_len = spec->seq_len;
    e->pairs = spec->pairs;
    e->sharing = spec->sharing;
    e->max_rows = engine_max_rows(spec);
    e->slot_words = engine_slot_words(spec);
    if (grid_init(&e->grid, world, spec->pipeline, spec->data, err)) {
        mem_free(e);
        return NULL;
    }
    int failed = split_init(e, spec, err) || weights_init(e, spec->training, err) ||
                 flows_init(e, spec, gemm, err);
    if (comm_agree(world, failed, err))
        goto fail;
    e->zero =
        zero_create(&e->grid, &e->slab, &e->shape, e->dtype, e->weights, e->grads, err);
    if (!e->zero)
        goto fail;
    if (spec->training)
        e->bytes +=
            zero_bytes(&e->slab, &e->shape, e->dtype, e->grid.data, e->grid.replica);
    return e;
fail:
    engine_destroy(e);
    return NULL;
}

void engine_destroy(struct engine *e)
{
    if (!e)
        return;
    zero_destroy(e->zero);
    flow_fini(&e->train);
    flow_fini(&e->forward);
    for (int i = 0; e->forward_batch && i < ENGINE_FORWARD_MICRO_BATCHES; i++)
        batch_fini(&e->forward_batch[i]);
    mem_free(e->forward_batch);
    mem_free(e->forward_nll);
    mem_free(e->weights);
    mem_free(e->grads);
    mem_free(e->split);
    slab_fini(&e->slab);
    grid_fini(&e->grid);
    mem_free(e);
}

const struct grid *engine_grid(const struct engine *e)
{
    return &e->grid;
}

const struct model_shape *engine_shape(const struct engine *e)
{
    return &e->shape;
}

const int *engine_split(const struct engine *e)
{
    return e->split;
}

struct zero *engine_zero(struct engine *e)
{
    return e->zero;
}

const struct slab *engine_slab(const struct engine *e)
{
    return &e->slab;
}

const struct freeze *engine_freeze(const struct engine *e)
{
    return &e->freeze;
}

const float *engine_grads(const struct engine *e)
{
    return e->grads;
}

enum dtype engine_dtype(const struct engine *e)
{
    return e->dtype;
}

int64_t engine_bytes(const struct engine *e)
{
    return e->bytes;
}

void engine_set_watch(struct engine *e, const struct engine_watch *watch)
{
    e->watch = watch;
}

void engine_set_trace(struct engine *e, struct trace *trace)
{
    e->trace = trace;
    runner_set_trace(e->train.runner, trace);
}

const struct schedule *engine_schedule(const struct engine *e)
{
    return &e->train.schedule;
}

int engine_segments(const struct engine *e)
{
    return e->train.segments;
}
