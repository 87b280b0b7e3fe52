/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_BASE_PROGRESS_H
#define DUSK_BASE_PROGRESS_H

/* Progress of long work: on a terminal a bar that redraws, at most ten times a second;
 * in a log plain lines, at most one every 10 s. Driven by one rank; others pass a NULL
 * log. Local. */

#include <stdint.h>

#include "src/base/log.h"

struct progress {
    const struct log *log;   /* borrowed */
    const char *what, *unit; /* "import", "GB"; borrowed */
    double total, per_unit;  /* in base units; base units per shown unit, e.g. 1e9 */
    double start_s, shown_s;
    int terminal, shown;
};

void progress_begin(struct progress *p, const struct log *log, const char *what,
                    const char *unit, double total, double per_unit);
void progress_at(struct progress *p,
                 double done); /* shows rate and time left when due */

/* Last line: total, seconds, rate. Silent if nothing was ever shown and it took under 2
 * s. */
void progress_end(struct progress *p);

/* Instead, after a failure: takes the bar away, so that the error has a line. */
void progress_stop(struct progress *p);

#endif
