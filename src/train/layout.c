/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/layout.h"

#include "src/base/mem.h"
#include "src/param/split.h"

static int schedules_init(struct layout *l, const struct engine_spec *spec,
                          struct err *err)
{
    struct schedule_spec train = {.kind = spec->schedule,
                                  .ranks = spec->pipeline,
                                  .chunks = l->chunks,
                                  .micro_batches = spec->micro_batches,
                                  .file = spec->schedule_file,
                                  .text = spec->schedule_text};
    if (spec->training && schedule_init(&l->train, &train, err))
        return -1;
    struct schedule_spec forward = {.kind = SCHEDULE_FORWARD,
                                    .ranks = spec->pipeline,
                                    .chunks = l->chunks,
                                    .micro_batches = ENGINE_FORWARD_MICRO_BATCHES,
                                    .rank_of = l->train.rank_of};
    return schedule_init(&l->forward, &forward, err);
}

/* What the rank at `place` holds. */
static void fill_parts(struct layout *l, int place)
{
    int first = 0;
    for (int stage = 0; stage < l->stages; stage++) {
        if (l->forward.rank_of[stage] == place)
            l->part[l->forward.chunk_of[stage]] =
                (struct stage_part){.first = first,
                                    .layers = l->split[stage],
                                    .embed = stage == 0,
                                    .head = stage == l->stages - 1};
        first += l->split[stage];
    }
}

static int chunks_of(const struct engine_spec *spec)
{
    if (!spec->training)
        return 1;
    return spec->chunks ? spec->chunks : schedule_usual_chunks(spec->schedule);
}

/* Layers first: more stages than these make tables without end. */
int layout_init(struct layout *l, const struct engine_spec *spec, int place,
                struct err *err)
{
    int chunks = chunks_of(spec), stages = spec->pipeline * chunks;
    *l = (struct layout){.stages = stages, .chunks = chunks};
    l->split = mem_array(stages, sizeof *l->split, err);
    l->part = mem_array(chunks, sizeof *l->part, err);
    if (!l->split || !l->part ||
        split_layers(&spec->shape, stages, spec->seq_len, spec->split, spec->split_n,
                     l->split, err) ||
        schedules_init(l, spec, err)) {
        layout_fini(l);
        return -1;
    }
    fill_parts(l, place);
    return 0;
}

void layout_fini(struct layout *l)
{
    schedule_fini(&l->train);
    schedule_fini(&l->forward);
    mem_free(l->split);
    mem_free(l->part);
    *l = (struct layout){0};
}

struct stage_spec layout_stage(const struct layout *l, const struct engine_spec *spec,
                               int chunk, int place, bool training)
{
    const struct stage_part *part = &l->part[chunk];
    const struct schedule *s = training ? &l->train : &l->forward;
    int stage = schedule_stage(s, place, chunk);
    return (struct stage_spec){
        .shape = &spec->shape,
        .first_layer = part->first,
        .layers = part->layers,
        .embed = part->embed,
        .head = part->head,
        .max_rows = engine_max_rows(spec),
        .max_length = spec->seq_len,
        .slots = s->slots[stage],
        .waiting = s->waiting[stage],
        .training = training,
        .weighed = training && spec->pairs,
        .dtype = spec->dtype,
        .packing = STAGE_PACK_NONE,
        .din_unused = !freeze_trains_before(&spec->freeze, &spec->shape, part->first)};
}
