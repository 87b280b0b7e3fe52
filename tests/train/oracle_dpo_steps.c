/* SPDX-License-Identifier: Apache-2.0 */
/* The oracle's ten steps of DPO (two batches of four pairs in turn, from the reference,
 * warm-up, linear rate, clipping), at (pipeline, data) = (1,1), (2,1), (4,1), (2,2),
 * (1,2), with prompts apart and shared, on 4 ranks: losses, metrics, norms, rates and
 * final weights as TRL has them. Layouts of one data degree must agree in every bit. */
#include "tests/train/dpo_run.h"

#include "src/optim/lr.h"
#include "tests/support/need.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOSS 1e-5
#define NORM 2e-4
#define REWARD 3e-5
#define SUM 3e-4    /* an answer's log-probability */
#define WEIGHT 3e-6 /* absolute */
#define CHANGE 1e-3 /* rms error of a tensor's weights, of the rms of their change */

static const struct oracle_layout layouts[] = {
    {1, 1, SCHEDULE_1F1B, {0}, 1},  {2, 1, SCHEDULE_1F1B, {0}, 1},
    {4, 1, SCHEDULE_GPIPE, {0}, 1}, {2, 2, SCHEDULE_1F1B, {0}, 1},
    {1, 2, SCHEDULE_GPIPE, {0}, 2},
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts, STEPS = 10, STORED = 5 };

/* What was compared with a limit, and its largest share of it. */
enum { LOSSES, METRICS, NORMS, WEIGHTS, CHANGES, SUMMED, KINDS };

struct task {
    struct dpo_oracle o;
    struct facts *train;
    struct arrays *final;
    int pairs; /* of a step */
    struct preference_settings settings;
    struct lr lr;
    struct adamw adamw;
    double clip;
};

struct bits {
    double mean[STEPS][PREFERENCE_METRICS], norm[STEPS];
    uint64_t state;
};

/* In float64, where the last digits are TRL's and not its float32's. */
static double log_number(const struct task *t, int step, const char *key)
{
    char place[96];
    snprintf(place, sizeof place, "steps_float64/%d/%s", step, key);
    return facts_double(t->train, place);
}

static void check_step(const struct task *t, int k, const struct bits *bits, double lr,
                       double *worst)
{
    const double *mean = bits->mean[k];
    for (int m = 0; m <= PREFERENCE_METRIC_LOGPS_REJECTED; m++) {
        const char *name = preference_metric_names[m];
        double limit = m >= PREFERENCE_METRIC_LOGPS_CHOSEN         ? SUM
                       : m == PREFERENCE_METRIC_LOSS               ? LOSS
                       : m == PREFERENCE_METRIC_REWARDS_ACCURACIES ? 1e-15
                                                                   : REWARD;
        oracle_within(name, fabs(mean[m] - log_number(t, k, name)), limit,
                      &worst[m == PREFERENCE_METRIC_LOSS ? LOSSES : METRICS]);
    }
    oracle_within("grad_norm", fabs(bits->norm[k] - log_number(t, k, "grad_norm")),
                  NORM, &worst[NORMS]);
    oracle_within("lr", fabs(lr - log_number(t, k, "lr_used")), 1e-12, NULL);
}

static void run_step(const struct task *t, struct dpo_run *r, int k,
                     const int32_t *slots, struct bits *bits, double *worst)
{
    int first = k * t->pairs % DPO_PAIRS;
    dpo_pass(r, slots + first * pairs_slot_words(DPO_SEQ_LEN));
    preference_stats_means(&r->step.stats, bits->mean[k]);
    struct zero_step z = {
        .adamw = t->adamw, .t = k + 1, .lr = lr_at(&t->lr, k), .clip = t->clip};
    engine_update(r->engine, &z);
    bits->norm[k] = z.norm;
    check_step(t, k, bits, z.lr, worst);
}

/* Errors of a tensor with an rms of at most CHANGE times that of the change since the
 * start: by how much they can move its sums and norms. */
static void check_sums(const struct task *t, const char *name, int64_t n,
                       const float *w, double *worst)
{
    static const char *const kinds[] = {"sum", "abs_sum", "l2", "l2_of_change"};
    double found[4] = {
        0, 0, oracle_l2(n, w),
        oracle_l2_difference(n, w, arrays_get(t->o.ref.weights, name)->f32)};
    for (int64_t i = 0; i < n; i++) {
        found[0] += (double)w[i];
        found[1] += fabs((double)w[i]);
    }
    char place[192];
    snprintf(place, sizeof place, "final_weights/%s/l2_of_change", name);
    double limit = CHANGE * facts_double(t->train, place);
    for (int i = 0; i < 4; i++) {
        snprintf(place, sizeof place, "final_weights/%s/%s", name, kinds[i]);
        oracle_within(place, fabs(found[i] - facts_double(t->train, place)),
                      i < 2 ? limit * sqrt((double)n) : limit, &worst[SUMMED]);
    }
}

static int check_stored(const struct task *t, const char *name, int64_t n,
                        const float *w, double *worst)
{
    const struct array *a = arrays_find(t->final, name);
    if (!a)
        return 0;
    need(a->elements == n ? a : NULL, name, "other size");
    const float *start = arrays_get(t->o.ref.weights, name)->f32;
    double change = oracle_l2_difference(n, a->f32, start);
    oracle_within(name, oracle_max_difference(n, a->f32, w), WEIGHT, &worst[WEIGHTS]);
    oracle_within(name, oracle_l2_difference(n, a->f32, w) / change, CHANGE,
                  &worst[CHANGES]);
    return 1;
}

