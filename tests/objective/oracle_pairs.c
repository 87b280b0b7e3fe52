/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/objective/oracle_pairs.h"

#include "tests/support/need.h"

#include <stdio.h>

const char *const oracle_cases[ORACLE_CASES] = {"policy_near", "policy_far"};

struct facts *oracle_dpo(void)
{
    return facts_load("../align/dpo.json");
}

static double number(const struct facts *f, const char *place, const char *key)
{
    char whole[160];
    snprintf(whole, sizeof whole, "%s/%s", place, key);
    return facts_double(f, whole);
}

double *oracle_numbers(const struct facts *f, const char *place, const char *key)
{
    char whole[160];
    int n;
    snprintf(whole, sizeof whole, "%s/%s", place, key);
    double *values = facts_doubles(f, whole, &n);
    return need(n == ORACLE_PAIRS ? values : NULL, whole, "not one for each pair");
}

void oracle_pairs(const struct facts *f, const char *name, struct preference_pair *pair)
{
    char place[64];
    snprintf(place, sizeof place, "cases/%s", name);
    double *pc = oracle_numbers(f, place, "policy_chosen");
    double *pr = oracle_numbers(f, place, "policy_rejected");
    double *rc = oracle_numbers(f, place, "ref_chosen");
    double *rr = oracle_numbers(f, place, "ref_rejected");
    int n, m;
    int32_t *nc = facts_ints(f, "chosen_tokens", &n);
    int32_t *nr = facts_ints(f, "rejected_tokens", &m);
    need(n == ORACLE_PAIRS && m == n ? nc : NULL, "tokens", "not one for each pair");
    for (int i = 0; i < n; i++)
        pair[i] = (struct preference_pair){pc[i], pr[i], rc[i], rr[i], nc[i], nr[i]};
    free(pc);
    free(pr);
    free(rc);
    free(rr);
    free(nc);
    free(nr);
}

struct preference_step oracle_step(const struct preference_pair *pair)
{
    struct preference_step step = {.pairs = ORACLE_PAIRS};
    for (int i = 0; i < ORACLE_PAIRS; i++)
        step.chosen_tokens += pair[i].chosen_tokens;
    return step;
}

struct preference_settings oracle_settings(const struct facts *f, const char *place)
{
    char name[160];
    struct err err = {0};
    struct preference_settings s = {
        .beta = number(f, place, "beta"),
        .label_smoothing = number(f, place, "label_smoothing"),
        .rpo_alpha = number(f, place, "rpo_alpha"),
        .discopop_tau = facts_double(f, "discopop_tau"),
    };
    snprintf(name, sizeof name, "%s/name", place);
    int failed = preference_find(facts_string(f, name), &s.loss, &err) ||
                 preference_check(&s, &err);
    need(failed ? NULL : f, place, err.text);
    return s;
}
