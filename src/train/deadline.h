/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_DEADLINE_H
#define DUSK_TRAIN_DEADLINE_H

/* The time at which the job ends (run.walltime, or Slurm's limit), and when to stop for
 * it: while there is still time for one more step, what follows it, and a save.
 *
 * Their cost is what they have taken in this process, half as much again, since disks
 * and networks vary. Before the first save it is its bytes at DEADLINE_SAVE_RATE, but
 * at most a quarter of the time that the job had. All local; rank 0 decides and the
 * others learn it with the step's sums. */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/log.h"
#include "src/config/run.h"

enum { DEADLINE_SAVE_RATE = 200000000 }; /* bytes a second, of a slow shared disk */

struct deadline {
    double end_s;    /* by clock_s; INFINITY: none */
    double margin_s; /* to leave */
    /* The longest so far; 0: none yet. Steps that were slower are forgotten slowly. */
    double step_s, eval_s, save_s;
    double assumed_save_s;
};

/* From run.walltime on rank 0 (`decides`), which may ask Slurm; says in the log what it
 * came to. On other ranks there is no end. save_bytes: of one checkpoint. */
void deadline_init(struct deadline *d, bool decides, const struct run *run,
                   int64_t save_bytes, const struct log *log);

void deadline_took_step(struct deadline *d, double seconds);
void deadline_took_eval(struct deadline *d, double seconds);
void deadline_took_save(struct deadline *d, double seconds);

/* Is it time to stop before a step, which validation follows? Or, during validation, to
 * stop that? */
bool deadline_before_step(const struct deadline *d, bool validates);
bool deadline_in_eval(const struct deadline *d);

#endif
