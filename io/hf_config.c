/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_config.h"

#include "io/json_read.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct hf_class {
    const char *model_type;
    int max_positions, window, kv_heads; /* transformers' defaults; kv_heads 0: heads */
} classes[] = {[ARCH_LLAMA] = {"llama", 2048, 0, 0},
               [ARCH_MISTRAL] = {"mistral", 131072, 4096, 8}};

enum { CLASSES = sizeof classes / sizeof *classes };

/* What the value of a key must be, where dusk computes only that. */
enum only { ONLY_NULL, ONLY_FALSE, ONLY_ONE, ONLY_SILU, ONLY_DEFAULT_ROPE };

static const char *const expected[] = {
    [ONLY_NULL] = "null",
    [ONLY_FALSE] = "false",
    [ONLY_ONE] = "1",
    [ONLY_SILU] = "\"silu\"",
    [ONLY_DEFAULT_ROPE] = "null or plain RoPE (rope_type \"default\")"};

static const struct {
    const char *key;
    enum only only;
} restricted[] = {
    {"hidden_act", ONLY_SILU},
    {"rope_scaling", ONLY_DEFAULT_ROPE},
    {"rope_parameters", ONLY_DEFAULT_ROPE},
    {"partial_rotary_factor", ONLY_ONE},
    {"rotary_pct", ONLY_ONE},
    {"no_rope_layers", ONLY_NULL},
    {"attention_bias", ONLY_FALSE},
    {"mlp_bias", ONLY_FALSE},
    {"qkv_bias", ONLY_FALSE},
    {"bias", ONLY_FALSE},
    {"use_qk_norm", ONLY_FALSE},
    {"qk_layernorm", ONLY_FALSE},
    {"alibi", ONLY_FALSE},
    {"is_encoder_decoder", ONLY_FALSE},
    {"add_cross_attention", ONLY_FALSE},
    {"quantization_config", ONLY_NULL},
    {"auto_map", ONLY_NULL}, /* code of its own */
    {"attn_logit_softcapping", ONLY_NULL},
    {"final_logit_softcapping", ONLY_NULL},
    {"query_pre_attn_scalar", ONLY_NULL},
    {"attention_chunk_size", ONLY_NULL},
    {"attention_multiplier", ONLY_NULL},
    {"logit_scale", ONLY_ONE},
    {"logits_scaling", ONLY_ONE},
    {"embedding_multiplier", ONLY_ONE},
    {"residual_multiplier", ONLY_ONE},
    {"num_local_experts", ONLY_NULL},
    {"num_experts", ONLY_NULL},
    {"n_routed_experts", ONLY_NULL},
};

/* Read below, or without effect on the arithmetic of inference and training here. */
static const char *const known[] = {"_from_model_config",
                                    "_name_or_path",
                                    "architectures",
                                    "attention_dropout",
                                    "bos_token_id",
                                    "chunk_size_feed_forward",
                                    "dtype",
                                    "eos_token_id",
                                    "head_dim",
                                    "hidden_size",
                                    "id2label",
                                    "initializer_range",
                                    "intermediate_size",
                                    "is_decoder",
                                    "label2id",
                                    "layer_types",
                                    "max_length",
                                    "max_position_embeddings",
                                    "max_sequence_length",
                                    "model_max_length",
                                    "model_type",
                                    "num_attention_heads",
                                    "num_hidden_layers",
                                    "num_key_value_heads",
                                    "output_attentions",
                                    "output_hidden_states",
                                    "pad_token_id",
                                    "pretraining_tp",
                                    "return_dict",
                                    "rms_norm_eps",
                                    "rope_theta",
                                    "sliding_window",
                                    "tie_word_embeddings",
                                    "tokenizer_class",
                                    "torch_dtype",
                                    "torchscript",
                                    "transformers_version",
                                    "unk_token_id",
                                    "unsloth_version",
                                    "use_bfloat16",
                                    "use_cache",
                                    "vocab_size"};

static bool default_rope(const json_t *v)
{
    const char *key;
    json_t *value;
    if (!json_is_object(v))
        return false;
    json_object_foreach((json_t *)v, key, value)
    {
        bool type = strcmp(key, "rope_type") == 0 || strcmp(key, "type") == 0;
        if (type && json_is_string(value) &&
            strcmp(json_string_value(value), "default") == 0)
            continue;
        if (strcmp(key, "rope_theta") == 0 ||
            strcmp(key, "original_max_position_embeddings") == 0)
            continue;
        if (strcmp(key, "partial_rotary_factor") == 0 && json_number_value(value) == 1)
            continue;
        if (!json_is_null(value))
            return false;
    }
    return true;
}

