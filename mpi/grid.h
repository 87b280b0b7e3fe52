/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_GRID_H
#define DUSK_MPI_GRID_H

/* The process grid: pipeline x data. Rank = replica * pipeline + stage, so neighbours
 * of a pipeline are neighbours in rank. `pipe` joins the stages of one replica (its
 * rank is the stage), `data` the replicas of one stage (its rank is the replica). */

#include "mpi/comm.h"

struct grid {
    int pipeline, data;                 /* degrees */
    int stage, replica;                 /* of this rank */
    struct comm *world;                 /* borrowed */
    struct comm *pipe_axis, *data_axis; /* owned */
};

/* data 0: ranks / pipeline. -1 on every rank, with err set (ERR_USAGE) to the same
 * text, if pipeline x data is not the number of ranks. Collective over world. */
int grid_init(struct grid *g, struct comm *world, int pipeline, int data,
              struct err *err);
void grid_fini(struct grid *g); /* collective over world */

/* The map, one line a rank "rank host stage replica", for the run folder: owned string
 * (free) on rank 0, NULL elsewhere. Collective over world. */
char *grid_describe(const struct grid *g);

#endif
