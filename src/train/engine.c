/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/engine_parts.h"

#include "src/base/mem.h"

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

static int stages_init(struct engine *e, struct flow *f, const struct engine_spec *spec,
                       bool training, struct gemm *gemm, struct err *err)
{
    int chunks = e->layout.chunks;
    f->stage = mem_array(chunks, sizeof(struct stage *), err);
    for (int c = 0; f->stage && c < chunks; c++) {
        struct stage_spec s =
            layout_stage(&e->layout, spec, c, e->grid.stage, training);
        s.packing = spec->packing;
        s.lender = training || !e->train.stage ? NULL : e->train.stage[c];
        f->stage[c] = stage_create(&s, &e->slab, e->weights, training ? e->grads : NULL,
                                   gemm, err);
        if (!f->stage[c])
            return -1;
        e->bytes += stage_bytes(&s, gemm);
    }
    return f->stage ? 0 : -1;
}

static int flow_init(struct engine *e, struct flow *f, const struct engine_spec *spec,
                     bool training, struct gemm *gemm, struct err *err)
{
    f->schedule = training ? &e->layout.train : &e->layout.forward;
    f->segments = e->batch * (e->pairs ? 2 : 1);
    int64_t bytes = engine_row_bytes(e) * e->max_rows;
    if (stages_init(e, f, spec, training, gemm, err))
        return -1;
    f->runner = runner_create(&e->grid, f->schedule, bytes, err);
    f->bytes = mem_array(f->schedule->micro_batches, sizeof *f->bytes, err);
    if (!f->runner || !f->bytes)
        return -1;
    e->bytes += runner_bytes(&e->grid, f->schedule, bytes);
    return 0;
}

static void flow_fini(const struct engine *e, struct flow *f)
{
    for (int c = 0; f->stage && c < e->layout.chunks; c++)
        stage_destroy(f->stage[c]);
    mem_free(f->stage);
    runner_destroy(f->runner);
    mem_free(f->bytes);
}

static int weights_init(struct engine *e, const struct engine_spec *spec,
                        struct err *err)
{
    const struct layout *l = &e->layout;
    e->grid.embed_at = l->forward.rank_of[0];
    e->grid.head_at = l->forward.rank_of[l->stages - 1];
    if (slab_init_parts(&e->slab, &e->shape, l->chunks, l->part, err))
        return -1;
    slab_freeze(&e->slab, &e->freeze);
    size_t size = dtype_bytes(e->dtype);
    e->weights = mem_array(e->slab.weights, size, err);
    e->bytes += e->slab.weights * (int64_t)size;
    if (!e->weights)
        return -1;
    if (!spec->training)
        return 0;
    e->grads = mem_array(e->slab.grads, sizeof *e->grads, err);
    e->bytes += e->slab.grads * (int64_t)sizeof *e->grads;
    return e->grads ? 0 : -1;
}

static int flows_init(struct engine *e, const struct engine_spec *spec,
                      struct gemm *gemm, struct err *err)
{
    if (spec->training && flow_init(e, &e->train, spec, true, gemm, err))
        return -1;
    if (spec->segments)
        e->train.segments = spec->segments;
    int n = ENGINE_FORWARD_MICRO_BATCHES;
    if (flow_init(e, &e->forward, spec, false, gemm, err))
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
    int failed = layout_init(&e->layout, spec, e->grid.stage, err) ||
                 weights_init(e, spec, err) || flows_init(e, spec, gemm, err);
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
    flow_fini(e, &e->train);
    flow_fini(e, &e->forward);
    for (int i = 0; e->forward_batch && i < ENGINE_FORWARD_MICRO_BATCHES; i++)
        batch_fini(&e->forward_batch[i]);
    mem_free(e->forward_batch);
    mem_free(e->forward_nll);
    mem_free(e->weights);
    mem_free(e->grads);
    layout_fini(&e->layout);
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

const int *engine_split(const struct engine *e, int *stages)
{
    *stages = e->layout.stages;
    return e->layout.split;
}

const int *engine_stages(const struct engine *e)
{
    const struct schedule *s = &e->layout.forward;
    return s->stage_of + e->grid.stage * s->chunks;
}

bool engine_has_head(const struct engine *e)
{
    return e->grid.stage == e->grid.head_at;
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
    return e->train.schedule;
}

int engine_segments(const struct engine *e)
{
    return e->train.segments;
}
