/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MODEL_STAGE_H
#define DUSK_MODEL_STAGE_H

/* One pipeline stage's part of the model: a range of layers, perhaps the embedding
 * before them, perhaps final norm, head and loss after them; forward and backward.
 *
 * Weights, the residual stream and its gradient, and all activations are of the
 * stage's dtype, fp32 or bf16; gradient sums and losses are fp32. bf16 rounds once
 * where an operation ends: inside, and in every sum of a product, all is fp32. Only
 * the factor of each row that a norm keeps, attention's log-sum-exp and the logits are
 * never rounded.
 *
 * Weights and gradient sums belong to the caller (see src/param/slab.h); a stage reads
 * the one and adds to the other. Frozen tensors have no sum, and a backward pass ends
 * with the lowest layer that trains anything, if no stage before does. Products of bf16
 * read packed copies of the matrices where the stage keeps them. What the backward pass
 * needs of the forward pass is kept in a slot, one for each micro-batch in flight. All
 * memory is taken at creation: no call below allocates. All local; each uses all OpenMP
 * threads, and its bits do not depend on their number, on the slot, nor on how layers
 * are split over stages.
 *
 * Formulas: transformers' modeling_llama.py; attention, Vaswani et al. 2017; grouped
 * queries, arXiv 2305.13245; rotary embedding, arXiv 2104.09864; RMSNorm, arXiv
 * 1910.07467; SwiGLU, arXiv 2002.05202. */

#include <stdint.h>

#include "src/base/dtype.h"
#include "src/gemm/gemm.h"
#include "src/model/rows.h"
#include "src/param/shape.h"
#include "src/param/slab.h"

struct stage;

/* Packed copies of the matrices, for the forward products and for the input gradients;
 * each has about the bytes of the matrices. fp32 has none. Without copies for the input
 * gradients, FORWARD packs each matrix at its use, in memory for the largest. */
enum stage_packing {
    STAGE_PACK_BOTH, /* forward only stages: as STAGE_PACK_FORWARD */
    STAGE_PACK_FORWARD,
    STAGE_PACK_NONE
};

struct stage_spec {
    const struct model_shape *shape; /* copied */
    int first_layer, layers;
    bool embed, head;
    int max_rows;   /* rows of the largest micro-batch */
    int max_length; /* rows of the longest segment, its prefix included */
    int slots;      /* micro-batches in flight, >= 1 */
    int waiting;    /* of these between stage_backward_input and the end of
                       stage_backward_weight; 0: these two are never called */
    bool training;  /* false: forward only, slots keep nothing (one is enough) */
    bool weighed;   /* training: losses have a `weigh` (below); more scratch for it */
    enum dtype dtype;
    enum stage_packing packing;
    bool din_unused;            /* training: no stage before trains anything */
    const struct stage *lender; /* NULL, or a stage of the same layers, weights and
                                   dtype, whose packed copies are borrowed instead */
};

/* Bytes that stage_create will take, what gemm holds for its products apart. */
int64_t stage_bytes(const struct stage_spec *spec, const struct gemm *gemm);

/* weights (of dtype) and grads are the slab's arrays, borrowed; grads may be NULL if
 * not training. What gemm needs for the stage's products, of any number of rows up to
 * max_rows, is built in it, so that no call below builds; it must outlive the stage.
 * Owned; NULL with err set (no memory; what was built stays gemm's). */
struct stage *stage_create(const struct stage_spec *spec, const struct slab *slab,
                           const void *weights, float *grads, struct gemm *gemm,
                           struct err *err);
void stage_destroy(struct stage *s); /* NULL is fine */

/* Packs the matrices anew: after weights were written, before the next forward. A stage
 * with a lender has nothing to do, the lender's call counts. */
void stage_weights_changed(struct stage *s);

/* Loss of the rows of a head stage. */
struct stage_loss {
    const int32_t
        *target;      /* [rows] id that each row should predict, < 0: not counted */
    float grad_scale; /* d(objective)/d(row loss): 1 / counted tokens of the step */
    double *nll;      /* out, [segments]: sum of counted rows' cross-entropy, in nats,
                         added in row order in double */
    float
        *row_nll; /* out, [rows] or NULL: each row's cross-entropy, 0 if not counted */
    /* NULL, or the objective is no sum over rows with factors known before: called
     * once, on the calling thread, when nll is complete, to set scale [segments], which
     * is d(objective)/d(row loss) of all counted rows of a segment. grad_scale is not
     * read then. Without training the call is made too, and scale not read. */
    void (*weigh)(void *context, const double *nll, float *scale);
    void *context;
};

/* Runs micro-batch `slot` forward.
 * Embedding stage: ids [rows], each in [0, V); in is NULL. Else in [rows, D], ids NULL.
 * Without head: out [rows, D] is written. With head: out is NULL and loss is required;
 * when training, the gradient of sum(scale x row loss), by grad_scale or weigh, by the
 * head's weight is added to the grads at once and that by the normed rows is kept in
 * the slot. weigh costs the product for the logits once more, beyond the counted
 * rows that keep theirs (src/model/xent.h); its bits are those of grad_scale
 * where all scales are that. `in` must stay unchanged until the slot's backward, in
 * halves to the end of the second. */
void stage_forward(struct stage *s, int slot, const struct rows *rows,
                   const int32_t *ids, const void *in, void *out,
                   const struct stage_loss *loss);

/* Runs the slot's micro-batch backward, adding to the grads. dout [rows, D] is the
 * gradient of out (NULL for a head stage); din [rows, D] that of in (NULL for an
 * embedding stage; undefined with din_unused). */
void stage_backward(struct stage *s, int slot, const void *dout, void *din);

/* The same in two halves, with the same bits, other calls between them: first din (and
 * the gradients of norms and of the embedding), which others wait for, then those of
 * the matrices. dout must stay unchanged until the second ends. Second halves follow in
 * the order of the first ones, `waiting` at most behind.
 *
 * What waits, beside what the slot keeps: of each layer the gradients by its output and
 * by the middle of it, and the activation. */
void stage_backward_input(struct stage *s, int slot, const void *dout, void *din);
void stage_backward_weight(struct stage *s, int slot);

/* fp32 logits [n, V] of rows [row, row + n) of a head stage's latest forward in this
 * slot (training stages keep them, forward-only ones until the next call). For tests
 * and sampling. */
void stage_logits(const struct stage *s, int slot, int row, int n, float *logits);

/* Residual stream after layer `layer` of the model in the latest forward of the slot,
 * [rows, D], valid until the slot's next forward or backward; NULL if the stage does
 * not hold it or keeps none (not training). layer = first_layer + layers asks for the
 * final norm's output. */
const void *stage_residual(const struct stage *s, int slot, int layer);

#endif
