/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/engine.h"

#include "mpi/runner.h"
#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/param/split.h"

#include <stdio.h>
#include <string.h>

/* One use of the stage's weights: a schedule, its runner, the model's memory for it. */
struct flow {
    struct schedule schedule;
    struct stage *stage;
    struct runner *runner;
    int segments;   /* of a micro-batch, at most */
    int64_t *bytes; /* [micro_batches] of a message */
    /* Of the pass in progress: */
    const struct engine_objective *objective; /* NULL: forward only */
    const struct batch *batches;
    double *nll;
};

struct engine {
    struct grid grid;
    struct model_shape shape;
    int *split;
    int first_layer, batch, seq_len;
    bool pairs, sharing;
    int max_rows;   /* of a micro-batch */
    int slot_words; /* of a sample */
    struct slab slab;
    struct freeze freeze;
    enum dtype dtype;
    enum stage_packing packing;
    void *weights; /* of dtype */
    float *grads;
    struct zero *zero;
    struct flow train, forward;
    const struct engine_watch *watch; /* borrowed, or NULL */
    struct batch *forward_batch;      /* [ENGINE_FORWARD_MICRO_BATCHES] */
    double *forward_nll;
    int64_t bytes;
};

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

static bool has_embed(const struct engine *e)
{
    return e->grid.stage == 0;
}

static bool has_head(const struct engine *e)
{
    return e->grid.stage == e->grid.pipeline - 1;
}

struct call {
    struct engine *engine;
    struct flow *flow;
    int micro_batch; /* that is being weighed */
};

static void weigh(void *context, const double *nll, float *scale)
{
    struct call *call = context;
    const struct engine_objective *o = call->flow->objective;
    o->weigh(o->context, call->micro_batch, nll, scale);
}

/* Hands to the watch what a forward call left. `out`: the last layer's, without head.
 */
static void show(const struct engine *e, const struct flow *f, int micro_batch,
                 int slot, const void *out, const struct stage_loss *loss)
{
    const struct batch *b = &f->batches[micro_batch];
    int layers = e->split[e->grid.stage], end = e->first_layer + layers;
    int64_t n = (int64_t)b->rows.rows * e->shape.hidden;
    for (int l = e->first_layer; l < end + (loss ? 1 : 0); l++) {
        const void *x = stage_residual(f->stage, slot, l);
        if (l == end - 1 && !loss)
            x = out;
        e->watch->stream(e->watch->context, micro_batch, l, n, x);
    }
    if (loss)
        e->watch->loss(e->watch->context, micro_batch, b->rows.segments, loss->nll);
}

static void forward_call(void *context, int micro_batch, int slot, const void *in,
                         void *out)
{
    struct call *call = context;
    struct engine *e = call->engine;
    struct flow *f = call->flow;
    const struct batch *b = &f->batches[micro_batch];
    if (b->rows.rows == 0)
        return;
    const struct engine_objective *o = f->objective;
    struct stage_loss loss = {.target = b->target,
                              .nll = f->nll + (int64_t)micro_batch * f->segments};
    if (o && o->weigh) {
        call->micro_batch = micro_batch;
        loss.weigh = weigh;
        loss.context = call;
    } else if (o && o->counted > 0) {
        loss.grad_scale = (float)(1.0 / (double)o->counted);
    }
    const struct stage_loss *wanted = has_head(e) ? &loss : NULL;
    stage_forward(f->stage, slot, &b->rows, has_embed(e) ? b->ids : NULL, in, out,
                  wanted);
    if (e->watch && f == &e->train)
        show(e, f, micro_batch, slot, out, wanted);
}

static void backward_call(void *context, int micro_batch, int slot, const void *dout,
                          void *din)
{
    struct call *call = context;
    if (call->flow->batches[micro_batch].rows.rows > 0)
        stage_backward(call->flow->stage, slot, dout, din);
}

/* Of the residual stream and its gradient, as they travel between stages. */
static int64_t row_bytes(const struct engine *e)
{
    return e->shape.hidden * (int64_t)dtype_bytes(e->dtype);
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
        .embed = has_embed(e),
        .head = has_head(e),
        .max_rows = e->max_rows,
        .max_length = e->seq_len,
        .slots = f->schedule.slots[e->grid.stage],
        .training = training,
        .dtype = e->dtype,
        .packing = e->packing,
        .din_unused = !freeze_trains_before(&e->freeze, &e->shape, e->first_layer),
        .lender = training ? NULL : e->train.stage};
    f->stage = stage_create(&spec, &e->slab, e->weights, training ? e->grads : NULL,
                            gemm, err);
    if (!f->stage)
        return -1;
    int64_t bytes = row_bytes(e) * spec.max_rows;
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
                  has_embed(e), has_head(e), err))
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

