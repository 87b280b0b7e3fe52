/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/preference_stats.h"

#include "tests/objective/oracle_pairs.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const struct preference_settings sigmoid = {PREFERENCE_SIGMOID, 0.1, 0, 0, 0};

/* The pairs of a case in the order of `order`, as one step. */
static void put_all(struct preference_stats *s, const struct preference_pair *pair,
                    const int *order)
{
    struct preference_step step = oracle_step(pair);
    preference_stats_begin(s, ORACLE_PAIRS);
    for (int k = 0; k < ORACLE_PAIRS; k++) {
        int i = order[k];
        struct preference_share share =
            preference_pair_share(&sigmoid, &step, &pair[i]);
        preference_stats_put(s, i, &pair[i], &share);
    }
}

static const int in_order[ORACLE_PAIRS] = {0, 1, 2, 3, 4, 5, 6, 7};

static double expected_of(const struct facts *f, const char *name, int metric)
{
    char place[128];
    snprintf(place, sizeof place, "cases/%s/%s/%s", name,
             metric == PREFERENCE_METRIC_LOSS ? "losses/sigmoid" : "metrics",
             preference_metric_names[metric]);
    return facts_double(f, place);
}

/* TRL has no mean log-ratio per token. */
static double mean_ratio(const struct preference_pair *pair, int metric)
{
    double sum = 0;
    for (int i = 0; i < ORACLE_PAIRS; i++, pair++)
        sum += metric == PREFERENCE_METRIC_LOGRATIO_CHOSEN
                   ? (pair->policy_chosen - pair->reference_chosen) /
                         (double)pair->chosen_tokens
                   : (pair->policy_rejected - pair->reference_rejected) /
                         (double)pair->rejected_tokens;
    return sum / ORACLE_PAIRS;
}

static void equals_trl(void **state)
{
    (void)state;
    struct err err = {0};
    struct preference_stats s;
    struct facts *f = oracle_dpo();
    double worst = 0;
    assert_int_equal(preference_stats_init(&s, ORACLE_PAIRS, &err), 0);
    for (int c = 0; c < ORACLE_CASES; c++) {
        struct preference_pair pair[ORACLE_PAIRS];
        double mean[PREFERENCE_METRICS];
        oracle_pairs(f, oracle_cases[c], pair);
        put_all(&s, pair, in_order);
        preference_stats_means(&s, mean);
        for (int m = 0; m < PREFERENCE_METRICS; m++) {
            double expected = m < PREFERENCE_METRIC_LOGRATIO_CHOSEN
                                  ? expected_of(f, oracle_cases[c], m)
                                  : mean_ratio(pair, m);
            double error = fabs(mean[m] - expected) / fmax(1, fabs(expected));
            printf("%-12s %-18s %.17g, expected %.17g\n", oracle_cases[c],
                   preference_metric_names[m], mean[m], expected);
            worst = error <= worst ? worst : error;
        }
    }
    preference_stats_fini(&s);
    facts_destroy(f);
    printf("worst error %.1e\n", worst);
    assert_true(worst < 1e-12);
}

static void a_tie_is_not_accurate(void **state)
{
    (void)state;
    static const struct preference_pair pair[] = {{-5, -9, -7, -11, 2, 4},
                                                  {-5, -9, -7, -12, 0, 0}};
    static const struct preference_step step = {2, 2};
    struct err err = {0};
    struct preference_stats s;
    double mean[PREFERENCE_METRICS];
    assert_int_equal(preference_stats_init(&s, 5, &err), 0);
    preference_stats_begin(&s, 2);
    for (int i = 0; i < 2; i++) {
        struct preference_share share =
            preference_pair_share(&sigmoid, &step, &pair[i]);
        preference_stats_put(&s, i, &pair[i], &share);
    }
    preference_stats_means(&s, mean);
    assert_true(mean[PREFERENCE_METRIC_REWARDS_ACCURACIES] == 0);
    assert_true(mean[PREFERENCE_METRIC_LOGPS_REJECTED] == -9);
    /* no counted token: the ratio itself */
    assert_true(mean[PREFERENCE_METRIC_LOGRATIO_CHOSEN] == (2. / 2 + 2) / 2);
    assert_true(mean[PREFERENCE_METRIC_LOGRATIO_REJECTED] == (2. / 4 + 3) / 2);
    preference_stats_fini(&s);
}

