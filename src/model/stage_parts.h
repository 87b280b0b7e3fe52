/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_STAGE_PARTS_H
#define DUSK_MODEL_STAGE_PARTS_H

/* What a stage is made of: laid out by stage.c, run by stage_run.c. */

#include "src/model/block.h"
#include "src/model/stage.h"

/* One micro-batch in flight. A stage that only runs forward has one slot, in which all
 * layers share their arrays. Arrays of [R, D] are of the stage's dtype. */
struct slot {
    struct rows rows; /* a copy in the arrays below, when training */
    int *segment_begin, *position, *prefix;
    int32_t *ids;
    void *embedded;          /* [R, D], embedding stages */
    void **y;                /* [layers] outputs, [R, D] each; NULL: the caller's */
    struct block_keep *keep; /* [layers] */
    const void **stream;     /* [layers + 1] the residual stream as it ran */
    float *rstd;             /* [R], and below: head stages */
    void *normed, *dnormed;  /* [R, D] */
};

/* What one micro-batch between the halves of its backward waits with. */
struct wait {
    int slot;                /* whose */
    void **dx;               /* [layers] gradient by the layer's input, [R, D]; NULL for
                                the first, nobody waits for that */
    const void **dy;         /* [layers] gradient by the layer's output */
    struct block_left *left; /* [layers] */
};

struct stage {
    struct stage_spec spec;
    struct model_shape shape;
    struct block_context context;
    struct block_params *params; /* [layers] */
    bool packed;                 /* by this stage, since its creation */
    int lowest; /* layer of the stage where backward ends: `layers` for the final norm,
                   beyond it for the head; -1: its input's gradient is wanted */
    const void *embed;
    float *dembed; /* NULL: not trained */
    struct linear head;
    struct rmsnorm norm;
    float *cosine, *sine;
    void *gradient[2]; /* [R, D], training */
    void *logits;      /* xent's, head stages */
    float *scale;      /* [R] of segments, head stages */
    float *row_scale;  /* [R], training head stages */
    float *norm_sums;  /* rmsnorm_backward's, training head stages */
    double *nll;       /* [R], head stages */
    struct slot *slot;
    struct wait *wait;                /* [spec.waiting], used in turn */
    int64_t waits_begun, waits_ended; /* backward passes: first halves, second halves */
};

/* Makes the products of all that a stage of bf16 runs, packing apart, with max_rows
 * rows and does nothing else: within a rehearsal (src/gemm/bf16.h). */
void stage_rehearse(struct stage *s);

#endif
