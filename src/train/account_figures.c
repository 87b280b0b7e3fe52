/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/account_figures.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const account_part_names[ACCOUNT_PARTS] = {
    "forward",      "backward",    "weight", "optimizer",
    "message_wait", "reduce_wait", "idle"};

static double computing(const struct account_rank *r)
{
    return r->part[ACCOUNT_FORWARD] + r->part[ACCOUNT_BACKWARD] +
           r->part[ACCOUNT_WEIGHT];
}

/* Of one pipeline's stages. */
static double bubble_of(const struct account_rank *stage, int stages)
{
    double begin = INFINITY, end = -INFINITY, busy = 0;
    for (int s = 0; s < stages; s++) {
        begin = fmin(begin, stage[s].begin_s);
        end = fmax(end, stage[s].end_s);
        busy += computing(&stage[s]);
    }
    return end > begin ? 1 - busy / ((end - begin) * stages) : 0;
}

void account_figures(const struct account_rank *rank, int pipeline, int data,
                     double step_s, struct account_figures *f)
{
    int ranks = pipeline * data;
    double busy = 0, most = -1, idle = step_s;
    *f = (struct account_figures){.step_s = step_s};
    for (int r = 0; r < ranks; r++) {
        double here = computing(&rank[r]);
        busy += here / ranks;
        if (here > most) {
            most = here;
            f->slowest = r;
        }
        for (int p = 0; p < ACCOUNT_IDLE; p++)
            f->part[p] += rank[r].part[p] / ranks;
        f->exposed += rank[r].exposed_s / step_s / ranks;
    }
    for (int p = 0; p < ACCOUNT_IDLE; p++)
        idle -= f->part[p];
    f->part[ACCOUNT_IDLE] = idle;
    f->imbalance = busy > 0 ? most / busy : 1;
    for (int d = 0; d < data; d++)
        f->bubble += bubble_of(rank + (ptrdiff_t)d * pipeline, pipeline) / data;
}

struct schedule_costs account_costs(const struct account_figures *f, int operations)
{
    return (struct schedule_costs){
        .forward = f->part[ACCOUNT_FORWARD] / operations,
        .input_gradient = f->part[ACCOUNT_BACKWARD] / operations,
        .weight_gradient = f->part[ACCOUNT_WEIGHT] / operations};
}

void account_json(const struct account_figures *f, struct json *j)
{
    char key[64];
    for (int p = 0; p < ACCOUNT_PARTS; p++) {
        snprintf(key, sizeof key, "time/%s", account_part_names[p]);
        json_double(j, key, f->part[p]);
    }
    json_double(j, "bubble", f->bubble);
    json_double(j, "bubble_ideal", f->bubble_ideal);
    json_double(j, "imbalance", f->imbalance);
    json_int(j, "slowest_rank", f->slowest);
    json_int(j, "slowest_steps", f->slowest_steps);
    json_double(j, "exposed", f->exposed);
}

void account_describe(const struct account_figures *f, char *text, size_t size)
{
    static const char *const names[ACCOUNT_PARTS] = {
        "forward",      "backward",    "weight", "optimizer",
        "message wait", "reduce wait", "idle"};
    size_t used = 0;
    for (int p = 0; p < ACCOUNT_PARTS && used < size; p++)
        used += (size_t)snprintf(text + used, size - used, "%s%s %.1f %%",
                                 p ? ", " : "", names[p], 100 * f->part[p] / f->step_s);
    if (used < size)
        snprintf(text + used, size - used,
                 "; bubble %.1f %% (ideal %.1f), imbalance %.3f (rank %d slowest in "
                 "%" PRId64 " of %" PRId64 "), exposed %.2f %%",
                 100 * f->bubble, 100 * f->bubble_ideal, f->imbalance, f->slowest,
                 f->slowest_steps, f->steps, 100 * f->exposed);
}
