/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_WATCH_H
#define DUSK_MPI_WATCH_H

/* The watchdog over everything that waits for another rank.
 *
 * Each rank notes what it waits for (a few relaxed stores), and a thread of its own
 * looks at that. A wait beyond its limit ends the job: the ranks that still answer say
 * where they are, in one report on stderr and, with a folder, in its status.json, and
 * MPI_Abort ends all with ERR_WATCHDOG within 10 s. The ranks talk through files
 * (FOLDER/hang), since MPI is what hangs; a folder that hangs too delays the end by 8 s
 * at most and costs the report. Without a folder each rank that waits too long says so
 * itself.
 *
 * Time while the whole process is stopped (scontrol suspend) does not count: a thread
 * that wakes late takes it for a short while. One watch a process, made by comm_start,
 * found by comm_watch; NULL is fine for all but watch_create. */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/err.h"

struct comm;
struct watch;

/* What the limit of a wait depends on. */
enum watch_limit { WATCH_WORK, WATCH_IO, WATCH_LIMITS };

/* Owned. The thread is not yet there. Local; CHECKs memory. */
struct watch *watch_create(int rank, int size, const char *host);
void watch_destroy(struct watch *w); /* ends the thread. Local. */

/* Starts the thread, with limits of seconds (0: none) and no folder. Collective over
 * the world; -1 with err set on this rank alone. */
int watch_start(struct watch *w, struct comm *world, const double limit_s[WATCH_LIMITS],
                struct err *err);

/* Other limits, and the folder for reports (copied); removes what an earlier report has
 * left there. Called on all ranks, by rank 0 before the others begin to wait; local. */
int watch_configure(struct watch *w, const char *folder,
                    const double limit_s[WATCH_LIMITS], struct err *err);

/* Where this rank is in the grid, -1 if in none. Local. */
void watch_place(struct watch *w, int stage, int replica);

/* What this rank does from here on: a literal ("training", "saving") and the limit that
 * goes with it; and the step. Local. */
void watch_phase(struct watch *w, const char *phase, enum watch_limit limit);
void watch_step(struct watch *w, int64_t step);

/* What the next wait is for: a literal ("activations from stage"), the micro-batch and
 * the peer's number, -1 if there is none. Local. */
void watch_for(struct watch *w, const char *what, int micro_batch, int peer);

/* Around each wait. Local. */
void watch_begin(struct watch *w);
void watch_end(struct watch *w);

#endif
