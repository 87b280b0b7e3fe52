/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/shape.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/param/shapes.h"

static void known_models_pass(void **state)
{
    (void)state;
    const struct model_shape shapes[] = {shape_mistral_7b(), shape_solar(),
                                         shape_llama2_7b(), shape_small_tied()};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct err err = {0};
        assert_int_equal(shape_check(&shapes[i], &err), 0);
    }
}

static void a_bad_field_is_named(void **state)
{
    (void)state;
    struct model_shape rows[20];
    const char *names[20];
    int n = 0;
#define ROW(field, value, name)                                                        \
    do {                                                                               \
        rows[n] = shape_mistral_7b();                                                  \
        rows[n].field = value;                                                         \
        names[n++] = name;                                                             \
    } while (0)
    ROW(layers, 0, "num_hidden_layers");
    ROW(layers, 65537, "num_hidden_layers");
    ROW(hidden, -1, "hidden_size");
    ROW(ff, 0, "intermediate_size");
    ROW(heads, 0, "num_attention_heads");
    ROW(heads, 31, "num_attention_heads");
    ROW(kv_heads, 0, "num_key_value_heads");
    ROW(head_dim, 127, "head_dim");
    ROW(head_dim, 0, "head_dim");
    ROW(vocab, 0, "vocab_size");
    ROW(max_positions, 0, "max_position_embeddings");
    ROW(window, -1, "sliding_window");
    ROW(rope_theta, 0, "rope_theta");
    ROW(rope_theta, NAN, "rope_theta");
    ROW(norm_eps, INFINITY, "rms_norm_eps");
    ROW(norm_eps, -1e-5, "rms_norm_eps");
    rows[n] = shape_mistral_7b(); /* each in range, but not all together */
    rows[n].hidden = rows[n].ff = 1 << 24;
    names[n++] = "parameters";
#undef ROW
    for (int i = 0; i < n; i++) {
        struct err err = {0};
        assert_int_equal(shape_check(&rows[i], &err), -1);
        print_message("%s\n", err.text);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, names[i]));
    }
}

static void differences_are_named_and_ids_ignored(void **state)
{
    (void)state;
    struct model_shape a = shape_mistral_7b(), b = a;
    b.arch = ARCH_LLAMA;
    b.bos_id = -1;
    b.eos_id = 7;
    assert_null(shape_difference(&a, &b));
    b.norm_eps = 1e-6;
    assert_string_equal(shape_difference(&a, &b), "rms_norm_eps");
    char text[96];
    assert_true(shape_difference_text(&a, &b, text, sizeof text));
    assert_string_equal(text, "rms_norm_eps is 1e-05 and 1e-06");
    assert_false(shape_difference_text(&a, &a, text, sizeof text));
    assert_string_equal(text, "");
    b = a;
    b.tied = true;
    assert_string_equal(shape_difference(&a, &b), "tie_word_embeddings");
    b.layers++;
    assert_string_equal(shape_difference(&a, &b), "num_hidden_layers");
    assert_string_equal(arch_name(ARCH_LLAMA), "LlamaForCausalLM");
    assert_string_equal(arch_name(ARCH_MISTRAL), "MistralForCausalLM");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_models_pass),
        cmocka_unit_test(a_bad_field_is_named),
        cmocka_unit_test(differences_are_named_and_ids_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
