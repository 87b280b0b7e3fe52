/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/memory_plan.h"

#include "mpi/exchange.h"
#include "mpi/runner.h"
#include "mpi/shard.h"
#include "src/base/mem.h"
#include "src/gemm/bf16.h"
#include "src/train/account.h"
#include "src/model/stage.h"
#include "src/param/split.h"

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
    int first_layer, layers;
    struct slab slab;
    struct memory_plan *plan;
};

static int find_layers(struct place *w, struct err *err)
{
    const struct engine_spec *e = w->spec;
    int stages = e->pipeline;
    int *split = mem_array(stages, sizeof *split, err);
    if (!split)
        return -1;
    int failed = 0;
    if (e->split_n) {
        failed = split_check(&e->shape, stages, e->split, e->split_n, err);
        if (!failed)
            memcpy(split, e->split, (size_t)stages * sizeof *split);
    } else {
        failed = split_auto(&e->shape, stages, e->seq_len, split, err);
    }
    for (int s = 0; !failed && s < w->grid.stage; s++)
        w->first_layer += split[s];
    if (!failed)
        w->layers = split[w->grid.stage];
    mem_free(split);
    return failed;
}

static struct stage_spec stage_of(const struct place *w, int slots, int waiting,
                                  bool training)
{
    const struct engine_spec *e = w->spec;
    return (struct stage_spec){.shape = &e->shape,
                               .first_layer = w->first_layer,
                               .layers = w->layers,
                               .embed = w->grid.stage == 0,
                               .head = w->grid.stage == w->grid.pipeline - 1,
                               .max_rows = engine_max_rows(e),
                               .max_length = e->seq_len,
                               .slots = slots,
                               .waiting = waiting,
                               .training = training,
                               .weighed = training && e->pairs,
                               .dtype = e->dtype,
                               .packing = STAGE_PACK_NONE};
}

static int plan_flow(struct place *w, enum schedule_kind kind, int micro_batches,
                     struct err *err)
{
    const struct engine_spec *e = w->spec;
    struct schedule schedule;
    int64_t *bytes = w->plan->bytes;
    if (schedule_init(&schedule, kind, e->pipeline, micro_batches, err))
        return -1;
    int64_t message =
        (int64_t)engine_max_rows(e) * e->shape.hidden * (int64_t)dtype_bytes(e->dtype);
    int64_t runner = runner_bytes(&w->grid, &schedule, message);
    if (kind != SCHEDULE_FORWARD)
        bytes[MEMORY_TIMES] =
            account_bytes(e->accounting, e->timeline_steps, &schedule,
                          w->grid.pipeline * w->grid.data,
                          w->grid.replica * w->grid.pipeline + w->grid.stage);
    int slots = schedule.slots[w->grid.stage];
    int waiting = schedule.waiting[w->grid.stage];
    schedule_fini(&schedule);
    if (kind == SCHEDULE_FORWARD) {
        struct stage_spec s = stage_of(w, 1, 0, false);
        bytes[MEMORY_EVALUATION] += stage_bytes(&s, w->gemm) + runner;
        if (!e->training) { /* else those of training are borrowed */
            int64_t plain = stage_bytes(&s, w->gemm);
            s.packing = w->spec->packing;
            bytes[MEMORY_PACKED] += stage_bytes(&s, w->gemm) - plain;
        }
        return 0;
    }
    /* Slots are alike, so two counts tell a slot from what all share; so with what one
     * waits with. */
    struct stage_spec s = stage_of(w, 1, 0, true), two = stage_of(w, 2, 0, true);
    struct stage_spec late = stage_of(w, 1, 1, true);
    int64_t one = stage_bytes(&s, w->gemm), slot = stage_bytes(&two, w->gemm) - one;
    int64_t wait = stage_bytes(&late, w->gemm) - one;
    s.packing = w->spec->packing;
    w->plan->slots = slots;
    w->plan->waiting = waiting;
    bytes[MEMORY_PACKED] += stage_bytes(&s, w->gemm) - one;
    bytes[MEMORY_ACTIVATIONS] += slots * slot + waiting * wait;
    bytes[MEMORY_WORKSPACES] += one - slot;
    bytes[MEMORY_COMMUNICATION] += runner;
    return 0;
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
    if (find_layers(&w, err) ||
        slab_init(&w.slab, &spec->shape, w.first_layer, w.layers, w.grid.stage == 0,
                  w.grid.stage == spec->pipeline - 1, err))
        return -1;
    slab_freeze(&w.slab, &spec->freeze);
    plan->stage = w.grid.stage;
    plan->replica = w.grid.replica;
    plan->first_layer = w.first_layer;
    plan->layers = w.layers;
    plan_state(&w);
    int failed = 0;
    if (spec->training)
        failed = plan_flow(&w, spec->schedule, spec->micro_batches, err);
    if (!failed)
        failed = plan_flow(&w, SCHEDULE_FORWARD, ENGINE_FORWARD_MICRO_BATCHES, err);
    plan_data(&w);
    plan->bytes[MEMORY_WORKSPACES] += gemm_bf16_workspace_bytes(gemm);
    plan->bytes[MEMORY_PROCESS] = PROCESS_BYTES;
    slab_fini(&w.slab);
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
