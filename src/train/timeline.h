/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_TIMELINE_H
#define DUSK_TRAIN_TIMELINE_H

/* All ranks' kept spans brought together on one clock and written by rank 0 as
 * timeline.json and timeline.svg (src/train/timeline_draw.h). */

#include "mpi/grid.h"
#include "src/train/timeline_draw.h"

/* Writes FOLDER/timeline.json and .svg; they appear whole or not at all. t's pipeline,
 * data, schedule, first_step and boxes are given. spans are this rank's, in its
 * own clock, and are brought to the shared one by `fix`; received [room]: rank 0's room
 * for another rank's, which has no more. -1 with err set on rank 0 alone (ERR_IO).
 * Collective over world. */
int timeline_write(const struct grid *grid, struct timeline *t,
                   const struct clock_fix *fix, int64_t spans, struct trace_span *span,
                   struct trace_span *received, const char *folder, struct err *err);

#endif
