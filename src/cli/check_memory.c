/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/check_memory.h"

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/check.h"
#include "src/base/mem.h"
#include "src/train/memory_plan.h"
#include "src/train/run_spec.h"

/* The columns: kinds that some rank has. */
struct table {
    const struct engine_spec *spec;
    const struct gemm *gemm;
    int ranks;
    bool shown[MEMORY_KINDS];
    int64_t sum, largest;
};

static int scan(struct table *t, struct err *err)
{
    for (int r = 0; r < t->ranks; r++) {
        struct memory_plan p;
        if (memory_plan(t->spec, t->ranks, r, t->gemm, &p, err))
            return -1;
        for (int k = 0; k < MEMORY_KINDS; k++)
            t->shown[k] = t->shown[k] || p.bytes[k] > 0;
        int64_t total = memory_plan_total(&p);
        t->sum += total;
        t->largest = total > t->largest ? total : t->largest;
    }
    return 0;
}

static void print_head(const struct table *t)
{
    const struct engine_spec *s = t->spec;
    char chunks[32] = "";
    if (s->chunks > 1)
        snprintf(chunks, sizeof chunks, " (%d chunks a rank)", s->chunks);
    printf(
        "%d rank%s: pipeline %d%s x data %d, %d x %d tokens a micro-batch, %d of them, "
        "%s, %d threads\n",
        t->ranks, t->ranks > 1 ? "s" : "", s->pipeline, chunks, s->data, s->batch,
        s->seq_len, s->micro_batches, dtype_name(s->dtype), omp_get_max_threads());
    printf("bytes by rank, with micro-batches alive (slots), and of these waiting for "
           "weight gradients:\n%6s %5s %7s %9s %5s %7s",
           "rank", "stage", "replica", "layers", "slots", "waiting");
    for (int k = 0; k < MEMORY_KINDS; k++)
        if (t->shown[k])
            printf(" %18s", memory_kind_name((enum memory_kind)k));
    printf(" %18s\n", "total");
}

static int print_rank(const struct table *t, int rank, struct err *err)
{
    struct memory_plan p;
    if (memory_plan(t->spec, t->ranks, rank, t->gemm, &p, err))
        return -1;
    printf("%6d %5s %7d %9s %5d %7d", rank, p.stages, p.replica, p.layers, p.slots,
           p.waiting);
    for (int k = 0; k < MEMORY_KINDS; k++)
        if (t->shown[k])
            printf(" %18" PRId64, p.bytes[k]);
    printf(" %18" PRId64 "\n", memory_plan_total(&p));
    return 0;
}

static void print_sum(const struct table *t)
{
    int64_t here = mem_available_bytes();
    printf("all ranks: %.3f GB, the fullest %.3f GB", (double)t->sum * 1e-9,
           (double)t->largest * 1e-9);
    if (here > 0)
        printf("; this host has %.3f GB free, enough for %" PRId64 " of these ranks",
               (double)here * 1e-9, here / t->largest);
    putchar('\n');
}

/* What a run takes where memory is short of the table's. */
static int print_packings(const struct table *t, struct err *err)
{
    int64_t bytes[STAGE_PACK_NONE + 1] = {0};
    struct engine_spec s = *t->spec;
    if (s.dtype != DTYPE_BF16)
        return 0;
    for (int p = STAGE_PACK_FORWARD; p <= STAGE_PACK_NONE; p++) {
        s.packing = (enum stage_packing)p;
        bytes[p] = memory_plan_largest(&s, t->ranks, t->gemm, NULL, err);
        if (bytes[p] < 0)
            return -1;
    }
    printf(
        "with fewer packed copies the fullest rank takes %.3f GB or, slower, %.3f GB; "
        "a run takes all of them where half of a host's free memory holds them or "
        "parallel.node_gb says so\n",
        (double)bytes[STAGE_PACK_FORWARD] * 1e-9,
        (double)bytes[STAGE_PACK_NONE] * 1e-9);
    return 0;
}

static int print(struct table *t, struct err *err)
{
    if (scan(t, err))
        return -1;
    print_head(t);
    for (int r = 0; r < t->ranks; r++)
        if (print_rank(t, r, err))
            return -1;
    print_sum(t);
    return print_packings(t, err);
}

int check_memory(const struct run *run, int64_t ranks, struct err *err)
{
    struct model_shape shape;
    struct engine_spec spec;
    int data = run->parallel.data ? run->parallel.data : 1;
    struct table t = {
        .spec = &spec,
        .ranks = to_int(ranks ? ranks : (int64_t)run->parallel.pipeline * data)};
    struct gemm *gemm = NULL;
    char *text = NULL;
    int failed = run_model_shape(run, &shape, err) ||
                 run_share_schedule(comm_self(), run, &text, err) ||
                 run_engine_spec(run, &shape, t.ranks, text, &spec, err) ||
                 !(gemm = gemm_create(GEMM_BLIS, gemm_level_here(), err));
    if (!failed) {
        t.gemm = gemm;
        failed = print(&t, err);
    }
    gemm_destroy(gemm);
    free(text);
    return failed ? -1 : 0;
}
