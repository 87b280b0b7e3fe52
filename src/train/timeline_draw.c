/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/timeline_draw.h"

#include "src/base/svg.h"

#include <inttypes.h>
#include <math.h>

/* Pixels. */
enum {
    BOX = 22, /* height of a row's boxes */
    ROW = 30,
    LEFT = 190,
    TOP = 116,
    MARGIN = 16,
    AXIS = 40,   /* height of what is below the rows */
    WANTED = 30, /* width of an operation, where the picture may be so wide */
    NARROWEST = 900,
    WIDEST = 9000,
    MARK = 100, /* from one mark of the axis to the next, at least */
    LEGEND_ROWS = 2,
    LEGEND = 250 /* from one entry of the legend to the next */
};

/* In the order of enum trace_kind; what overlaps others is not drawn. */
static const struct svg_paint paints[TRACE_KINDS] = {
    [TRACE_FORWARD] = {"#2f6fb7", "#ffffff", "forward"},
    [TRACE_BACKWARD] = {"#3a9d5d", "#ffffff", "backward, input gradient"},
    [TRACE_WEIGHT] = {"#f0b429", "#222222", "backward, weight gradient"},
    [TRACE_RECEIVE] = {"#f3c9c5", "#222222", "waiting to receive"},
    [TRACE_SEND] = {"#d5584f", "#ffffff", "waiting to send"},
    [TRACE_REDUCE] = {"#b39cd0", "#222222", "sums of gradients, norm"},
    [TRACE_OPTIMIZER] = {"#6c4a9e", "#ffffff", "optimizer"},
    [TRACE_PUBLISH] = {"#d9cbe8", "#222222", "weights to replicas"},
    [TRACE_DATA] = {"#c4ccd4", "#222222", "data"},
    [TRACE_LOSS] = {"#dfe4e8", "#222222", "loss of all ranks"},
};

/* ---- events ---- */

void timeline_json_begin(FILE *f, const struct timeline *t)
{
    fprintf(f,
            "{\"displayTimeUnit\": \"ms\", \"otherData\": {\"schedule\": \"%s\", "
            "\"pipeline\": %d, \"data\": %d, \"first_step\": %" PRId64
            "}, \"traceEvents\": [",
            schedule_name(t->schedule->kind), t->pipeline, t->data, t->first_step);
}

/* The stages of a rank: "stage 3", "stages 0, 7"; cut where there are many. */
static void name_stages(const struct timeline *t, int rank, char *text, size_t size)
{
    const struct schedule *s = t->schedule;
    size_t used = (size_t)snprintf(text, size, "stage%s", s->chunks > 1 ? "s" : "");
    for (int c = 0; c < s->chunks && used < size; c++)
        used += (size_t)snprintf(text + used, size - used, "%s %d", c ? "," : "",
                                 schedule_stage(s, rank % t->pipeline, c));
}

static int stage_of(const struct timeline *t, int rank, const struct trace_span *s)
{
    return schedule_stage(t->schedule, rank % t->pipeline, s->chunk);
}

/* The names that the viewer shows for a replica and a stage; the last of the two ends
 * without a comma. */
static void json_names(FILE *f, const struct timeline *t, int rank)
{
    int replica = rank / t->pipeline, place = rank % t->pipeline;
    char stages[48];
    name_stages(t, rank, stages, sizeof stages);
    fprintf(f,
            "%s\n{\"name\": \"process_name\", \"ph\": \"M\", \"pid\": %d, \"tid\": %d, "
            "\"args\": {\"name\": \"replica %d\"}},\n"
            "{\"name\": \"thread_name\", \"ph\": \"M\", \"pid\": %d, \"tid\": %d, "
            "\"args\": {\"name\": \"%s (rank %d)\"}}",
            rank ? "," : "", replica, place, replica, replica, place, stages, rank);
}

static void json_span(FILE *f, const struct timeline *t, int rank,
                      const struct trace_span *s)
{
    static const char letters[] = {'F', 'B', 'W'};
    const char *kind = trace_kind_name((enum trace_kind)s->kind);
    fprintf(f, ",\n{\"name\": \"");
    if (s->kind == TRACE_STEP)
        fprintf(f, "step %" PRId64, t->first_step + s->micro_batch);
    else if (s->kind <= TRACE_WEIGHT)
        fprintf(f, "%c %d", letters[s->kind], s->micro_batch);
    else
        fprintf(f, "%s", kind);
    fprintf(f,
            "\", \"cat\": \"%s\", \"ph\": \"X\", \"ts\": %.3f, \"dur\": %.3f, \"pid\": "
            "%d, \"tid\": %d",
            kind, 1e6 * (s->begin_s - t->zero_s), 1e6 * (s->end_s - s->begin_s),
            rank / t->pipeline, rank % t->pipeline);
    if (s->kind != TRACE_STEP && s->micro_batch >= 0)
        fprintf(f, ", \"args\": {\"micro_batch\": %d, \"stage\": %d}", s->micro_batch,
                stage_of(t, rank, s));
    fputc('}', f);
}

void timeline_json_lane(FILE *f, const struct timeline *t,
                        const struct timeline_lane *lane)
{
    json_names(f, t, lane->rank);
    for (int64_t i = 0; i < lane->spans; i++)
        json_span(f, t, lane->rank, &lane->span[i]);
}

void timeline_json_end(FILE *f)
{
    fprintf(f, "\n]}\n");
}

/* ---- picture ---- */

