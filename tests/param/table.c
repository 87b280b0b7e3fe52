/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/param/shapes.h"

/* Tensors and parameters that the models' files have (facts published with them). */
static void counts_are_those_of_the_real_models(void **state)
{
    (void)state;
    const struct {
        struct model_shape shape;
        int tensors;
        int64_t parameters;
    } rows[] = {
        {shape_mistral_7b(), 291, 7241732096},
        {shape_solar(), 435, 10731524096},
        {shape_llama2_7b(), 291, 6738415616},
        {shape_small_tied(), 1 + 2 * 9 + 1,
         331 * 72 + 2 * (2 * 72 * 72 + 2 * 24 * 72 + 3 * 118 * 72 + 2 * 72) + 72},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t sum = 0;
        int n = table_count(&rows[i].shape);
        for (int k = 0; k < n; k++)
            sum += table_at(&rows[i].shape, k).elements;
        print_message("%d tensors, %lld parameters\n", n, (long long)sum);
        assert_int_equal(n, rows[i].tensors);
        assert_int_equal(sum, rows[i].parameters);
        assert_int_equal(table_elements(&rows[i].shape), rows[i].parameters);
    }
    struct model_shape layer = shape_solar(), fewer = layer;
    fewer.layers--;
    assert_int_equal(table_elements(&layer) - table_elements(&fewer), 218112000);
}

/* transformers' state_dict order, written out for the first and last layer. */
static void names_are_transformers_in_its_order(void **state)
{
    (void)state;
    static const struct {
        int index;
        const char *name, *label, *path;
    } rows[] = {
        {0, "model.embed_tokens.weight", "embed_tokens", "embed_tokens"},
        {1, "model.layers.0.self_attn.q_proj.weight", "layers.0.q_proj",
         "layers/q_proj"},
        {2, "model.layers.0.self_attn.k_proj.weight", "layers.0.k_proj",
         "layers/k_proj"},
        {3, "model.layers.0.self_attn.v_proj.weight", "layers.0.v_proj",
         "layers/v_proj"},
        {4, "model.layers.0.self_attn.o_proj.weight", "layers.0.o_proj",
         "layers/o_proj"},
        {5, "model.layers.0.mlp.gate_proj.weight", "layers.0.gate_proj",
         "layers/gate_proj"},
        {6, "model.layers.0.mlp.up_proj.weight", "layers.0.up_proj", "layers/up_proj"},
        {7, "model.layers.0.mlp.down_proj.weight", "layers.0.down_proj",
         "layers/down_proj"},
        {8, "model.layers.0.input_layernorm.weight", "layers.0.input_layernorm",
         "layers/input_layernorm"},
        {9, "model.layers.0.post_attention_layernorm.weight",
         "layers.0.post_attention_layernorm", "layers/post_attention_layernorm"},
        {10, "model.layers.1.self_attn.q_proj.weight", "layers.1.q_proj",
         "layers/q_proj"},
        {432, "model.layers.47.post_attention_layernorm.weight",
         "layers.47.post_attention_layernorm", "layers/post_attention_layernorm"},
        {433, "model.norm.weight", "norm", "norm"},
        {434, "lm_head.weight", "lm_head", "lm_head"},
    };
    struct model_shape s = shape_solar();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[96], label[64];
        struct tensor t = table_at(&s, rows[i].index);
        tensor_hf_name(&t, name, sizeof name);
        tensor_label(&t, label, sizeof label);
        print_message("%d %s\n", rows[i].index, name);
        assert_string_equal(name, rows[i].name);
        assert_string_equal(label, rows[i].label);
        assert_string_equal(role_path(t.role), rows[i].path);
    }
}

static void names_and_roles_lead_back(void **state)
{
    (void)state;
    const struct model_shape shapes[] = {shape_solar(), shape_llama2_7b(),
                                         shape_small_tied()};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int k = 0; k < table_count(&shapes[i]); k++) {
            char name[96];
            struct tensor t = table_at(&shapes[i], k), found = {.index = -1};
            tensor_hf_name(&t, name, sizeof name);
            assert_int_equal(t.index, k);
            assert_int_equal(table_find_hf(&shapes[i], name, &found), 0);
            assert_int_equal(found.index, k);
            assert_int_equal(table_find(&shapes[i], t.role, t.layer).index, k);
            assert_true(role_per_layer(t.role) == (t.layer >= 0));
            assert_true(t.decay == (t.ndim == 2));
            assert_int_equal(t.elements, t.rows * t.cols);
        }
}

