/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sample_order.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct blend {
    int sets;
    int64_t windows[4];
    double weights[4];
};

static const struct blend blends[] = {
    {1, {1}, {1}},
    {1, {7}, {0.25}},
    {1, {10007}, {3}},
    {2, {5, 3}, {1, 1}},
    {2, {1000, 64}, {0.9, 0.1}},
    {3, {17, 1, 255}, {1, 1, 1}},
    {3, {2, 900, 31}, {0.6, 0.3999, 0.0001}},
    {4, {8, 16, 4096, 3}, {2e-3, 10, 3.14159, 2.71828}},
};

static struct sample_order *order_of(const struct blend *b, bool shuffle, uint64_t seed)
{
    struct err err = {0};
    struct sample_order *o =
        sample_order_create(b->sets, b->windows, b->weights, shuffle, seed, &err);
    if (!o)
        print_error("%s\n", err.text);
    assert_non_null(o);
    return o;
}

/* Each run of N samples of a set is one epoch and visits each of its windows once. */
static void each_epoch_is_a_bijection(void **state)
{
    (void)state;
    for (size_t b = 0; b < sizeof blends / sizeof *blends; b++)
        for (int shuffle = 0; shuffle < 2; shuffle++) {
            const struct blend *blend = &blends[b];
            struct sample_order *o = order_of(blend, shuffle, 11);
            unsigned char *seen[4];
            int64_t had[4] = {0};
            for (int i = 0; i < blend->sets; i++)
                seen[i] = calloc((size_t)blend->windows[i], 1);
            for (int64_t p = 0; p < 3 * SAMPLE_CYCLE; p++) {
                struct sample s = sample_order_at(o, p);
                assert_in_range(s.set, 0, blend->sets - 1);
                int64_t n = blend->windows[s.set];
                assert_true(s.window >= 0 && s.window < n);
                assert_int_equal(s.epoch, had[s.set] / n);
                if (had[s.set] % n == 0)
                    memset(seen[s.set], 0, (size_t)n);
                assert_int_equal(seen[s.set][s.window], 0);
                seen[s.set][s.window] = 1;
                if (!shuffle)
                    assert_int_equal(s.window, had[s.set] % n);
                had[s.set]++;
            }
            for (int i = 0; i < blend->sets; i++)
                free(seen[i]);
            sample_order_destroy(o);
        }
}

/* Every cycle holds each set in proportion to its weight, to within one place, and no
 * stretch of a cycle is far from it either: off by less than one place a set. */
static void weights_are_honoured_in_every_cycle(void **state)
{
    (void)state;
    for (size_t b = 0; b < sizeof blends / sizeof *blends; b++) {
        const struct blend *blend = &blends[b];
        struct sample_order *o = order_of(blend, true, 5);
        double sum = 0, worst = 0;
        for (int i = 0; i < blend->sets; i++)
            sum += blend->weights[i];
        for (int64_t cycle = 0; cycle < 3; cycle++) {
            double count[4] = {0};
            for (int64_t k = 0; k < SAMPLE_CYCLE; k++) {
                int64_t p = cycle * SAMPLE_CYCLE + k;
                count[sample_order_at(o, p).set]++;
                for (int i = 0; i < blend->sets; i++)
                    worst = fmax(worst, fabs(count[i] - (double)(k + 1) *
                                                            blend->weights[i] / sum));
            }
            for (int i = 0; i < blend->sets; i++)
                assert_true(fabs(count[i] - SAMPLE_CYCLE * blend->weights[i] / sum) <
                            1);
        }
        printf("blend %zu: farthest from its share %.3f places\n", b, worst);
        assert_true(worst < blend->sets);
        sample_order_destroy(o);
    }
}

static void far_positions_need_no_walk(void **state)
{
    (void)state;
    struct blend b = {2, {123456789012, 1000003}, {3, 1}};
    struct sample_order *o = order_of(&b, true, 1);
    for (int64_t p = INT64_MAX / 4; p < INT64_MAX / 4 + 100; p++) {
        struct sample s = sample_order_at(o, p);
        assert_true(s.window >= 0 && s.window < b.windows[s.set]);
        assert_true(s.epoch > 0);
    }
    sample_order_destroy(o);
}

