/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_ENGINE_PARTS_H
#define DUSK_TRAIN_ENGINE_PARTS_H

/* What an engine is made of: built by engine.c, run by engine_run.c. */

#include "mpi/runner.h"
#include "src/train/engine.h"
#include "src/train/layout.h"

/* One use of the rank's weights: a schedule, its runner, the model's memory for it. */
struct flow {
    const struct schedule *schedule; /* the layout's */
    struct stage **stage;            /* [chunks] */
    struct runner *runner;
    int segments;   /* of a micro-batch, at most */
    int64_t *bytes; /* [micro_batches] of a message */
    /* Of the pass in progress: */
    const struct engine_objective *objective; /* NULL: forward only */
    const struct batch *batches;
    double *nll;
};

struct engine {
    struct grid grid;
    struct model_shape shape;
    struct layout layout;
    int batch, seq_len;
    bool pairs, sharing;
    int max_rows;   /* of a micro-batch */
    int slot_words; /* of a sample */
    struct slab slab;
    struct freeze freeze;
    enum dtype dtype;
    void *weights; /* of dtype */
    float *grads;
    struct zero *zero;
    struct flow train, forward;
    const struct engine_watch *watch; /* borrowed, or NULL */
    struct trace *trace;              /* borrowed, or NULL */
    struct batch *forward_batch;      /* [ENGINE_FORWARD_MICRO_BATCHES] */
    double *forward_nll;
    int64_t bytes;
};

/* Of the residual stream and its gradient, as they travel between stages. */
static inline int64_t engine_row_bytes(const struct engine *e)
{
    return e->shape.hidden * (int64_t)dtype_bytes(e->dtype);
}

#endif
