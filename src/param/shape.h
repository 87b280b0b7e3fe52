/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_PARAM_SHAPE_H
#define DUSK_PARAM_SHAPE_H

/* The shape of a Llama or Mistral model: every number that its arithmetic depends on.
 * Letters: D hidden, H heads, K kv_heads, E head_dim, F ff, V vocab, L layers. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"

enum arch { ARCH_LLAMA, ARCH_MISTRAL };

struct model_shape {
    enum arch arch; /* the Hugging Face class only; the arithmetic is one */
    int layers, hidden, ff, heads, kv_heads, head_dim, vocab;
    int max_positions;
    int window;        /* position t sees t-window+1..t; 0: all before it */
    double rope_theta; /* inv_freq_i = theta^(-2i/E), pairs (i, i + E/2) */
    double norm_eps;
    bool tied;          /* lm_head is embed_tokens */
    int bos_id, eos_id; /* -1: none */
};

/* 0, or -1 with err set (ERR_INPUT; the caller prefixes the file) naming the first
 * field out of range: counts >= 1, heads a multiple of kv_heads, head_dim even,
 * theta and eps positive and finite, window >= 0. Local. */
int shape_check(const struct model_shape *s, struct err *err);

/* Do both describe the same arithmetic on the same tensors? Ignores arch, bos, eos.
 * Returns the name of the first field that differs, or NULL. Local. */
const char *shape_difference(const struct model_shape *a, const struct model_shape *b);

/* The same with both values, "hidden_size is 64 and 72", in text; size >= 96. Do they
 * differ? If not, text is "". Local. */
bool shape_difference_text(const struct model_shape *a, const struct model_shape *b,
                           char *text, size_t size);

const char *arch_name(enum arch a); /* "LlamaForCausalLM", "MistralForCausalLM" */

#endif
