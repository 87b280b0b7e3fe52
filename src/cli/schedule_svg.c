/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/schedule_svg.h"

#include "src/base/file.h"

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

struct paint {
    const char *fill, *text, *meaning;
};

/* In the order of enum pipe_op_kind; dark enough or light enough for its text. */
static const struct paint paints[] = {
    [PIPE_FORWARD] = {"#2f6fb7", "#ffffff", "forward"},
    [PIPE_BACKWARD] = {"#3a9d5d", "#ffffff", "input gradient"},
    [PIPE_WEIGHT] = {"#f0b429", "#222222", "weight gradient"},
};

static void box(FILE *f, const struct paint *p, double x, double y, double width,
                const char *label)
{
    fprintf(f,
            "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%d\" fill=\"%s\" "
            "stroke=\"#ffffff\"/>",
            x, y, width, BOX, p->fill);
    fprintf(f, "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\" fill=\"%s\">%s</text>\n",
            x + width / 2, y + BOX - 7, p->text, label);
}

static void stage_row(FILE *f, const struct schedule *s,
                      const struct schedule_costs *costs,
                      const struct schedule_times *t, int stage)
{
    double y = TOP + ROW * (double)stage;
    fprintf(f, "<text x=\"%d\" y=\"%g\">stage %d</text>\n", MARGIN, y + BOX - 7, stage);
    for (int at = 0; at < s->ops[stage]; at++) {
        struct pipe_op op = s->op[stage][at];
        double x = LEFT + UNIT * t->start[stage][at];
        double width = UNIT * schedule_cost(s, costs, op.kind);
        char label[16];
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
        fprintf(f, "<text x=\"%g\" y=\"%d\">%s of i</text>\n", x + UNIT + 6,
                32 + BOX - 7, paints[k].meaning);
    }
}

static void draw(FILE *f, const struct schedule *s, const struct schedule_costs *costs,
                 const struct schedule_times *t, const char *title)
{
    double wide = LEFT + UNIT * t->length + MARGIN;
    double width = wide > NARROWEST ? wide : NARROWEST;
    double height = TOP + ROW * (double)s->stages + MARGIN;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" "
            "viewBox=\"0 0 %g %g\" font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"%g\" height=\"%g\" fill=\"#ffffff\"/>\n"
            "<text x=\"%d\" y=\"20\">%s</text>\n",
            width, height, width, height, width, height, MARGIN, title);
    legend(f);
    for (int stage = 0; stage < s->stages; stage++) {
        fprintf(f,
                "<rect x=\"%d\" y=\"%g\" width=\"%g\" height=\"%d\" "
                "fill=\"#e8e8e8\"/>\n",
                LEFT, TOP + ROW * (double)stage, UNIT * t->length, BOX);
        stage_row(f, s, costs, t, stage);
    }
    fprintf(f, "</svg>\n");
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
