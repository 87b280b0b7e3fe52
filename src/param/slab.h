/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_PARAM_SLAB_H
#define DUSK_PARAM_SLAB_H

/* Where the tensors of one rank's stages lie in its flat arrays.
 *
 * A rank keeps one array of weights and one of gradient sums. The slab lists, in table
 * order, each tensor that its stages work with and its first element in both arrays;
 * starts are multiples of 16 elements (64 bytes in fp32).
 *
 * Tied models: the head reads embed_tokens but sums a gradient of its own. The slab with
 * the head therefore has one more entry, `tied_head`, for embed_tokens: with its
 * own gradient, and its own copy of the weight unless the rank also holds the
 * embedding (then weight_at is that of the embedding). The optimizer adds the two
 * gradient sums, embedding + head, at every pipeline size.
 *
 * Frozen tensors (src/param/freeze.h) have a weight and no gradient sum. Pure, local.
 */

#include <stdbool.h>
#include <stdint.h>

#include "src/param/freeze.h"
#include "src/param/table.h"

struct slab_entry {
    struct tensor tensor;
    int64_t weight_at, grad_at; /* first element in the rank's arrays */
    bool tied_head;             /* the head's use of embed_tokens */
    bool frozen;                /* not trained: grad_at is -1 */
};

struct slab {
    int entries;
    struct slab_entry *entry; /* owned */
    int64_t weights, grads;   /* elements of each array, gaps included */
};

/* What one pipeline stage holds: layers [first, first + layers), embedding and head as
 * flagged (the head brings norm and lm_head or the tied head). */
struct stage_part {
    int first, layers;
    bool embed, head;
};

/* The parts of one rank, which share nothing. 0, or -1 with err set (no memory). */
int slab_init_parts(struct slab *slab, const struct model_shape *s, int parts,
                    const struct stage_part *part, struct err *err);

/* The same of one part. */
int slab_init(struct slab *slab, const struct model_shape *s, int first, int layers,
              bool embed, bool head, struct err *err);
void slab_fini(struct slab *slab);

/* Marks what f freezes (slab_init leaves all trained) and lays the gradient sums of the
 * others out anew, without them. */
void slab_freeze(struct slab *slab, const struct freeze *f);

/* The entry of a role (and layer), NULL if the rank does not hold it. tied_head asks
 * for the head's entry of a tied model. */
const struct slab_entry *slab_find(const struct slab *slab, enum tensor_role r,
                                   int layer, bool tied_head);

/* Whether a tensor of so many elements ends where the next one of an array starts:
 * without a gap between them. */
bool slab_adjoins(int64_t elements);

#endif
