/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_IO_CKPT_SAMPLE_H
#define DUSK_TESTS_IO_CKPT_SAMPLE_H

/* A small model whose every element says where it belongs, for tests. */

#include "io/ckpt.h"

#include <stdlib.h>

static const struct model_shape ckpt_sample_shape = {.arch = ARCH_MISTRAL,
                                                     .layers = 4,
                                                     .hidden = 48,
                                                     .ff = 1500,
                                                     .heads = 4,
                                                     .kv_heads = 2,
                                                     .head_dim = 12,
                                                     .vocab = 900,
                                                     .max_positions = 128,
                                                     .window = 16,
                                                     .rope_theta = 1e4,
                                                     .norm_eps = 1e-5,
                                                     .bos_id = 1,
                                                     .eos_id = 2};

/* Exact in bf16: at most 8 significant bits. */
static inline float ckpt_sample_value(int set, int role, int layer, int64_t i)
{
    int64_t x = (i * 37 + i / 97 + 11 * layer + 5 * role + 3 * set) % 251 - 125;
    return (float)x / 64;
}

/* Borrows everything; do not fini. */
static inline struct ckpt_info ckpt_sample_info(bool optimizer)
{
    static struct ckpt_pair pair[] = {{(char *)"data.seq_len", (char *)"512"},
                                      {(char *)"run", (char *)"run: {name: x}\n"},
                                      {(char *)"seed", (char *)"7"}};
    static unsigned char model[] = "a tokenizer", config[] = "{}";
    static struct ckpt_file file[] = {{(char *)"config.json", config, 2},
                                      {(char *)"tokenizer.model", model, 11}};
    static enum dtype mixed[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F32, DTYPE_F32};
    struct ckpt_info info = {.shape = ckpt_sample_shape,
                             .optimizer = optimizer,
                             .files = 2,
                             .file = file,
                             .source = (char *)"nowhere"};
    for (int r = 0; r < ROLES; r++)
        info.dtype[r] = r == ROLE_UP_PROJ ? DTYPE_F32 : DTYPE_BF16;
    info.layer_dtype[ROLE_UP_PROJ] = mixed;
    if (optimizer) {
        info.step = 12;
        info.samples = 96;
        info.tokens = (int64_t)1 << 40;
        info.adam_t = 11;
        info.skipped = 1;
        info.skipped_in_a_row = 1;
        info.pairs = 3;
        info.pair = pair;
    }
    return info;
}

enum { CKPT_SAMPLE_PIECE = 32768 };

/* Writes all tensors, pieces dealt out over the ranks of c. Local. */
static inline int ckpt_sample_write(struct comm *c, struct ckpt_writer *w,
                                    bool optimizer, struct err *err)
{
    float *x = malloc(CKPT_SAMPLE_PIECE * sizeof *x);
    int piece = 0, rc = 0;
    for (int set = 0; set < (optimizer ? CKPT_SETS : 1); set++)
        for (int i = 0; i < table_count(&ckpt_sample_shape); i++) {
            struct tensor t = table_at(&ckpt_sample_shape, i);
            for (int64_t at = 0; at < t.elements; at += CKPT_SAMPLE_PIECE, piece++) {
                int64_t n = t.elements - at < CKPT_SAMPLE_PIECE ? t.elements - at
                                                                : CKPT_SAMPLE_PIECE;
                if (piece % comm_size(c) != comm_rank(c))
                    continue;
                for (int64_t k = 0; k < n; k++)
                    x[k] = ckpt_sample_value(set, t.role, t.layer, at + k);
                if (ckpt_write(w, (enum ckpt_set)set, t.role, t.layer, at, n, x, err))
                    rc = -1;
            }
        }
    free(x);
    return rc;
}

/* Creates, writes, commits. Collective over c. */
static inline int ckpt_sample_make(struct comm *c, const char *path, bool folder,
                                   bool optimizer, struct err *err)
{
    struct ckpt_info info = ckpt_sample_info(optimizer);
    struct ckpt_writer *w = ckpt_create(c, path, folder, true, &info, err);
    if (!w)
        return -1;
    ckpt_sample_write(c, w, optimizer, err);
    return ckpt_commit(w, err);
}

#endif
