/* SPDX-License-Identifier: Apache-2.0 */
#include "src/optim/lr.h"

#include "tests/support/facts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Which of transformers' schedules is which of ours. */
static const struct name {
    const char *name;
    enum lr_schedule schedule;
} names[] = {
    {"constant_with_warmup", LR_CONSTANT},
    {"linear", LR_LINEAR},
    {"cosine", LR_COSINE},
    {"cosine_with_min_lr", LR_COSINE},
    {"warmup_stable_decay", LR_WSD},
};

static enum lr_schedule schedule_named(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].name, name))
            return names[i].schedule;
    fail_msg("unknown schedule %s", name);
    return LR_CONSTANT;
}

static double number_or_0(const struct facts *f, const char *entry, const char *key)
{
    char place[128];
    snprintf(place, sizeof place, "%s/kwargs/%s", entry, key);
    return facts_has(f, place) ? facts_double(f, place) : 0.0;
}

static struct lr lr_of(const struct facts *f, const char *entry)
{
    char place[128];
    snprintf(place, sizeof place, "%s/name", entry);
    struct lr lr = {.schedule = schedule_named(facts_string(f, place)), .peak = 1.0};
    snprintf(place, sizeof place, "%s/warmup_steps", entry);
    lr.warmup = facts_int(f, place);
    lr.steps = facts_int(f, "training_steps");
    lr.min =
        number_or_0(f, entry, "min_lr_rate") + number_or_0(f, entry, "min_lr_ratio");
    lr.decay = (int64_t)number_or_0(f, entry, "num_decay_steps");
    snprintf(place, sizeof place, "%s/kwargs/decay_type", entry);
    const char *shape = facts_has(f, place) ? facts_string(f, place) : "cosine";
    lr.decay_shape = !strcmp(shape, "linear")   ? LR_DECAY_LINEAR
                     : !strcmp(shape, "1-sqrt") ? LR_DECAY_SQRT
                                                : LR_DECAY_COSINE;
    return lr;
}

/* Past the end our rule stands: min (0 for linear, the peak for constant). The table
 * agrees with it but for the cosine, which rises again there. */
static void equals_transformers(void **state)
{
    (void)state;
    struct facts *f = facts_load("schedules.json");
    int entries = facts_count(f, "schedules"), past = 0;
    double worst = 0;
    assert_true(entries >= 10);
    for (int e = 0; e < entries; e++) {
        char entry[64], place[128];
        snprintf(entry, sizeof entry, "schedules/%d", e);
        struct lr lr = lr_of(f, entry);
        snprintf(place, sizeof place, "%s/lr", entry);
        int n;
        double *expected = facts_doubles(f, place, &n), error = 0;
        assert_true(n > lr.steps);
        for (int k = 0; k < n; k++) {
            if (k >= lr.steps && lr.schedule == LR_COSINE)
                expected[k] = lr.min;
            past += k >= lr.steps;
            double d = fabs(lr_at(&lr, k) - expected[k]);
            error = d > error ? d : error;
        }
        snprintf(place, sizeof place, "%s/label", entry);
        printf("%-40s warmup %2lld: worst error %.1e\n", facts_string(f, place),
               (long long)lr.warmup, error);
        worst = error > worst ? error : worst;
        free(expected);
    }
    printf("%d schedules, %d values past the end\n", entries, past);
    facts_destroy(f);
    assert_true(worst < 1e-12);
}

static const struct edge {
    struct lr lr;
    int64_t k;
    double rate;
} edges[] = {
    /* the first step of a warm-up has rate 0 (wsd: min) */
    {{LR_COSINE, 0, 4.0, 1.0, 10, 5, 0}, 0, 0.0},
    {{LR_WSD, 0, 4.0, 1.0, 10, 5, 2}, 0, 1.0},
    {{LR_LINEAR, 0, 4.0, 0.0, 10, 0, 0}, 0, 4.0},
    /* past the end */
    {{LR_CONSTANT, 0, 4.0, 1.0, 10, 5, 0}, 10, 4.0},
    {{LR_LINEAR, 0, 4.0, 1.0, 10, 5, 0}, 10, 0.0},
    {{LR_COSINE, 0, 4.0, 1.0, 10, 5, 0}, 1000, 1.0},
    {{LR_WSD, LR_DECAY_SQRT, 4.0, 1.0, 10, 5, 2}, 1000, 1.0},
    /* a warm-up as long as the run, or longer, divides by nothing */
    {{LR_COSINE, 0, 4.0, 1.0, 10, 10, 0}, 9, 3.6},
    {{LR_LINEAR, 0, 4.0, 1.0, 10, 10, 0}, 10, 0.0},
    {{LR_COSINE, 0, 4.0, 1.0, 10, 20, 0}, 9, 1.8},
    {{LR_WSD, 0, 4.0, 1.0, 10, 10, 0}, 9, 3.7},
    /* no stable part, no decay, one step */
    {{LR_WSD, LR_DECAY_LINEAR, 4.0, 0.0, 10, 2, 8}, 6, 2.0},
    {{LR_WSD, LR_DECAY_LINEAR, 4.0, 1.0, 10, 0, 0}, 9, 4.0},
    {{LR_COSINE, 0, 4.0, 1.0, 1, 0, 0}, 0, 4.0},
};

static void holds_at_the_edges(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        double rate = lr_at(&edges[i].lr, edges[i].k);
        if (!(fabs(rate - edges[i].rate) < 1e-14))
            fail_msg("row %zu: %.17g, expected %.17g", i, rate, edges[i].rate);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_transformers),
        cmocka_unit_test(holds_at_the_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
