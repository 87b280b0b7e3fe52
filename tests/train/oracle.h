/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TESTS_TRAIN_ORACLE_H
#define DUSK_TESTS_TRAIN_ORACLE_H

/* A tiny model of tests/oracle/model on an engine of any layout, without checkpoints or
 * token sets between: weights and labels go in as transformers had them. Failures print
 * a line and abort, which ends the whole job. */

#include "src/train/engine.h"
#include "tests/support/arrays.h"
#include "tests/support/facts.h"

struct oracle_model {
    const char *name;
    struct model_shape shape;
    struct arrays *weights;
};

struct oracle_model oracle_load(const char *name);
void oracle_free(struct oracle_model *m);

/* One way to spread the same work. */
struct oracle_layout {
    int pipeline, data;
    enum schedule_kind schedule;
    int split[4]; /* 0: automatic */
    int threads;
};

const char *oracle_describe(const struct oracle_layout *l); /* until the next call */

/* The ranks of `world` that a layout uses: its first pipeline x data, NULL on the
 * others. Owned (comm_free). Collective over world. */
struct comm *oracle_ranks(struct comm *world, const struct oracle_layout *l);

/* An engine with the model's weights. micro_batches: of a replica. Collective over c,
 * which lasts as long. segments: as in the spec. */
struct engine *oracle_engine(struct comm *c, const struct oracle_model *m,
                             const struct oracle_layout *l, struct gemm *gemm,
                             int seq_len, int batch, int micro_batches, int segments);

/* The model's weights into an engine of its shape. Collective over the engine's world.
 */
void oracle_set_weights(struct engine *e, const struct oracle_model *m);

/* `sequences` rows of T ids and of T labels (transformers' way: the label at t belongs
 * to the logits at t - 1, < 0 is not counted). */
void oracle_fill(struct batch *b, int sequences, int length, const int32_t *ids,
                 const int32_t *labels);

/* Labels at t >= 1 that count. */
int64_t oracle_counted(int sequences, int length, const int32_t *labels);

/* The fp32 masters of what this rank owns of part i. Owned (free). */
float *oracle_masters(const struct zero *z, int i);

/* Sum over all ranks of a hash of (tensor, piece, bits) of weights and moments: equal
 * for equal bits in any layout. Collective over c. */
uint64_t oracle_state_hash(struct comm *c, struct engine *e);

/* Aborts with a line that starts with `what`, unless value <= limit (NaN is not). Keeps
 * the largest value / limit in *worst (NULL: do not). */
void oracle_within(const char *what, double value, double limit, double *worst);

double oracle_l2(int64_t n, const float *x);
double oracle_l2_difference(int64_t n, const float *x, const float *y);
double oracle_max_difference(int64_t n, const float *x, const float *y);

#endif
