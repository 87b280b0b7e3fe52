/* SPDX-License-Identifier: Apache-2.0 */
/* The oracle's 20 AdamW steps (4 micro-batches of unequal counts, clipping, warm-up and
 * cosine) at pipeline 1, 2, 4 by data 1, 2, 4, on 4 ranks: losses, norms, rates, final
 * weights and moments. Layouts of one data degree must agree in every bit of losses,
 * norms, weights and moments. */
#include "tests/train/oracle.h"

#include "src/optim/lr.h"
#include "tests/support/need.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOSS 5e-6     /* relative */
#define NORM 2e-4     /* relative */
#define WEIGHT 5e-6   /* absolute */
#define CHANGE 5e-5   /* of the weights since the start, relative L2 */
#define MOMENT 1.5e-4 /* relative L2 */

static const struct oracle_layout layouts[] = {
    {1, 1, SCHEDULE_1F1B, {0}, 1},     {1, 1, SCHEDULE_GPIPE, {0}, 2},
    {2, 1, SCHEDULE_1F1B, {0}, 1},     {2, 1, SCHEDULE_1F1B, {1, 3}, 1},
    {2, 1, SCHEDULE_GPIPE, {3, 1}, 1}, {4, 1, SCHEDULE_1F1B, {0}, 1},
    {4, 1, SCHEDULE_GPIPE, {0}, 1},    {1, 2, SCHEDULE_1F1B, {0}, 1},
    {2, 2, SCHEDULE_1F1B, {0}, 1},     {2, 2, SCHEDULE_GPIPE, {1, 3}, 2},
    {1, 4, SCHEDULE_1F1B, {0}, 1},     {2, 1, SCHEDULE_ZB_H1, {1, 3}, 1},
    {4, 1, SCHEDULE_ZB_H1, {0}, 1},    {2, 2, SCHEDULE_ZB_H1, {0}, 1},
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts, MAX_STEPS = 64 };

struct task {
    struct oracle_model model;
    struct facts *expect;
    struct arrays *arrays;
    const int32_t *ids, *labels; /* [steps][micro-batches][B][T] */
    int steps, micro_batches, sequences, length;
    struct lr lr;
    struct adamw adamw;
    double clip;
};

struct bits {
    double loss[MAX_STEPS], norm[MAX_STEPS];
    uint64_t state;
};

static double log_number(const struct task *t, int step, const char *key)
{
    char place[64];
    snprintf(place, sizeof place, "log/%d/%s", step, key);
    return facts_double(t->expect, place);
}

/* One step of one layout; limits used go to worst[0..2]: loss, norm, rate. */
static void run_step(struct comm *c, struct engine *e, const struct task *t, int k,
                     struct batch *batches, struct bits *bits, double *worst)
{
    const struct grid *g = engine_grid(e);
    int mine = t->micro_batches / g->data, first = g->replica * mine;
    int per_batch = t->sequences * t->length, all = t->micro_batches * t->sequences;
    const int32_t *ids = t->ids + (int64_t)k * t->micro_batches * per_batch;
    const int32_t *labels = t->labels + (int64_t)k * t->micro_batches * per_batch;
    for (int i = 0; i < mine; i++)
        oracle_fill(&batches[i], t->sequences, t->length, ids + (first + i) * per_batch,
                    labels + (first + i) * per_batch);
    int64_t counted = oracle_counted(all, t->length, labels);
    need(counted == (int64_t)log_number(t, k, "counted_total") ? c : NULL, "log",
         "counted_total differs");
    double *nll = need(calloc((size_t)all, sizeof *nll), "step", "no memory");
    double wait_s = 0, loss = 0;
    engine_pass(e, batches, &(struct engine_objective){.counted = counted},
                nll + first * t->sequences, &wait_s);
    comm_sum_f64(c, nll, all);
    for (int i = 0; i < all; i++)
        loss += nll[i];
    loss /= (double)counted;
    struct zero_step step = {
        .adamw = t->adamw, .t = k + 1, .lr = lr_at(&t->lr, k), .clip = t->clip};
    engine_update(e, &step);
    double loss_expected = log_number(t, k, "loss");
    double norm_expected = log_number(t, k, "grad_norm");
    oracle_within("loss", fabs(loss - loss_expected) / loss_expected, LOSS, &worst[0]);
    oracle_within("grad_norm", fabs(step.norm - norm_expected) / norm_expected, NORM,
                  &worst[1]);
    oracle_within("lr", fabs(step.lr - log_number(t, k, "lr")), 1e-12, &worst[2]);
    bits->loss[k] = loss;
    bits->norm[k] = step.norm;
    free(nll);
}

