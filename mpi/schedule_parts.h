/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_SCHEDULE_PARTS_H
#define DUSK_MPI_SCHEDULE_PARTS_H

/* How tables are made: schedule.c places the stages and asks one of these for the order
 * of computations; sends and receives follow from it. Pure, local. */

#include "mpi/schedule.h"

/* Appends a computation to the list of its stage's rank: what it needs is received
 * right before it, what it makes is sent right after. */
void schedule_push(struct schedule *s, int stage, enum pipe_op_kind kind,
                   int micro_batch);

/* Megatron-LM's order (schedule_chunks.c). */
void schedule_fill_interleaved(struct schedule *s);

/* Orders by simulation, for any placement (schedule_greedy.c): zb-v, forward. -1 with
 * err set (no memory). */
int schedule_fill_greedy(struct schedule *s, struct err *err);

/* Reads a user's table (schedule_file.c): placement first, then the order. -1 with err
 * set, ERR_USAGE. */
struct schedule_cells;
struct schedule_cells *schedule_cells_read(const struct schedule_spec *spec,
                                           struct err *err);
void schedule_cells_destroy(struct schedule_cells *c); /* NULL is fine */
bool schedule_cells_split(const struct schedule_cells *c);
int schedule_cells_rank(const struct schedule_cells *c, int stage);
void schedule_cells_fill(const struct schedule_cells *c, struct schedule *s);

#endif
