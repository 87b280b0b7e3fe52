/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_BENCH_H
#define DUSK_TRAIN_BENCH_H

/* Measuring this machine: samples of short pieces of work, medians with their spread,
 * rows of a table. The sections (src/train/bench_*.c) add rows; src/cli/cmd_bench.c
 * shows them and writes them for machines.
 *
 * A sample is one or more runs that together last some milliseconds; a row has at least
 * five samples and takes about `seconds`. Where ranks measure together, each takes the
 * same number of runs. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/comm.h"
#include "src/base/json.h"
#include "src/base/log.h"
#include "src/config/run.h"
#include "src/gemm/gemm.h"
#include "src/param/shape.h"

enum { BENCH_SAMPLES = 64 }; /* of a row at most */

/* What is trained per step in `step`, and whose shapes the other sections take. */
struct bench_size {
    const char *name;
    struct model_shape shape;
    int seq_len, micro_batch;
    int micro_batches; /* of a replica in a step */
};

/* "slice", "small", "toy", and "tiny" for tests; NULL: there is none of that name. */
const struct bench_size *bench_size_named(const char *name);

/* Median and quartiles; all three are the value where there is one sample. */
struct bench_value {
    double median, low, high;
    int samples;
};

struct bench_row {
    char section[16], name[64], unit[16];
    struct bench_value value;
    double share; /* of `of`; negative: not given */
    char of[32];  /* "peak", "copy" */
    bool heading; /* only name: a title within the section */
};

struct bench {
    struct comm *world;
    const struct log *log;
    struct gemm *gemm;
    struct bench_size size;
    double seconds;  /* for a row, about */
    bool fp32, bf16; /* which precisions */
    int pipeline;    /* of `step` */
    enum run_pipe schedule;
    int chunks;                /* 0: what the schedule usually has */
    const char *schedule_file; /* of a user's own; borrowed */
    char *schedule_text;       /* what is in it, owned */
    int64_t node_bytes;        /* that `step` may take on a host, 0: what is free */
    const int *split; /* [split_n] layers of each stage; split_n 0: automatic */
    int split_n;
    int stages, micro_batches; /* of `schedule` */
    double op_s;               /* that an operation of it sleeps */
    const char *only_schedule; /* its name, or "all" */
    const char *folder;        /* of `disk` */
    int64_t disk_bytes;        /* of a rank's file in `disk` */
    int64_t array_bytes;       /* of each array in `memory` */
    const char *section;       /* under way */
    int rows, room;
    struct bench_row *row; /* owned */
};

void bench_fini(struct bench *b); /* the rows */

/* Adds a row to the section under way. share negative: none. Local. */
void bench_add(struct bench *b, const char *name, const char *unit,
               struct bench_value value, double share, const char *of);
void bench_title(struct bench *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The value of a row that was measured before, 0 if it was not. */
double bench_median(const struct bench *b, const char *section, const char *name);

/* Seconds of run(context), once for warming up and then sampled. Local. */
struct bench_value bench_seconds(const struct bench *b, void (*run)(void *context),
                                 void *context);

/* The same where all ranks run together: every sample is the slowest rank's. Collective
 * over world. */
struct bench_value bench_seconds_all(const struct bench *b, void (*run)(void *context),
                                     void *context);

/* Median and quartiles of x[n], which is sorted. */
struct bench_value bench_value_of(double *x, int n);
struct bench_value bench_one(double value);

/* work / seconds: a rate from times (low from the slow end). */
struct bench_value bench_rate(struct bench_value seconds, double work);

/* The sections. Each adds its rows on every rank. -1 with err set on every rank.
 * Collective over world. */
int bench_gemm(struct bench *b, struct err *err);
int bench_memory(struct bench *b, struct err *err);
int bench_ops(struct bench *b, struct err *err);
int bench_step(struct bench *b, struct err *err);
int bench_net(struct bench *b, struct err *err);
int bench_disk(struct bench *b, struct err *err);
int bench_schedule(struct bench *b, struct err *err);

/* GFLOP/s of m x n x k products by all threads in the given dtype, C overwritten,
 * B as a weight [n,k]: the rate that shares of a step are taken of. Local. */
int bench_product_rate(struct bench *b, bool bf16, int64_t m, int64_t n, int64_t k,
                       struct bench_value *rate, struct err *err);

/* Copy and triad by all threads of this rank, GB/s. Local. */
int bench_copy_rates(struct bench *b, double *copy_gb, double *triad_gb,
                     struct err *err);

/* Adds attention alone, both ways, over `segments` of `length` rows; product: the rate
 * that its share is taken of. Local. */
struct attention_dims;
int bench_attention(struct bench *b, const struct attention_dims *dims, int segments,
                    int length, double product, struct err *err);

/* FLOPs of a training step of `tokens` tokens: 6 for each parameter of a matrix, the
 * head's included and the embedding's not, and 6 L T D for attention's causal half;
 * nothing for what is computed again. */
double bench_step_flops(const struct model_shape *s, int seq_len, double tokens);

#endif