/* Rows of a tensor that the oracle kept: all, or those in row_ids. */
static const float *kept_rows(const struct task *t, const struct array *a,
                              const struct tensor *tensor, const float *all,
                              float **copy)
{
    if (a->elements == tensor->elements)
        return all;
    const struct array *rows = arrays_get(t->arrays, "row_ids");
    *copy = need(malloc((size_t)a->elements * sizeof **copy), a->name, "no memory");
    for (int64_t r = 0; r < rows->elements; r++)
        memcpy(*copy + r * tensor->cols, all + rows->i32[r] * tensor->cols,
               (size_t)tensor->cols * sizeof **copy);
    return *copy;
}

static const struct array *stored(const struct task *t, const char *kind,
                                  const char *name)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%s", kind, name);
    const struct array *a = arrays_find(t->arrays, key);
    if (a)
        return a;
    snprintf(key, sizeof key, "%s.%s.rows", kind, name);
    return arrays_find(t->arrays, key);
}

/* Arrays that the oracle stored. worst[0..2]: weight, change, moments. */
static int check_stored(const struct task *t, const struct zero_part *p,
                        const float *weight, const char *name, double *worst)
{
    static const char *const kinds[] = {"weight", "exp_avg", "exp_avg_sq"};
    const float *found[] = {weight, p->moment[0], p->moment[1]};
    if (!stored(t, "weight", name))
        return 0;
    for (int i = 0; i < 3; i++) {
        const struct array *a = stored(t, kinds[i], name);
        need(a, name, "the oracle lacks a moment");
        float *copy = NULL, *start = NULL;
        const float *x = kept_rows(t, a, &p->tensor, found[i], &copy);
        if (i == 0) {
            const struct array *begin = arrays_get(t->model.weights, name);
            const float *w0 = kept_rows(t, a, &p->tensor, begin->f32, &start);
            double change = oracle_l2_difference(a->elements, a->f32, w0);
            double d = oracle_l2_difference(a->elements, a->f32, x);
            oracle_within(name, oracle_max_difference(a->elements, a->f32, x), WEIGHT,
                          &worst[0]);
            oracle_within(name, d / change, CHANGE, &worst[1]);
        } else {
            double d = oracle_l2_difference(a->elements, a->f32, x);
            oracle_within(name, d / oracle_l2(a->elements, a->f32), MOMENT, &worst[2]);
        }
        free(copy);
        free(start);
    }
    return 1;
}

/* Norm and samples of every tensor. worst as above. */
static void check_summary(const struct task *t, const struct zero_part *p,
                          const float *weight, const char *name, double *worst)
{
    static const char *const kinds[] = {"weight", "exp_avg", "exp_avg_sq"};
    const float *found[] = {weight, p->moment[0], p->moment[1]};
    for (int i = 0; i < 3; i++) {
        char place[192];
        int n;
        snprintf(place, sizeof place, "final/%s/%s/l2", name, kinds[i]);
        double l2 = facts_double(t->expect, place);
        double d = fabs(oracle_l2(p->tensor.elements, found[i]) - l2);
        oracle_within(place, d / l2, i ? MOMENT : CHANGE, &worst[i ? 2 : 1]);
        snprintf(place, sizeof place, "final/%s/%s/max_abs", name, kinds[i]);
        double limit = i ? MOMENT * facts_double(t->expect, place) : WEIGHT;
        snprintf(place, sizeof place, "final/%s/%s/sample_stride", name, kinds[i]);
        int64_t stride = facts_int(t->expect, place);
        snprintf(place, sizeof place, "final/%s/%s/samples", name, kinds[i]);
        double *sample = facts_doubles(t->expect, place, &n);
        for (int s = 0; s < n; s++)
            oracle_within(place, fabs((double)found[i][s * stride] - sample[s]), limit,
                          &worst[i ? 2 : 0]);
        free(sample);
    }
}

static void check_final(struct comm *c, struct engine *e, const struct task *t,
                        double *worst)
{
    int64_t seen[2] = {0}; /* tensors, stored ones */
    struct zero *z = engine_zero(e);
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        if (p.shard.begin == p.shard.end)
            continue;
        char name[96];
        tensor_hf_name(&p.tensor, name, sizeof name);
        need(p.shard.end - p.shard.begin == p.tensor.elements ? z : NULL, name,
             "cut over ranks");
        seen[0]++;
        float *weight = oracle_masters(z, i);
        seen[1] += check_stored(t, &p, weight, name, worst);
        check_summary(t, &p, weight, name, worst);
        free(weight);
    }
    comm_sum_i64(c, seen, 2);
    need(seen[0] == table_count(&t->model.shape) && seen[1] == 12 ? c : NULL, "final",
         "not every tensor was compared once");
}

