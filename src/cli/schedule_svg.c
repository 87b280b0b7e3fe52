/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/schedule_svg.h"

#include "src/base/file.h"
#include "src/base/svg.h"

#include <stdio.h>
#include <stdlib.h>

/* Pixels. */
enum {
    UNIT = 26, /* of one unit of time */
    BOX = 22,  /* height of a rank's boxes */
    ROW = 28,
    LEFT = 70,
    TOP = 64,
    MARGIN = 12,
    LEGEND = 150, /* from one entry to the next */
    NARROWEST = 560
};

/* In the order of enum pipe_op_kind. */
static const struct svg_paint paints[] = {
    [PIPE_FORWARD] = {"#2f6fb7", "#ffffff", "forward"},
    [PIPE_BACKWARD] = {"#3a9d5d", "#ffffff", "input gradient"},
    [PIPE_WEIGHT] = {"#f0b429", "#222222", "weight gradient"},
};

/* The same, paler for later chunks of a rank. */
static const struct svg_paint pale[] = {
    [PIPE_FORWARD] = {"#a9c6e8", "#222222", NULL},
    [PIPE_BACKWARD] = {"#a8dcb9", "#222222", NULL},
    [PIPE_WEIGHT] = {"#f9e0a3", "#222222", NULL},
};

static void box(FILE *f, const struct svg_paint *p, double x, double y, double width,
                const char *label, const char *hint)
{
    svg_box(f, p, &(struct svg_box){x, y, width, BOX, label, hint});
}

static void name_row(FILE *f, const struct schedule *s, int rank, double y)
{
    char label[32];
    snprintf(label, sizeof label, "%s %d", s->chunks > 1 ? "rank" : "stage", rank);
    svg_text(f, MARGIN, y + BOX - 7, label);
}

/* n units of an operation, one box or, where a backward does both, two. */
static void operation(FILE *f, const struct schedule *s,
                      const struct schedule_costs *costs, struct pipe_op op, double x,
                      double y)
{
    const struct svg_paint *paint = s->chunk_of[op.stage] > 0 ? pale : paints;
    double width = UNIT * schedule_cost(s, costs, op.kind);
    char label[16], hint[64];
    snprintf(label, sizeof label, "%d", op.micro_batch);
    snprintf(hint, sizeof hint, "%s of micro-batch %d, stage %d", pipe_op_name(op.kind),
             op.micro_batch, op.stage);
    if (op.kind != PIPE_BACKWARD || s->split) {
        box(f, &paint[op.kind], x, y, width, label, hint);
        return;
    }
    double first = UNIT * costs->input_gradient;
    box(f, &paint[PIPE_BACKWARD], x, y, first, label, hint);
    box(f, &paint[PIPE_WEIGHT], x + first, y, width - first, label, hint);
}

static void rank_row(FILE *f, const struct schedule *s,
                     const struct schedule_costs *costs, const struct schedule_times *t,
                     int rank)
{
    double y = TOP + ROW * (double)rank;
    name_row(f, s, rank, y);
    for (int at = 0; at < s->ops[rank]; at++)
        if (schedule_cost(s, costs, s->op[rank][at].kind) > 0)
            operation(f, s, costs, s->op[rank][at], LEFT + UNIT * t->start[rank][at],
                      y);
}

static void legend(FILE *f, const struct schedule *s)
{
    for (int k = PIPE_FORWARD; k <= PIPE_WEIGHT; k++) {
        double x = LEFT + LEGEND * (double)k;
        box(f, &paints[k], x, 32, UNIT, "i", NULL);
        char text[64];
        snprintf(text, sizeof text, "%s of i", paints[k].meaning);
        svg_text(f, x + UNIT + 6, 32 + BOX - 7, text);
    }
    if (s->chunks > 1)
        svg_text(f, LEFT + LEGEND * (double)(PIPE_WEIGHT + 1), 32 + BOX - 7,
                 "paler: later stages of the rank");
}

static void draw(FILE *f, const struct schedule *s, const struct schedule_costs *costs,
                 const struct schedule_times *t, const char *title)
{
    double wide = LEFT + UNIT * t->length + MARGIN;
    double narrowest = s->chunks > 1 ? NARROWEST + LEGEND : NARROWEST;
    double width = wide > narrowest ? wide : narrowest;
    double height = TOP + ROW * (double)s->ranks + MARGIN;
    svg_begin(f, width, height, title);
    legend(f, s);
    for (int rank = 0; rank < s->ranks; rank++) {
        svg_ground(f, "#e8e8e8", LEFT, TOP + ROW * (double)rank, UNIT * t->length, BOX);
        rank_row(f, s, costs, t, rank);
    }
    svg_end(f);
}

int schedule_svg(const struct schedule *s, const struct schedule_costs *costs,
                 const struct schedule_times *times, const char *title,
                 const char *path, struct err *err)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    if (!f)
        return err_set(err, ERR_OTHER, "%s: no memory for the drawing", path);
    draw(f, s, costs, times, title);
    int failed = ferror(f);
    failed |= fclose(f);
    if (failed)
        err_set(err, ERR_OTHER, "%s: no memory for the drawing", path);
    else
        failed = file_write_atomic(path, text, bytes, err);
    free(text);
    return failed ? -1 : 0;
}
