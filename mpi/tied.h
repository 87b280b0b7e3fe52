/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_TIED_H
#define DUSK_MPI_TIED_H

/* The two uses of a tied embedding: the first stage embeds with it, the last one makes
 * logits with it. Each sums a gradient of its own and, after the sums over replicas,
 * the first stage adds embedding + head, at every pipeline size; after the update the
 * last stage gets the weight back, unless one rank holds both. Owners are the same
 * replicas on both stages (mpi/shard.h), so each replica's two stages talk to each
 * other only. A frozen one has no gradients to add. */

#include "mpi/grid.h"
#include "src/base/dtype.h"
#include "src/param/slab.h"

struct tied;

/* *tied: owned, NULL on a stage that has no part in it (or alone has no second stage
 * and no tied head). 0, or -1 with err set (no memory). grid's communicators and slab
 * are borrowed. Local. */
int tied_create(struct tied **tied, const struct grid *grid, const struct slab *slab,
                struct err *err);
void tied_destroy(struct tied *t); /* NULL is fine. Local. */
int64_t tied_bytes(const struct slab *slab);

/* Owned elements of the embedding's gradient += those of the head's; frozen: nothing.
 * Seconds of waiting are added to *wait_s. Collective over the first and last stage of
 * a replica. */
void tied_add_gradient(struct tied *t, float *grads, double *wait_s);

/* Owned elements of the head's copy of the weight, of dtype w, become the embedding's.
 * As above. */
void tied_copy_weight(struct tied *t, enum dtype w, void *weights, double *wait_s);

#endif
