/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/freeze.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/param/shapes.h"

enum { MOST = 4 };

static struct freeze freeze_of(char *const pattern[MOST])
{
    struct freeze f = {0, pattern};
    while (f.patterns < MOST && pattern[f.patterns])
        f.patterns++;
    return f;
}

/* 48 layers of 9 tensors, embed_tokens, norm, lm_head: 435. */
static void patterns_hold_these_tensors(void **state)
{
    (void)state;
    static const struct {
        char *pattern[MOST];
        int tensors;
        const char *in, *out; /* a frozen tensor, and one that is not */
    } rows[] = {
        {{"layers.0-23"},
         24 * 9,
         "model.layers.23.mlp.up_proj.weight",
         "model.layers.24.mlp.up_proj.weight"},
        {{"layers.47"},
         9,
         "model.layers.47.input_layernorm.weight",
         "model.layers.4.input_layernorm.weight"},
        {{"layers.5-5"}, 9, "model.layers.5.self_attn.q_proj.weight", "lm_head.weight"},
        {{"model.layers.3.*"},
         9,
         "model.layers.3.self_attn.q_proj.weight",
         "model.layers.33.self_attn.q_proj.weight"},
        {{"model.layers.3*"}, 11 * 9, "model.layers.33.mlp.up_proj.weight", NULL},
        {{"model.layers.[01].mlp.*"},
         6,
         "model.layers.1.mlp.down_proj.weight",
         "model.layers.1.self_attn.o_proj.weight"},
        {{"model.layers.?.self_attn.k_proj.weight"},
         10,
         "model.layers.9.self_attn.k_proj.weight",
         "model.layers.10.self_attn.k_proj.weight"},
        {{"*norm*"}, 97, "model.norm.weight", "model.embed_tokens.weight"},
        {{"model.embed_tokens.weight"}, 1, "model.embed_tokens.weight", NULL},
        {{"layers.0-1", "model.layers.1.*", "lm_head.weight"},
         19,
         "lm_head.weight",
         NULL},
        {{NULL}, 0, NULL, "lm_head.weight"},
    };
    struct model_shape s = shape_solar();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct freeze f = freeze_of(rows[i].pattern);
        struct tensor t;
        struct freeze_count c = freeze_count(&f, &s);
        print_message("%s: %d tensors, %lld elements\n",
                      f.patterns ? f.pattern[0] : "none", c.tensors,
                      (long long)c.elements);
        assert_int_equal(c.tensors, rows[i].tensors);
        assert_int_equal(freeze_check(&f, &s, &err), 0);
        if (rows[i].in) {
            assert_int_equal(table_find_hf(&s, rows[i].in, &t), 0);
            assert_true(freeze_holds(&f, &t));
        }
        if (rows[i].out) {
            assert_int_equal(table_find_hf(&s, rows[i].out, &t), 0);
            assert_false(freeze_holds(&f, &t));
        }
    }
}

static void elements_are_counted(void **state)
{
    (void)state;
    static char *const all[MOST] = {"*"};
    struct model_shape s = shape_solar();
    struct freeze f = freeze_of(all);
    assert_int_equal(freeze_count(&f, &s).elements, table_elements(&s));
    assert_int_equal(freeze_count(&f, &s).tensors, table_count(&s));
}

static void refuses_what_the_model_lacks(void **state)
{
    (void)state;
    static const struct {
        char *pattern[MOST];
        const char *said;
    } rows[] = {
        {{"layers.0-2"}, "layers 0 to 1"},
        {{"layers.2"}, "layers 0 to 1"},
        {{"layers.1-0"}, "FROM <= TO, found \"layers.1-0\""},
        {{"layers.0-"}, "matches none"},
        {{"layers.-1"}, "matches none"},
        {{"layers.0-1000000"}, "matches none"},
        {{"layers.0.*"}, "found \"layers.0.*\", which matches none"},
        {{"layers.0", "embed_tokens"}, "model.layers.1.self_attn.q_proj.weight"},
        {{"MODEL.norm.weight"}, "matches none"},
        {{"lm_head.weight"}, "the head of a tied model is model.embed_tokens.weight"},
        {{"*lm_head*"}, "the head of a tied model"},
        {{"*"}, "at least one tensor left to train, found all 20 frozen"},
        {{"layers.0-1", "*embed*", "model.norm.weight"}, "found all 20 frozen"},
    };
    struct model_shape s = shape_small_tied();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        struct freeze f = freeze_of(rows[i].pattern);
        assert_int_equal(freeze_check(&f, &s, &err), -1);
        print_message("%s\n", err.text);
        assert_int_equal(err.code, ERR_USAGE);
        if (!strstr(err.text, rows[i].said))
            fail_msg("expected %s", rows[i].said);
    }
}

static void knows_what_is_trained_below(void **state)
{
    (void)state;
    static char *const embed[MOST] = {"model.embed_tokens.weight"};
    static char *const low[MOST] = {"model.embed_tokens.weight", "layers.0-2"};
    static char *const odd[MOST] = {"model.embed_tokens.weight", "layers.0",
                                    "model.layers.1.mlp.*"};
    static char *const none[MOST] = {NULL};
    static const struct {
        char *const *pattern;
        int layer;
        bool trains;
    } rows[] = {{none, 0, true},  {none, 5, true}, {embed, 0, false},
                {embed, 1, true}, {low, 3, false}, {low, 4, true},
                {low, 0, false},  {odd, 1, false}, {odd, 2, true}};
    struct model_shape s = shape_solar();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct freeze f = freeze_of(rows[i].pattern);
        print_message("row %zu, layer %d\n", i, rows[i].layer);
        assert_int_equal(freeze_trains_before(&f, &s, rows[i].layer), rows[i].trains);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_hold_these_tensors),
        cmocka_unit_test(elements_are_counted),
        cmocka_unit_test(refuses_what_the_model_lacks),
        cmocka_unit_test(knows_what_is_trained_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