/* Two ranks with other micro-batches, summed: the same bits as one rank. */
static void bits_do_not_depend_on_the_cut(void **state)
{
    (void)state;
    static const int shuffled[ORACLE_PAIRS] = {6, 1, 7, 0, 3, 5, 2, 4};
    struct err err = {0};
    struct preference_stats whole, part, sum;
    struct facts *f = oracle_dpo();
    struct preference_pair pair[ORACLE_PAIRS];
    double expected[PREFERENCE_METRICS], mean[PREFERENCE_METRICS];
    oracle_pairs(f, "policy_far", pair);
    struct preference_step step = oracle_step(pair);
    assert_int_equal(preference_stats_init(&whole, ORACLE_PAIRS, &err), 0);
    assert_int_equal(preference_stats_init(&part, ORACLE_PAIRS, &err), 0);
    assert_int_equal(preference_stats_init(&sum, ORACLE_PAIRS, &err), 0);
    put_all(&whole, pair, in_order);
    preference_stats_means(&whole, expected);
    put_all(&sum, pair, shuffled);
    preference_stats_means(&sum, mean);
    assert_memory_equal(mean, expected, sizeof mean);
    preference_stats_begin(&sum, ORACLE_PAIRS);
    for (int rank = 0; rank < 2; rank++) {
        preference_stats_begin(&part, ORACLE_PAIRS);
        for (int k = 0; k < ORACLE_PAIRS; k++) {
            int i = shuffled[k];
            struct preference_share share =
                preference_pair_share(&sigmoid, &step, &pair[i]);
            if (k % 3 % 2 == rank)
                preference_stats_put(&part, i, &pair[i], &share);
        }
        for (int j = 0; j < ORACLE_PAIRS * PREFERENCE_KEPT; j++)
            sum.value[j] += part.value[j];
    }
    preference_stats_means(&sum, mean);
    assert_memory_equal(mean, expected, sizeof mean);
    preference_stats_fini(&whole);
    preference_stats_fini(&part);
    preference_stats_fini(&sum);
    facts_destroy(f);
}

/* ---- bugs of the caller ---- */

/* Whether a child aborts that puts `puts` pairs, the last at `index`, and asks. */
static int aborts(int pairs, int puts, int index)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct err err = {0};
        struct preference_stats s;
        struct preference_pair pair = {-5, -9, -7, -11, 2, 4};
        struct preference_share share = {0};
        double mean[PREFERENCE_METRICS];
        if (!freopen("/dev/null", "w", stderr) || preference_stats_init(&s, 4, &err))
            _exit(9);
        signal(SIGABRT, SIG_DFL);
        preference_stats_begin(&s, pairs);
        for (int i = 0; i < puts; i++)
            preference_stats_put(&s, i + 1 < puts ? i : index, &pair, &share);
        preference_stats_means(&s, mean);
        _exit(0);
    }
    int status;
    assert_true(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void each_pair_is_put_once(void **state)
{
    (void)state;
    assert_false(aborts(3, 3, 2));
    assert_true(aborts(3, 2, 1));  /* one is missing */
    assert_true(aborts(3, 3, 1));  /* one twice, one missing */
    assert_true(aborts(3, 4, 1));  /* one twice */
    assert_true(aborts(3, 3, 3));  /* no such pair */
    assert_true(aborts(3, 3, -1)); /* likewise */
    assert_true(aborts(5, 5, 4));  /* no room */
    assert_true(aborts(0, 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_trl),
        cmocka_unit_test(a_tie_is_not_accurate),
        cmocka_unit_test(bits_do_not_depend_on_the_cut),
        cmocka_unit_test(each_pair_is_put_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
