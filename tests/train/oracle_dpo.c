/* SPDX-License-Identifier: Apache-2.0 */
/* The oracle's pairs by every loss of preference tuning, at (pipeline, data) = (1,1),
 * (2,1), (4,1), (2,2), (1,2), with prompts apart and shared, on 4 ranks: sums of
 * log-probabilities, losses, metrics, weights of the answers and gradients as TRL has
 * them. The gradients are read where they end: with beta1 = 0 and rate 0 the first
 * moment is the summed gradient. Layouts of one data degree must agree in every bit. */
#include "tests/train/dpo_gradients.h"

#include "tests/support/need.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUM 3e-4    /* an answer's log-probability */
#define REWARD 3e-5 /* at beta 0.1 */
#define TOKEN 1e-5  /* an answer's log-ratio, for each token */
#define WEIGHT 1e-4 /* of an answer in the gradient, of the loss's largest */
#define NORM 2e-4   /* relative */

static const struct oracle_layout layouts[] = {
    {1, 1, SCHEDULE_1F1B, {0}, 1},  {2, 1, SCHEDULE_1F1B, {0}, 1},
    {4, 1, SCHEDULE_GPIPE, {0}, 1}, {2, 2, SCHEDULE_1F1B, {0}, 1},
    {1, 2, SCHEDULE_GPIPE, {0}, 2},
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts, LOSSES = 16, GRADIENT_LOSSES = 7 };

/* What was compared with a limit, and its largest share of it. */
enum {
    SUMS,
    LOSS,
    METRICS,
    WEIGHTS,
    APART,
    GRADIENTS,
    KINDS = GRADIENTS + DPO_GRADIENTS
};

struct task {
    struct dpo_oracle o;
    struct oracle_model policy[ORACLE_CASES];
    struct dpo_gradients gradients;
};

/* What a pass leaves for the comparison of layouts. */
struct bits {
    struct pair_sums sums[DPO_PAIRS];
    double value[DPO_PAIRS * PREFERENCE_KEPT], scale[2 * DPO_PAIRS], norm;
    uint64_t state;
};
struct all_bits {
    struct bits of[ORACLE_CASES][LOSSES];
};

/* One loss on one policy. */
struct point {
    int policy;
    const char *name; /* of the loss */
    char place[128];  /* in dpo.json */
    struct preference_settings settings;
};

static struct point point_of(const struct task *t, int policy, int loss)
{
    struct point p = {.policy = policy};
    snprintf(p.place, sizeof p.place, "cases/%s/losses", oracle_cases[policy]);
    p.name = facts_key(t->o.values, p.place, loss);
    size_t n = strlen(p.place);
    snprintf(p.place + n, sizeof p.place - n, "/%s", p.name);
    p.settings = oracle_settings(t->o.values, p.place);
    return p;
}

static double loss_limit(const struct preference_settings *s, double expected)
{
    if (s->loss == PREFERENCE_SPPO_HARD)
        return 1e-4 * fmax(1, expected);
    if (s->loss == PREFERENCE_IPO)
        return 1e-4;
    return s->beta > 0.1 ? 3e-4 : 6e-5;
}

/* The loss of pair i as a step of its own. */
static double loss_alone(const struct dpo_run *r, const struct preference_pair *known,
                         const struct pair_sums *reference, int i)
{
    const struct preference_settings *s = &r->step.settings;
    if (s->loss != PREFERENCE_SFT && s->rpo_alpha == 0)
        return r->pairs * dpo_kept(r, i, PREFERENCE_METRIC_LOSS);
    struct preference_pair pair = known[i];
    pair.policy_chosen = dpo_kept(r, i, PREFERENCE_METRIC_LOGPS_CHOSEN);
    pair.policy_rejected = dpo_kept(r, i, PREFERENCE_METRIC_LOGPS_REJECTED);
    pair.reference_chosen = reference[i].chosen;
    pair.reference_rejected = reference[i].rejected;
    struct preference_step one = {.pairs = 1, .chosen_tokens = pair.chosen_tokens};
    return preference_pair_share(s, &one, &pair).loss;
}

