/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/preference.h"

#include "tests/objective/oracle_pairs.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct preference_step alone(const struct preference_pair *pair)
{
    return (struct preference_step){1, pair->chosen_tokens};
}

/* |got - expected|, relative above 1; a NaN is infinite. */
static double error_of(double got, double expected)
{
    double d = fabs(got - expected) / fmax(1.0, fabs(expected));
    return isnan(d) ? INFINITY : d;
}

/* ---- against TRL ---- */

struct worst {
    double loss, pair, by;
};

static void widen(double *worst, double d)
{
    *worst = d > *worst ? d : *worst;
}

/* The loss of each pair alone and of all as one step, and the step's derivatives. */
static struct worst against(const struct facts *f, const char *place,
                            const struct preference_pair *pair)
{
    struct preference_settings s = oracle_settings(f, place);
    struct preference_step step = oracle_step(pair);
    double *each = oracle_numbers(f, place, "per_pair");
    double *by_chosen = oracle_numbers(f, place, "dloss_dlogp_chosen");
    double *by_rejected = oracle_numbers(f, place, "dloss_dlogp_rejected");
    char whole[160];
    snprintf(whole, sizeof whole, "%s/loss", place);
    struct worst worst = {0};
    double sum = 0;
    for (int i = 0; i < ORACLE_PAIRS; i++) {
        struct preference_step one = alone(&pair[i]);
        widen(&worst.pair,
              error_of(preference_pair_share(&s, &one, &pair[i]).loss, each[i]));
        struct preference_share share = preference_pair_share(&s, &step, &pair[i]);
        sum += share.loss;
        widen(&worst.by, error_of(share.d_chosen + share.d_chosen_token, by_chosen[i]));
        widen(&worst.by, error_of(share.d_rejected, by_rejected[i]));
        assert_true(share.reward_chosen ==
                    s.beta * (pair[i].policy_chosen - pair[i].reference_chosen));
        assert_true(share.reward_rejected ==
                    s.beta * (pair[i].policy_rejected - pair[i].reference_rejected));
    }
    widen(&worst.loss, error_of(sum, facts_double(f, whole)));
    free(each);
    free(by_chosen);
    free(by_rejected);
    return worst;
}

/* TRL keeps exo_pair's smoothing and its logarithm in float32. */
static double limit_of(const char *name)
{
    return strncmp(name, "exo_pair", 8) ? 1e-9 : 1e-6;
}

static void equals_trl(void **state)
{
    (void)state;
    struct facts *f = oracle_dpo();
    bool seen[PREFERENCE_LOSSES] = {0}, bad = false;
    for (int c = 0; c < ORACLE_CASES; c++) {
        struct preference_pair pair[ORACLE_PAIRS];
        char place[128];
        oracle_pairs(f, oracle_cases[c], pair);
        snprintf(place, sizeof place, "cases/%s/losses", oracle_cases[c]);
        int losses = facts_count(f, place);
        assert_int_equal(losses, 16);
        for (int i = 0; i < losses; i++) {
            snprintf(place, sizeof place, "cases/%s/losses", oracle_cases[c]);
            const char *name = facts_key(f, place, i);
            snprintf(place, sizeof place, "cases/%s/losses/%s", oracle_cases[c], name);
            struct worst w = against(f, place, pair);
            printf("%-12s %-16s error of the pairs %.1e, the step %.1e, derivatives "
                   "%.1e\n",
                   oracle_cases[c], name, w.pair, w.loss, w.by);
            bad = bad || !(fmax(w.pair, fmax(w.loss, w.by)) < limit_of(name));
            seen[oracle_settings(f, place).loss] = true;
        }
        for (int i = 0; i < ORACLE_PAIRS; i++)
            pair[i].reference_chosen = pair[i].reference_rejected = 0;
        snprintf(place, sizeof place, "cases/%s/reference_free", oracle_cases[c]);
        struct worst w = against(f, place, pair);
        printf("%-12s without reference error of the pairs %.1e, the step %.1e, "
               "derivatives %.1e\n",
               oracle_cases[c], w.pair, w.loss, w.by);
        bad = bad || !(fmax(w.pair, fmax(w.loss, w.by)) < 1e-9);
    }
    facts_destroy(f);
    for (int i = 0; i < PREFERENCE_LOSSES; i++)
        if (!seen[i])
            fail_msg("TRL's values lack %s", preference_names[i]);
    assert_false(bad);
}