/* Epochs, sets and seeds each have their own permutation. */
static void permutations_differ(void **state)
{
    (void)state;
    struct blend b = {2, {1000, 1000}, {1, 1}};
    struct sample_order *one = order_of(&b, true, 1), *two = order_of(&b, true, 2);
    int epochs = 0, seeds = 0, sets = 0;
    for (int64_t p = 0; p < 2000; p += 2) {
        struct sample s = sample_order_at(one, p);
        epochs += s.window == sample_order_at(one, p + 2000).window;
        sets += s.window == sample_order_at(one, p + 1).window;
        seeds += s.window == sample_order_at(two, p).window;
    }
    printf("windows at the same place of 1000: other epoch %d, set %d, seed %d\n",
           epochs, sets, seeds);
    assert_in_range(epochs, 0, 20);
    assert_in_range(sets, 0, 20);
    assert_in_range(seeds, 0, 20);
    sample_order_destroy(one);
    sample_order_destroy(two);
}

/* A resumed run must see the order that the interrupted one saw, whatever version of
 * the program resumes it: these values may never change. */
static void the_order_never_changes(void **state)
{
    (void)state;
    static const struct {
        int64_t position;
        struct sample s;
    } golden[] = {
        {0, {0, 262, 0}},
        {1, {0, 869, 0}},
        {2, {1, 27, 0}},
        {3, {0, 328, 0}},
        {4, {0, 849, 0}},
        {5, {2, 147, 0}},
        {6, {0, 676, 0}},
        {7, {0, 711, 0}},
        {8, {1, 2, 0}},
        {9, {0, 104, 0}},
        {10, {0, 9, 0}},
        {99, {0, 109, 0}},
        {999, {0, 79, 0}},
        {1000, {0, 971, 0}},
        {9999, {0, 984, 6}},
        {10000, {0, 968, 7}},
        {12345, {2, 237, 4}},
        {1000000, {0, 335, 700}},
        {123456789012345, {2, 36, 49382715604}},
    };
    struct blend b = {3, {1000, 37, 250}, {0.7, 0.2, 0.1}};
    struct sample_order *o = order_of(&b, true, 42);
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        struct sample s = sample_order_at(o, golden[i].position);
        printf("{%lld, {%d, %lld, %lld}},\n", (long long)golden[i].position, s.set,
               (long long)s.window, (long long)s.epoch);
        assert_int_equal(s.set, golden[i].s.set);
        assert_int_equal(s.window, golden[i].s.window);
        assert_int_equal(s.epoch, golden[i].s.epoch);
    }
    sample_order_destroy(o);
}

static void refuses_what_cannot_be_blended(void **state)
{
    (void)state;
    static const struct {
        struct blend b;
        const char *says;
    } rows[] = {
        {{0, {0}, {0}}, "expected 1 to"},
        {{1, {0}, {1}}, "shorter than one window"},
        {{2, {4, 4}, {1, 0}}, "expected a weight above 0, found 0"},
        {{2, {4, 4}, {-1, 1}}, "found -1"},
        {{2, {4, 4}, {NAN, 1}}, "found nan"},
        {{2, {4, 4}, {1, INFINITY}}, "found inf"},
        {{2, {4, 4}, {1e308, 1e308}}, "overflow"},
        {{2, {4, 4}, {1, 1e-5}}, "less than one sample in 10000"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        assert_null(sample_order_create(rows[i].b.sets, rows[i].b.windows,
                                        rows[i].b.weights, true, 1, &err));
        printf("%s\n", err.text);
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.text, rows[i].says));
    }
    sample_order_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_epoch_is_a_bijection),
        cmocka_unit_test(weights_are_honoured_in_every_cycle),
        cmocka_unit_test(far_positions_need_no_walk),
        cmocka_unit_test(permutations_differ),
        cmocka_unit_test(the_order_never_changes),
        cmocka_unit_test(refuses_what_cannot_be_blended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
