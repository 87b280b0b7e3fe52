/* SPDX-License-Identifier: Apache-2.0 */
/* Losses and gradients of every tiny model against transformers', whole and masked, at
 * pipeline 1, 2 and 4 and data 1 and 2, on 4 ranks. The gradients are read where they
 * end: with beta1 = 0 and rate 0 the first moment is the summed gradient. Layouts of
 * one data degree must agree in every bit. */
#include "tests/train/oracle.h"

#include "tests/support/need.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOSS 3e-6
#define GRADIENT 1e-5 /* of the tensor's largest value */
#define NORM 2e-5     /* relative */

static const char *const models[] = {"tiny-mistral", "tiny-mistral-window",
                                     "tiny-llama-tied", "tiny-llama-ropetheta"};

static const struct oracle_layout layouts[] = {
    {1, 1, SCHEDULE_1F1B, {0}, 1},  {1, 1, SCHEDULE_GPIPE, {0}, 2},
    {2, 1, SCHEDULE_1F1B, {0}, 1},  {2, 1, SCHEDULE_GPIPE, {0}, 1},
    {4, 1, SCHEDULE_1F1B, {0}, 1},  {4, 1, SCHEDULE_GPIPE, {1, 1, 1, 1}, 1},
    {1, 2, SCHEDULE_1F1B, {0}, 1},  {2, 2, SCHEDULE_1F1B, {0}, 1},
    {2, 2, SCHEDULE_GPIPE, {0}, 2}, {2, 1, SCHEDULE_ZB_H1, {0}, 1},
    {4, 1, SCHEDULE_ZB_H1, {0}, 1}, {2, 2, SCHEDULE_ZB_H1, {0}, 1},
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

struct task {
    struct oracle_model model;
    struct facts *expect;
    struct arrays *arrays;
    int sequences, length;
    int32_t *ids, *labels;
    bool masked;
};

/* What a run leaves for the comparison of layouts: [data degree] of the first one. */
struct bits {
    uint64_t state;
    double loss;
};

static void check_tensor(const struct task *t, const struct zero_part *p, double *worst)
{
    char name[96], place[160];
    tensor_hf_name(&p->tensor, name, sizeof name);
    int64_t n = p->shard.end - p->shard.begin;
    if (n == 0)
        return;
    if (t->masked) {
        need(n == p->tensor.elements ? p : NULL, name, "cut over ranks");
        snprintf(place, sizeof place, "grad_masked_l2/%s", name);
        double l2 = facts_double(t->expect, place);
        double relative = fabs(oracle_l2(n, p->moment[0]) - l2) / l2;
        oracle_within(name, relative, GRADIENT, worst);
        return;
    }
    snprintf(place, sizeof place, "grad.%s", name);
    const struct array *a = arrays_get(t->arrays, place);
    double largest = 0;
    for (int64_t i = 0; i < a->elements; i++)
        largest = fmax(largest, fabs((double)a->f32[i]));
    double d = oracle_max_difference(n, p->moment[0], a->f32 + p->shard.begin);
    oracle_within(name, d / largest, GRADIENT, worst);
}

static void check_all(struct comm *c, struct engine *e, const struct task *t,
                      double loss, double norm)
{
    double worst[3] = {0};
    const char *loss_key = t->masked ? "loss_masked" : "loss";
    const char *norm_key = t->masked ? "grad_norm_masked" : "grad_norm";
    double expected = facts_double(t->expect, norm_key);
    oracle_within(loss_key, fabs(loss - facts_double(t->expect, loss_key)), LOSS,
                  &worst[0]);
    oracle_within(norm_key, fabs(norm - expected) / expected, NORM, &worst[1]);
    struct zero *z = engine_zero(e);
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        check_tensor(t, &p, &worst[2]);
    }
    comm_max_f64(c, worst, 3);
    if (comm_root(c))
        printf("  loss %.9f, norm %.7f; of their limits: loss %.2f, norm %.2f, "
               "gradients %.2f\n",
               loss, norm, worst[0], worst[1], worst[2]);
}