/* ---- against finite differences ---- */

static double loss_at(const struct preference_settings *s, struct preference_pair p,
                      double chosen, double rejected)
{
    struct preference_step step = {3, 29};
    p.policy_chosen += chosen;
    p.policy_rejected += rejected;
    return preference_pair_share(s, &step, &p).loss;
}

/* By five points, along one of the two sums. */
static double slope_of(const struct preference_settings *s,
                       const struct preference_pair *p, bool chosen)
{
    const double h = 1e-3;
    double at[5];
    for (int i = 0; i < 5; i++)
        at[i] = loss_at(s, *p, chosen ? (i - 2) * h : 0, chosen ? 0 : (i - 2) * h);
    return (8 * (at[3] - at[1]) - (at[4] - at[0])) / (12 * h);
}

/* Settings that pass the check, one or more of each loss. */
static const struct preference_settings settings[] = {
    {PREFERENCE_SIGMOID, 0.1, 0, 0, 0},      {PREFERENCE_SIGMOID, 0.1, 0.2, 0.7, 0},
    {PREFERENCE_SIGMOID, 1, 0.49, 2, 0},     {PREFERENCE_IPO, 0.1, 0, 0, 0},
    {PREFERENCE_HINGE, 0.3, 0, 0, 0},        {PREFERENCE_ROBUST, 0.1, 0, 0, 0},
    {PREFERENCE_ROBUST, 0.5, 0.4, 0, 0},     {PREFERENCE_SFT, 0.1, 0, 0, 0},
    {PREFERENCE_APO_ZERO, 0.2, 0, 0, 0},     {PREFERENCE_APO_DOWN, 0.2, 0, 0, 0},
    {PREFERENCE_SPPO_HARD, 0.1, 0, 0, 0},    {PREFERENCE_EXO_PAIR, 0.1, 1e-3, 0, 0},
    {PREFERENCE_EXO_PAIR, 0.5, 0.3, 0, 0},   {PREFERENCE_NCA_PAIR, 0.2, 0, 0, 0},
    {PREFERENCE_SIGMOID_NORM, 2, 0, 0, 0},   {PREFERENCE_DISCOPOP, 0.05, 0, 0, 0.05},
    {PREFERENCE_DISCOPOP, 0.1, 0, 0, 0.999}, {PREFERENCE_DISCOPOP, 0.1, 0, 0, 1},
};
enum { SETTINGS = sizeof settings / sizeof *settings };

static void derivatives_are_those_of_the_loss(void **state)
{
    (void)state;
    static const double ratio[] = {-61, -7.3, -0.9, 0, 0.4, 5.1, 83};
    enum { RATIOS = sizeof ratio / sizeof *ratio };
    bool bad = false;
    for (int k = 0; k < SETTINGS; k++) {
        const struct preference_settings *s = &settings[k];
        double worst = 0, steepest = 0;
        for (int i = 0; i < RATIOS * RATIOS; i++) {
            double c = ratio[i / RATIOS], r = ratio[i % RATIOS];
            struct preference_pair p = {-20 + c, -30 + r, -20, -30, 7, 11};
            struct preference_step step = {3, 29};
            struct preference_share share = preference_pair_share(s, &step, &p);
            double by = share.d_chosen + share.d_chosen_token;
            widen(&worst, error_of(by, slope_of(s, &p, true)));
            widen(&worst, error_of(share.d_rejected, slope_of(s, &p, false)));
            widen(&steepest, fabs(by));
        }
        printf("%-12s beta %.2f smoothing %.3f alpha %.1f tau %.3f: error %.1e, "
               "steepest %.1e\n",
               preference_names[s->loss], s->beta, s->label_smoothing, s->rpo_alpha,
               s->discopop_tau, worst, steepest);
        bad = bad || !(worst < 1e-8) || steepest < 1e-3;
    }
    assert_false(bad);
}

