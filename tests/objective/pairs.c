/* SPDX-License-Identifier: Apache-2.0 */
#include "src/objective/pairs.h"

#include "src/objective/pair_step.h"
#include "src/objective/sdpo.h"
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

enum { SEQ_LEN = 9, PAIRS = 2, ROWS = 2 * SEQ_LEN * PAIRS };

/* A prompt of three ids, chosen of three whose last does not count, rejected of four;
 * and a pair without a prompt. */
static const int32_t ids[] = {1, 5, 6, 10, 11, 12, 20, 21, 22, 23};
static const uint8_t marks[] = {0, 0, 0, 1, 1, 0, 1, 0, 1, 1};
static const int64_t ends[] = {3, 6, 10};
static const int32_t bare_ids[] = {7, 8, 9, 6};
static const uint8_t bare_marks[] = {1, 1, 0, 1};
static const int64_t bare_ends[] = {0, 2, 4};

static int32_t *slots_make(void)
{
    int words = pairs_slot_words(SEQ_LEN);
    int32_t *slots = malloc((size_t)(PAIRS * words) * sizeof *slots);
    assert_non_null(slots);
    memset(slots, 0x55, (size_t)(PAIRS * words) * sizeof *slots);
    pairs_store(slots, SEQ_LEN, &(struct pair_tokens){ids, marks, ends},
                (struct pair_sums){-1.25, -0.0});
    pairs_store(slots + words, SEQ_LEN,
                &(struct pair_tokens){bare_ids, bare_marks, bare_ends},
                (struct pair_sums){-3, -4});
    return slots;
}

struct expected {
    int rows;
    const int32_t *id, *target;
    const int *position, *begin, *prefix;
};

static void check_rows(bool sharing, const struct expected *x)
{
    struct err err = {0};
    struct batch b;
    int32_t *slots = slots_make();
    assert_int_equal(batch_init(&b, ROWS, 2 * PAIRS, &err), 0);
    static const int sample[] = {0, 0, 1, 1};
    for (int again = 0; again < 2; again++) {
        pairs_fill(&b, PAIRS, SEQ_LEN, slots, sharing);
        size_t n = (size_t)x->rows;
        assert_int_equal(b.rows.rows, x->rows);
        assert_int_equal(b.rows.segments, 4);
        assert_memory_equal(b.ids, x->id, n * sizeof *x->id);
        assert_memory_equal(b.target, x->target, n * sizeof *x->target);
        assert_memory_equal(b.rows.position, x->position, n * sizeof *x->position);
        assert_memory_equal(b.rows.segment_begin, x->begin, 5 * sizeof *x->begin);
        assert_memory_equal(b.sample, sample, sizeof sample);
        if (sharing)
            assert_memory_equal(b.rows.prefix, x->prefix, 4 * sizeof *x->prefix);
        else
            assert_null(b.rows.prefix);
    }
    pairs_fill(&b, 0, SEQ_LEN, slots, sharing);
    assert_int_equal(b.rows.rows, 0);
    assert_int_equal(b.rows.segments, 0);
    batch_fini(&b);
    free(slots);
}

static void a_shared_prompt_is_run_once(void **state)
{
    (void)state;
    static const int32_t id[] = {1, 5, 6, 10, 6, 20, 21, 22, 7, 9};
    static const int32_t target[] = {-1, -1, 10, 11, 20, -1, 22, 23, 8, 6};
    static const int position[] = {0, 1, 2, 3, 2, 3, 4, 5, 0, 0};
    static const int begin[] = {0, 4, 8, 9, 10}, prefix[] = {0, 2, 0, 0};
    check_rows(true, &(struct expected){10, id, target, position, begin, prefix});
}

static void prompts_apart_are_run_twice(void **state)
{
    (void)state;
    static const int32_t id[] = {1, 5, 6, 10, 1, 5, 6, 20, 21, 22, 7, 9};
    static const int32_t target[] = {-1, -1, 10, 11, -1, -1, 20, -1, 22, 23, 8, 6};
    static const int position[] = {0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 0, 0};
    static const int begin[] = {0, 4, 10, 11, 12};
    check_rows(false, &(struct expected){12, id, target, position, begin, NULL});
}

static void slots_carry_counts_and_reference(void **state)
{
    (void)state;
    int32_t *slots = slots_make();
    struct pair_count n = pairs_count(slots);
    assert_int_equal(n.chosen, 2);
    assert_int_equal(n.rejected, 3);
    assert_int_equal(n.tokens, 10);
    n = pairs_count(slots + pairs_slot_words(SEQ_LEN));
    assert_int_equal(n.chosen, 1); /* nothing predicts the first id */
    assert_int_equal(n.rejected, 1);
    struct pair_sums r = pairs_reference(slots);
    assert_true(r.chosen == -1.25 && r.rejected == 0 && signbit(r.rejected));
    static const int64_t length[] = {3, 3, 4};
    assert_int_equal(pairs_cost(length, true), 10);
    assert_int_equal(pairs_cost(length, false), 13);
    free(slots);
}

