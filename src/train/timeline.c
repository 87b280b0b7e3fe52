/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/timeline.h"

#include "src/base/file.h"

#include <math.h>
#include <stdlib.h>

/* The two files; rank 0. A stream that could not be opened is NULL. */
struct files {
    struct file_stream json, svg;
};

static int open_one(struct file_stream *s, const char *folder, const char *name,
                    struct err *err)
{
    char *path = file_join(folder, name, err);
    int failed = !path || file_stream_open(s, path, err);
    free(path);
    return failed ? -1 : 0;
}

static int files_open(struct files *f, const char *folder, struct err *err)
{
    if (open_one(&f->json, folder, "timeline.json", err))
        return -1;
    if (open_one(&f->svg, folder, "timeline.svg", err) == 0)
        return 0;
    file_stream_close(&f->json, -1, err);
    return -1;
}

static int files_close(struct files *f, struct err *err)
{
    int failed = file_stream_close(&f->json, 0, err);
    return file_stream_close(&f->svg, failed, err);
}

static void add_lane(struct files *f, const struct timeline *t,
                     const struct timeline_lane *lane)
{
    timeline_json_lane(f->json.to, t, lane);
    timeline_svg_lane(f->svg.to, t, lane);
}

/* Rank 0 takes every rank's spans, also after a failure, when nothing is written. */
static int take_all(const struct grid *grid, const struct timeline *t, int64_t spans,
                    const struct trace_span *span, struct trace_span *received,
                    const char *folder, struct err *err)
{
    struct files f = {0};
    struct timeline_lane lane = {0, spans, span};
    int failed = files_open(&f, folder, err);
    if (!failed) {
        timeline_json_begin(f.json.to, t);
        timeline_svg_begin(f.svg.to, t);
        add_lane(&f, t, &lane);
    }
    for (int rank = 1; rank < comm_size(grid->world); rank++) {
        lane = (struct timeline_lane){.rank = rank, .span = received};
        comm_recv(grid->world, &lane.spans, sizeof lane.spans, rank);
        comm_recv(grid->world, received, (size_t)lane.spans * sizeof *received, rank);
        if (!failed)
            add_lane(&f, t, &lane);
    }
    if (failed)
        return -1;
    timeline_json_end(f.json.to);
    timeline_svg_end(f.svg.to, t);
    return files_close(&f, err);
}

int timeline_write(const struct grid *grid, struct timeline *t,
                   const struct clock_fix *fix, int64_t spans, struct trace_span *span,
                   struct trace_span *received, const char *folder, struct err *err)
{
    double ends[2] = {-INFINITY, -INFINITY}; /* minus the first begin, the last end */
    for (int64_t i = 0; i < spans; i++) {
        span[i].begin_s = clock_fix_shared(fix, span[i].begin_s);
        span[i].end_s = clock_fix_shared(fix, span[i].end_s);
        ends[0] = fmax(ends[0], -span[i].begin_s);
        ends[1] = fmax(ends[1], span[i].end_s);
    }
    comm_max_f64(grid->world, ends, 2);
    t->zero_s = -ends[0];
    t->length_s = ends[0] + ends[1];
    if (comm_root(grid->world))
        return take_all(grid, t, spans, span, received, folder, err);
    comm_send(grid->world, &spans, sizeof spans, 0);
    comm_send(grid->world, span, (size_t)spans * sizeof *span, 0);
    return 0;
}
