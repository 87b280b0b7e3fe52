/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/preference.h"

#include "src/base/check.h"
#include "src/base/suggest.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const char *const preference_names[PREFERENCE_LOSSES] = {
    "sigmoid",  "ipo",       "hinge",    "robust",   "sft",          "apo_zero",
    "apo_down", "sppo_hard", "exo_pair", "nca_pair", "sigmoid_norm", "discopop",
};

int preference_find(const char *name, enum preference_loss *loss, struct err *err)
{
    struct suggest s = suggest_for(name);
    char all[256];
    int used = 0;
    for (int i = 0; i < PREFERENCE_LOSSES; i++) {
        if (!strcmp(name, preference_names[i])) {
            *loss = (enum preference_loss)i;
            return 0;
        }
        suggest_try(&s, preference_names[i]);
        used += snprintf(all + used, sizeof all - (size_t)used, "%s%s",
                         i > 0 ? ", " : "", preference_names[i]);
    }
    if (s.best)
        return err_set(err, ERR_USAGE, "no preference loss '%s'; did you mean '%s'?",
                       name, s.best);
    return err_set(err, ERR_USAGE, "no preference loss '%s'; expected one of %s", name,
                   all);
}

/* ---- settings ---- */

static const double least = 1e-9, most = 1e9;

static bool smooths(enum preference_loss loss)
{
    return loss == PREFERENCE_SIGMOID || loss == PREFERENCE_ROBUST ||
           loss == PREFERENCE_EXO_PAIR;
}

static int check_smoothing(const struct preference_settings *s, struct err *err)
{
    const char *name = preference_names[s->loss];
    double e = s->label_smoothing;
    if (!smooths(s->loss)) {
        if (e == 0)
            return 0;
        return err_set(err, ERR_USAGE,
                       "label_smoothing: expected 0, found %g; loss %s does not smooth "
                       "labels (sigmoid, robust and exo_pair do)",
                       e, name);
    }
    if (s->loss == PREFERENCE_EXO_PAIR && e == 0)
        return err_set(err, ERR_USAGE,
                       "label_smoothing: expected more than 0 and less than 0.5 for "
                       "loss exo_pair (it divides by it; 0.001 is usual), found 0");
    if (!(e >= 0 && e < 0.5))
        return err_set(err, ERR_USAGE,
                       "label_smoothing: expected 0 or more and less than 0.5 for loss "
                       "%s (the share of swapped labels), found %g",
                       name, e);
    return 0;
}

int preference_check(const struct preference_settings *s, struct err *err)
{
    CHECK((int)s->loss >= 0 && s->loss < PREFERENCE_LOSSES, "loss %d", (int)s->loss);
    if (!(s->beta >= least && s->beta <= most))
        return err_set(err, ERR_USAGE,
                       "beta: expected a number above 0, from %g to %g (0.1 is usual), "
                       "found %g",
                       least, most, s->beta);
    if (check_smoothing(s, err))
        return -1;
    if (s->loss != PREFERENCE_SIGMOID && s->rpo_alpha != 0)
        return err_set(err, ERR_USAGE,
                       "rpo_alpha: expected 0, found %g; loss %s has no sft term "
                       "beside it (sigmoid has)",
                       s->rpo_alpha, preference_names[s->loss]);
    if (!(s->rpo_alpha >= 0 && s->rpo_alpha <= most))
        return err_set(err, ERR_USAGE, "rpo_alpha: expected 0 to %g, found %g", most,
                       s->rpo_alpha);
    /* Above 1 the exponential wins and exp(|x|) would overflow. */
    if (s->loss == PREFERENCE_DISCOPOP &&
        !(s->discopop_tau >= least && s->discopop_tau <= 1))
        return err_set(err, ERR_USAGE,
                       "discopop_tau: expected a number above 0, from %g to 1 (0.05 is "
                       "usual), found %g",
                       least, s->discopop_tau);
    return 0;
}

/* ---- losses ---- */

/* A loss with its derivatives by the two log-ratios. */
struct term {
    double loss, d_chosen, d_rejected;
};

/* Log-ratios and what else the formulas name. */
struct ratios {
    double c, r, nc, nr, beta, e, tau;
};

static double logistic(double x)
{
    double small = exp(-fabs(x)); /* of the positive side it is the odds against */
    return (x >= 0 ? 1.0 : small) / (1.0 + small);
}

/* -log S(x) */
static double softplus_minus(double x)
{
    return (x < 0 ? -x : 0.0) + log1p(exp(-fabs(x)));
}

/* S'(x) = S(x) S(-x) */
static double logistic_slope(double x)
{
    return logistic(x) * logistic(-x);
}

/* A loss of x = beta (c - r) with slope `slope`. */
static struct term of_margin(const struct ratios *q, double loss, double slope)
{
    return (struct term){loss, q->beta * slope, -q->beta * slope};
}

static struct term sigmoid(const struct ratios *q)
{
    double x = q->beta * (q->c - q->r), e = q->e;
    return of_margin(q, (1 - e) * softplus_minus(x) + e * softplus_minus(-x),
                     e * logistic(x) - (1 - e) * logistic(-x));
}

static struct term robust(const struct ratios *q)
{
    double x = q->beta * (q->c - q->r), e = q->e, scale = 1 / (1 - 2 * e);
    return of_margin(q, scale * ((1 - e) * softplus_minus(x) - e * softplus_minus(-x)),
                     -scale * ((1 - e) * logistic(-x) + e * logistic(x)));
}