/* sft acts on the tokens, divided by the step's; the rest on the sums, by its pairs. */
static void sft_is_apart(void **state)
{
    (void)state;
    static const struct preference_step step = {3, 29};
    static const struct preference_pair p = {-18, -29, -20, -30, 7, 11};
    for (int k = 0; k < SETTINGS; k++) {
        const struct preference_settings *s = &settings[k];
        struct preference_settings bare = *s;
        struct preference_step one = alone(&p);
        bare.rpo_alpha = 0;
        double weight = s->loss == PREFERENCE_SFT ? 1 : s->rpo_alpha;
        struct preference_share share = preference_pair_share(s, &step, &p);
        struct preference_share whole = preference_pair_share(&bare, &one, &p);
        if (s->loss == PREFERENCE_SFT)
            whole.loss = 0;
        assert_true(error_of(share.d_chosen_token, -weight / 29) < 1e-15);
        assert_true(error_of(share.d_chosen, whole.d_chosen / 3) < 1e-15);
        assert_true(error_of(share.d_rejected, whole.d_rejected / 3) < 1e-15);
        assert_true(error_of(share.loss, whole.loss / 3 + weight * 18 / 29) < 1e-15);
        assert_true((share.d_chosen == 0) == (s->loss == PREFERENCE_SFT));
    }
}

/* ---- far away ---- */

static bool share_is_finite(const struct preference_share *share)
{
    return isfinite(share->loss) && isfinite(share->d_chosen) &&
           isfinite(share->d_rejected) && isfinite(share->d_chosen_token) &&
           isfinite(share->reward_chosen) && isfinite(share->reward_rejected);
}

static void nothing_overflows(void **state)
{
    (void)state;
    static const double ratio[] = {-1e4, -710, -37, -1e-300, 0, 1e-12, 37, 745, 1e4};
    static const double beta[] = {1e-9, 0.1, 1, 100, 1e9}, tau[] = {1e-9, 0.05, 1};
    enum { RATIOS = sizeof ratio / sizeof *ratio };
    struct err err = {0};
    int count = 0;
    for (int k = 0; k < SETTINGS * 15; k++) {
        struct preference_settings s = settings[k / 15];
        s.beta = beta[k % 5];
        s.discopop_tau = tau[k / 5 % 3];
        assert_int_equal(preference_check(&s, &err), 0);
        for (int i = 0; i < RATIOS * RATIOS; i++, count++) {
            struct preference_pair p = {-1e4, -1e4, -1e4, -1e4, i % 3, i % 2};
            p.policy_chosen += ratio[i / RATIOS];
            p.policy_rejected += ratio[i % RATIOS];
            struct preference_step step = alone(&p);
            struct preference_share share = preference_pair_share(&s, &step, &p);
            if (!share_is_finite(&share))
                fail_msg("%s beta %g tau %g, ratios %g %g: loss %g, %g %g",
                         preference_names[s.loss], s.beta, s.discopop_tau,
                         ratio[i / RATIOS], ratio[i % RATIOS], share.loss,
                         share.d_chosen, share.d_rejected);
        }
    }
    printf("%d values, all finite\n", count);
}

/* Ratios c and r (7 and 11 tokens) of a pair alone, and what the formulas give there.
 */
