/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_PARAM_SHAPES_H
#define DUSK_TESTS_PARAM_SHAPES_H

/* Shapes of known models, from their config.json. */

#include "src/param/shape.h"

static inline struct model_shape shape_mistral_7b(void)
{
    return (struct model_shape){
        .arch = ARCH_MISTRAL,
        .layers = 32,
        .hidden = 4096,
        .ff = 14336,
        .heads = 32,
        .kv_heads = 8,
        .head_dim = 128,
        .vocab = 32000,
        .max_positions = 32768,
        .window = 4096,
        .rope_theta = 10000,
        .norm_eps = 1e-5,
        .bos_id = 1,
        .eos_id = 2,
    };
}

static inline struct model_shape shape_solar(void)
{
    struct model_shape s = shape_mistral_7b();
    s.arch = ARCH_LLAMA;
    s.layers = 48;
    s.max_positions = 4096;
    s.window = 0;
    return s;
}

static inline struct model_shape shape_llama2_7b(void)
{
    struct model_shape s = shape_solar();
    s.layers = 32;
    s.ff = 11008;
    s.kv_heads = 32;
    return s;
}

/* Two layers, tied, odd sizes: 3 heads of 24, 331 words. */
static inline struct model_shape shape_small_tied(void)
{
    return (struct model_shape){
        .arch = ARCH_LLAMA,
        .layers = 2,
        .hidden = 72,
        .ff = 118,
        .heads = 3,
        .kv_heads = 1,
        .head_dim = 24,
        .vocab = 331,
        .max_positions = 64,
        .rope_theta = 10000,
        .norm_eps = 1e-6,
        .tied = true,
        .bos_id = 1,
        .eos_id = 2,
    };
}

#endif