static struct term hinge(const struct ratios *q)
{
    double x = q->beta * (q->c - q->r);
    /* NaN stays NaN */
    return of_margin(q, x >= 1 ? 0.0 : 1 - x, x >= 1 ? 0.0 : -1.0);
}

static struct term ipo(const struct ratios *q)
{
    double u = q->c / q->nc - q->r / q->nr - 0.5 / q->beta;
    return (struct term){u * u, 2 * u / q->nc, -2 * u / q->nr};
}

static struct term sigmoid_norm(const struct ratios *q)
{
    double x = q->beta * (q->c / q->nc - q->r / q->nr);
    double slope = -q->beta * logistic(-x);
    return (struct term){softplus_minus(x), slope / q->nc, -slope / q->nr};
}

static struct term sppo_hard(const struct ratios *q)
{
    double u = q->c - 0.5 / q->beta, v = q->r + 0.5 / q->beta;
    return (struct term){u * u + v * v, 2 * u, 2 * v};
}

/* log(S(x)/(1-e)) - log(S(-x)/e) = x - log((1-e)/e), which is the slope but for S'. */
static struct term exo_pair(const struct ratios *q)
{
    double x = q->beta * (q->c - q->r), log_p = log1p(-q->e), log_e = log(q->e);
    double loss = logistic(x) * (-softplus_minus(x) - log_p) +
                  logistic(-x) * (-softplus_minus(-x) - log_e);
    return of_margin(q, loss, logistic_slope(x) * (x - log_p + log_e));
}

static struct term nca_pair(const struct ratios *q)
{
    double a = q->beta * q->c, b = q->beta * q->r;
    return (struct term){
        softplus_minus(a) + 0.5 * (softplus_minus(-a) + softplus_minus(-b)),
        q->beta * (0.5 * logistic(a) - logistic(-a)), q->beta * 0.5 * logistic(b)};
}

static struct term apo_zero(const struct ratios *q)
{
    double a = q->beta * q->c, b = q->beta * q->r;
    return (struct term){logistic(-a) + logistic(b), -q->beta * logistic_slope(a),
                         q->beta * logistic_slope(b)};
}

static struct term apo_down(const struct ratios *q)
{
    double a = q->beta * q->c, x = q->beta * (q->c - q->r);
    return (struct term){logistic(a) + logistic(-x),
                         q->beta * (logistic_slope(a) - logistic_slope(x)),
                         q->beta * logistic_slope(x)};
}

/* m exp(-x) is taken as one exponential: apart, they are 0 times infinity. */
static struct term discopop(const struct ratios *q)
{
    double x = q->beta * (q->c - q->r), z = x / q->tau;
    double plain = softplus_minus(x), rest = logistic(-z);
    double exponential = exp(-x - softplus_minus(z));
    double slope = -logistic(-x) * rest - plain * logistic_slope(z) / q->tau +
                   exponential * (rest / q->tau - 1);
    return of_margin(q, rest * plain + exponential, slope);
}

static struct term term_of(enum preference_loss loss, const struct ratios *q)
{
    switch (loss) {
    case PREFERENCE_SIGMOID:
        return sigmoid(q);
    case PREFERENCE_IPO:
        return ipo(q);
    case PREFERENCE_HINGE:
        return hinge(q);
    case PREFERENCE_ROBUST:
        return robust(q);
    case PREFERENCE_APO_ZERO:
        return apo_zero(q);
    case PREFERENCE_APO_DOWN:
        return apo_down(q);
    case PREFERENCE_SPPO_HARD:
        return sppo_hard(q);
    case PREFERENCE_EXO_PAIR:
        return exo_pair(q);
    case PREFERENCE_NCA_PAIR:
        return nca_pair(q);
    case PREFERENCE_SIGMOID_NORM:
        return sigmoid_norm(q);
    case PREFERENCE_DISCOPOP:
        return discopop(q);
    case PREFERENCE_SFT:
    case PREFERENCE_LOSSES:
        break;
    }
    return (struct term){0}; /* sft: no term of a pair */
}

static double at_least_1(int64_t n)
{
    return n > 0 ? (double)n : 1.0;
}

struct preference_share preference_pair_share(const struct preference_settings *s,
                                              const struct preference_step *step,
                                              const struct preference_pair *pair)
{
    CHECK(step->pairs >= 1, "a step of %lld pairs", (long long)step->pairs);
    struct ratios q = {
        .c = pair->policy_chosen - pair->reference_chosen,
        .r = pair->policy_rejected - pair->reference_rejected,
        .nc = at_least_1(pair->chosen_tokens),
        .nr = at_least_1(pair->rejected_tokens),
        .beta = s->beta,
        .e = s->label_smoothing,
        .tau = s->discopop_tau,
    };
    struct term t = term_of(s->loss, &q);
    double pairs = (double)step->pairs;
    double sft = (s->loss == PREFERENCE_SFT ? 1.0 : s->rpo_alpha) /
                 at_least_1(step->chosen_tokens);
    return (struct preference_share){
        .loss = t.loss / pairs - sft * pair->policy_chosen,
        .d_chosen = t.d_chosen / pairs,
        .d_rejected = t.d_rejected / pairs,
        .d_chosen_token = -sft,
        .reward_chosen = q.beta * q.c,
        .reward_rejected = q.beta * q.r,
    };
}
