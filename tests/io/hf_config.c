/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_config.h"

#include "io/json_read.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A whole config.json; %s takes what a row changes, as text after the last key. */
#define LLAMA                                                                          \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\","              \
    "\"hidden_size\":24,\"intermediate_size\":52,\"num_hidden_layers\":2,"             \
    "\"num_attention_heads\":6,\"vocab_size\":67,\"rms_norm_eps\":1e-05"
#define MISTRAL                                                                        \
    "{\"architectures\":[\"MistralForCausalLM\"],\"hidden_size\":64,"                  \
    "\"intermediate_size\":80,\"num_hidden_layers\":2,\"num_attention_heads\":16,"     \
    "\"vocab_size\":67,\"rms_norm_eps\":1e-05"

static int read_config(const char *text, struct model_shape *s, struct err *err)
{
    struct log silent = {NULL};
    return hf_config_read(text, strlen(text), "config.json", &silent, s, err);
}

static void defaults_are_those_of_the_class(void **state)
{
    (void)state;
    struct model_shape s;
    struct err err = {0};
    assert_int_equal(read_config(LLAMA "}", &s, &err), 0);
    assert_int_equal(s.arch, ARCH_LLAMA);
    assert_int_equal(s.kv_heads, 6);
    assert_int_equal(s.head_dim, 4);
    assert_int_equal(s.window, 0);
    assert_int_equal(s.max_positions, 2048);
    assert_true(s.rope_theta == 10000);
    assert_true(s.norm_eps == 1e-5);
    assert_false(s.tied);
    assert_int_equal(s.bos_id, 1);
    assert_int_equal(s.eos_id, 2);
    assert_int_equal(read_config(MISTRAL "}", &s, &err), 0);
    assert_int_equal(s.arch, ARCH_MISTRAL);
    assert_int_equal(s.kv_heads, 8);
    assert_int_equal(s.window, 4096);
    assert_int_equal(s.max_positions, 131072);
    assert_int_equal(read_config(MISTRAL ",\"sliding_window\":null,"
                                         "\"num_key_value_heads\":null}",
                                 &s, &err),
                     0);
    assert_int_equal(s.kv_heads, 16);
    assert_int_equal(s.window, 0);
}

static void reads_both_styles(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double theta;
    } rows[] = {
        {LLAMA ",\"rope_theta\":500000}", 500000},
        {LLAMA ",\"rope_theta\":1e6,\"rope_scaling\":null}", 1e6},
        {LLAMA ",\"rope_parameters\":{\"rope_theta\":1e6,\"rope_type\":\"default\"}}",
         1e6},
        {LLAMA ",\"rope_theta\":1e6,\"rope_parameters\":{\"rope_theta\":1000000,"
               "\"rope_type\":\"default\"}}",
         1e6},
        {LLAMA ",\"rope_scaling\":{\"type\":\"default\"},\"attention_bias\":false,"
               "\"pretraining_tp\":1,\"attention_dropout\":0.1,\"head_dim\":8,"
               "\"quantization_config\":null,\"partial_rotary_factor\":1.0,"
               "\"hidden_act\":\"silu\",\"eos_token_id\":[7,8],\"bos_token_id\":null}",
         10000},
        {MISTRAL ",\"layer_types\":[\"sliding_attention\",\"sliding_attention\"]}",
         10000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model_shape s;
        struct err err = {0};
        int rc = read_config(rows[i].text, &s, &err);
        printf("theta %g expected, %s %g\n", rows[i].theta, err.text,
               rc ? 0 : s.rope_theta);
        assert_int_equal(rc, 0);
        assert_true(s.rope_theta == rows[i].theta);
        if (i == 4) {
            assert_int_equal(s.head_dim, 8);
            assert_int_equal(s.eos_id, 7);
            assert_int_equal(s.bos_id, -1);
        }
    }
}

