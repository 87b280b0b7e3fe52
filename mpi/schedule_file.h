/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_SCHEDULE_FILE_H
#define DUSK_MPI_SCHEDULE_FILE_H

/* A user's schedule: a CSV file (no quotes, no header) with one row for each rank of a
 * pipeline and one cell for each slot of time. A cell is empty (the rank idles) or
 *
 *     STAGE LETTER MICRO-BATCH   such as 0F3: micro-batch 3 forward on stage 0
 *
 * with the letters F forward, B backward, I the input gradient and W the weight
 * gradient of a backward in two; both halves or B, for each micro-batch of a stage.
 * Where some backward is in two, B runs its halves one after the other. A stage is on
 * the rank in whose row it is; every row has parallel.chunks stages. Sends and receives
 * follow.
 *
 *     0F0,0F1,   ,   ,0B0,   ,0B1          two ranks, two micro-batches
 *        ,1F0,1B0,1F1,1B1
 *
 * What a cell needs must be in an earlier slot: the stage's own forward, forwards of
 * the stage before, backwards of the next; and the cell of the micro-batch before of
 * the same stage and letter. A run does not wait for slots to pass: only the order in a
 * row is kept, and each operation starts when what it needs is there. Pure, local. */

#include "mpi/schedule.h"

/* The form above of any table, as long as its simulation with F = B = W = 1: owned
 * (free), NULL with err set (no memory). A file of its text gives the same lists. */
char *schedule_file_text(const struct schedule *s, struct err *err);

#endif
