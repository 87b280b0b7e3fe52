/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/schedule_svg.h"

#include "src/base/file.h"
#include "src/base/svg.h"

#include <stdio.h>
#include <stdlib.h>

/* Pixels. */
enum {
    UNIT = 26, /* of one unit of time */
    BOX = 22,  /* height of a stage's boxes */
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

static void box(FILE *f, const struct svg_paint *p, double x, double y, double width,
                const char *label)
{
    svg_box(f, p, &(struct svg_box){x, y, width, BOX, label, NULL});
}

static void stage_row(FILE *f, const struct schedule *s,
                      const struct schedule_costs *costs,
                      const struct schedule_times *t, int stage)
{
    double y = TOP + ROW * (double)stage;
    char label[32];
    snprintf(label, sizeof label, "stage %d", stage);
    svg_text(f, MARGIN, y + BOX - 7, label);
    for (int at = 0; at < s->ops[stage]; at++) {
        struct pipe_op op = s->op[stage][at];
        double x = LEFT + UNIT * t->start[stage][at];
        double width = UNIT * schedule_cost(s, costs, op.kind);
        if (width <= 0)
            continue;
        snprintf(label, sizeof label, "%d", op.micro_batch);
        if (op.kind != PIPE_BACKWARD || schedule_split(s->kind)) {
            box(f, &paints[op.kind], x, y, width, label);
            continue;
        }
        double first = UNIT * costs->input_gradient;
        box(f, &paints[PIPE_BACKWARD], x, y, first, label);
        box(f, &paints[PIPE_WEIGHT], x + first, y, width - first, label);
    }
}

static void legend(FILE *f)
{
    for (int k = PIPE_FORWARD; k <= PIPE_WEIGHT; k++) {
        double x = LEFT + LEGEND * (double)k;
        box(f, &paints[k], x, 32, UNIT, "i");
        char text[64];
        snprintf(text, sizeof text, "%s of i", paints[k].meaning);
        svg_text(f, x + UNIT + 6, 32 + BOX - 7, text);
    }
}

static void draw(FILE *f, const struct schedule *s, const struct schedule_costs *costs,
                 const struct schedule_times *t, const char *title)
{
    double wide = LEFT + UNIT * t->length + MARGIN;
    double width = wide > NARROWEST ? wide : NARROWEST;
    double height = TOP + ROW * (double)s->stages + MARGIN;
    svg_begin(f, width, height, title);
    legend(f);
    for (int stage = 0; stage < s->stages; stage++) {
        svg_ground(f, "#e8e8e8", LEFT, TOP + ROW * (double)stage, UNIT * t->length,
                   BOX);
        stage_row(f, s, costs, t, stage);
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
