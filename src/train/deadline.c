/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/deadline.h"

#include "src/base/clock.h"
#include "src/base/duration.h"
#include "src/base/process.h"
#include "src/train/slurm.h"
#include "src/train/ticker.h"

#include <math.h>
#include <string.h>

static const double caution = 1.5;       /* of what has been measured */
static const double forget = 0.98;       /* of a slow step, at each other one */
static const double margin_share = 0.01; /* of the time that the job has */
static const double margin_least_s = 0.3, margin_most_s = 60;

void deadline_init(struct deadline *d, bool decides, const struct run *run,
                   int64_t save_bytes, const struct log *log)
{
    const char *text = run->run.walltime, *whose = "run.walltime";
    double left_s = 0;
    bool set = false;
    *d = (struct deadline){.end_s = INFINITY};
    if (decides && strcmp(text, "auto") == 0) {
        set = slurm_time_left(&left_s);
        whose = "Slurm's limit";
        if (!set && slurm_job())
            log_line(log, "time: the job has no limit that squeue says");
    } else if (decides && strcmp(text, "none") != 0) {
        set = duration_parse(text, &left_s);
        left_s -= process_age_s();
    }
    if (!set)
        return;
    d->end_s = clock_s() + left_s;
    d->margin_s = fmin(fmax(margin_share * left_s, margin_least_s), margin_most_s);
    d->assumed_save_s =
        fmax(0, fmin((double)save_bytes / DEADLINE_SAVE_RATE, left_s / 4));
    char shown[32];
    ticker_time(fmax(0, left_s), shown, sizeof shown);
    log_line(log, "time: %s left by %s; the run saves before that and leaves with 75",
             shown, whose);
}

void deadline_took_step(struct deadline *d, double seconds)
{
    d->step_s = fmax(seconds, forget * d->step_s);
}

void deadline_took_eval(struct deadline *d, double seconds)
{
    d->eval_s = fmax(d->eval_s, seconds);
}

void deadline_took_save(struct deadline *d, double seconds)
{
    d->save_s = fmax(d->save_s, seconds);
}

static bool is_near(const struct deadline *d, double before_s)
{
    double save_s = d->save_s > 0 ? caution * d->save_s : d->assumed_save_s;
    return clock_s() + d->margin_s + caution * before_s + save_s >= d->end_s;
}

bool deadline_before_step(const struct deadline *d, bool validates)
{
    return is_near(d, d->step_s + (validates ? d->eval_s : 0));
}

bool deadline_in_eval(const struct deadline *d)
{
    return is_near(d, 0);
}
