/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_ZERO_H
#define DUSK_MPI_ZERO_H

/* The sharded optimizer: gradient sums over replicas, clipping, AdamW on the elements
 * this rank owns (mpi/shard.h), weights back to all replicas.
 *
 * Each gradient element is summed over the d replicas in fp32 by one fixed tree on the
 * data index, sum(lo, hi) = sum(lo, mid) + sum(mid, hi) with mid = lo + (hi - lo + 1) /
 * 2, whatever the message size or the placement. A tied embedding has two gradient
 * sums; each is reduced over data, then the stage of the embedding adds embedding +
 * head. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/grid.h"
#include "mpi/shard.h"
#include "src/optim/adamw.h"
#include "src/param/slab.h"

struct zero;

/* slab, weights and grads are this stage's and borrowed. Takes both moments of the
 * owned elements (zeroed) and piece buffers. grads NULL (evaluation): no
 * moments either, zero_update is not to be called. Owned; NULL with err set. Collective
 * over world. */
struct zero *zero_create(const struct grid *grid, const struct slab *slab,
                         const struct model_shape *shape, float *weights, float *grads,
                         struct err *err);
void zero_destroy(struct zero *z); /* NULL is fine. Local. */
int64_t zero_bytes(const struct slab *slab, const struct model_shape *shape, int data,
                   int rank);

struct zero_step {
    struct adamw adamw;
    int64_t t;       /* AdamW's count of this update, from 1 */
    double lr, clip; /* clip 0: off */
    double norm;     /* out: global L2 norm of the gradient, before clipping */
    bool finite;     /* out: false: norm is NaN or Inf; nothing was updated, gradients
                        cleared */
    double wait_s;   /* out: seconds in communication */
};

/* Reduces, clips, updates, publishes, clears the gradients. The norm adds, in double,
 * each tensor's owned parts by data rank, then the tensors in table order: its bits
 * depend on the data degree, not on the pipeline. Collective over world. */
void zero_update(struct zero *z, struct zero_step *step);

/* Owned elements of every slab entry, for loading and saving. A tied head has none of
 * its own. `moment` 0: exp_avg, 1: exp_avg_sq: owned elements only, shard.end -
 * shard.begin of them. Borrowed, live as long as z. Local. */
struct zero_part {
    struct tensor tensor;
    struct shard shard;
    float *weight; /* first owned element */
    float *moment[2];
};
int zero_parts(const struct zero *z);
struct zero_part zero_part_at(const struct zero *z, int i);

/* Sends owned weights to the other replicas, and the tied head's copy to the last
 * stage; after loading. Collective over world. */
void zero_publish(struct zero *z);

#endif