static bool fits(const json_t *v, enum only only)
{
    switch (only) {
    case ONLY_NULL:
        return false;
    case ONLY_FALSE:
        return json_is_false(v);
    case ONLY_ONE:
        return json_is_number(v) && json_number_value(v) == 1;
    case ONLY_SILU:
        return json_is_string(v) && (strcmp(json_string_value(v), "silu") == 0 ||
                                     strcmp(json_string_value(v), "swish") == 0);
    case ONLY_DEFAULT_ROPE:
        return default_rope(v);
    }
    return false;
}

/* "an object {"factor": 8.0, ...}" says more than "an object". */
static void describe(const json_t *v, char *text, size_t size)
{
    char *dump = json_is_object(v) || json_is_array(v)
                     ? json_dumps(v, JSON_SORT_KEYS | JSON_REAL_PRECISION(15))
                     : NULL;
    if (dump)
        text_printable(text, size, dump);
    else
        json_read_describe(v, text, size);
    free(dump);
}

static int check_restricted(const json_t *config, const char *where, struct err *err)
{
    for (size_t i = 0; i < sizeof restricted / sizeof *restricted; i++) {
        const json_t *v = json_object_get(config, restricted[i].key);
        if (!v || json_is_null(v) || fits(v, restricted[i].only))
            continue;
        char found[160];
        describe(v, found, sizeof found);
        return err_set(err, ERR_INPUT,
                       "%s: %s: dusk computes only %s, found %s (it changes the "
                       "arithmetic)",
                       where, restricted[i].key, expected[restricted[i].only], found);
    }
    return 0;
}

/* Every layer sees the same: all full attention, or all within the window. */
static int check_layer_types(const json_t *config, const char *where,
                             const struct model_shape *s, struct err *err)
{
    const json_t *types = json_object_get(config, "layer_types");
    if (!types || json_is_null(types))
        return 0;
    const char *all = s->window ? "sliding_attention" : "full_attention";
    if (!json_is_array(types) || json_array_size(types) != (size_t)s->layers)
        return err_set(err, ERR_INPUT, "%s: layer_types: expected a list of %d names",
                       where, s->layers);
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        char shown[64];
        if (!type || strcmp(type, all) != 0)
            return err_set(err, ERR_INPUT,
                           "%s: layer_types[%zu]: dusk computes only \"%s\" in all "
                           "layers here, found \"%s\"",
                           where, i, all,
                           text_printable(shown, sizeof shown, type ? type : "?"));
    }
    return 0;
}

static void warn_unknown(const json_t *config, const char *where, const struct log *log)
{
    char list[400] = "", name[64];
    size_t used = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known && !found; i++)
            found = strcmp(known[i], key) == 0;
        for (size_t i = 0; i < sizeof restricted / sizeof *restricted && !found; i++)
            found = strcmp(restricted[i].key, key) == 0;
        if (found || used + sizeof name + 4 > sizeof list)
            continue;
        used +=
            (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "",
                             text_printable(name, sizeof name, key));
    }
    if (used)
        log_warning(log,
                    "%s: keys that dusk does not know, taken as without effect on the "
                    "arithmetic: %s",
                    where, list);
}

static int find_arch(const char *name, const char *type)
{
    for (int i = 0; i < CLASSES; i++)
        if ((name && strcmp(name, arch_name((enum arch)i)) == 0) ||
            (type && strcmp(type, classes[i].model_type) == 0))
            return i;
    return -1;
}

static int read_arch(const json_t *config, const char *where, struct model_shape *s,
                     struct err *err)
{
    const json_t *list = json_object_get(config, "architectures");
    const char *type = NULL;
    bool given;
    char shown[64];
    if (json_read_string(config, "model_type", where, &type, &given, err))
        return -1;
    int of_type = type ? find_arch(NULL, type) : -1;
    if (type && of_type < 0)
        return err_set(err, ERR_INPUT,
                       "%s: model_type: expected \"llama\" or \"mistral\", found "
                       "\"%s\"",
                       where, text_printable(shown, sizeof shown, type));
    int of_class = of_type;
    if (list && !json_is_null(list)) {
        const char *name = json_string_value(json_array_get(list, 0));
        of_class = json_array_size(list) == 1 && name ? find_arch(name, NULL) : -1;
        if (of_class < 0)
            return err_set(err, ERR_INPUT,
                           "%s: architectures: expected [\"LlamaForCausalLM\"] or "
                           "[\"MistralForCausalLM\"], found \"%s\"",
                           where,
                           text_printable(shown, sizeof shown, name ? name : "?"));
    }
    if (of_class < 0)
        return err_set(err, ERR_INPUT,
                       "%s: keys \"architectures\" and \"model_type\" are both missing",
                       where);
    if (of_type >= 0 && of_type != of_class)
        return err_set(err, ERR_INPUT, "%s: model_type \"%s\" is not that of %s", where,
                       classes[of_type].model_type, arch_name((enum arch)of_class));
    s->arch = (enum arch)of_class;
    return 0;
}