/* The weights are the loss's derivatives by the segments' cross-entropies, by halves of
 * differences of the step's loss. */
static double loss_at(struct pair_step *s, const struct pair_batch *b,
                      const double *nll, float *scale)
{
    double mean[PREFERENCE_METRICS];
    preference_stats_begin(&s->stats, PAIRS);
    pair_step_weigh(s, b, nll, scale);
    preference_stats_means(&s->stats, mean);
    return mean[PREFERENCE_METRIC_LOSS];
}

static void weights_are_derivatives(void **state)
{
    (void)state;
    static const int32_t index[] = {1, 0};
    static const double nll[] = {3.5, 9, 2.5, 2};
    /* With rpo_alpha the loss has a part in each chosen token, of which there are
     * n.chosen in a sum: the weight of a row is that of the sum. */
    static const double alphas[] = {0, 0.7};
    int32_t *slots = slots_make();
    struct pair_batch b = {PAIRS, SEQ_LEN, slots, index};
    for (int k = 0; k < 2; k++) {
        struct err err = {0};
        struct pair_step s = {.settings = {.loss = PREFERENCE_SIGMOID,
                                           .beta = 0.5,
                                           .rpo_alpha = alphas[k]},
                              .totals = {.pairs = PAIRS, .chosen_tokens = 3}};
        float scale[4], ignored[4];
        assert_int_equal(preference_stats_init(&s.stats, PAIRS, &err), 0);
        loss_at(&s, &b, nll, scale);
        for (int i = 0; i < 4; i++) {
            double up[4], down[4], h = 1e-5;
            memcpy(up, nll, sizeof up);
            memcpy(down, nll, sizeof down);
            up[i] += h;
            down[i] -= h;
            double slope =
                (loss_at(&s, &b, up, ignored) - loss_at(&s, &b, down, ignored)) /
                (2 * h);
            assert_true(fabs(slope - (double)scale[i]) < 1e-6);
            assert_true(fabs(slope) > 1e-3);
        }
        preference_stats_begin(&s.stats, PAIRS);
        pair_step_weigh(&s, &b, nll, scale);
        double *second = s.stats.value + PREFERENCE_KEPT; /* pair 0 is at place 1 */
        assert_true(second[1 + PREFERENCE_METRIC_LOGPS_CHOSEN] == -nll[0]);
        preference_stats_fini(&s.stats);
    }
    free(slots);
}

static void order_is_the_oracles(void **state)
{
    (void)state;
    struct err err = {0};
    struct facts *f = facts_load("../align/sdpo.json");
    int n;
    int32_t *order = facts_ints(f, "order", &n);
    struct pair_sums *sums = malloc((size_t)n * sizeof *sums);
    int64_t *ours = malloc((size_t)n * sizeof *ours);
    assert_non_null(sums);
    assert_non_null(ours);
    for (int i = 0; i < n; i++) {
        char key[64];
        snprintf(key, sizeof key, "pairs/%d/logp_chosen", i);
        sums[i].chosen = facts_double(f, key);
        snprintf(key, sizeof key, "pairs/%d/logp_rejected", i);
        sums[i].rejected = facts_double(f, key);
    }
    assert_int_equal(sdpo_order(n, sums, ours, &err), 0);
    for (int i = 0; i < n; i++)
        assert_int_equal(ours[i], order[i]);
    for (int k = 0; k < 3; k++) {
        char key[32];
        int size;
        snprintf(key, sizeof key, "chunks/%d", k);
        int32_t *chunk = facts_ints(f, key, &size);
        int64_t begin = sdpo_begin(n, 3, k);
        assert_int_equal(sdpo_begin(n, 3, k + 1) - begin, size);
        for (int i = 0; i < size; i++)
            assert_int_equal(ours[begin + i], chunk[i]);
        free(chunk);
    }
    sums[3].chosen = NAN; /* comes last, ties by number */
    sums[4] = sums[2];
    assert_int_equal(sdpo_order(n, sums, ours, &err), 0);
    assert_int_equal(ours[n - 1], 3);
    for (int i = 0; i < n; i++)
        if (ours[i] == 2)
            assert_int_equal(ours[i + 1], 4);
    free(order);
    free(sums);
    free(ours);
    facts_destroy(f);
}

static void chunks_are_as_equal_as_can_be(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 70; n++)
        for (int chunks = 1; chunks <= n && chunks < 12; chunks++) {
            assert_int_equal(sdpo_begin(n, chunks, 0), 0);
            assert_int_equal(sdpo_begin(n, chunks, chunks), n);
            for (int k = 0; k < chunks; k++) {
                int64_t size = sdpo_begin(n, chunks, k + 1) - sdpo_begin(n, chunks, k);
                assert_true(size == n / chunks || size == n / chunks + 1);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shared_prompt_is_run_once),
        cmocka_unit_test(prompts_apart_are_run_twice),
        cmocka_unit_test(slots_carry_counts_and_reference),
        cmocka_unit_test(weights_are_derivatives),
        cmocka_unit_test(order_is_the_oracles),
        cmocka_unit_test(chunks_are_as_equal_as_can_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
