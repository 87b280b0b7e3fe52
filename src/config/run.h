/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CONFIG_RUN_H
#define DUSK_CONFIG_RUN_H

/* A run file, checked and typed. The schema (src/config/schema.h) lists every key once:
 * path, type, range, default, one line of explanation; reading, the reference file, the
 * resolved copy in the run folder and the comparison on resume all come from it. */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/err.h"

enum run_schedule { RUN_CONSTANT, RUN_LINEAR, RUN_COSINE, RUN_WSD };
enum run_decay_shape { RUN_DECAY_COSINE, RUN_DECAY_LINEAR, RUN_DECAY_SQRT };
enum run_pipe {
    RUN_GPIPE,
    RUN_1F1B,
    RUN_INTERLEAVED,
    RUN_ZB_H1,
    RUN_ZB_V,
    RUN_PIPE_FILE /* a user's own */
};
enum run_objective { RUN_PRETRAIN, RUN_SFT, RUN_DPO };
enum run_on_error { RUN_STOP, RUN_CONTINUE };
enum run_optimizer { RUN_RESET, RUN_MAP };
enum run_precision { RUN_FP32, RUN_BF16 };
enum run_products { /* but for auto, as enum gemm_level + 1 */
                    RUN_PRODUCTS_AUTO,
                    RUN_PRODUCTS_GENERIC,
                    RUN_PRODUCTS_AVX2,
                    RUN_PRODUCTS_AVX512,
                    RUN_PRODUCTS_AVX512_BF16,
                    RUN_PRODUCTS_AMX_BF16
};

struct run_set {
    char *path;
    double weight;
    char *name;
}; /* weight: train; name: valid */

struct run_shape { /* model.shape, for init: random; HF names as keys */
    int layers, hidden, ff, heads, kv_heads, head_dim, vocab, max_positions, window;
    double rope_theta, norm_eps;
    bool tied;
};

struct run {
    struct {
        char *name, *dir;
        uint64_t seed;
        char *walltime; /* "auto", "none" or a time of src/base/duration.h */
        bool requeue;
    } run;
    struct {
        char *init;                   /* a checkpoint's path, or NULL for random */
        char *layers;                 /* "0:24,8:32", or NULL */
        enum run_optimizer optimizer; /* moments of init */
        bool has_shape;
        struct run_shape shape;
        double init_std; /* random: standard deviation of matrices */
        char *tokenizer; /* random: checkpoint or tokenizer.model that it goes with, or
                            NULL */
    } model;
    struct {
        int train_sets, valid_sets;
        struct run_set *train, *valid;
        int seq_len;
        bool shuffle;
        bool packing; /* sft: a sample is a pack */
    } data;
    struct {
        enum run_objective objective;
        enum run_precision precision;
        bool allow_slow_bf16;
        enum run_products products; /* a run resolves auto */
        int64_t steps, tokens;      /* one of the three; the others are 0 */
        double epochs;
        int global_batch, micro_batch;
        int max_skipped; /* updates in a row */
        int freeze_n;
        char **freeze; /* [freeze_n] patterns (src/param/freeze.h) */
    } train;
    struct {      /* train.objective: dpo */
        int loss; /* place in the names of dpo.loss */
        double beta;
        double label_smoothing;
        double rpo_alpha;
        double discopop_tau;
        char *reference; /* "init", "none" or a checkpoint's path */
        char *cache;     /* file of reference log-probabilities, or NULL */
        int chunks;      /* above 1: sDPO */
        bool prefix_sharing;
    } dpo;
    struct {
        double lr, min_lr;
        enum run_schedule schedule;
        int64_t warmup, decay;
        enum run_decay_shape decay_shape;
        double beta1, beta2, eps, weight_decay, clip;
    } optim;
    struct {
        int pipeline, data; /* data 0: ranks / pipeline */
        enum run_pipe schedule;
        char *schedule_file; /* RUN_PIPE_FILE: its path; else NULL */
        int chunks;          /* 0: what the schedule usually has (run_chunks) */
        int split_n;         /* 0: auto */
        int *split;
        double node_gb; /* 0: what is free */
    } parallel;
    struct {
        int64_t every, batches;
    } eval; /* every 0: never; batches 0: all */
    struct {
        int64_t every, keep, keep_every; /* every 0: only at the end; keep 0: all */
        bool best;
        enum run_on_error on_error;
        char *resume; /* "auto", "never" or a path */
        int resume_allow_n;
        char **resume_allow;
    } checkpoint;
    struct {
        int64_t every;
        double timeout, io_timeout; /* s; 0: none */
        bool accounting;
        int64_t timeline_from, timeline_steps; /* steps 0: none */
    } log;
};

/* Reads a run file and the --set overrides ("a.b=VALUE", VALUE is YAML), checks keys,
 * types, ranges and combinations. -1 with err set (ERR_USAGE; ERR_INPUT if the file is
 * missing is ERR_USAGE too): "file.yaml:12:3: ..." or "--set a.b: ...". run_fini frees.
 * Local. */
int run_read(struct run *r, const char *path, const char *const *sets, int sets_n,
             struct err *err);

/* The same from text in memory, without overrides; `name` stands for the file in
 * messages. (Rank 0 reads the file; the others parse its run_format.) Local. */
int run_parse(struct run *r, const char *name, const char *text, struct err *err);
void run_fini(struct run *r);

/* The whole run as YAML, every key with its value, in schema order: owned (free).
 * Reading it back gives the same run. */
char *run_format(const struct run *r, struct err *err);

/* One key's value as text ("data.seq_len" -> "512"), owned (free); lists and maps in
 * YAML's flow style. NULL with err set for an unknown key. */
char *run_value(const struct run *r, const char *key, struct err *err);

/* The i-th key of the schema, "run.name" for 0; NULL past the last. */
const char *run_key(int i);

/* Pipeline stages of a rank: parallel.chunks, or what its schedule usually has. */
int run_chunks(const struct run *r);

/* Does checkpoint.resume_allow list this key, or a section that holds it? */
bool run_may_differ(const struct run *r, const char *key);

/* Optimizer steps of the run: train.steps, or train.tokens or train.epochs of so many
 * `samples`, rounded up to whole steps. samples 0: not known yet, and with epochs
 * neither are the steps, 0. */
int64_t run_steps(const struct run *r, int64_t samples);

#endif