struct int_field {
    const char *key;
    int *to;
    bool required;
};

static int read_sizes(const json_t *config, const char *where, struct model_shape *s,
                      struct err *err)
{
    const struct hf_class *c = &classes[s->arch];
    s->max_positions = c->max_positions;
    const struct int_field fields[] = {
        {"vocab_size", &s->vocab, true},
        {"hidden_size", &s->hidden, true},
        {"intermediate_size", &s->ff, true},
        {"num_hidden_layers", &s->layers, true},
        {"num_attention_heads", &s->heads, true},
        {"num_key_value_heads", &s->kv_heads, false},
        {"head_dim", &s->head_dim, false},
        {"sliding_window", &s->window, false},
        {"max_position_embeddings", &s->max_positions, false},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        int64_t value = *fields[i].to;
        bool given;
        if (json_read_int(config, fields[i].key, where, 1, INT_MAX, &value,
                          fields[i].required ? NULL : &given, err))
            return -1;
        *fields[i].to = (int)value;
    }
    if (!json_object_get(config, "num_key_value_heads") && c->kv_heads)
        s->kv_heads = c->kv_heads;
    if (s->kv_heads == 0)
        s->kv_heads = s->heads;
    if (s->arch == ARCH_LLAMA)
        s->window = 0; /* the class has none, whatever the file says */
    else if (!json_object_get(config, "sliding_window"))
        s->window = c->window;
    if (s->head_dim == 0 && s->hidden % s->heads)
        return err_set(err, ERR_INPUT,
                       "%s: head_dim is missing and hidden_size %d is no multiple of "
                       "num_attention_heads %d",
                       where, s->hidden, s->heads);
    if (s->head_dim == 0)
        s->head_dim = s->hidden / s->heads;
    return 0;
}

static int read_rope(const json_t *config, const char *where, struct model_shape *s,
                     struct err *err)
{
    static const char *const objects[] = {"rope_parameters", "rope_scaling"};
    const char *from = "rope_theta";
    bool given;
    s->rope_theta = 10000;
    if (json_read_number(config, "rope_theta", where, &s->rope_theta, &given, err))
        return -1;
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++) {
        const json_t *rope = json_object_get(config, objects[i]);
        double theta = 0;
        bool here = false;
        if (!json_is_object(rope))
            continue;
        if (json_read_number(rope, "rope_theta", where, &theta, &here, err))
            return -1;
        if (here && given && theta != s->rope_theta)
            return err_set(err, ERR_INPUT,
                           "%s: %s says rope_theta %.17g, %s says %.17g: remove one",
                           where, objects[i], theta, from, s->rope_theta);
        if (here) {
            s->rope_theta = theta;
            from = objects[i];
            given = true;
        }
    }
    return 0;
}

/* A token id, the first of a list, or null. */
static int read_id(const json_t *config, const char *key, const char *where, int *id,
                   struct err *err)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_array(v) && json_array_size(v) > 0)
        v = json_array_get(v, 0);
    if (!v)
        return 0;
    if (json_is_null(v)) {
        *id = -1;
        return 0;
    }
    char found[64];
    json_read_describe(v, found, sizeof found);
    if (!json_is_integer(v) || json_integer_value(v) < -1 ||
        json_integer_value(v) > INT_MAX)
        return err_set(err, ERR_INPUT, "%s: %s: expected a token id, found %s", where,
                       key, found);
    *id = (int)json_integer_value(v);
    return 0;
}

static int read_shape(const json_t *config, const char *where, struct model_shape *s,
                      struct err *err)
{
    bool given;
    *s = (struct model_shape){.norm_eps = 1e-6, .bos_id = 1, .eos_id = 2};
    if (read_arch(config, where, s, err) || check_restricted(config, where, err) ||
        read_sizes(config, where, s, err) || read_rope(config, where, s, err) ||
        check_layer_types(config, where, s, err) ||
        json_read_number(config, "rms_norm_eps", where, &s->norm_eps, &given, err) ||
        json_read_bool(config, "tie_word_embeddings", where, &s->tied, &given, err) ||
        read_id(config, "bos_token_id", where, &s->bos_id, err) ||
        read_id(config, "eos_token_id", where, &s->eos_id, err))
        return -1;
    return shape_check(s, err) ? err_prefix(err, "%s", where) : 0;
}

const char *hf_config_model_type(enum arch a)
{
    return classes[a].model_type;
}

int hf_config_read(const char *text, size_t bytes, const char *where,
                   const struct log *log, struct model_shape *s, struct err *err)
{
    json_t *config = json_read_text(text, bytes, where, err);
    if (!config)
        return -1;
    int rc = read_shape(config, where, s, err);
    if (rc == 0)
        warn_unknown(config, where, log);
    json_decref(config);
    return rc;
}
