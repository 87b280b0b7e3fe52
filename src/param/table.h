/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_PARAM_TABLE_H
#define DUSK_PARAM_TABLE_H

/* The one table of tensors. Names, shapes, sizes, decay flags, checkpoint layout,
 * shards and export order all come from here; nothing else lists tensors.
 *
 * The order is the model's (transformers' state_dict): embed_tokens; for each layer
 * q k v o, gate up down, input_layernorm, post_attention_layernorm; norm; lm_head.
 * A tied model has no lm_head. Linear weights are [out, in], row-major. All local. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/param/shape.h"

enum tensor_role {
    ROLE_EMBED_TOKENS,
    ROLE_Q_PROJ,
    ROLE_K_PROJ,
    ROLE_V_PROJ,
    ROLE_O_PROJ,
    ROLE_GATE_PROJ,
    ROLE_UP_PROJ,
    ROLE_DOWN_PROJ,
    ROLE_INPUT_LAYERNORM,
    ROLE_POST_ATTENTION_LAYERNORM,
    ROLE_NORM,
    ROLE_LM_HEAD,
    ROLES
};

bool role_per_layer(enum tensor_role r);
const char *role_name(enum tensor_role r); /* "embed_tokens", "q_proj", ... */

/* Checkpoint path under /model or /optimizer/X: "embed_tokens", "layers/q_proj". */
const char *role_path(enum tensor_role r);

/* Does this model have the role at all? (A tied one has no lm_head.) */
bool role_present(const struct model_shape *s, enum tensor_role r);

/* rows x cols of one layer's tensor; a norm is 1-D: rows = D, cols = 1, ndim 1. */
struct tensor {
    enum tensor_role role;
    int layer; /* -1: not in a layer */
    int index; /* place in the table */
    int ndim;  /* 1 or 2 */
    int64_t rows, cols, elements;
    bool decay; /* weight decay applies: all but the 1-D ones */
};

int table_count(const struct model_shape *s);
struct tensor table_at(const struct model_shape *s, int index);
struct tensor table_find(const struct model_shape *s, enum tensor_role r, int layer);
int64_t table_elements(const struct model_shape *s); /* parameters of the model */

/* "model.layers.3.self_attn.q_proj.weight"; size >= 96. */
void tensor_hf_name(const struct tensor *t, char *name, size_t size);

/* The tensor with this Hugging Face name: 0, or -1 if the model has none of that name
 * (a layer number out of range included). "lm_head.weight" of a tied model: -1. */
int table_find_hf(const struct model_shape *s, const char *hf_name, struct tensor *t);

/* "layers.3.q_proj", for messages; size >= 64. */
void tensor_label(const struct tensor *t, char *label, size_t size);

#endif