static const struct far {
    struct preference_settings s;
    double c, r, loss, d_chosen, d_rejected;
} far[] = {
    {{PREFERENCE_SIGMOID, 1, 0, 0, 0}, -1e4, 1e4, 2e4, -1, 1},
    {{PREFERENCE_SIGMOID, 1, 0, 0, 0}, 1e4, -1e4, 0, 0, 0},
    {{PREFERENCE_SIGMOID, 1, 0.25, 0, 0}, 1e4, -1e4, 5e3, 0.25, -0.25},
    {{PREFERENCE_ROBUST, 1, 0.25, 0, 0}, 1e4, -1e4, -1e4, -0.5, 0.5},
    {{PREFERENCE_HINGE, 1, 0, 0, 0}, -1e4, 1e4, 20001, -1, 1},
    {{PREFERENCE_HINGE, 1, 0, 0, 0}, 1, 0, 0, 0, 0},
    {{PREFERENCE_IPO, 0.5, 0, 0, 0}, 7e3, -8.8e3, 3236401, 3598. / 7, -3598. / 11},
    {{PREFERENCE_APO_ZERO, 1, 0, 0, 0}, -1e4, 1e4, 2, 0, 0},
    {{PREFERENCE_APO_DOWN, 1, 0, 0, 0}, 1e4, -1e4, 1, 0, 0},
    {{PREFERENCE_SPPO_HARD, 0.5, 0, 0, 0}, -9999, 9999, 2e8, -2e4, 2e4},
    {{PREFERENCE_EXO_PAIR, 1, 0.125, 0, 0}, -1e4, 1e4, 2.0794415416798357, 0, 0},
    {{PREFERENCE_EXO_PAIR, 1, 0.125, 0, 0}, 1e4, -1e4, 0.13353139262452263, 0, 0},
    {{PREFERENCE_NCA_PAIR, 1, 0, 0, 0}, -1e4, 1e4, 1.5e4, -1, 0.5},
    {{PREFERENCE_SIGMOID_NORM, 77, 0, 0, 0}, -7e3, 1.1e4, 154e3, -11, 7},
    {{PREFERENCE_DISCOPOP, 1, 0, 0, 0.05}, -1e4, 1e4, 2e4, -1, 1},
    {{PREFERENCE_DISCOPOP, 1, 0, 0, 0.05}, 1e4, -1e4, 0, 0, 0},
    {{PREFERENCE_DISCOPOP, 1, 0, 0, 1}, -1e4, 1e4, 20001, -1, 1},
};

static void holds_far_away(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
        const struct far *row = &far[i];
        struct preference_pair p = {row->c, row->r, 0, 0, 7, 11};
        struct preference_step step = alone(&p);
        struct preference_share share = preference_pair_share(&row->s, &step, &p);
        if (!(error_of(share.loss, row->loss) < 1e-15 &&
              error_of(share.d_chosen, row->d_chosen) < 1e-15 &&
              error_of(share.d_rejected, row->d_rejected) < 1e-15))
            fail_msg("row %zu (%s): %.17g, %.17g, %.17g", i,
                     preference_names[row->s.loss], share.loss, share.d_chosen,
                     share.d_rejected);
    }
}

/* sft reads the policy's chosen sum only. */
static void nan_stays_nan(void **state)
{
    (void)state;
    for (int k = 0; k < SETTINGS * 4; k++) {
        const struct preference_settings *s = &settings[k / 4];
        struct preference_pair p = {-19, -30, -20, -30, 7, 11};
        double *sum[] = {&p.policy_chosen, &p.policy_rejected, &p.reference_chosen,
                         &p.reference_rejected};
        struct preference_step step = alone(&p);
        *sum[k % 4] = NAN;
        bool reads = s->loss != PREFERENCE_SFT || k % 4 == 0;
        if (isnan(preference_pair_share(s, &step, &p).loss) != reads)
            fail_msg("%s, NaN as sum %d", preference_names[s->loss], k % 4);
    }
}

/* ---- settings ---- */

