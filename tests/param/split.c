/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/split.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/param/shapes.h"

static double load_of(const struct model_shape *s, int seq_len, int stages, int stage,
                      int layers)
{
    double load = layers * split_layer_flops(s, seq_len);
    if (stage == 0)
        load += (double)seq_len * s->hidden; /* the embedding's rows */
    if (stage == stages - 1)
        load += split_head_flops(s, seq_len);
    return load;
}

/* Least possible load of the slowest stage: every way to place `left` layers. */
static double best_load(const struct model_shape *s, int seq_len, int stages, int stage,
                        int left)
{
    if (stage == stages - 1)
        return load_of(s, seq_len, stages, stage, left);
    double best = INFINITY;
    for (int take = 1; take <= left - (stages - stage - 1); take++)
        best = fmin(best, fmax(load_of(s, seq_len, stages, stage, take),
                               best_load(s, seq_len, stages, stage + 1, left - take)));
    return best;
}

static void auto_is_as_good_as_trying_everything(void **state)
{
    (void)state;
    static const int vocabs[] = {16, 3000, 32000, 200000};
    int cases = 0;
    for (int layers = 1; layers <= 13; layers++)
        for (int stages = 1; stages <= layers && stages <= 6; stages++)
            for (size_t v = 0; v < sizeof vocabs / sizeof *vocabs; v++)
                for (int seq_len = 32; seq_len <= 2048; seq_len *= 64) {
                    struct model_shape s = shape_small_tied();
                    struct err err = {0};
                    int split[6], sum = 0;
                    double worst = 0;
                    s.layers = layers;
                    s.vocab = vocabs[v];
                    assert_int_equal(split_auto(&s, stages, seq_len, split, &err), 0);
                    for (int i = 0; i < stages; i++) {
                        assert_true(split[i] >= 1);
                        sum += split[i];
                        worst = fmax(worst, load_of(&s, seq_len, stages, i, split[i]));
                    }
                    assert_int_equal(sum, layers);
                    double best = best_load(&s, seq_len, stages, 0, layers);
                    if (worst > best * (1 + 1e-12))
                        fail_msg("%d layers, %d stages, vocab %d: %g, best %g", layers,
                                 stages, s.vocab, worst, best);
                    cases++;
                }
    print_message("%d cases\n", cases);
    assert_true(cases > 400);
}

static void real_models_split_as_expected(void **state)
{
    (void)state;
    struct err err = {0};
    struct model_shape s = shape_solar();
    int split[48];
    assert_int_equal(split_auto(&s, 4, 4096, split, &err), 0);
    print_message("48 layers on 4: %d %d %d %d\n", split[0], split[1], split[2],
                  split[3]);
    assert_int_equal(split[0], 12);
    assert_int_equal(split[3], 12);
    s.layers = 5; /* the middle stages are equal: the earlier one gets the fifth */
    assert_int_equal(split_auto(&s, 4, 4096, split, &err), 0);
    assert_int_equal(split[1], 2);
    s.vocab = 128000; /* a head as heavy as two layers takes their place */
    s.layers = 46;
    assert_int_equal(split_auto(&s, 4, 4096, split, &err), 0);
    print_message("46 layers and a big head on 4: %d %d %d %d\n", split[0], split[1],
                  split[2], split[3]);
    assert_int_equal(split[0], 12);
    assert_int_equal(split[3], 10);
    assert_int_equal(split_auto(&s, 46, 4096, split, &err), 0);
    assert_int_equal(split_auto(&s, 47, 4096, split, &err), -1);
    print_message("%s\n", err.text);
    assert_int_equal(err.code, ERR_USAGE);
    assert_int_equal(split_auto(&s, 0, 4096, split, &err), -1);
}

static void flops_count_what_a_window_hides(void **state)
{
    (void)state;
    struct model_shape s = shape_mistral_7b(), all = s;
    all.window = 0;
    double weights = 2.0 * (218112000 - 2 * 4096); /* a multiply and an add a weight */
    double one = split_layer_flops(&s, 1);
    print_message("one token: %.0f, weights %.0f\n", one, weights);
    assert_true(one == weights + 4.0 * 4096);
    assert_true(split_layer_flops(&s, 4096) == split_layer_flops(&all, 4096));
    assert_true(split_layer_flops(&s, 8192) < split_layer_flops(&all, 8192));
    s.window = 3; /* positions see 1, 2, 3, 3, 3 */
    assert_true(split_layer_flops(&s, 5) == 5 * weights + 4.0 * 4096 * 12);
    assert_true(split_head_flops(&s, 7) == 2.0 * 7 * 4096 * 32000);
}

static void splits_by_hand_are_checked(void **state)
{
    (void)state;
    static const struct {
        int stages, given, layers[4], rc;
        const char *said;
    } rows[] = {
        {2, 2, {1, 1}, 0, ""},
        {2, 2, {2, 0}, 0, ""}, /* a last stage of the head alone */
        {2, 2, {0, 2}, 0, ""},
        {1, 1, {2}, 0, ""},
        {3, 3, {1, 0, 1}, -1, "stage 1"},
        {2, 3, {1, 1, 0}, -1, "found 3"},
        {3, 2, {1, 1}, -1, "found 2"},
        {2, 2, {1, 2}, -1, "a sum of 3"},
        {2, 2, {3, -1}, -1, "stage 1"},
        {2, 2, {0, 0}, -1, "a sum of 0"},
    };
    struct model_shape s = shape_small_tied();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        int rc = split_check(&s, rows[i].stages, rows[i].layers, rows[i].given, &err);
        print_message("%d %s\n", rc, err.text);
        assert_int_equal(rc, rows[i].rc);
        assert_non_null(strstr(err.text, rows[i].said));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_is_as_good_as_trying_everything),
        cmocka_unit_test(real_models_split_as_expected),
        cmocka_unit_test(flops_count_what_a_window_hides),
        cmocka_unit_test(splits_by_hand_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
