/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_EXCHANGE_H
#define DUSK_MPI_EXCHANGE_H

/* Moves tensors between the replicas of a stage: gradients to the owner of each element
 * (reduce-scatter, mpi/tree_sum.h), weights from the owner to all (all-gather).
 *
 * Both go in rounds: in round k of a tensor every owner's k-th piece travels between
 * it and all others, a few rounds at once. Pieces are at most 1 MiB, less with many
 * replicas, so that the buffers stay below 16 MiB. Each rank sends what it holds in
 * place and waits for the oldest round only, so that the rank that is furthest behind
 * always finds what it waits for: no deadlock. */

#include <stdbool.h>
#include <stdint.h>

#include "mpi/comm.h"
#include "src/base/dtype.h"
#include "src/param/table.h"

struct exchange;

struct exchange_item {
    struct tensor tensor;
    int64_t at; /* its first element in this stage's array; the same on all replicas */
};

/* axis: the replicas, borrowed. reduces: will exchange_reduce be called (it needs
 * buffers)? Owned; NULL with err set (no memory). Local. */
struct exchange *exchange_create(struct comm *axis, bool reduces, struct err *err);
void exchange_destroy(struct exchange *x); /* NULL is fine. Local. */
int64_t exchange_bytes(int data, bool reduces);

/* The owned elements become the sum over replicas; others are unchanged. Seconds of
 * waiting are added to *wait_s. No allocation. Collective over the axis. */
void exchange_reduce(struct exchange *x, int items, const struct exchange_item *item,
                     float *array, double *wait_s);

/* All elements, of dtype t, become those of their owner. As above. */
void exchange_gather(struct exchange *x, int items, const struct exchange_item *item,
                     enum dtype t, void *array, double *wait_s);

#endif
