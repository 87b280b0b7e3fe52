/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_TRAIN_TIMELINE_DRAW_H
#define DUSK_TRAIN_TIMELINE_DRAW_H

/* The two forms of a timeline: Chrome's trace event format, which Perfetto
 * (ui.perfetto.dev) and chrome://tracing load, and an SVG picture of the pipeline. Both
 * are written rank by rank, in rank order, so that one rank's spans are held at a time.
 * Errors are the streams' (ferror). Local. */

#include <stdio.h>

#include "mpi/schedule.h"
#include "mpi/trace.h"

struct timeline {
    int pipeline, data;
    const struct schedule *schedule; /* borrowed */
    int64_t first_step;              /* number of the first step kept */
    double zero_s;                   /* shared time of the first begin on any rank */
    double length_s;                 /* from there to the last end on any rank */
    int64_t boxes;                   /* of a rank's computing, about */
};

/* One rank's, its times shared ones. */
struct timeline_lane {
    int rank;
    int64_t spans;
    const struct trace_span *span;
};

/* An event of phase X for every span: "F 3" is micro-batch 3's forward, `ts` and `dur`
 * are microseconds, a process is a replica and a thread a rank of its pipeline. */
void timeline_json_begin(FILE *f, const struct timeline *t);
void timeline_json_lane(FILE *f, const struct timeline *t,
                        const struct timeline_lane *lane);
void timeline_json_end(FILE *f);

/* A row of boxes for each rank over a common axis of time, the first TIMELINE_ROWS
 * ranks at most. Operations of computing carry their micro-batch where it fits; all say
 * kind, begin and length under the pointer. */
enum { TIMELINE_ROWS = 64 };
void timeline_svg_begin(FILE *f, const struct timeline *t);
void timeline_svg_lane(FILE *f, const struct timeline *t,
                       const struct timeline_lane *lane);
void timeline_svg_end(FILE *f, const struct timeline *t);

#endif
