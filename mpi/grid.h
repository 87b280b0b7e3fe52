/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_GRID_H
#define DUSK_MPI_GRID_H

/* The process grid: pipeline x data. Rank = replica * pipeline + stage, so neighbours
 * of a pipeline are neighbours in rank. `pipe` joins the ranks of one replica (its
 * rank is `stage`), `data` the replicas of one place in the pipeline (its rank is the
 * replica). `stage` is the place in the pipeline, and the stage of a rank that holds
 * one; which ones a rank holds if it is several, the schedule says (mpi/schedule.h). */

#include "mpi/comm.h"

struct grid {
    int pipeline, data;    /* degrees */
    int stage, replica;    /* of this rank */
    int embed_at, head_at; /* `stage` of the ranks with the first and the last stage */
    struct comm *world;    /* borrowed */
    struct comm *pipe_axis, *data_axis; /* owned */
};

/* data 0: ranks / pipeline. -1 on every rank, with err set (ERR_USAGE) to the same
 * text, if pipeline x data is not the number of ranks. Collective over world. */
int grid_init(struct grid *g, struct comm *world, int pipeline, int data,
              struct err *err);
void grid_fini(struct grid *g); /* collective over world */

/* The map, one line a rank "rank host stages replica" with stages such as 0 or 0,7, for
 * the run folder: owned string (free) on rank 0, NULL elsewhere. stages [n]: this
 * rank's, of every rank as many. Collective over world. */
char *grid_describe(const struct grid *g, int n, const int *stages);

#endif
