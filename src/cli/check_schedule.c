/* SPDX-License-Identifier: Apache-2.0 */
#include "src/cli/check_schedule.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi/schedule_file.h"
#include "mpi/schedule_times.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/cli/schedule_svg.h"
#include "src/train/run_spec.h"

/* Stages x micro-batches. */
enum { DRAWN_MOST = 1 << 20 };

static const struct schedule_costs costs = {1, 1, 1};

/* Which stage, where a rank has several. */
static int stage_prefix(const struct schedule *s, int stage, char *text, size_t size)
{
    *text = '\0';
    return s->chunks > 1 ? snprintf(text, size, "%d", stage) : 0;
}

/* A rank's row: cells of `wide` characters, dots where nothing is computed. The
 * operation's second unit is the weight gradient of one backward that does both. */
static void print_row(const struct schedule *s, const struct schedule_times *t,
                      int rank, char *cells, int wide)
{
    int units = (int)lround(t->length);
    memset(cells, ' ', (size_t)units * (size_t)wide);
    for (int u = 0; u < units; u++)
        cells[u * wide] = '.';
    for (int at = 0; at < s->ops[rank]; at++) {
        struct pipe_op op = s->op[rank][at];
        int begin = (int)lround(t->start[rank][at]);
        int n = (int)lround(schedule_cost(s, &costs, op.kind));
        for (int u = 0; u < n; u++) {
            char cell[40], stage[16];
            stage_prefix(s, op.stage, stage, sizeof stage);
            int length = snprintf(cell, sizeof cell, "%s%c%d", stage,
                                  "FBW"[(int)op.kind + u], op.micro_batch);
            memcpy(cells + (begin + u) * wide, cell, (size_t)length);
        }
    }
    int end = units * wide;
    while (end > 0 && cells[end - 1] == ' ')
        end--;
    printf("%5d  %.*s\n", rank, end, cells);
}

/* The stage, the letter, the digits of the last micro-batch, a space. */
static int cell_width(const struct schedule *s)
{
    char stage[16];
    return stage_prefix(s, s->stages - 1, stage, sizeof stage) +
           snprintf(NULL, 0, "F%d ", s->micro_batches - 1);
}

static int print_rows(const struct schedule *s, const struct schedule_times *t,
                      struct err *err)
{
    int wide = cell_width(s);
    char *cells = mem_array(lround(t->length) * wide, 1, err);
    if (!cells)
        return -1;
    printf("%5s  a unit of time a column; %sF: forward, B: input gradient, W: weight "
           "gradient%s\n",
           s->chunks > 1 ? "rank" : "stage", s->chunks > 1 ? "stage, " : "",
           s->split ? "" : " (one operation with B)");
    for (int rank = 0; rank < s->ranks; rank++)
        print_row(s, t, rank, cells, wide);
    mem_free(cells);
    return 0;
}

static void describe(const struct schedule *s, const struct schedule_times *t,
                     char *text, size_t size)
{
    char ranks[32] = "";
    if (s->chunks > 1)
        snprintf(ranks, sizeof ranks, " on %d rank%s", s->ranks,
                 s->ranks > 1 ? "s" : "");
    snprintf(text, size,
             "%s, %d stage%s%s, %d micro-batch%s, F = B = W = 1: step %g units, bubble "
             "%.1f %%",
             schedule_name(s->kind), s->stages, s->stages > 1 ? "s" : "", ranks,
             s->micro_batches, s->micro_batches > 1 ? "es" : "", t->length,
             100 * schedule_bubble(t));
}

static void print_each(const char *what, int n, const int *of)
{
    printf("%s:", what);
    for (int i = 0; i < n; i++)
        printf(" %d", of[i]);
    putchar('\n');
}

static int write_csv(const struct schedule *s, const char *path, struct err *err)
{
    char *text = schedule_file_text(s, err);
    int failed = !text || file_write_atomic(path, text, strlen(text), err);
    free(text);
    return failed ? -1 : 0;
}

static int show(const struct schedule *s, const struct schedule_times *t,
                const char *svg, const char *csv, struct err *err)
{
    char title[192];
    describe(s, t, title, sizeof title);
    if ((svg && schedule_svg(s, &costs, t, title, svg, err)) ||
        (csv && write_csv(s, csv, err)) || (!svg && !csv && print_rows(s, t, err)))
        return -1;
    puts(title);
    print_each("micro-batches alive at once, by stage", s->stages, t->alive);
    if (s->chunks > 1)
        print_each("the same of all stages of a rank, by rank", s->ranks, t->held);
    if (s->split)
        print_each("of these waiting for W, at most, by stage", s->stages, s->waiting);
    if (svg)
        printf("drawn to %s\n", svg);
    if (csv)
        printf("written to %s\n", csv);
    return 0;
}

static int show_spec(const struct schedule_spec *spec, const char *svg, const char *csv,
                     struct err *err)
{
    struct schedule s;
    struct schedule_times t;
    if (schedule_init(&s, spec, err))
        return -1;
    int failed = schedule_check(&s, err) || schedule_times_init(&t, &s, &costs, err);
    if (!failed) {
        failed = show(&s, &t, svg, csv, err);
        schedule_times_fini(&t);
    }
    schedule_fini(&s);
    return failed ? -1 : 0;
}

int check_schedule(const struct run *run, int64_t ranks, const char *svg,
                   const char *csv, struct err *err)
{
    int pipeline = run->parallel.pipeline;
    int64_t least = (int64_t)pipeline * (run->parallel.data ? run->parallel.data : 1);
    int data = run_replicas(run, ranks ? ranks : least, err);
    int micro_batches = data > 0 ? run_micro_batches(run, data, err) : -1;
    char *text = NULL;
    if (micro_batches < 1)
        return -1;
    int64_t stages = (int64_t)pipeline * run_chunks(run);
    if (stages * micro_batches > DRAWN_MOST)
        return err_set(err, ERR_USAGE,
                       "--schedule: %" PRId64
                       " stages x %d micro-batches, expected at most %d "
                       "in a drawing",
                       stages, micro_batches, DRAWN_MOST);
    if (run_share_schedule(comm_self(), run, &text, err))
        return -1;
    struct schedule_spec spec = run_schedule_spec(run, micro_batches, text);
    int failed = show_spec(&spec, svg, csv, err);
    free(text);
    return failed;
}