static int rows_of(const struct timeline *t)
{
    int ranks = t->pipeline * t->data;
    return ranks < TIMELINE_ROWS ? ranks : TIMELINE_ROWS;
}

/* Of the axis. */
static double width_of(const struct timeline *t)
{
    return fmin(fmax(WANTED * (double)t->boxes, NARROWEST), WIDEST);
}

/* Pixels of a second. */
static double scale_of(const struct timeline *t)
{
    return width_of(t) / fmax(t->length_s, 1e-9);
}

static double bottom_of(const struct timeline *t)
{
    return TOP + ROW * (double)rows_of(t);
}

/* A unit in which the length is neither tiny nor huge. */
struct unit {
    const char *name;
    double s;
};
static struct unit unit_of(double length_s)
{
    if (length_s >= 10)
        return (struct unit){"s", 1};
    return length_s >= 1e-2 ? (struct unit){"ms", 1e-3} : (struct unit){"us", 1e-6};
}

static void axis(FILE *f, const struct timeline *t)
{
    double scale = scale_of(t), bottom = bottom_of(t);
    struct unit unit = unit_of(t->length_s);
    double mark = svg_mark(MARK / scale / unit.s);
    for (int i = 0; i * mark * unit.s <= t->length_s; i++) {
        char text[48];
        double x = LEFT + i * mark * unit.s * scale;
        svg_line_down(f, "#d0d4d8", x, TOP - 6, bottom + 4);
        snprintf(text, sizeof text, "%g %s", i * mark, unit.name);
        svg_text_middle(f, x, bottom + 20, text);
    }
}

static void legend(FILE *f, const struct timeline *t)
{
    int at = 0;
    for (int k = 0; k < TRACE_KINDS; k++) {
        if (!paints[k].meaning || (k == TRACE_WEIGHT && !t->schedule->split))
            continue;
        bool both = k == TRACE_BACKWARD && !t->schedule->split;
        double x = MARGIN + LEGEND * (double)(at / LEGEND_ROWS);
        double y = 34 + 28 * (double)(at % LEGEND_ROWS);
        svg_box(
            f, &paints[k],
            &(struct svg_box){x, y, WANTED, BOX, k <= TRACE_WEIGHT ? "i" : NULL, NULL});
        svg_text(f, x + WANTED + 6, y + BOX - 7,
                 both ? "backward, both gradients" : paints[k].meaning);
        at++;
    }
}

void timeline_svg_begin(FILE *f, const struct timeline *t)
{
    enum { LEGEND_COLUMNS = 5 };
    char title[160], shown[32] = "";
    int ranks = t->pipeline * t->data;
    double width = fmax(LEFT + width_of(t), LEGEND * (double)LEGEND_COLUMNS);
    if (rows_of(t) < ranks)
        snprintf(shown, sizeof shown, ", the first %d ranks", rows_of(t));
    snprintf(title, sizeof title, "%s, pipeline %d x data %d%s",
             schedule_name(t->schedule->kind), t->pipeline, t->data, shown);
    svg_begin(f, width + 3 * MARGIN, bottom_of(t) + AXIS, title);
    legend(f, t);
    for (int r = 0; r < rows_of(t); r++)
        svg_ground(f, "#f4f5f7", LEFT, TOP + ROW * (double)r, width_of(t), BOX);
    axis(f, t);
}

static void step_mark(FILE *f, const struct timeline *t, const struct trace_span *s,
                      int rank, double x, double y)
{
    char text[48];
    svg_line_down(f, "#444444", x, y - 4, y + BOX + 4);
    if (rank > 0)
        return;
    snprintf(text, sizeof text, "step %" PRId64, t->first_step + s->micro_batch);
    svg_text(f, x, y - 8, text);
}

void timeline_svg_lane(FILE *f, const struct timeline *t,
                       const struct timeline_lane *lane)
{
    if (lane->rank >= rows_of(t))
        return;
    double scale = scale_of(t), y = TOP + ROW * (double)lane->rank;
    struct unit unit = unit_of(t->length_s);
    char name[96], stages[24], label[16], hint[128];
    name_stages(t, lane->rank, stages, sizeof stages);
    snprintf(name, sizeof name, "rank %d: %s, replica %d", lane->rank, stages,
             lane->rank / t->pipeline);
    svg_text(f, MARGIN, y + BOX - 7, name);
    for (int64_t i = 0; i < lane->spans; i++) {
        const struct trace_span *s = &lane->span[i];
        double from_s = s->begin_s - t->zero_s, spent_s = s->end_s - s->begin_s;
        double x = LEFT + scale * from_s;
        if (s->kind == TRACE_STEP) {
            step_mark(f, t, s, lane->rank, x, y);
            continue;
        }
        char stage[32] = "";
        if (s->micro_batch >= 0 && t->schedule->chunks > 1)
            snprintf(stage, sizeof stage, ", stage %d", stage_of(t, lane->rank, s));
        snprintf(label, sizeof label, "%d", s->micro_batch);
        snprintf(hint, sizeof hint, "%s %s%s: %.6g %s from %.6g %s",
                 trace_kind_name((enum trace_kind)s->kind),
                 s->micro_batch < 0 ? "" : label, stage, spent_s / unit.s, unit.name,
                 from_s / unit.s, unit.name);
        svg_box(f, &paints[s->kind],
                &(struct svg_box){x, y, scale * spent_s, BOX,
                                  s->kind <= TRACE_WEIGHT ? label : NULL, hint});
    }
}

void timeline_svg_end(FILE *f, const struct timeline *t)
{
    (void)t;
    svg_end(f);
}
