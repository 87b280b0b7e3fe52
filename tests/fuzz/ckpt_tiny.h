/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_FUZZ_CKPT_TINY_H
#define DUSK_TESTS_FUZZ_CKPT_TINY_H

/* The smallest checkpoint that has all kinds of attributes and arrays, and what every
 * reader does to a file that claims to be one. */

#include "io/ckpt_parts.h"
#include "io/upscale_plan.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

/* Borrows everything; do not fini. */
static inline struct ckpt_info ckpt_tiny_info(void)
{
    static struct ckpt_pair pair[] = {{(char *)"data.seq_len", (char *)"512"}};
    static unsigned char model[] = "{}";
    static struct ckpt_file file[] = {{(char *)"config.json", model, 2}};
    static enum dtype mixed[] = {DTYPE_F32, DTYPE_BF16};
    struct ckpt_info info = {.shape = {.arch = ARCH_MISTRAL,
                                       .layers = 2,
                                       .hidden = 4,
                                       .ff = 6,
                                       .heads = 2,
                                       .kv_heads = 1,
                                       .head_dim = 2,
                                       .vocab = 8,
                                       .max_positions = 16,
                                       .rope_theta = 1e4,
                                       .norm_eps = 1e-5,
                                       .tied = true,
                                       .bos_id = 1,
                                       .eos_id = 2},
                             .step = 12,
                             .samples = 96,
                             .tokens = 1000,
                             .adam_t = 11,
                             .pairs = 1,
                             .pair = pair,
                             .files = 1,
                             .file = file,
                             .source = (char *)"base.h5",
                             .layers = (char *)"0:2",
                             .source_layers = 2};
    info.layer_dtype[ROLE_UP_PROJ] = mixed;
    return info;
}

/* Opens, follows the map, reads every element and verifies; refusals must be ERR_INPUT.
 * Local. */
static inline void ckpt_tiny_use(const char *path)
{
    struct err err = {0};
    struct ckpt *k = ckpt_open(comm_self(), path, &err);
    if (!k) {
        fuzz_refused(&err, ERR_INPUT);
        return;
    }
    const struct ckpt_info *info = ckpt_info(k);
    struct upscale_plan plan;
    if (info->layers && upscale_plan_of(&plan, info, &err) == 0)
        upscale_plan_fini(&plan);
    else if (info->layers)
        fuzz_refused(&err, ERR_INPUT);
    float x[4096];
    for (int set = 0; set < (info->optimizer ? CKPT_SETS : 1); set++)
        for (int i = 0; i < table_count(&info->shape); i++) {
            struct tensor t = table_at(&info->shape, i);
            if (t.elements <= 4096 && ckpt_read(k, (enum ckpt_set)set, t.role, t.layer,
                                                0, t.elements, x, &err))
                fuzz_refused(&err, ERR_INPUT);
        }
    char hex[TOKENIZER_HASH_ROOM];
    if (ckpt_tokenizer_hash(info, hex, sizeof hex, &err))
        fuzz_refused(&err, ERR_INPUT);
    for (int i = 0; i < info->files; i++)
        if (strchr(info->file[i].name, '/') || info->file[i].name[0] == '.')
            fuzz_fail("a tokenizer file that leaves its folder: %s",
                      info->file[i].name);
    ckpt_close(k);
}

#endif
