/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of a step with known times, and both forms of a timeline. */
#include "src/train/account_figures.h"

#include "io/json_read.h"
#include "src/train/timeline_draw.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SAME(found, expected)                                                          \
    do {                                                                               \
        double found_ = (found), expected_ = (expected);                               \
        printf("# %s: %.9g, expected %.9g\n", #found, found_, expected_);              \
        assert_true(fabs(found_ - expected_) < 1e-12);                                 \
    } while (0)

/* Two pipelines of two stages; the second starts 100 s later on the shared clock, which
 * must not matter, as each pass is its own. */
static const struct account_rank four[] = {
    {{1, 2, 0, 0.5, 1, 0.25}, 0.1, 10, 14},
    {{1, 2, 1, 0.5, 0.5, 0.25}, 0.3, 10.5, 15},
    {{1, 1, 0, 0.5, 2, 0.25}, 0, 110, 113},
    {{1, 1, 0, 0.5, 2, 0.25}, 0, 111, 114},
};

static void known_times_give_known_figures(void **state)
{
    (void)state;
    struct account_figures f;
    account_figures(four, 2, 2, 8, &f);
    SAME(f.part[ACCOUNT_FORWARD], 1);
    SAME(f.part[ACCOUNT_BACKWARD], 1.5);
    SAME(f.part[ACCOUNT_WEIGHT], 0.25);
    SAME(f.part[ACCOUNT_MESSAGE_WAIT], 5.5 / 4);
    SAME(f.part[ACCOUNT_IDLE], 8 - 1 - 1.5 - 0.25 - 0.5 - 5.5 / 4 - 0.25);
    double sum = 0;
    for (int p = 0; p < ACCOUNT_PARTS; p++)
        sum += f.part[p];
    SAME(sum, 8);
    SAME(f.bubble, ((1 - 7.0 / 10) + (1 - 4.0 / 8)) / 2);
    SAME(f.exposed, 0.4 / 4 / 8);
    SAME(f.imbalance, 4 / 2.75);
    assert_int_equal(f.slowest, 1);
    struct schedule_costs c = account_costs(&f, 4);
    SAME(c.forward, 0.25);
    SAME(c.input_gradient, 0.375);
    SAME(c.weight_gradient, 0.0625);
}

/* A step in which nothing is computed, as with everything frozen, has figures too. */
static void no_work_divides_by_nothing(void **state)
{
    (void)state;
    const struct account_rank idle = {{0}, 0, 0, 0};
    struct account_figures f;
    account_figures(&idle, 1, 1, 2, &f);
    SAME(f.bubble, 0);
    SAME(f.imbalance, 1);
    SAME(f.part[ACCOUNT_IDLE], 2);
}

static void figures_are_told(void **state)
{
    (void)state;
    struct account_figures f;
    struct json j = {0};
    struct err err;
    char text[512], little[20];
    account_figures(four, 2, 2, 8, &f);
    f.bubble_ideal = 0.125;
    f.slowest_steps = 3;
    f.steps = 7;
    json_begin(&j, NULL, '{');
    account_json(&f, &j);
    json_end(&j, '}');
    json_t *o = json_read_text(j.text, strlen(j.text), "figures", &err);
    assert_non_null(o);
    assert_int_equal(json_object_size(o), ACCOUNT_PARTS + 6);
    double idle, ideal;
    assert_int_equal(json_read_number(o, "time/idle", "figures", &idle, NULL, &err), 0);
    assert_int_equal(json_read_number(o, "bubble_ideal", "figures", &ideal, NULL, &err),
                     0);
    SAME(idle, f.part[ACCOUNT_IDLE]);
    SAME(ideal, 0.125);
    json_decref(o);
    json_fini(&j);
    account_describe(&f, text, sizeof text);
    printf("# %s\n", text);
    assert_non_null(strstr(text, "forward 12.5 %, backward 18.8 %"));
    assert_non_null(strstr(text, "bubble 40.0 % (ideal 12.5), imbalance 1.455 (rank 1 "
                                 "slowest in 3 of 7), exposed 1.25 %"));
    account_describe(&f, little, sizeof little); /* cut, not overrun */
    assert_int_equal(strlen(little), sizeof little - 1);
}

static int two_stages[] = {0, 1};
static const struct schedule halves = {.kind = SCHEDULE_ZB_H1,
                                       .split = true,
                                       .ranks = 2,
                                       .chunks = 1,
                                       .stages = 2,
                                       .stage_of = two_stages};
static const struct timeline line = {.pipeline = 2,
                                     .data = 1,
                                     .schedule = &halves,
                                     .first_step = 41,
                                     .zero_s = 1000,
                                     .length_s = 0.5,
                                     .boxes = 3};
static const struct trace_span spans[] = {
    {1000, 1000.5, 1, TRACE_STEP, 0},          {1000, 1000.1, -1, TRACE_DATA, 0},
    {1000.1, 1000.2, 12, TRACE_FORWARD, 0},    {1000.2, 1000.3, 5, TRACE_RECEIVE, 0},
    {1000.3, 1000.4, 5, TRACE_BACKWARD, 0},    {1000.4, 1000.45, 5, TRACE_WEIGHT, 0},
    {1000.45, 1000.5, -1, TRACE_OPTIMIZER, 0},
};
enum { SPANS = sizeof spans / sizeof *spans };

typedef void write_lanes(FILE *f);

static char *written(write_lanes *lanes)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    assert_non_null(f);
    lanes(f);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void events(FILE *f)
{
    timeline_json_begin(f, &line);
    for (int rank = 0; rank < 2; rank++) /* the second has none */
        timeline_json_lane(f, &line,
                           &(struct timeline_lane){rank, rank ? 0 : SPANS, spans});
    timeline_json_end(f);
}

static void events_are_those_of_the_spans(void **state)
{
    (void)state;
    static const char *const names[SPANS] = {
        "step 42", "data", "F 12", "receive_wait", "B 5", "W 5", "optimizer"};
    enum { NAMES = 2 }; /* of replica and stage, before each rank's spans */
    struct err err;
    char *text = written(events);
    json_t *o = json_read_text(text, strlen(text), "timeline.json", &err);
    assert_non_null(o);
    const json_t *all = json_object_get(o, "traceEvents");
    assert_int_equal(json_array_size(all), 2 * NAMES + SPANS);
    for (size_t i = 0; i < SPANS; i++) {
        const json_t *e = json_array_get(all, NAMES + i);
        assert_string_equal(json_string_value(json_object_get(e, "name")), names[i]);
        assert_string_equal(json_string_value(json_object_get(e, "ph")), "X");
        double ts = json_number_value(json_object_get(e, "ts"));
        double dur = json_number_value(json_object_get(e, "dur"));
        assert_true(fabs(ts - 1e6 * (spans[i].begin_s - 1000)) < 1e-3);
        assert_true(fabs(ts + dur - 1e6 * (spans[i].end_s - 1000)) < 2e-3);
    }
    json_decref(o);
    free(text);
}

static void picture(FILE *f)
{
    timeline_svg_begin(f, &line);
    timeline_svg_lane(f, &line, &(struct timeline_lane){0, SPANS, spans});
    timeline_svg_lane(f, &line, &(struct timeline_lane){1, 0, spans});
    timeline_svg_end(f, &line);
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
        n++;
    return n;
}

/* 900 pixels from 190 on are half a second: a forward of 0.1 s begins at 370. */
static void boxes_lie_where_the_spans_are(void **state)
{
    (void)state;
    char *text = written(picture);
    assert_ptr_equal(strstr(text, "<svg xmlns=\"http://www.w3.org/2000/svg\""), text);
    assert_string_equal(text + strlen(text) - 7, "</svg>\n");
    assert_int_equal(count(text, "<title>"), SPANS - 1); /* the step is a line */
    assert_int_equal(count(text, "<rect"), 1 + 10 + 2 + SPANS - 1);
    assert_non_null(strstr(text,
                           "<rect x=\"370\" y=\"116\" width=\"180\" height=\"22\" "
                           "fill=\"#2f6fb7\""));
    assert_non_null(strstr(text, "<title>forward 12: 100 ms from 100 ms</title>"));
    assert_non_null(strstr(text, ">12</text>"));
    assert_non_null(strstr(text, ">step 42</text>"));
    assert_non_null(strstr(text, ">rank 1: stage 1, replica 0</text>"));
    assert_non_null(strstr(text, ">500 ms</text>"));
    assert_non_null(strstr(text, "zb-h1, pipeline 2 x data 1"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_times_give_known_figures),
        cmocka_unit_test(no_work_divides_by_nothing),
        cmocka_unit_test(figures_are_told),
        cmocka_unit_test(events_are_those_of_the_spans),
        cmocka_unit_test(boxes_lie_where_the_spans_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