static void check_final(const struct task *t, struct dpo_run *r, double *worst)
{
    int64_t seen[2] = {0}; /* tensors, stored ones */
    struct zero *z = engine_zero(r->engine);
    for (int i = 0; i < zero_parts(z); i++) {
        struct zero_part p = zero_part_at(z, i);
        int64_t n = p.tensor.elements;
        if (p.shard.begin == p.shard.end)
            continue;
        char name[96];
        tensor_hf_name(&p.tensor, name, sizeof name);
        need(p.shard.end - p.shard.begin == n ? z : NULL, name, "cut over ranks");
        float *w = oracle_masters(z, i);
        check_sums(t, name, n, w, worst);
        seen[0]++;
        seen[1] += check_stored(t, name, n, w, worst);
        free(w);
    }
    comm_sum_i64(r->c, seen, 2);
    need(seen[0] == table_count(&t->o.ref.shape) && seen[1] == STORED ? r : NULL,
         "final weights", "not every tensor was compared once");
}

static void run(const struct task *t, struct dpo_run *r, struct bits *bits,
                double *worst)
{
    struct pair_sums reference[DPO_PAIRS] = {{0}};
    int32_t *slots = dpo_slots(&t->o, reference);
    dpo_forward(r, slots, reference);
    free(slots);
    slots = dpo_slots(&t->o, reference);
    r->step.settings = t->settings;
    for (int k = 0; k < STEPS; k++)
        run_step(t, r, k, slots, bits, worst);
    check_final(t, r, worst);
    bits->state = oracle_state_hash(r->c, r->engine);
    free(slots);
}

static void run_layout(struct comm *world, const struct task *t,
                       const struct oracle_layout *l, struct gemm *gemm, bool sharing,
                       struct bits (*first)[2])
{
    struct comm *c = oracle_ranks(world, l);
    if (!c)
        return;
    struct dpo_run r;
    struct bits bits, *same = &first[l->data][sharing];
    double worst[KINDS] = {0};
    memset(&bits, 0, sizeof bits);
    omp_set_num_threads(l->threads);
    dpo_run_init(&r, c, &t->o.ref, l, gemm, sharing, t->pairs);
    run(t, &r, &bits, worst);
    dpo_run_fini(&r);
    if (same->state == 0)
        *same = bits;
    /* rank 0 takes part in every layout */
    if (comm_root(world))
        need(!memcmp(same, &bits, sizeof bits) ? c : NULL, oracle_describe(l),
             "bits differ from the first layout of this data degree");
    comm_max_f64(c, worst, KINDS);
    if (comm_root(c))
        printf("%-36s %s last loss %.9f; of their limits: losses %.2g, metrics %.2g, "
               "norms %.2g, weights %.2g, change %.2g, sums %.2g\n",
               oracle_describe(l), sharing ? "shared" : "apart ",
               bits.mean[STEPS - 1][PREFERENCE_METRIC_LOSS], worst[LOSSES],
               worst[METRICS], worst[NORMS], worst[WEIGHTS], worst[CHANGES],
               worst[SUMMED]);
    comm_free(c);
}

static double setting(const struct task *t, const char *name)
{
    char place[96];
    snprintf(place, sizeof place, "settings/%s", name);
    return facts_double(t->train, place);
}

static struct task load(void)
{
    struct task t = {.o = dpo_oracle_load(),
                     .train = facts_load("../align/dpo_train.json"),
                     .final = arrays_load("../align/dpo_train_final.safetensors")};
    t.pairs = (int)setting(&t, "per_device_train_batch_size");
    t.settings = (struct preference_settings){.loss = PREFERENCE_SIGMOID,
                                              .beta = setting(&t, "beta")};
    t.lr = (struct lr){.schedule = LR_LINEAR,
                       .peak = setting(&t, "learning_rate"),
                       .steps = (int64_t)setting(&t, "max_steps"),
                       .warmup = (int64_t)setting(&t, "warmup_steps")};
    t.adamw = (struct adamw){.beta1 = setting(&t, "adam_beta1"),
                             .beta2 = setting(&t, "adam_beta2"),
                             .eps = setting(&t, "adam_epsilon"),
                             .weight_decay = setting(&t, "weight_decay")};
    t.clip = setting(&t, "max_grad_norm");
    need(facts_count(t.train, "steps_float64") == STEPS && t.lr.steps == STEPS ? &t
                                                                               : NULL,
         "dpo_train.json", "another number of steps");
    return t;
}

int main(int argc, char **argv)
{
    static struct bits first[3][2]; /* by data degree and sharing */
    struct err err = {0};
    struct comm *world = comm_start(&argc, &argv, &err);
    need(world, "MPI", err.text);
    need(comm_size(world) == 4 ? world : NULL, "ranks", "this test wants 4");
    struct gemm *gemm = engine_gemm(world, GEMM_LEVEL_ANY, &err);
    need(gemm, "gemm", err.text);
    struct task t = load();
    for (int i = 0; i < LAYOUTS; i++)
        for (int sharing = 0; sharing < 2; sharing++)
            run_layout(world, &t, &layouts[i], gemm, sharing, first);
    if (comm_root(world))
        printf("PASS\n");
    facts_destroy(t.train);
    arrays_destroy(t.final);
    dpo_oracle_free(&t.o);
    gemm_destroy(gemm);
    comm_finish(world);
    return 0;
}