static void flow_run(struct engine *e, struct flow *f, const struct batch *batches,
                     const struct engine_objective *objective, double *nll,
                     double *wait_s)
{
    f->batches = batches;
    f->objective = objective;
    f->nll = nll;
    for (int i = 0; i < f->schedule.micro_batches; i++)
        f->bytes[i] = batches[i].rows.rows * row_bytes(e);
    struct call call = {.engine = e, .flow = f};
    struct runner_calls calls = {
        .context = &call, .forward = forward_call, .backward = backward_call};
    runner_run(f->runner, &calls, f->bytes, wait_s);
}

void engine_pass(struct engine *e, const struct batch *batches,
                 const struct engine_objective *objective, double *nll, double *wait_s)
{
    CHECK(e->grads, "a pass of an engine that does not train");
    flow_run(e, &e->train, batches, objective, nll, wait_s);
}

int engine_segments(const struct engine *e)
{
    return e->train.segments;
}

/* Samples of a forward pass, of one of the three kinds. */
struct samples {
    const int *length;     /* windows: [n] */
    const int32_t *tokens; /* windows, or slots */
};

static void fill(const struct engine *e, struct batch *b, const struct samples *x,
                 int64_t first, int n)
{
    const int32_t *tokens = x->tokens + (n ? first * e->slot_words : 0);
    if (e->pairs)
        pairs_fill(b, n, e->seq_len, tokens, e->sharing);
    else if (x->length)
        pretrain_fill(b, n, e->seq_len, x->length + (n ? first : 0), tokens);
    else
        sft_fill(b, n, e->seq_len, tokens);
}

/* The pass over samples [done, done + n): nll of each segment in forward_nll. */
static void forward_pass(struct engine *e, const struct samples *x, int64_t done, int n)
{
    for (int i = 0; i < ENGINE_FORWARD_MICRO_BATCHES; i++) {
        int first = i * e->batch, left = n - first;
        int here = left < 0 ? 0 : left < e->batch ? left : e->batch;
        fill(e, &e->forward_batch[i], x, done + first, here);
    }
    double wait_s = 0;
    flow_run(e, &e->forward, e->forward_batch, NULL, e->forward_nll, &wait_s);
}

/* Sums of the latest forward pass by sample. */
static void collect(const struct engine *e, int n, double *nll)
{
    memset(nll, 0, (size_t)n * sizeof *nll);
    for (int i = 0; i < ENGINE_FORWARD_MICRO_BATCHES; i++) {
        const struct batch *b = &e->forward_batch[i];
        for (int s = 0; s < b->rows.segments; s++)
            nll[i * e->batch + b->sample[s]] += e->forward_nll[i * e->batch + s];
    }
}

/* Samples of one pass. */
static int per_pass(const struct engine *e)
{
    return ENGINE_FORWARD_MICRO_BATCHES * e->batch;
}

static void forward(struct engine *e, int n, const struct samples *x, double *nll)
{
    CHECK(!e->pairs, "windows or records in an engine of pairs");
    for (int done = 0; done < n; done += per_pass(e)) {
        int here = n - done < per_pass(e) ? n - done : per_pass(e);
        forward_pass(e, x, done, here);
        if (has_head(e))
            collect(e, here, nll + done);
    }
}

void engine_forward(struct engine *e, int n, const int *length, const int32_t *tokens,
                    double *nll)
{
    forward(e, n, &(struct samples){length, tokens}, nll);
}

void engine_forward_records(struct engine *e, int n, const int32_t *slots, double *nll)
{
    forward(e, n, &(struct samples){NULL, slots}, nll);
}

void engine_forward_pairs(struct engine *e, int n, const int32_t *slots,
                          struct pair_sums *sums)
{
    CHECK(e->pairs, "pairs in an engine of windows or records");
    struct samples x = {NULL, slots};
    for (int done = 0; done < n; done += per_pass(e)) {
        int here = n - done < per_pass(e) ? n - done : per_pass(e);
        forward_pass(e, &x, done, here);
        for (int k = 0; k < here && has_head(e); k++) {
            const double *nll = e->forward_nll + 2 * k;
            sums[done + k] = (struct pair_sums){-nll[0], -nll[1]};
        }
    }
}

static void weights_changed(struct engine *e)
{
    if (e->train.stage)
        stage_weights_changed(e->train.stage);
    stage_weights_changed(e->forward.stage);
}

void engine_publish(struct engine *e)
{
    zero_publish(e->zero);
    weights_changed(e);
}

void engine_update(struct engine *e, struct zero_step *step)
{
    zero_update(e->zero, step);
    weights_changed(e);
}

void engine_discard(struct engine *e)
{
    zero_discard(e->zero);
}

void engine_forget(struct engine *e)
{
    for (int i = 0; i < zero_parts(e->zero); i++) {
        struct zero_part p = zero_part_at(e->zero, i);
        size_t bytes = (size_t)(p.shard.end - p.shard.begin) * sizeof(float);
        for (int k = 0; k < 2; k++)
            if (p.moment[k])
                memset(p.moment[k], 0, bytes);
    }
}
