/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_CLOCK_SYNC_H
#define DUSK_MPI_CLOCK_SYNC_H

/* One clock for all ranks. Hosts count their monotonic seconds from different starts
 * and a little differently fast; the shared clock is that of world's rank 0, and a fix
 * says how it is read on another rank. An estimate is made by messages there and back:
 * the peer's clock is taken to show its time halfway, and the quickest of some round
 * trips counts, so that the error is at most half of that trip (microseconds on one
 * host). */

#include "mpi/grid.h"

struct clock_fix {
    double at_s;     /* this rank's clock_s() of the estimate */
    double offset_s; /* shared - local, then */
    double rate;     /* by which the offset grows, a second */
};

/* The shared time of this rank's clock_s() value. Pure. */
double clock_fix_shared(const struct clock_fix *f, double local_s);

/* The line through two estimates of one rank, a before b: it interpolates between them
 * and goes on beyond. Where they are less than apart_s apart, b's offset with a's rate:
 * a short distance would make a rate of the estimates' errors. Pure. */
struct clock_fix clock_fix_through(const struct clock_fix *a, const struct clock_fix *b,
                                   double apart_s);

/* A new estimate, with rate 0; on world's rank 0 the offset is 0. First the stages of a
 * pipeline against its first stage, then those of all replicas against replica 0, so
 * that it takes as many round trips as there are stages and replicas. Collective over
 * world. */
struct clock_fix clock_sync(const struct grid *grid);

#endif
