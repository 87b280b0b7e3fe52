/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/memory_plan.h"

#include "mpi/exchange.h"
#include "mpi/runner.h"
#include "mpi/shard.h"
#include "src/base/mem.h"
#include "src/gemm/bf16.h"
#include "src/train/account.h"
#include "src/model/stage.h"
#include "src/train/layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Program and libraries: what a run of a tiny model takes. Products and threads have
 * buffers of their own beside it. */
enum {
    PROCESS_BYTES = 48 << 20,
    SEGMENT_BYTES = 16,
    ENOUGH_SHOWN = 200 /* a half of 1 % */
};

static const char *const names[MEMORY_KINDS] = {
    "weights",    "packed copies", "gradients",     "masters", "moments", "activations",
    "workspaces", "evaluation",    "communication", "data",    "times",   "process"};

const char *memory_kind_name(enum memory_kind k)
{
    return names[k];
}

int64_t memory_plan_total(const struct memory_plan *p)
{
    int64_t total = 0;
    for (int k = 0; k < MEMORY_KINDS; k++)
        total += p->bytes[k];
    return total;
}

/* What lay_out fills in, for one rank. */
struct place {
    const struct engine_spec *spec;
    const struct gemm *gemm;
    struct grid grid; /* no communicators */
    struct layout layout;
    struct slab slab;
    struct memory_plan *plan;
};

static int64_t message_bytes(const struct engine_spec *e)
{
    return (int64_t)engine_max_rows(e) * e->shape.hidden *
           (int64_t)dtype_bytes(e->dtype);
}

static int64_t bytes_of(const struct place *w, struct stage_spec s, int slots,
                        int waiting)
{
    s.slots = slots;
    s.waiting = waiting;
    return stage_bytes(&s, w->gemm);
}

/* One stage's training. Slots are alike, so two counts tell a slot from what all share;
 * so with what one waits with. */
static void plan_training(struct place *w, int chunk)
{
    struct stage_spec s = layout_stage(&w->layout, w->spec, chunk, w->grid.stage, true);
    int64_t *bytes = w->plan->bytes, one = bytes_of(w, s, 1, 0);
    int64_t slot = bytes_of(w, s, 2, 0) - one, wait = bytes_of(w, s, 1, 1) - one;
    w->plan->slots += s.slots;
    w->plan->waiting += s.waiting;
    bytes[MEMORY_ACTIVATIONS] += s.slots * slot + s.waiting * wait;
    bytes[MEMORY_WORKSPACES] += one - slot;
    s.packing = w->spec->packing;
    bytes[MEMORY_PACKED] += bytes_of(w, s, 1, 0) - one;
}

static void plan_forward(struct place *w, int chunk)
{
    struct stage_spec s =
        layout_stage(&w->layout, w->spec, chunk, w->grid.stage, false);
    int64_t plain = bytes_of(w, s, 1, 0);
    w->plan->bytes[MEMORY_EVALUATION] += plain;
    if (w->spec->training) /* whose packed copies are borrowed */
        return;
    s.packing = w->spec->packing;
    w->plan->bytes[MEMORY_PACKED] += bytes_of(w, s, 1, 0) - plain;
}

static void plan_flows(struct place *w)
{
    const struct engine_spec *e = w->spec;
    const struct layout *l = &w->layout;
    int64_t *bytes = w->plan->bytes, message = message_bytes(e);
    for (int c = 0; c < l->chunks; c++) {
        if (e->training)
            plan_training(w, c);
        plan_forward(w, c);
    }
    bytes[MEMORY_EVALUATION] += runner_bytes(&w->grid, &l->forward, message);
    if (!e->training)
        return;
    bytes[MEMORY_COMMUNICATION] += runner_bytes(&w->grid, &l->train, message);
    bytes[MEMORY_TIMES] = account_bytes(
        e->accounting, e->timeline_steps, &l->train, w->grid.pipeline * w->grid.data,
        w->grid.replica * w->grid.pipeline + w->grid.stage);
}

/* Of what is trained. */
static int64_t owned_elements(const struct place *w)
{
    int64_t n = 0;
    for (int i = 0; i < w->slab.entries; i++) {
        const struct slab_entry *entry = &w->slab.entry[i];
        struct shard s = shard_of(&entry->tensor, w->grid.data, w->grid.replica);
        n += entry->tied_head || entry->frozen ? 0 : s.end - s.begin;
    }
    return n;
}

static void plan_state(struct place *w)
{
    const struct engine_spec *e = w->spec;
    int64_t *bytes = w->plan->bytes, owned = owned_elements(w);
    bytes[MEMORY_WEIGHTS] = w->slab.weights * (int64_t)dtype_bytes(e->dtype);
    if (!e->training) {
        bytes[MEMORY_COMMUNICATION] += exchange_bytes(w->grid.data, false);
        return;
    }
    bytes[MEMORY_GRADIENTS] = w->slab.grads * (int64_t)sizeof(float);
    bytes[MEMORY_MOMENTS] = 2 * owned * (int64_t)sizeof(float);
    bytes[MEMORY_MASTERS] =
        e->dtype == DTYPE_BF16 ? owned * (int64_t)sizeof(int16_t) : 0;
    bytes[MEMORY_COMMUNICATION] +=
        zero_bytes(&w->slab, &e->shape, e->dtype, w->grid.data, w->grid.replica) -
        bytes[MEMORY_MOMENTS] - bytes[MEMORY_MASTERS];
}