static void check_losses(const struct task *t, const struct dpo_run *r,
                         const struct point *p, const struct pair_sums *reference,
                         double *worst)
{
    struct preference_pair pair[DPO_PAIRS];
    char place[160];
    double sum = 0;
    oracle_pairs(t->o.values, oracle_cases[p->policy], pair);
    double *each = oracle_numbers(t->o.values, p->place, "per_pair");
    for (int i = 0; i < DPO_PAIRS; i++) {
        double found = loss_alone(r, pair, reference, i);
        oracle_within(p->place, fabs(found - each[i]),
                      loss_limit(&p->settings, each[i]), &worst[LOSS]);
        sum += dpo_kept(r, i, PREFERENCE_METRIC_LOSS);
    }
    snprintf(place, sizeof place, "%s/loss", p->place);
    double loss = facts_double(t->o.values, place);
    oracle_within(place, fabs(sum - loss), loss_limit(&p->settings, loss),
                  &worst[LOSS]);
    free(each);
}

/* Of pair i, from the oracle's sums. */
static void check_pair(const struct dpo_run *r, int i, const struct preference_pair *x,
                       double *worst)
{
    double beta = r->step.settings.beta;
    double c = x->policy_chosen - x->reference_chosen;
    double d = x->policy_rejected - x->reference_rejected;
    const struct {
        enum preference_metric metric;
        double expected, limit;
    } rows[] = {
        {PREFERENCE_METRIC_REWARDS_CHOSEN, beta * c, REWARD * beta / 0.1},
        {PREFERENCE_METRIC_REWARDS_REJECTED, beta * d, REWARD * beta / 0.1},
        {PREFERENCE_METRIC_LOGPS_CHOSEN, x->policy_chosen, SUM},
        {PREFERENCE_METRIC_LOGPS_REJECTED, x->policy_rejected, SUM},
        {PREFERENCE_METRIC_LOGRATIO_CHOSEN, c / (double)x->chosen_tokens, TOKEN},
        {PREFERENCE_METRIC_LOGRATIO_REJECTED, d / (double)x->rejected_tokens, TOKEN},
    };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        oracle_within(preference_metric_names[rows[k].metric],
                      fabs(dpo_kept(r, i, rows[k].metric) - rows[k].expected),
                      rows[k].limit, &worst[METRICS]);
}

/* Means: TRL's own, which are those of beta 0.1. */
static void check_metrics(const struct task *t, const struct dpo_run *r,
                          const struct point *p, double *worst)
{
    struct preference_pair pair[DPO_PAIRS];
    double mean[PREFERENCE_METRICS];
    oracle_pairs(t->o.values, oracle_cases[p->policy], pair);
    for (int i = 0; i < DPO_PAIRS; i++)
        check_pair(r, i, &pair[i], worst);
    preference_stats_means(&r->step.stats, mean);
    for (int m = PREFERENCE_METRIC_REWARDS_CHOSEN;
         m <= PREFERENCE_METRIC_LOGPS_REJECTED; m++) {
        char place[160];
        bool logps = m >= PREFERENCE_METRIC_LOGPS_CHOSEN;
        double scale = 1, limit = logps ? SUM : REWARD;
        snprintf(place, sizeof place, "cases/%s/metrics/%s", oracle_cases[p->policy],
                 preference_metric_names[m]);
        if (m == PREFERENCE_METRIC_REWARDS_ACCURACIES)
            limit = 1e-15;
        else if (!logps)
            scale = p->settings.beta / 0.1;
        double d = fabs(mean[m] - scale * facts_double(t->o.values, place));
        oracle_within(place, d, scale * limit, &worst[METRICS]);
    }
}

