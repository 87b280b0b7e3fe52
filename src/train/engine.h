/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_ENGINE_H
#define DUSK_TRAIN_ENGINE_H

/* A model spread over a grid of ranks, ready to run: the grid, the split of layers,
 * this rank's weights, the pipeline with its schedule, the sharded optimizer. Training
 * runs, evaluation and tests all drive the model through it. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/grid.h"
#include "mpi/schedule.h"
#include "mpi/trace.h"
#include "mpi/zero.h"
#include "src/base/dtype.h"
#include "src/gemm/gemm.h"
#include "src/model/stage.h"
#include "src/objective/pairs.h"
#include "src/objective/sft.h"
#include "src/param/shape.h"
#include "src/param/slab.h"

/* A forward pass over the pipeline takes this many micro-batches at most, so that the
 * bubble of p - 1 is small beside them and short evaluations waste little. */
enum { ENGINE_FORWARD_MICRO_BATCHES = 16 };

struct engine_spec {
    struct model_shape shape;
    int pipeline, data; /* data 0: ranks / pipeline */
    int chunks;       /* training: stages of a rank; 0: what the schedule usually has */
    const int *split; /* [split_n] layers of each stage; split_n 0: automatic */
    int split_n;
    int seq_len, batch; /* samples of a micro-batch, inputs of a sample */
    int segments;       /* of a micro-batch in training, at most; 0: as its samples */
    bool pairs;         /* a sample is a pair: two segments, each of up to seq_len */
    bool sharing;       /* of pairs: the prompt is run once (src/objective/pairs.h) */
    int micro_batches;  /* of one pass, a replica */
    enum schedule_kind schedule; /* of a training step */
    const char *schedule_file;   /* SCHEDULE_FILE: its name, and what is in it; */
    const char *schedule_text;   /* borrowed, the name for as long as the engine is */
    enum dtype dtype;            /* of weights and activations: F32 or BF16 */
    enum stage_packing packing;  /* of bf16 weights */
    struct freeze freeze;        /* training: what stays; its patterns are borrowed */
    bool accounting; /* these two for the memory plan: what the run keeps of its */
    int64_t timeline_steps; /* steps' times (src/train/account.h) */
    bool training;          /* else forward passes only: no gradients, no optimizer */
};

/* Rows of a micro-batch at most; and the numbers in which a sample travels: a window
 * with its last target, or a slot of a record, a pack or a pair. */
int engine_max_rows(const struct engine_spec *spec);
int engine_slot_words(const struct engine_spec *spec);

struct engine;

/* The gemm context of this job: the family of the lowest CPU among the ranks, `most` at
 * most. Owned; NULL on every rank with err set. Collective over world. */
struct gemm *engine_gemm(struct comm *world, enum gemm_level most, struct err *err);

/* gemm is borrowed, and so are the freeze's patterns. Weights are zero until loaded
 * (src/train/weights.h). Owned; NULL on every rank with err set (ERR_USAGE for a grid
 * or split that does not fit). Collective. */
struct engine *engine_create(struct comm *world, const struct engine_spec *spec,
                             struct gemm *gemm, struct err *err);
void engine_destroy(struct engine *e); /* NULL is fine. Collective. */

const struct grid *engine_grid(const struct engine *e);
const struct model_shape *engine_shape(const struct engine *e);
const int *engine_split(const struct engine *e, int *stages); /* layers of each */
/* The stages that this rank holds, [the schedule's chunks], and whether the last one of
 * all is among them, which makes the losses. */
const int *engine_stages(const struct engine *e);
bool engine_has_head(const struct engine *e);
struct zero *engine_zero(struct engine *e);
const struct slab *engine_slab(const struct engine *e);
const struct freeze *engine_freeze(const struct engine *e);
const float *engine_grads(const struct engine *e); /* as the slab says; NULL: none */
const struct schedule *engine_schedule(const struct engine *e); /* of training */
enum dtype engine_dtype(const struct engine *e);
int64_t engine_bytes(const struct engine *e); /* memory taken on this rank */

/* After zero_put: owned weights go to all who use them. Collective over world. */
void engine_publish(struct engine *e);

/* A look at what the forward calls of training passes compute: the residual stream
 * behind layer `layer` of the model, n values of the engine's dtype (layer = layers:
 * the final norm's output), in order; then each segment's loss on the last stage. NULL:
 * no look. Costs nothing when not set. */
struct engine_watch {
    void *context;
    void (*stream)(void *context, int micro_batch, int layer, int64_t n, const void *x);
    void (*loss)(void *context, int micro_batch, int segments, const double *nll);
};
void engine_set_watch(struct engine *e, const struct engine_watch *watch);

/* Training passes and updates from now on are recorded in `trace` (mpi/trace.h):
 * borrowed, NULL for none. Local. */
void engine_set_trace(struct engine *e, struct trace *trace);

/* What a pass minimises. */
struct engine_objective {
    int64_t counted; /* the mean cross-entropy of so many targets: those of the whole
                        step, over all replicas */
    /* Or, if not NULL: a function of the segments' losses. Called once for each
     * micro-batch, on the last stage, with the summed cross-entropies of its segments;
     * fills scale: the objective's derivative by the loss of each counted row of the
     * segment. */
    void (*weigh)(void *context, int micro_batch, const double *nll, float *scale);
    void *context;
};

/* One pass of a training step over this replica's micro-batches: adds to the gradients.
 * targets: `batches` [micro_batches], the same on all stages of a pipeline. nll
 * [micro_batches][engine_segments]: the summed cross-entropy of each segment, on the
 * last stage (untouched elsewhere). Collective over the pipeline. */
void engine_pass(struct engine *e, const struct batch *batches,
                 const struct engine_objective *objective, double *nll, double *wait_s);

/* One pass's nll: segments of a micro-batch, from one to the next. */
int engine_segments(const struct engine *e);

/* Forward only, `n` windows of this replica, any number, each as in pretrain_fill:
 * nll [n] on the last stage. length [n] inputs each. Collective over the pipeline;
 * replicas may run different numbers of windows. */
void engine_forward(struct engine *e, int n, const int *length, const int32_t *tokens,
                    double *nll);

/* The same with `n` records in slots of src/objective/sft.h, one document each: nll [n]
 * sums over their counted tokens. */
void engine_forward_records(struct engine *e, int n, const int32_t *slots, double *nll);

/* The same with `n` pairs in slots of src/objective/pairs.h, of an engine of pairs:
 * sums [n]. */
void engine_forward_pairs(struct engine *e, int n, const int32_t *slots,
                          struct pair_sums *sums);

/* The optimizer's step; see mpi/zero.h. Collective over world. */
void engine_update(struct engine *e, struct zero_step *step);

/* Makes the moments zero, as at the first step. Local. */
void engine_forget(struct engine *e);

/* Drops the gradients of the pass instead. Local. */
void engine_discard(struct engine *e);

#endif