/* Tokens of the step's samples, the rows of its micro-batches (16 bytes each: id,
 * target, position, and what begins a segment), and what the segments of packs have. */
static void plan_data(struct place *w)
{
    const struct engine_spec *e = w->spec;
    int64_t words = (int64_t)e->batch * engine_slot_words(e);
    int64_t of_training = e->training ? e->micro_batches : 0;
    w->plan->bytes[MEMORY_DATA] =
        words * (of_training * (4 + 16) + ENGINE_FORWARD_MICRO_BATCHES * 16) +
        of_training * e->segments * SEGMENT_BYTES;
}

/* The rank's stages and their layers, as text: "0,7", "0:2,14:16", cut where there are
 * many. */
static void plan_places(struct place *w)
{
    struct memory_plan *p = w->plan;
    size_t stages = 0, layers = 0;
    for (int c = 0; c < w->layout.chunks; c++) {
        const struct stage_part *part = &w->layout.part[c];
        const char *comma = c ? "," : "";
        if (stages + 16 > sizeof p->stages || layers + 32 > sizeof p->layers) {
            snprintf(p->stages + stages, sizeof p->stages - stages, ",...");
            snprintf(p->layers + layers, sizeof p->layers - layers, ",...");
            return;
        }
        stages += (size_t)snprintf(
            p->stages + stages, sizeof p->stages - stages, "%s%d", comma,
            schedule_stage(&w->layout.forward, w->grid.stage, c));
        layers +=
            (size_t)snprintf(p->layers + layers, sizeof p->layers - layers, "%s%d:%d",
                             comma, part->first, part->first + part->layers);
    }
}

int memory_plan(const struct engine_spec *spec, int ranks, int rank,
                const struct gemm *gemm, struct memory_plan *plan, struct err *err)
{
    int data = spec->data ? spec->data : ranks / spec->pipeline;
    if (data * spec->pipeline != ranks)
        return err_set(err, ERR_USAGE,
                       "pipeline %d x data %d: expected the number of ranks, %d",
                       spec->pipeline, data, ranks);
    *plan = (struct memory_plan){0};
    struct place w = {.spec = spec,
                      .gemm = gemm,
                      .grid = {.pipeline = spec->pipeline,
                               .data = data,
                               .stage = rank % spec->pipeline,
                               .replica = rank / spec->pipeline},
                      .plan = plan};
    if (layout_init(&w.layout, spec, w.grid.stage, err))
        return -1;
    int failed =
        slab_init_parts(&w.slab, &spec->shape, w.layout.chunks, w.layout.part, err);
    if (!failed) {
        slab_freeze(&w.slab, &spec->freeze);
        plan->replica = w.grid.replica;
        plan_places(&w);
        plan_state(&w);
        plan_flows(&w);
        plan_data(&w);
        plan->bytes[MEMORY_WORKSPACES] += gemm_bf16_workspace_bytes(gemm);
        plan->bytes[MEMORY_PROCESS] = PROCESS_BYTES;
        slab_fini(&w.slab);
    }
    layout_fini(&w.layout);
    return failed;
}

int64_t memory_plan_largest(const struct engine_spec *spec, int ranks,
                            const struct gemm *gemm, int64_t *sum, struct err *err)
{
    int64_t largest = 0, all = 0;
    /* Replicas differ by pieces of the optimizer's state only: the first and the last
     * bound them, those between count as the first. */
    int data = ranks / spec->pipeline;
    for (int stage = 0; stage < spec->pipeline; stage++)
        for (int end = 0; end < (data > 1 ? 2 : 1); end++) {
            struct memory_plan p;
            int replica = end ? data - 1 : 0;
            if (memory_plan(spec, ranks, replica * spec->pipeline + stage, gemm, &p,
                            err))
                return -1;
            int64_t total = memory_plan_total(&p);
            largest = total > largest ? total : largest;
            all += end ? total : total * (data > 1 ? data - 1 : 1);
        }
    if (sum)
        *sum = all;
    return largest;
}

void memory_plan_describe(const struct memory_plan *p, char *text, size_t size)
{
    int64_t total = memory_plan_total(p);
    *text = '\0';
    for (int k = 0; k < MEMORY_KINDS; k++) {
        size_t used = strlen(text);
        if (p->bytes[k] > total / ENOUGH_SHOWN)
            snprintf(text + used, size - used, "%s%s %.3g GB", used ? ", " : "",
                     names[k], (double)p->bytes[k] * 1e-9);
    }
}
