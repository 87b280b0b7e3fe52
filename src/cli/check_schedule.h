/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_CLI_CHECK_SCHEDULE_H
#define DUSK_CLI_CHECK_SCHEDULE_H

#include <stdint.h>

#include "src/base/err.h"
#include "src/config/run.h"

/* Prints the schedule of a training step: a row of each rank of a pipeline, a column of
 * each unit of time, where forward, input gradient and weight gradient of a micro-batch
 * take one unit each on every stage and messages none; then how long the step is, its
 * bubble, and the micro-batches alive. `ranks` as check_memory takes it. svg, csv: NULL,
 * or a file that gets the drawing, or the table (mpi/schedule_file.h), instead of the
 * rows (ERR_IO). Reads the table of parallel.schedule: FILE.csv. -1 with err set,
 * nothing printed. Local, to stdout. */
int check_schedule(const struct run *run, int64_t ranks, const char *svg,
                   const char *csv, struct err *err);

#endif
