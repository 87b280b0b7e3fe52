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
 * head.
 *
 * With bf16 weights the owner keeps the other half of each fp32 master beside them
 * (src/optim/master.h), so that the optimizer's state has the bits of fp32 arithmetic;
 * what is published is the rounded weight. A parameter then takes 2 bytes of weight and
 * 4 of gradient on every replica, and 10 (rest of the master, both moments) on its
 * owner.
 *
 * A frozen parameter (src/param/slab.h) takes its weight only: it is loaded, saved and
 * published after loading like the others, and no step touches or sends it. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/grid.h"
#include "mpi/shard.h"
#include "mpi/trace.h"
#include "src/base/dtype.h"
#include "src/optim/adamw.h"
#include "src/param/slab.h"

struct zero;

/* slab, weights (F32 or BF16) and grads are this stage's and borrowed. Takes both
 * moments of the owned elements and, with BF16, the rest of their masters (all zeroed),
 * and piece buffers. grads NULL (evaluation): weights alone, zero_update is not to be
 * called. Owned; NULL with err set. Collective over world. */
struct zero *zero_create(const struct grid *grid, const struct slab *slab,
                         const struct model_shape *shape, enum dtype precision,
                         void *weights, float *grads, struct err *err);
void zero_destroy(struct zero *z); /* NULL is fine. Local. */

/* What zero_create takes with grads. Pure. */
int64_t zero_bytes(const struct slab *slab, const struct model_shape *shape,
                   enum dtype precision, int data, int rank);

struct zero_step {
    struct adamw adamw;
    int64_t t;       /* AdamW's count of this update, from 1 */
    double lr, clip; /* clip 0: off */
    double norm;     /* out: global L2 norm of the gradient, before clipping */
    bool finite;     /* out: false: norm is NaN or Inf; nothing was updated, gradients
                        cleared */
    double wait_s;   /* out: seconds in communication */
    struct trace *trace; /* records the parts of the update; NULL: none */
};

/* Reduces, clips, updates, publishes, clears the gradients. The norm adds, in double,
 * each tensor's owned parts by data rank, then the tensors in table order: its bits
 * depend on the data degree, not on the pipeline. Frozen tensors count for nothing.
 * Collective over world. */
void zero_update(struct zero *z, struct zero_step *step);

/* Clears the gradients of a step that is not to be applied. Local. */
void zero_discard(struct zero *z);

/* Owned elements of every slab entry, for loading and saving. A tied head has none of
 * its own. `moment` 0: exp_avg, 1: exp_avg_sq: owned elements only, shard.end -
 * shard.begin of them, NULL without grads or if frozen. Borrowed, live as long as z.
 * Local. */
struct zero_part {
    struct tensor tensor;
    struct shard shard;
    bool frozen;
    float *moment[2];
};
int zero_parts(const struct zero *z);
struct zero_part zero_part_at(const struct zero *z, int i);

/* The fp32 masters of n elements of part i, from the at-th owned one: what goes in
 * comes out in every bit if there are grads; else, and if the part is frozen, BF16
 * weights are all that is kept.
 * zero_publish after the last. Local. */
void zero_put(struct zero *z, int i, int64_t at, int64_t n, const float *master);
void zero_get(const struct zero *z, int i, int64_t at, int64_t n, float *master);

/* Sends owned weights to the other replicas, and the tied head's copy to the last
 * stage; after loading. Collective over world. */
void zero_publish(struct zero *z);

#endif