static const struct wrong {
    struct preference_settings s;
    const char *text;
} wrong[] = {
    {{PREFERENCE_SIGMOID, 0, 0, 0, 0}, "beta: expected a number above 0"},
    {{PREFERENCE_SFT, -0.1, 0, 0, 0}, "found -0.1"},
    {{PREFERENCE_IPO, NAN, 0, 0, 0}, "beta: expected"},
    {{PREFERENCE_SIGMOID, INFINITY, 0, 0, 0}, "beta: expected"},
    {{PREFERENCE_SIGMOID, 1e-10, 0, 0, 0}, "beta: expected"},
    {{PREFERENCE_SIGMOID, 0.1, 0.5, 0, 0}, "label_smoothing: expected 0 or more and"},
    {{PREFERENCE_SIGMOID, 0.1, -0.1, 0, 0}, "loss sigmoid"},
    {{PREFERENCE_ROBUST, 0.1, 0.5, 0, 0}, "less than 0.5 for loss robust"},
    {{PREFERENCE_ROBUST, 0.1, NAN, 0, 0}, "label_smoothing: expected"},
    {{PREFERENCE_EXO_PAIR, 0.1, 0, 0, 0}, "label_smoothing: expected more than 0"},
    {{PREFERENCE_EXO_PAIR, 0.1, 0.5, 0, 0}, "less than 0.5 for loss exo_pair"},
    {{PREFERENCE_HINGE, 0.1, 0.1, 0, 0}, "loss hinge does not smooth labels"},
    {{PREFERENCE_HINGE, 0.1, -0.1, 0, 0}, "loss hinge does not smooth labels"},
    {{PREFERENCE_IPO, 0.1, NAN, 0, 0}, "loss ipo does not smooth labels"},
    {{PREFERENCE_IPO, 0.1, 0, 1, 0}, "rpo_alpha: expected 0, found 1; loss ipo"},
    {{PREFERENCE_SFT, 0.1, 0, NAN, 0}, "rpo_alpha: expected 0"},
    {{PREFERENCE_SIGMOID, 0.1, 0, -1, 0}, "rpo_alpha: expected 0 to 1e+09, found -1"},
    {{PREFERENCE_SIGMOID, 0.1, 0, NAN, 0}, "rpo_alpha: expected 0 to"},
    {{PREFERENCE_DISCOPOP, 0.1, 0, 0, 0}, "discopop_tau: expected a number above 0"},
    {{PREFERENCE_DISCOPOP, 0.1, 0, 0, 1.1}, "found 1.1"},
    {{PREFERENCE_DISCOPOP, 0.1, 0, 0, NAN}, "discopop_tau: expected"},
};

static void settings_are_checked(void **state)
{
    (void)state;
    for (int k = 0; k < SETTINGS; k++) {
        struct err err = {0};
        if (preference_check(&settings[k], &err))
            fail_msg("row %d: %s", k, err.text);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct err err = {0};
        assert_int_equal(preference_check(&wrong[i].s, &err), -1);
        assert_int_equal(err.code, ERR_USAGE);
        if (!strstr(err.text, wrong[i].text))
            fail_msg("row %zu: %s", i, err.text);
    }
}

static void names_are_found(void **state)
{
    (void)state;
    enum preference_loss loss = PREFERENCE_LOSSES;
    struct err err = {0};
    for (int i = 0; i < PREFERENCE_LOSSES; i++) {
        assert_int_equal(preference_find(preference_names[i], &loss, &err), 0);
        assert_int_equal(loss, i);
    }
    assert_int_equal(preference_find("sigmoid_nrom", &loss, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "did you mean 'sigmoid_norm'?"));
    assert_int_equal(preference_find("", &loss, &err), -1);
    assert_int_equal(preference_find("kto_something_else", &loss, &err), -1);
    for (int i = 0; i < PREFERENCE_LOSSES; i++)
        assert_non_null(strstr(err.text, preference_names[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_trl),
        cmocka_unit_test(derivatives_are_those_of_the_loss),
        cmocka_unit_test(sft_is_apart),
        cmocka_unit_test(nothing_overflows),
        cmocka_unit_test(holds_far_away),
        cmocka_unit_test(nan_stays_nan),
        cmocka_unit_test(settings_are_checked),
        cmocka_unit_test(names_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
