/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_HF_CONFIG_H
#define DUSK_IO_HF_CONFIG_H

/* Hugging Face's config.json <-> struct model_shape, in the styles of transformers 4
 * (rope_theta, torch_dtype) and 5 (rope_parameters, dtype).
 *
 * Reading refuses by name whatever changes the arithmetic in a way that dusk does not
 * compute (scaled RoPE, biases, another activation, quantised weights, ...). A key that
 * is absent has the default of the class in transformers: MistralForCausalLM without
 * num_key_value_heads has 8, without sliding_window 4096; null there means one kv head
 * a head and no window. All local. */

#include <stddef.h>

#include "src/base/dtype.h"
#include "src/base/log.h"
#include "src/param/shape.h"

/* Keys that are neither read, refused nor known to be harmless get one warning.
 * `where` is the file's path, for messages. -1 with err set (ERR_INPUT). */
int hf_config_read(const char *text, size_t bytes, const char *where,
                   const struct log *log, struct model_shape *s, struct err *err);

const char *hf_config_model_type(enum arch a); /* "llama", "mistral" */

/* config.json for a model of this shape, owned (free), NULL with err set. `original`
 * (may be NULL) is the source's config.json: its keys stay, those that the shape or
 * dtype decides are set anew. *dtype is that of all tensors; NULL if they differ: the
 * original's is kept, float32 without one. */
char *hf_config_write(const char *original, size_t bytes, const struct model_shape *s,
                      const enum dtype *dtype, struct err *err);

#endif
