/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/check_schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mpi/schedule_times.h"
#include "src/base/mem.h"
#include "src/cli/schedule_svg.h"
#include "src/train/run_spec.h"

/* Stages x micro-batches. */
enum { DRAWN_MOST = 1 << 20 };

static const struct schedule_costs costs = {1, 1, 1};

/* A stage's row: cells of `wide` characters, dots where nothing is computed. The
 * operation's second unit is the weight gradient of one backward that does both. */
static void print_row(const struct schedule *s, const struct schedule_times *t,
                      int stage, char *cells, int wide)
{
    int units = (int)lround(t->length);
    memset(cells, ' ', (size_t)units * (size_t)wide);
    for (int u = 0; u < units; u++)
        cells[u * wide] = '.';
    for (int at = 0; at < s->ops[stage]; at++) {
        struct pipe_op op = s->op[stage][at];
        int begin = (int)lround(t->start[stage][at]);
        int n = (int)lround(schedule_cost(s, &costs, op.kind));
        for (int u = 0; u < n; u++) {
            char cell[24];
            int length = snprintf(cell, sizeof cell, "%c%d", "FBW"[(int)op.kind + u],
                                  op.micro_batch);
            memcpy(cells + (begin + u) * wide, cell, (size_t)length);
        }
    }
    int end = units * wide;
    while (end > 0 && cells[end - 1] == ' ')
        end--;
    printf("%5d  %.*s\n", stage, end, cells);
}

/* The letter, the digits of the last micro-batch, a space. */
static int cell_width(const struct schedule *s)
{
    return snprintf(NULL, 0, "F%d ", s->micro_batches - 1);
}

static int print_rows(const struct schedule *s, const struct schedule_times *t,
                      struct err *err)
{
    int wide = cell_width(s);
    char *cells = mem_array(lround(t->length) * wide, 1, err);
    if (!cells)
        return -1;
    printf("stage  a unit of time a column; F: forward, B: input gradient, W: weight "
           "gradient%s\n",
           schedule_split(s->kind) ? "" : " (one operation with B)");
    for (int stage = 0; stage < s->stages; stage++)
        print_row(s, t, stage, cells, wide);
    mem_free(cells);
    return 0;
}

static void describe(const struct schedule *s, const struct schedule_times *t,
                     char *text, size_t size)
{
    snprintf(text, size,
             "%s, %d stage%s, %d micro-batch%s, F = B = W = 1: step %g units, bubble "
             "%.1f %%",
             schedule_name(s->kind), s->stages, s->stages > 1 ? "s" : "",
             s->micro_batches, s->micro_batches > 1 ? "es" : "", t->length,
             100 * schedule_bubble(t));
}

static void print_stages(const char *what, int n, const int *of)
{
    printf("%s, by stage:", what);
    for (int stage = 0; stage < n; stage++)
        printf(" %d", of[stage]);
    putchar('\n');
}

static int show(const struct schedule *s, const struct schedule_times *t,
                const char *svg, struct err *err)
{
    char title[192];
    describe(s, t, title, sizeof title);
    if (svg ? schedule_svg(s, &costs, t, title, svg, err) : print_rows(s, t, err))
        return -1;
    puts(title);
    print_stages("micro-batches alive at once", s->stages, t->alive);
    if (schedule_split(s->kind))
        print_stages("of these waiting for W, at most", s->stages, s->waiting);
    if (svg)
        printf("drawn to %s\n", svg);
    return 0;
}

int check_schedule(const struct run *run, int64_t ranks, const char *svg,
                   struct err *err)
{
    int pipeline = run->parallel.pipeline;
    int64_t least = (int64_t)pipeline * (run->parallel.data ? run->parallel.data : 1);
    int data = run_replicas(run, ranks ? ranks : least, err);
    int micro_batches = data > 0 ? run_micro_batches(run, data, err) : -1;
    struct schedule s;
    struct schedule_times t;
    if (micro_batches < 1)
        return -1;
    if ((int64_t)pipeline * micro_batches > DRAWN_MOST)
        return err_set(err, ERR_USAGE,
                       "--schedule: %d stages x %d micro-batches, expected at most %d "
                       "in a drawing",
                       pipeline, micro_batches, DRAWN_MOST);
    if (schedule_init(&s, run_schedule_kind(run->parallel.schedule), pipeline,
                      micro_batches, err))
        return -1;
    int failed = schedule_check(&s, err) || schedule_times_init(&t, &s, &costs, err);
    if (!failed) {
        failed = show(&s, &t, svg, err);
        schedule_times_fini(&t);
    }
    schedule_fini(&s);
    return failed ? -1 : 0;
}