static void shapes_of_each_role(void **state)
{
    (void)state;
    struct model_shape s = {.layers = 1,
                            .hidden = 10,
                            .ff = 20,
                            .heads = 6,
                            .kv_heads = 3,
                            .head_dim = 4,
                            .vocab = 50};
    static const struct {
        enum tensor_role role;
        int rows, cols, ndim;
    } rows[] = {
        {ROLE_EMBED_TOKENS, 50, 10, 2},
        {ROLE_Q_PROJ, 24, 10, 2},
        {ROLE_K_PROJ, 12, 10, 2},
        {ROLE_V_PROJ, 12, 10, 2},
        {ROLE_O_PROJ, 10, 24, 2},
        {ROLE_GATE_PROJ, 20, 10, 2},
        {ROLE_UP_PROJ, 20, 10, 2},
        {ROLE_DOWN_PROJ, 10, 20, 2},
        {ROLE_INPUT_LAYERNORM, 10, 1, 1},
        {ROLE_POST_ATTENTION_LAYERNORM, 10, 1, 1},
        {ROLE_NORM, 10, 1, 1},
        {ROLE_LM_HEAD, 50, 10, 2},
    };
    assert_int_equal(sizeof rows / sizeof *rows, ROLES);
    for (int i = 0; i < ROLES; i++) {
        struct tensor t =
            table_find(&s, rows[i].role, role_per_layer(rows[i].role) ? 0 : -1);
        print_message("%s %lld x %lld\n", role_name(t.role), (long long)t.rows,
                      (long long)t.cols);
        assert_int_equal(t.rows, rows[i].rows);
        assert_int_equal(t.cols, rows[i].cols);
        assert_int_equal(t.ndim, rows[i].ndim);
    }
}

static void foreign_names_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "model",
        "model.embed_tokens",
        "model.embed_tokens.weight2",
        "embed_tokens.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.2.self_attn.q_proj.weight", /* of layers 0 and 1 */
        "model.layers.01.self_attn.q_proj.weight",
        "model.layers.-1.self_attn.q_proj.weight",
        "model.layers.+1.self_attn.q_proj.weight",
        "model.layers..self_attn.q_proj.weight",
        "model.layers.99999999999999999999.self_attn.q_proj.weight",
        "model.layers.1.self_attn.q_proj.bias",
        "model.layers.1.model.norm.weight",
        "model.layers.1.lm_head.weight",
        "self_attn.q_proj.weight",
        "lm_head.weight", /* tied */
    };
    struct model_shape s = shape_small_tied();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct tensor t = {.index = 77};
        int rc = table_find_hf(&s, names[i], &t);
        print_message("%s: %d\n", names[i], rc);
        assert_int_equal(rc, -1);
        assert_int_equal(t.index, 77);
    }
    assert_false(role_present(&s, ROLE_LM_HEAD));
    s.tied = false;
    struct tensor t;
    assert_int_equal(table_find_hf(&s, "lm_head.weight", &t), 0);
    assert_true(role_present(&s, ROLE_LM_HEAD));
}

/* Cutting at 5e9 bytes in table order, as save_pretrained does, gives SOLAR's published
 * shard sizes only if order and sizes are right. */
static void shards_of_solar_are_the_published_ones(void **state)
{
    (void)state;
    static const int64_t expected[] = {4943151104, 4999806976, 4915904512, 4915904512,
                                       1688281088};
    struct model_shape s = shape_solar();
    int64_t bytes[8] = {0};
    int shard = 0;
    for (int i = 0; i < table_count(&s); i++) {
        int64_t add = 2 * table_at(&s, i).elements;
        if (bytes[shard] + add > 5000000000)
            shard++;
        assert_true(shard < 8);
        bytes[shard] += add;
    }
    assert_int_equal(shard, 4);
    for (int i = 0; i <= shard; i++) {
        print_message("shard %d: %lld bytes\n", i, (long long)bytes[i]);
        assert_int_equal(bytes[i], expected[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_those_of_the_real_models),
        cmocka_unit_test(names_are_transformers_in_its_order),
        cmocka_unit_test(names_and_roles_lead_back),
        cmocka_unit_test(shapes_of_each_role),
        cmocka_unit_test(foreign_names_are_refused),
        cmocka_unit_test(shards_of_solar_are_the_published_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