static void check_weights(const struct task *t, const struct dpo_run *r,
                          const struct point *p, double *worst)
{
    double largest = 0;
    double *by[] = {oracle_numbers(t->o.values, p->place, "dloss_dlogp_chosen"),
                    oracle_numbers(t->o.values, p->place, "dloss_dlogp_rejected")};
    for (int i = 0; i < 2 * DPO_PAIRS; i++)
        largest = fmax(largest, fabs(by[i % 2][i / 2]));
    for (int i = 0; i < 2 * DPO_PAIRS; i++)
        oracle_within(p->place, fabs(-r->scale[i] - by[i % 2][i / 2]), WEIGHT * largest,
                      &worst[WEIGHTS]);
    free(by[0]);
    free(by[1]);
}

static void check_sums(const struct task *t, int policy, bool reference,
                       const struct pair_sums *sums, double *worst)
{
    struct preference_pair pair[DPO_PAIRS];
    oracle_pairs(t->o.values, oracle_cases[policy], pair);
    for (int i = 0; i < DPO_PAIRS; i++) {
        const struct preference_pair *x = &pair[i];
        double c = reference ? x->reference_chosen : x->policy_chosen;
        double d = reference ? x->reference_rejected : x->policy_rejected;
        const char *what = reference ? "reference" : oracle_cases[policy];
        oracle_within(what, fabs(sums[i].chosen - c), SUM, &worst[SUMS]);
        oracle_within(what, fabs(sums[i].rejected - d), SUM, &worst[SUMS]);
    }
}

/* One loss on the engine's weights; bits but their sums. Returns whether the oracle has
 * its gradients. */
static bool run_point(const struct task *t, struct dpo_run *r, const struct point *p,
                      const int32_t *slots, const struct pair_sums *reference,
                      struct bits *bits, double *worst)
{
    r->step.settings = p->settings;
    engine_forget(r->engine);
    dpo_pass(r, slots);
    check_losses(t, r, p, reference, worst);
    check_metrics(t, r, p, worst);
    check_weights(t, r, p, worst);
    struct zero_step z = {.adamw = {.eps = 1.0}, .t = 1};
    engine_update(r->engine, &z);
    need(z.finite ? r : NULL, p->place, "gradient is not finite");
    bool compared = dpo_gradients_check(&t->gradients, r, oracle_cases[p->policy],
                                        p->name, z.norm, worst + GRADIENTS);
    memcpy(bits->value, r->step.stats.value, sizeof bits->value);
    memcpy(bits->scale, r->scale, sizeof bits->scale);
    bits->norm = z.norm;
    bits->state = oracle_state_hash(r->c, r->engine);
    return compared;
}

static void run(const struct task *t, struct dpo_run *r, struct all_bits *bits,
                double *worst)
{
    struct pair_sums reference[DPO_PAIRS] = {{0}};
    int32_t *slots = dpo_slots(&t->o, reference);
    dpo_forward(r, slots, reference);
    free(slots);
    slots = dpo_slots(&t->o, reference);
    for (int i = 0; i < ORACLE_CASES; i++) {
        struct pair_sums sums[DPO_PAIRS];
        int gradients = 0;
        check_sums(t, i, true, reference, worst);
        oracle_set_weights(r->engine, &t->policy[i]);
        dpo_forward(r, slots, sums);
        check_sums(t, i, false, sums, worst);
        for (int k = 0; k < LOSSES; k++) {
            struct point p = point_of(t, i, k);
            memcpy(bits->of[i][k].sums, sums, sizeof sums);
            gradients += run_point(t, r, &p, slots, reference, &bits->of[i][k], worst);
        }
        need(gradients == GRADIENT_LOSSES ? t : NULL, oracle_cases[i],
             "gradients of other losses");
    }
    free(slots);
}

/* Prompts shared and apart. */
static void check_apart(const struct task *t, const struct all_bits *apart,
                        const struct all_bits *shared, double *worst)
{
    for (int i = 0; i < ORACLE_CASES; i++)
        for (int k = 0; k < LOSSES; k++) {
            const struct bits *a = &apart->of[i][k], *s = &shared->of[i][k];
            struct point p = point_of(t, i, k);
            for (int j = 0; j < DPO_PAIRS; j++) {
                int at = j * PREFERENCE_KEPT + 1 + PREFERENCE_METRIC_LOSS;
                double loss = DPO_PAIRS * a->value[at];
                oracle_within("sums", fabs(a->sums[j].chosen - s->sums[j].chosen), SUM,
                              worst);
                oracle_within("sums", fabs(a->sums[j].rejected - s->sums[j].rejected),
                              SUM, worst);
                oracle_within(p.place, fabs(loss - DPO_PAIRS * s->value[at]),
                              loss_limit(&p.settings, loss), worst);
            }
            oracle_within(p.place, fabs(s->norm / a->norm - 1), NORM, worst);
        }
}

