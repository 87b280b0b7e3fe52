/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_IO_MERGE_SAMPLE_H
#define DUSK_TESTS_IO_MERGE_SAMPLE_H

/* What the tests of merges share: files of one folder by their names, models of the
 * oracle, and models of noise that are large enough for ranks to share a tensor. All
 * collective over world unless "local"; a failure fails the test. */

#include "io/ckpt.h"
#include "io/hf_import.h"
#include "io/merge.h"
#include "src/base/file.h"
#include "src/base/rng.h"
#include "tests/support/arrays.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static struct comm *world;
static char folder[256];

/* Starts MPI and makes the folder: 0, or what main returns. */
static inline int merge_begin(int *argc, char ***argv)
{
    struct err err;
    world = comm_start(argc, argv, &err);
    if (!world)
        return 99;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/dusk-merge-XXXXXX", tmp ? tmp : "/tmp");
    if (comm_root(world) && !mkdtemp(folder))
        return 99;
    comm_bcast(world, folder, sizeof folder, 0);
    return 0;
}

static inline void merge_end(void)
{
    struct err err;
    comm_barrier(world);
    if (comm_root(world))
        file_remove_tree(folder, &err);
    comm_finish(world);
}

/* folder/NAME, for a while. Local. */
static inline const char *in_folder(const char *name)
{
    static char path[8][512];
    static int turn;
    turn = (turn + 1) % 8;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* Imports a model of the oracle as folder/NAME; dtype NULL: as it comes. */
static inline void import(const char *model, const char *name, const enum dtype *dtype)
{
    struct err err = {0};
    char *source = oracle_path(model);
    struct hf_import_options o = {.folder = source,
                                  .output = in_folder(name),
                                  .keep = !dtype,
                                  .dtype = dtype ? *dtype : DTYPE_F32,
                                  .force = true};
    if (hf_import(world, NULL, &o, &err) < 0)
        fail_msg("%s", err.text);
    free(source);
}

static inline struct ckpt *open_one(const char *name)
{
    struct err err = {0};
    struct ckpt *k = ckpt_open(world, in_folder(name), &err);
    if (!k)
        fail_msg("%s", err.text);
    return k;
}

/* A whole tensor in fp32; owned (free). Local. */
static inline float *read_tensor(struct ckpt *k, const struct tensor *t)
{
    struct err err = {0};
    float *x = malloc((size_t)t->elements * sizeof *x);
    if (ckpt_read(k, CKPT_MODEL, t->role, t->layer, 0, t->elements, x, &err) < 0)
        fail_msg("%s", err.text);
    return x;
}

enum { PIECE = 32768 };

struct noise {
    const char *name;
    uint64_t seed;
    enum dtype dtype;
    int vocab;             /* rows of embed_tokens, 64 columns */
    const char *tokenizer; /* bytes of tokenizer.model; NULL: none */
    const char *json;      /* of tokenizer.json */
    float odd;             /* not 0: element 5 of layers.1.norm */
};

static const struct noise plain = {
    .name = "a.h5", .seed = 1, .vocab = 5000, .tokenizer = "pieces"};

static inline void fill(const struct noise *m, const struct tensor *t, int64_t begin,
                        int64_t n, float *x)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = rng_u64(m->seed, (uint64_t)t->index, (uint64_t)(begin + i));
        x[i] = (float)((int64_t)(r >> 40) - (1 << 23)) * 0x1p-24F;
    }
    if (t->role == ROLE_INPUT_LAYERNORM && t->layer == 1 &&
        (m->odd < 0 || m->odd > 0 || isnan(m->odd)))
        x[5] = m->odd;
}

static inline void make_noise(const struct noise *m)
{
    struct err err = {0};
    struct ckpt_file file[2];
    struct ckpt_info info = {.shape = {.arch = ARCH_MISTRAL,
                                       .layers = 2,
                                       .hidden = 64,
                                       .ff = 96,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .head_dim = 16,
                                       .vocab = m->vocab,
                                       .max_positions = 128,
                                       .rope_theta = 1e4,
                                       .norm_eps = 1e-5,
                                       .bos_id = 1,
                                       .eos_id = 2},
                             .file = file};
    const char *const text[] = {m->tokenizer, m->json};
    static char *const names[] = {(char *)"tokenizer.model", (char *)"tokenizer.json"};
    for (int i = 0; i < 2; i++)
        if (text[i]) {
            char *bytes = strdup(text[i]);
            file[info.files++] =
                (struct ckpt_file){names[i], (unsigned char *)bytes, strlen(bytes)};
        }
    for (int r = 0; r < ROLES; r++)
        info.dtype[r] = m->dtype;
    struct ckpt_writer *w =
        ckpt_create(world, in_folder(m->name), false, true, &info, &err);
    float *x = malloc(PIECE * sizeof *x);
    int piece = 0;
    for (int i = 0; w && i < table_count(&info.shape); i++) {
        struct tensor t = table_at(&info.shape, i);
        for (int64_t at = 0; at < t.elements; at += PIECE, piece++) {
            int64_t n = t.elements - at < PIECE ? t.elements - at : PIECE;
            if (piece % comm_size(world) != comm_rank(world))
                continue;
            fill(m, &t, at, n, x);
            assert_int_equal(ckpt_write(w, CKPT_MODEL, t.role, t.layer, at, n, x, &err),
                             0);
        }
    }
    if (!w || ckpt_commit(w, &err) < 0)
        fail_msg("%s", err.text);
    for (int i = 0; i < info.files; i++)
        free(info.file[i].data);
    free(x);
}

/* merge() of models in the folder; keeps what they are named by. */
static inline int merge_named(const char *const *names, struct merge_options o,
                              struct merge_result *r, struct err *err)
{
    const char *paths[MERGE_MODELS_MAX + 1]; /* one too many is a test */
    char *kept[MERGE_MODELS_MAX + 2];
    for (int i = 0; i < o.models; i++)
        paths[i] = kept[i] = strdup(in_folder(names[i]));
    kept[o.models] = strdup(in_folder(o.output));
    o.checkpoint = paths;
    o.output = kept[o.models];
    int rc = merge(world, NULL, &o, r, err);
    for (int i = 0; i <= o.models; i++)
        free(kept[i]);
    return rc;
}

static inline void must_merge(const char *const *names, struct merge_options o,
                              struct merge_result *r)
{
    struct err err = {0};
    if (merge_named(names, o, r, &err) < 0)
        fail_msg("%s", err.text);
}

#endif
