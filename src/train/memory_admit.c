/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/memory_plan.h"

#include "src/base/mem.h"
#include "src/gemm/bf16.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the host that is fullest: bytes asked for and given, and its ranks. */
struct fullest {
    int64_t asked, given;
    int ranks;
};

static int gather(struct comm *world, int64_t asked, int64_t node_bytes,
                  struct fullest *f, struct err *err)
{
    enum { FACTS = 3 };
    int n = comm_size(world);
    int64_t mine[FACTS] = {comm_host_id(world), asked,
                           node_bytes ? node_bytes : mem_available_bytes()};
    int64_t *all = mem_array((int64_t)n * FACTS, sizeof *all, err);
    if (comm_agree(world, !all, err))
        return -1;
    comm_gather_i64(world, mine, FACTS, all);
    *f = (struct fullest){0, INT64_MAX, 0};
    for (int first = 0; first < n; first++) {
        const int64_t *host = all + (int64_t)first * FACTS;
        struct fullest here = {0, INT64_MAX, 0};
        for (int r = 0; r < n; r++) {
            const int64_t *fact = all + (int64_t)r * FACTS;
            if (fact[0] != host[0])
                continue;
            here.ranks++;
            here.asked += fact[1];
            if (fact[2] >= 0 && fact[2] < here.given)
                here.given = fact[2];
        }
        if (f->ranks == 0 || here.asked - here.given > f->asked - f->given)
            *f = here;
    }
    mem_free(all);
    return 0;
}

/* Would the fullest host's ranks, all as large as the largest, fit with this spec? */
static bool fits(const struct engine_spec *spec, int ranks, const struct fullest *f,
                 const struct gemm *gemm)
{
    struct err ignored;
    int64_t largest = memory_plan_largest(spec, ranks, gemm, NULL, &ignored);
    return largest > 0 && largest <= f->given / f->ranks;
}

/* The spec on `ranks` with other stages and rows, at the same global batch; false:
 * cannot be. */
static bool change(struct engine_spec *s, int ranks, int pipeline, int batch)
{
    int64_t samples = (int64_t)s->batch * s->micro_batches * s->data; /* of a step */
    int chunks = s->chunks ? s->chunks : schedule_usual_chunks(s->schedule);
    struct err ignored;
    if (ranks % pipeline != 0 || (int64_t)pipeline * chunks > s->shape.layers)
        return false;
    int data = ranks / pipeline;
    if (samples % ((int64_t)data * batch) != 0)
        return false;
    int micro_batches = (int)(samples / ((int64_t)data * batch));
    if (s->schedule == SCHEDULE_FILE ||
        schedule_check_sizes(s->schedule, pipeline, chunks, micro_batches, &ignored))
        return false;
    if (pipeline != s->pipeline) {
        s->split_n = 0;
        s->pipeline = pipeline;
    }
    s->data = data;
    s->segments = s->segments / s->batch * batch;
    s->batch = batch;
    s->micro_batches = micro_batches;
    return true;
}

/* The first change that fits, in the order of what it costs: rows, stages, both. */
static void advise(const struct engine_spec *spec, int ranks, const struct fullest *f,
                   const struct gemm *gemm, char *text, size_t size)
{
    for (int batch = spec->batch; batch >= 1; batch--) {
        struct engine_spec s = *spec;
        if (change(&s, ranks, spec->pipeline, batch) && fits(&s, ranks, f, gemm)) {
            snprintf(text, size, "train.micro_batch: %d would fit", batch);
            return;
        }
    }
    for (int only_stages = 1; only_stages >= 0; only_stages--)
        for (int p = spec->pipeline + 1; p <= ranks; p++) {
            struct engine_spec s = *spec;
            if (!change(&s, ranks, p, only_stages ? spec->batch : 1) ||
                !fits(&s, ranks, f, gemm))
                continue;
            snprintf(text, size, "parallel.pipeline: %d%s would fit", p,
                     only_stages ? "" : " with train.micro_batch: 1");
            return;
        }
    if (spec->dtype == DTYPE_F32) {
        struct engine_spec s = *spec;
        s.dtype = DTYPE_BF16;
        if (fits(&s, ranks, f, gemm)) {
            snprintf(text, size, "train.precision: bf16 would fit");
            return;
        }
    }
    for (int times = 2; times <= 64; times++) {
        struct engine_spec s = *spec;
        int more = ranks * times;
        if (change(&s, more, spec->pipeline * times, 1) && fits(&s, more, f, gemm)) {
            snprintf(
                text, size,
                "%d ranks on %d times as many hosts with parallel.pipeline: %d and "
                "train.micro_batch: 1 would fit",
                more, times, s.pipeline);
            return;
        }
    }
    snprintf(text, size, "it needs hosts with more memory");
}

/* Is this packing's last copy one to be had only where memory is plenty? Not if the
 * user has said what there is. */
static bool spares_copy(const struct engine_spec *spec, int64_t node_bytes,
                        const struct gemm *gemm)
{
    return spec->packing == STAGE_PACK_BOTH && spec->dtype == DTYPE_BF16 &&
           node_bytes == 0 && gemm_bf16_backend(gemm) == GEMM_OWN;
}

int memory_plan_admit(struct comm *world, struct engine_spec *spec, int64_t node_bytes,
                      const struct gemm *gemm, struct memory_plan *mine,
                      struct err *err)
{
    int ranks = comm_size(world);
    struct fullest f = {0};
    for (int packing = (int)spec->packing; packing <= STAGE_PACK_NONE; packing++) {
        spec->packing = (enum stage_packing)packing;
        int failed = memory_plan(spec, ranks, comm_rank(world), gemm, mine, err);
        if (comm_agree(world, failed, err) ||
            gather(world, memory_plan_total(mine), node_bytes, &f, err))
            return -1;
        if (f.asked <= (spares_copy(spec, node_bytes, gemm) ? f.given / 2 : f.given))
            return 0;
    }
    char advice[256];
    advise(spec, ranks, &f, gemm, advice, sizeof advice);
    return err_set(
        err, ERR_USAGE,
        "memory: the %d rank%s of a host need %.2f GB, expected at most the "
        "%.2f GB that it has %s; %s (dusk check --memory shows where it goes)",
        f.ranks, f.ranks > 1 ? "s" : "", (double)f.asked * 1e-9, (double)f.given * 1e-9,
        node_bytes ? "by parallel.node_gb" : "free", advice);
}