static void run_layout(struct comm *world, const struct task *t,
                       const struct oracle_layout *l, struct gemm *gemm, bool sharing,
                       struct all_bits (*first)[2])
{
    static struct all_bits bits;
    struct comm *c = oracle_ranks(world, l);
    if (!c)
        return;
    struct dpo_run r;
    double worst[KINDS] = {0};
    struct all_bits *same = &first[l->data][sharing];
    omp_set_num_threads(l->threads);
    memset(&bits, 0, sizeof bits);
    dpo_run_init(&r, c, &t->o.ref, l, gemm, sharing, DPO_PAIRS);
    run(t, &r, &bits, worst);
    dpo_run_fini(&r);
    if (same->of[0][0].state == 0)
        *same = bits;
    /* rank 0 takes part in every layout */
    if (comm_root(world)) {
        need(!memcmp(same, &bits, sizeof bits) ? c : NULL, oracle_describe(l),
             "bits differ from the first layout of this data degree");
        for (int i = 0; i < ORACLE_CASES; i++)
            need(!memcmp(first[1][sharing].of[i][0].sums, bits.of[i][0].sums,
                         sizeof bits.of[i][0].sums)
                     ? c
                     : NULL,
                 oracle_cases[i], "sums differ from those of one rank");
        if (sharing)
            check_apart(t, &first[l->data][false], &bits, &worst[APART]);
    }
    comm_max_f64(c, worst, KINDS);
    if (comm_root(c))
        printf("%-36s %s; of their limits: sums %.2g, losses %.2g, metrics %.2g, "
               "weights %.2g, gradients %.2g, their entries %.2g, whole %.2g, shared - "
               "apart %.2g\n",
               oracle_describe(l), sharing ? "shared" : "apart ", worst[SUMS],
               worst[LOSS], worst[METRICS], worst[WEIGHTS],
               worst[GRADIENTS + DPO_FIGURES], worst[GRADIENTS + DPO_ENTRIES],
               worst[GRADIENTS + DPO_WHOLE], worst[APART]);
    comm_free(c);
}

int main(int argc, char **argv)
{
    static struct all_bits first[3][2]; /* by data degree and sharing */
    struct err err = {0};
    struct comm *world = comm_start(&argc, &argv, &err);
    need(world, "MPI", err.text);
    need(comm_size(world) == 4 ? world : NULL, "ranks", "this test wants 4");
    struct gemm *gemm = engine_gemm(world, GEMM_LEVEL_ANY, &err);
    need(gemm, "gemm", err.text);
    struct task t = {.o = dpo_oracle_load(),
                     .policy = {oracle_load("../align/policy_near"),
                                oracle_load("../align/policy_far")},
                     .gradients = dpo_gradients_load()};
    for (int i = 0; i < ORACLE_CASES; i++) {
        char place[64];
        snprintf(place, sizeof place, "cases/%s/losses", oracle_cases[i]);
        need(facts_count(t.o.values, place) == LOSSES ? &t : NULL, place, "not all");
    }
    for (int i = 0; i < LAYOUTS; i++)
        for (int sharing = 0; sharing < 2; sharing++)
            run_layout(world, &t, &layouts[i], gemm, sharing, first);
    if (comm_root(world))
        printf("PASS\n");
    dpo_gradients_free(&t.gradients);
    for (int i = 0; i < ORACLE_CASES; i++)
        oracle_free(&t.policy[i]);
    dpo_oracle_free(&t.o);
    gemm_destroy(gemm);
    comm_finish(world);
    return 0;
}
