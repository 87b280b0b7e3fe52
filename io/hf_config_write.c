/* SPDX-License-Identifier: Apache-2.0 */
#include "io/hf_config.h"

#include "io/json_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *torch_name(enum dtype t)
{
    static const char *const names[] = {
        [DTYPE_F32] = "float32", [DTYPE_BF16] = "bfloat16", [DTYPE_F16] = "float16"};
    return names[t];
}

static bool holds(const json_t *list, int id)
{
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value) if (json_integer_value(value) == id) return true;
    return false;
}

/* What the shape and the dtype decide, in both styles. Steals nothing of `config`. */
static int set_keys(json_t *config, const struct model_shape *s, const char *dtype)
{
    json_t *ids[2];
    for (int i = 0; i < 2; i++) {
        int id = i ? s->eos_id : s->bos_id;
        const char *key = i ? "eos_token_id" : "bos_token_id";
        json_t *old = json_object_get(config, key);
        ids[i] = json_is_array(old) && holds(old, id) ? json_incref(old)
                 : id < 0                             ? json_null()
                                                      : json_integer(id);
    }
    json_t *keys = json_pack(
        "{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, "
        "s:{s:f, s:s}, s:b, s:s, s:s, s:o, s:o}",
        "architectures", arch_name(s->arch), "model_type",
        hf_config_model_type(s->arch), "num_hidden_layers", s->layers, "hidden_size",
        s->hidden, "intermediate_size", s->ff, "num_attention_heads", s->heads,
        "num_key_value_heads", s->kv_heads, "head_dim", s->head_dim, "vocab_size",
        s->vocab, "max_position_embeddings", s->max_positions, "rms_norm_eps",
        s->norm_eps, "rope_theta", s->rope_theta, "rope_parameters", "rope_theta",
        s->rope_theta, "rope_type", "default", "tie_word_embeddings", s->tied,
        "torch_dtype", dtype, "dtype", dtype, "bos_token_id", ids[0], "eos_token_id",
        ids[1]);
    int rc = keys ? json_object_update(config, keys) : -1;
    json_decref(keys);
    if (rc == 0 && s->arch == ARCH_MISTRAL)
        rc = json_object_set_new(config, "sliding_window",
                                 s->window ? json_integer(s->window) : json_null());
    if (rc == 0 && !json_object_get(config, "hidden_act"))
        rc = json_object_set_new(config, "hidden_act", json_pack("s", "silu"));
    json_object_del(config,
                    "layer_types"); /* one entry a layer; the default is right */
    json_object_del(config, "rope_scaling");
    return rc;
}

/* As text with the fewest digits that read back as the same numbers: 1e-05 for 1e-05.
 */
static char *dump_short(const json_t *config)
{
    for (size_t digits = 15;; digits++) {
        char *text = json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS |
                                            JSON_REAL_PRECISION(digits));
        json_t *back = text ? json_loads(text, 0, NULL) : NULL;
        bool same = back && json_equal(back, (json_t *)config);
        json_decref(back);
        if (!text || same || digits == 17)
            return text;
        free(text);
    }
}

char *hf_config_write(const char *original, size_t bytes, const struct model_shape *s,
                      const enum dtype *dtype, struct err *err)
{
    json_t *config =
        original ? json_read_text(original, bytes, "the checkpoint's config.json", err)
                 : json_object();
    if (!config) {
        if (!original)
            err_set(err, ERR_OTHER, "out of memory writing config.json");
        return NULL;
    }
    const char *name = json_string_value(json_object_get(config, "dtype"));
    if (!name)
        name = json_string_value(json_object_get(config, "torch_dtype"));
    char kept[32];
    snprintf(kept, sizeof kept, "%s",
             dtype  ? torch_name(*dtype)
             : name ? name
                    : torch_name(DTYPE_F32));
    char *text = set_keys(config, s, kept) == 0 ? dump_short(config) : NULL;
    if (!text)
        err_set(err, ERR_OTHER, "out of memory writing config.json");
    json_decref(config);
    return text;
}