static void run(struct comm *c, const struct task *t, const struct oracle_layout *l,
                struct gemm *gemm, struct bits *bits)
{
    struct err err = {0};
    int mine = t->micro_batches / l->data;
    struct engine *e =
        oracle_engine(c, &t->model, l, gemm, t->length, t->sequences, mine, 0);
    struct batch *batches =
        need(calloc((size_t)mine, sizeof *batches), "batches", "no memory");
    for (int i = 0; i < mine; i++) {
        int failed =
            batch_init(&batches[i], t->sequences * t->length, t->sequences, &err);
        need(failed ? NULL : batches, "batches", err.text);
    }
    double worst[6] = {0};
    for (int k = 0; k < t->steps; k++)
        run_step(c, e, t, k, batches, bits, worst);
    check_final(c, e, t, worst + 3);
    bits->state = oracle_state_hash(c, e);
    comm_max_f64(c, worst, 6);
    if (comm_root(c))
        printf("%-48s last loss %.9f; of their limits: losses %.2f, norms %.2f, "
               "weights %.2f, change %.2f, moments %.2f\n",
               oracle_describe(l), bits->loss[t->steps - 1], worst[0], worst[1],
               worst[3], worst[4], worst[5]);
    for (int i = 0; i < mine; i++)
        batch_fini(&batches[i]);
    free(batches);
    engine_destroy(e);
}

static void run_layouts(struct comm *world, const struct task *t, struct gemm *gemm)
{
    static struct bits first[5], bits; /* by data degree */
    for (int i = 0; i < LAYOUTS; i++) {
        const struct oracle_layout *l = &layouts[i];
        struct comm *c = oracle_ranks(world, l);
        if (!c)
            continue;
        omp_set_num_threads(l->threads);
        memset(&bits, 0, sizeof bits);
        run(c, t, l, gemm, &bits);
        struct bits *same = &first[l->data];
        if (same->state == 0)
            *same = bits;
        /* rank 0 takes part in every layout */
        if (comm_root(world))
            need(!memcmp(same, &bits, sizeof bits) ? c : NULL, oracle_describe(l),
                 "bits differ from the first layout of this data degree");
        comm_free(c);
    }
}

static struct task load(void)
{
    struct task t = {.model = oracle_load("tiny-mistral"),
                     .expect = facts_load("train/expect.json"),
                     .arrays = arrays_load("train/expect.safetensors")};
    t.ids = arrays_get(t.arrays, "ids")->i32;
    t.labels = arrays_get(t.arrays, "labels")->i32;
    t.steps = (int)facts_int(t.expect, "steps");
    t.micro_batches = (int)facts_int(t.expect, "micro_batches");
    t.sequences = (int)facts_int(t.expect, "B");
    t.length = (int)facts_int(t.expect, "T");
    t.lr = (struct lr){.schedule = LR_COSINE,
                       .peak = facts_double(t.expect, "lr"),
                       .steps = t.steps,
                       .warmup = facts_int(t.expect, "warmup_steps")};
    t.adamw = (struct adamw){.beta1 = facts_double(t.expect, "betas/0"),
                             .beta2 = facts_double(t.expect, "betas/1"),
                             .eps = facts_double(t.expect, "eps"),
                             .weight_decay = facts_double(t.expect, "weight_decay")};
    t.clip = facts_double(t.expect, "clip");
    need(t.steps <= MAX_STEPS ? t.ids : NULL, "train", "too many steps");
    return t;
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct comm *world = comm_start(&argc, &argv, &err);
    need(world, "MPI", err.text);
    need(comm_size(world) == 4 ? world : NULL, "ranks", "this test wants 4");
    struct gemm *gemm = engine_gemm(world, GEMM_LEVEL_ANY, &err);
    need(gemm, "gemm", err.text);
    struct task t = load();
    run_layouts(world, &t, gemm);
    if (comm_root(world))
        printf("PASS\n");
    arrays_destroy(t.arrays);
    facts_destroy(t.expect);
    oracle_free(&t.model);
    gemm_destroy(gemm);
    comm_finish(world);
    return 0;
}