/* One sequence a micro-batch, so that both data degrees have the same ones. */
static struct bits run(struct comm *c, const struct task *t,
                       const struct oracle_layout *l, struct gemm *gemm)
{
    struct err err = {0};
    int micro_batches = t->sequences / l->data, all = t->sequences;
    struct engine *e =
        oracle_engine(c, &t->model, l, gemm, t->length, 1, micro_batches, 0);
    int first = engine_grid(e)->replica * micro_batches;
    struct batch *batches = need(calloc((size_t)micro_batches, sizeof *batches),
                                 t->model.name, "no memory");
    for (int i = 0; i < micro_batches; i++) {
        int failed = batch_init(&batches[i], t->length, 1, &err);
        need(failed ? NULL : batches, t->model.name, err.text);
        int64_t at = (int64_t)(first + i) * t->length;
        oracle_fill(&batches[i], 1, t->length, t->ids + at, t->labels + at);
    }
    int64_t counted = oracle_counted(all, t->length, t->labels);
    double *nll = need(calloc((size_t)all, sizeof *nll), t->model.name, "no memory");
    double wait_s = 0, loss = 0;
    engine_pass(e, batches, &(struct engine_objective){.counted = counted}, nll + first,
                &wait_s);
    comm_sum_f64(c, nll, all);
    for (int i = 0; i < all; i++)
        loss += nll[i] / (double)counted;
    struct zero_step step = {.adamw = {.eps = 1.0}, .t = 1};
    engine_update(e, &step);
    need(step.finite ? e : NULL, t->model.name, "gradient is not finite");
    check_all(c, e, t, loss, step.norm);
    struct bits bits = {oracle_state_hash(c, e), loss};
    for (int i = 0; i < micro_batches; i++)
        batch_fini(&batches[i]);
    free(batches);
    free(nll);
    engine_destroy(e);
    return bits;
}

static void run_layouts(struct comm *world, const struct task *t, struct gemm *gemm)
{
    struct bits first[3] = {{0}};
    for (int i = 0; i < LAYOUTS; i++) {
        const struct oracle_layout *l = &layouts[i];
        if (l->pipeline > t->model.shape.layers)
            continue;
        struct comm *c = oracle_ranks(world, l);
        if (!c)
            continue;
        omp_set_num_threads(l->threads);
        if (comm_root(c))
            printf("%s%s, %s\n", t->model.name, t->masked ? " masked" : "",
                   oracle_describe(l));
        struct bits bits = run(c, t, l, gemm), *same = &first[l->data];
        if (same->state == 0)
            *same = bits;
        /* rank 0 takes part in every layout */
        if (comm_root(world))
            need(!memcmp(same, &bits, sizeof bits) ? c : NULL, oracle_describe(l),
                 "bits differ from the first layout of this data degree");
        comm_free(c);
    }
}

static void run_model(struct comm *world, const char *name, struct gemm *gemm)
{
    char path[256];
    struct task t = {.model = oracle_load(name)};
    snprintf(path, sizeof path, "%s/expect.json", name);
    t.expect = facts_load(path);
    snprintf(path, sizeof path, "%s/expect.safetensors", name);
    t.arrays = arrays_load(path);
    t.sequences = (int)facts_int(t.expect, "B");
    t.length = (int)facts_int(t.expect, "T");
    for (int masked = 0; masked < 2; masked++) {
        int n, labels;
        t.masked = masked;
        t.ids = facts_ints(t.expect, "ids", &n);
        t.labels = facts_ints(t.expect, masked ? "labels_masked" : "ids", &labels);
        need(n == t.sequences * t.length && labels == n ? &t : NULL, name, "B x T");
        run_layouts(world, &t, gemm);
        free(t.ids);
        free(t.labels);
    }
    arrays_destroy(t.arrays);
    facts_destroy(t.expect);
    oracle_free(&t.model);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct comm *world = comm_start(&argc, &argv, &err);
    need(world, "MPI", err.text);
    need(comm_size(world) == 4 ? world : NULL, "ranks", "this test wants 4");
    struct gemm *gemm = engine_gemm(world, GEMM_LEVEL_ANY, &err);
    need(gemm, "gemm", err.text);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        run_model(world, models[i], gemm);
    if (comm_root(world))
        printf("PASS\n");
    gemm_destroy(gemm);
    comm_finish(world);
    return 0;
}