static void refuses_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"[]", "expected a JSON object, found a list"},
        {"{\"a\":1,\"a\":2}", "duplicate object key"},
        {"{}", "keys \"architectures\" and \"model_type\" are both missing"},
        {"{\"model_type\":\"qwen2\"}", "model_type: expected \"llama\" or \"mistral\", "
                                       "found \"qwen2\""},
        {"{\"architectures\":[\"LlamaForSequenceClassification\"]}",
         "architectures: expected [\"LlamaForCausalLM\"]"},
        {"{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"mistral\"}",
         "model_type \"mistral\" is not that of LlamaForCausalLM"},
        {"{\"model_type\":\"llama\"}", "key \"vocab_size\" is missing"},
        {"{\"model_type\":\"llama\",\"vocab_size\":\"32000\"}",
         "vocab_size: expected a whole number, found the string \"32000\""},
        {"{\"model_type\":\"llama\",\"vocab_size\":32000.0}",
         "vocab_size: expected a whole number, found the real number 32000"},
        {"{\"model_type\":\"llama\",\"vocab_size\":0}",
         "vocab_size: expected a whole number from 1"},
        {"{\"model_type\":\"llama\",\"vocab_size\":4294967297}",
         "vocab_size: expected a whole number from 1"},
        {LLAMA ",\"num_key_value_heads\":\"2\"}",
         "num_key_value_heads: expected a whole number, found the string \"2\""},
        {LLAMA ",\"num_key_value_heads\":4}",
         "num_attention_heads: expected a multiple"},
        {LLAMA ",\"head_dim\":3}", "head_dim: expected an even number"},
        {LLAMA ",\"rope_theta\":\"10000\"}",
         "rope_theta: expected a number, found the string \"10000\""},
        {LLAMA ",\"rope_theta\":-1}", "rope_theta: expected a positive number"},
        {LLAMA ",\"rope_theta\":1,\"rope_parameters\":{\"rope_theta\":2}}",
         "rope_parameters says rope_theta 2, rope_theta says 1"},
        {LLAMA ",\"tie_word_embeddings\":\"false\"}",
         "tie_word_embeddings: expected true or false, found the string \"false\""},
        {LLAMA ",\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"llama3\"}}",
         "rope_scaling: dusk computes only null or plain RoPE (rope_type \"default\"), "
         "found {\"factor\": 8.0, \"rope_type\": \"llama3\"}"},
        {LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", "rope_scaling"},
        {LLAMA ",\"rope_parameters\":{\"rope_theta\":1e4,\"rope_type\":\"yarn\"}}",
         "rope_parameters"},
        {LLAMA ",\"rope_parameters\":{\"rope_theta\":1e4,\"rope_type\":\"default\","
               "\"partial_rotary_factor\":0.5}}",
         "rope_parameters"},
        {LLAMA ",\"partial_rotary_factor\":0.5}", "partial_rotary_factor"},
        {LLAMA ",\"attention_bias\":true}",
         "attention_bias: dusk computes only false, found true"},
        {LLAMA ",\"mlp_bias\":true}", "mlp_bias"},
        {LLAMA ",\"hidden_act\":\"gelu\"}",
         "hidden_act: dusk computes only \"silu\", found the string \"gelu\""},
        {LLAMA ",\"quantization_config\":{\"bits\":4}}", "quantization_config"},
        {LLAMA ",\"final_logit_softcapping\":30.0}", "final_logit_softcapping"},
        {LLAMA ",\"logit_scale\":0.5}", "logit_scale: dusk computes only 1"},
        {MISTRAL ",\"sliding_window\":\"8\"}", "sliding_window: expected a whole"},
        {MISTRAL ",\"sliding_window\":0}", "sliding_window: expected a whole"},
        {MISTRAL ",\"layer_types\":[\"sliding_attention\",\"full_attention\"]}",
         "layer_types[1]: dusk computes only \"sliding_attention\""},
        {MISTRAL ",\"eos_token_id\":\"</s>\"}", "eos_token_id: expected a token id"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model_shape s;
        struct err err = {0};
        int rc = read_config(rows[i].text, &s, &err);
        printf("%s\n", rc ? err.text : "was read");
        assert_int_equal(rc, -1);
        assert_int_equal(err.code, ERR_INPUT);
        assert_non_null(strstr(err.text, rows[i].says));
        assert_memory_equal(err.text, "config.json: ", 13);
    }
}

static void says_which_keys_it_does_not_know(void **state)
{
    (void)state;
    struct model_shape s;
    struct err err = {0};
    char text[512] = "";
    FILE *to = fmemopen(text, sizeof text, "w");
    struct log log = {to};
    static const char config[] = LLAMA ",\"use_cache\":true,\"wild_key\":3}";
    assert_int_equal(
        hf_config_read(config, strlen(config), "config.json", &log, &s, &err), 0);
    fclose(to);
    printf("%s", text);
    assert_non_null(strstr(text, "wild_key"));
    assert_null(strstr(text, "use_cache"));
}

static void writes_what_it_reads(void **state)
{
    (void)state;
    static const char *const originals[] = {
        NULL,
        LLAMA ",\"initializer_range\":0.02,\"torch_dtype\":\"float16\","
              "\"rope_scaling\":null,\"use_cache\":true,\"eos_token_id\":[2,5]}",
        MISTRAL ",\"dtype\":\"float16\"}"};
    for (size_t i = 0; i < sizeof originals / sizeof *originals; i++) {
        struct model_shape s, back;
        struct err err = {0};
        assert_int_equal(read_config(originals[i] ? originals[i] : LLAMA "}", &s, &err),
                         0);
        s.layers = 3; /* as after up-scaling */
        s.rope_theta = 12345.678;
        enum dtype bf16 = DTYPE_BF16;
        char *text =
            hf_config_write(originals[i], originals[i] ? strlen(originals[i]) : 0, &s,
                            i == 1 ? NULL : &bf16, &err);
        assert_non_null(text);
        puts(text);
        assert_int_equal(read_config(text, &back, &err), 0);
        assert_null(shape_difference(&s, &back));
        assert_int_equal(back.arch, s.arch);
        assert_int_equal(back.bos_id, s.bos_id);
        assert_int_equal(back.eos_id, s.eos_id);
        const char *dtype = i == 1 ? "\"float16\"" : "\"bfloat16\"";
        char line[64];
        snprintf(line, sizeof line, "\n  \"dtype\": %s,", dtype);
        assert_non_null(strstr(text, line));
        snprintf(line, sizeof line, "\n  \"torch_dtype\": %s,", dtype);
        assert_non_null(strstr(text, line));
        assert_non_null(strstr(text, "\n  \"rms_norm_eps\": 1e-5,"));
        assert_non_null(strstr(text, "\n  \"hidden_act\": \"silu\","));
        if (i == 1) {
            assert_non_null(strstr(text, "\n  \"initializer_range\": 0.02,"));
            assert_non_null(strstr(text, "\n  \"use_cache\": true,"));
            assert_null(strstr(text, "rope_scaling"));
            json_t *j = json_loads(text, 0, NULL);
            assert_int_equal(json_array_size(json_object_get(j, "eos_token_id")), 2);
            json_decref(j);
        }
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_class),
        cmocka_unit_test(reads_both_styles), cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(says_which_keys_it_does_not_know),
        cmocka_unit_test(writes_what_it_reads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
