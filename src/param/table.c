/* SPDX-License-Identifier: Apache-2.0 */
#include "src/param/table.h"

#include "src/base/check.h"

#include <stdio.h>
#include <string.h>

/* A length of the shape that a tensor's axis has. */
enum axis_length { NONE, HIDDEN, FF, Q, KV, VOCAB };

static const struct role {
    const char *name, *path, *hf; /* hf: without "model.layers.N." and ".weight" */
    enum axis_length rows, cols;  /* cols NONE: a 1-D tensor */
} roles[ROLES] = {
    [ROLE_EMBED_TOKENS] = {"embed_tokens", "embed_tokens", "model.embed_tokens", VOCAB,
                           HIDDEN},
    [ROLE_Q_PROJ] = {"q_proj", "layers/q_proj", "self_attn.q_proj", Q, HIDDEN},
    [ROLE_K_PROJ] = {"k_proj", "layers/k_proj", "self_attn.k_proj", KV, HIDDEN},
    [ROLE_V_PROJ] = {"v_proj", "layers/v_proj", "self_attn.v_proj", KV, HIDDEN},
    [ROLE_O_PROJ] = {"o_proj", "layers/o_proj", "self_attn.o_proj", HIDDEN, Q},
    [ROLE_GATE_PROJ] = {"gate_proj", "layers/gate_proj", "mlp.gate_proj", FF, HIDDEN},
    [ROLE_UP_PROJ] = {"up_proj", "layers/up_proj", "mlp.up_proj", FF, HIDDEN},
    [ROLE_DOWN_PROJ] = {"down_proj", "layers/down_proj", "mlp.down_proj", HIDDEN, FF},
    [ROLE_INPUT_LAYERNORM] = {"input_layernorm", "layers/input_layernorm",
                              "input_layernorm", HIDDEN, NONE},
    [ROLE_POST_ATTENTION_LAYERNORM] = {"post_attention_layernorm",
                                       "layers/post_attention_layernorm",
                                       "post_attention_layernorm", HIDDEN, NONE},
    [ROLE_NORM] = {"norm", "norm", "model.norm", HIDDEN, NONE},
    [ROLE_LM_HEAD] = {"lm_head", "lm_head", "lm_head", VOCAB, HIDDEN},
};

enum {
    LAYER_FIRST = ROLE_Q_PROJ,
    LAYER_ROLES = ROLE_POST_ATTENTION_LAYERNORM - ROLE_Q_PROJ + 1
};

static const char layer_prefix[] = "model.layers.", suffix[] = ".weight";

bool role_per_layer(enum tensor_role r)
{
    return r >= ROLE_Q_PROJ && r <= ROLE_POST_ATTENTION_LAYERNORM;
}

const char *role_name(enum tensor_role r)
{
    return roles[r].name;
}

const char *role_path(enum tensor_role r)
{
    return roles[r].path;
}

bool role_present(const struct model_shape *s, enum tensor_role r)
{
    return !(r == ROLE_LM_HEAD && s->tied);
}

static int64_t length_of(const struct model_shape *s, enum axis_length a)
{
    switch (a) {
    case NONE:
        return 1;
    case HIDDEN:
        return s->hidden;
    case FF:
        return s->ff;
    case Q:
        return (int64_t)s->heads * s->head_dim;
    case KV:
        return (int64_t)s->kv_heads * s->head_dim;
    case VOCAB:
        return s->vocab;
    }
    CHECK(0, "axis length %d", (int)a);
    return 0;
}

static struct tensor make(const struct model_shape *s, enum tensor_role r, int layer,
                          int index)
{
    struct tensor t = {.role = r, .layer = layer, .index = index};
    t.rows = length_of(s, roles[r].rows);
    t.cols = length_of(s, roles[r].cols);
    t.ndim = roles[r].cols == NONE ? 1 : 2;
    t.elements = t.rows * t.cols;
    t.decay = t.ndim > 1;
    return t;
}

int table_count(const struct model_shape *s)
{
    return 1 + LAYER_ROLES * s->layers + (s->tied ? 1 : 2);
}

struct tensor table_at(const struct model_shape *s, int index)
{
    CHECK(index >= 0 && index < table_count(s), "tensor %d of %d", index,
          table_count(s));
    int after = index - 1 - LAYER_ROLES * s->layers;
    if (index == 0)
        return make(s, ROLE_EMBED_TOKENS, -1, index);
    if (after >= 0)
        return make(s, after == 0 ? ROLE_NORM : ROLE_LM_HEAD, -1, index);
    int k = (index - 1) % LAYER_ROLES;
    return make(s, (enum tensor_role)(LAYER_FIRST + k), (index - 1) / LAYER_ROLES,
                index);
}

struct tensor table_find(const struct model_shape *s, enum tensor_role r, int layer)
{
    CHECK(role_present(s, r), "%s in a tied model", roles[r].name);
    if (role_per_layer(r)) {
        CHECK(layer >= 0 && layer < s->layers, "layer %d of %d", layer, s->layers);
        return table_at(s, 1 + LAYER_ROLES * layer + (int)r - LAYER_FIRST);
    }
    CHECK(layer == -1, "%s in layer %d", roles[r].name, layer);
    if (r == ROLE_EMBED_TOKENS)
        return table_at(s, 0);
    return table_at(s, 1 + LAYER_ROLES * s->layers + (r == ROLE_LM_HEAD));
}

int64_t table_elements(const struct model_shape *s)
{
    int64_t sum = 0;
    for (int r = 0; r < ROLES; r++)
        if (role_present(s, (enum tensor_role)r)) {
            struct tensor t = make(s, (enum tensor_role)r, -1, -1);
            sum += t.elements * (role_per_layer(t.role) ? s->layers : 1);
        }
    return sum;
}

void tensor_hf_name(const struct tensor *t, char *name, size_t size)
{
    const char *hf = roles[t->role].hf;
    if (role_per_layer(t->role))
        snprintf(name, size, "%s%d.%s%s", layer_prefix, t->layer, hf, suffix);
    else
        snprintf(name, size, "%s%s", hf, suffix);
}

/* Reads "12." as transformers writes it: no sign, no leading zero. Returns what follows
 * the point, or NULL. */
static const char *parse_layer(const char *text, int layers, int *layer)
{
    int n = 0, digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9'; digits++) {
        n = 10 * n + (text[digits] - '0');
        if (n >= layers || (digits == 1 && text[0] == '0'))
            return NULL;
    }
    if (digits == 0 || text[digits] != '.')
        return NULL;
    *layer = n;
    return text + digits + 1;
}

int table_find_hf(const struct model_shape *s, const char *hf_name, struct tensor *t)
{
    int layer = -1;
    const char *rest = hf_name;
    if (strncmp(rest, layer_prefix, sizeof layer_prefix - 1) == 0) {
        rest = parse_layer(rest + sizeof layer_prefix - 1, s->layers, &layer);
        if (!rest)
            return -1;
    }
    for (int i = 0; i < ROLES; i++) {
        enum tensor_role r = (enum tensor_role)i;
        size_t n = strlen(roles[i].hf);
        if (role_per_layer(r) == (layer >= 0) && role_present(s, r) &&
            strncmp(rest, roles[i].hf, n) == 0 && strcmp(rest + n, suffix) == 0) {
            *t = table_find(s, r, layer);
            return 0;
        }
    }
    return -1;
}

void tensor_label(const struct tensor *t, char *label, size_t size)
{
    if (t->layer >= 0)
        snprintf(label, size, "layers.%d.%s", t->layer, roles[t->role].name);
    else
        snprintf(label, size, "%s", roles[t->role].name);
}
