/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/engine_parts.h"

#include "src/base/check.h"

#include <string.h>

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
static void show(const struct engine *e, const struct flow *f,
                 const struct runner_place *at, const void *out,
                 const struct stage_loss *loss)
{
    int micro_batch = at->micro_batch;
    const struct batch *b = &f->batches[micro_batch];
    const struct stage_part *part = &e->layout.part[at->chunk];
    int end = part->first + part->layers;
    int64_t n = (int64_t)b->rows.rows * e->shape.hidden;
    for (int l = part->first; l < end + (loss ? 1 : 0); l++) {
        const void *x = stage_residual(f->stage[at->chunk], at->slot, l);
        if (l == end - 1 && !loss)
            x = out;
        e->watch->stream(e->watch->context, micro_batch, l, n, x);
    }
    if (loss)
        e->watch->loss(e->watch->context, micro_batch, b->rows.segments, loss->nll);
}

static void forward_call(void *context, const struct runner_place *at, const void *in,
                         void *out)
{
    struct call *call = context;
    struct engine *e = call->engine;
    struct flow *f = call->flow;
    int micro_batch = at->micro_batch;
    const struct stage_part *part = &e->layout.part[at->chunk];
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
    const struct stage_loss *wanted = part->head ? &loss : NULL;
    stage_forward(f->stage[at->chunk], at->slot, &b->rows, part->embed ? b->ids : NULL,
                  in, out, wanted);
    if (e->watch && f == &e->train)
        show(e, f, at, out, wanted);
}

static void backward_call(void *context, const struct runner_place *at,
                          const void *dout, void *din)
{
    struct call *call = context;
    struct flow *f = call->flow;
    struct stage *stage = f->stage[at->chunk];
    if (f->batches[at->micro_batch].rows.rows == 0)
        return;
    if (f->schedule->split)
        stage_backward_input(stage, at->slot, dout, din);
    else
        stage_backward(stage, at->slot, dout, din);
}

static void weight_call(void *context, const struct runner_place *at)
{
    struct call *call = context;
    struct flow *f = call->flow;
    if (f->batches[at->micro_batch].rows.rows > 0)
        stage_backward_weight(f->stage[at->chunk], at->slot);
}

static void flow_run(struct engine *e, struct flow *f, const struct batch *batches,
                     const struct engine_objective *objective, double *nll,
                     double *wait_s)
{
    f->batches = batches;
    f->objective = objective;
    f->nll = nll;
    for (int i = 0; i < f->schedule->micro_batches; i++)
        f->bytes[i] = batches[i].rows.rows * engine_row_bytes(e);
    struct call call = {.engine = e, .flow = f};
    struct runner_calls calls = {.context = &call,
                                 .forward = forward_call,
                                 .backward = backward_call,
                                 .weight = weight_call};
    runner_run(f->runner, &calls, f->bytes, wait_s);
}

void engine_pass(struct engine *e, const struct batch *batches,
                 const struct engine_objective *objective, double *nll, double *wait_s)
{
    CHECK(e->grads, "a pass of an engine that does not train");
    flow_run(e, &e->train, batches, objective, nll, wait_s);
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
        if (engine_has_head(e))
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
        for (int k = 0; k < here && engine_has_head(e); k++) {
            const double *nll = e->forward_nll + 2 * k;
            sums[done + k] = (struct pair_sums){-nll[0], -nll[1]};
        }
    }
}

static void weights_changed(struct engine *e)
{
    for (int c = 0; c < e->layout.chunks; c++) {
        if (e->train.stage)
            stage_weights_changed(e->train.stage[c]);
        stage_weights_changed(e->forward.stage[c]);
    }
}

void engine_publish(struct engine *e)
{
    zero_publish(e->zero);
    weights_changed(e);
}

void engine_update(struct engine *e, struct zero_step *step)
{
    step->trace = e->trace;
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
