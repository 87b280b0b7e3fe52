/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_MPI_WATCH_REPORT_H
#define DUSK_MPI_WATCH_REPORT_H

/* What mpi/watch.h says of a job that hangs, and how its ranks tell each other without
 * MPI: each writes FOLDER/hang/rank-N, and the first that finds all answers there, or
 * has waited for them for WATCH_ANSWERS_S, writes FOLDER/status.json and stderr. All
 * local; nothing here makes an MPI call. */

#include <stdbool.h>
#include <stdint.h>

#include "src/base/err.h"

enum { WATCH_HOST = 64, WATCH_ANSWERS_S = 5 };

struct watch_ranks {
    int rank, size;
    char host[WATCH_HOST];
    char *hosts; /* [size][WATCH_HOST], of all; owned by the watch */
};

struct watch_state {
    bool waits;         /* else it computes, reads or writes */
    double quiet_s;     /* since its last wait began or ended */
    int stage, replica; /* -1: none */
    int64_t step;
    const char *phase, *what; /* what: of a wait */
    int micro_batch, peer;    /* of a wait; -1: none */
};

/* One line of this rank on stderr. */
void watch_say(const struct watch_ranks *r, const struct watch_state *s,
               double limit_s);

bool watch_asked(const char *folder); /* does somebody report? */

/* Leaves this rank's answer. */
void watch_answer(const struct watch_ranks *r, const struct watch_state *s,
                  const char *folder);

/* The whole report of a rank that has waited for longer than its limit; takes up to
 * WATCH_ANSWERS_S and 2 s. folder NULL: watch_say. */
void watch_report(const struct watch_ranks *r, const struct watch_state *s,
                  const char *folder, double limit_s);

int watch_forget(const char *folder, struct err *err); /* what a report has left */

#endif
