/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_NET_TIME_H
#define DUSK_MPI_NET_TIME_H

/* The messages that `dusk bench net` times: one there and back, and MPI's collectives
 * on one array, whole or cut in pieces. Waiting is the program's own (naps where ranks
 * outnumber cores). */

#include <stddef.h>
#include <stdint.h>

#include "mpi/comm.h"

/* Rank 0 sends `bytes` to peer, which sends them back; both in `buffer`. Other ranks do
 * nothing. Collective over 0 and peer. */
void net_ping(struct comm *c, int peer, void *buffer, size_t bytes);

enum net_collective { NET_ALL_REDUCE, NET_REDUCE_SCATTER, NET_ALL_GATHER };

/* fp32 sums (or copies) of n numbers in pieces of at most `piece`, both multiples of
 * the number of ranks. x and y [n]; all_reduce works in x, reduce_scatter from x to y's
 * first n / ranks, all_gather from y's first n / ranks to x. Collective. */
void net_collective(struct comm *c, enum net_collective what, int64_t n, int64_t piece,
                    float *x, float *y);

#endif
