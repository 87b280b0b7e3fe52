/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/saving.h"

#include "mpi/watch.h"
#include "src/base/clock.h"
#include "src/train/setup.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* In the values of a checkpoint, where checkpoint.best is true. */
static const char best_step[] = "best.step", best_loss[] = "best.loss";

/* Is the checkpoint of that step still there? Collective. */
static int find_best(struct trainer *t, int64_t step, double loss, struct err *err)
{
    int64_t found = 0;
    int failed = 0;
    if (comm_root(t->world)) {
        char *path = checkpoints_path(t->checkpoints, step, err);
        failed = !path;
        found = path && access(path, F_OK) == 0;
        free(path);
    }
    if (comm_agree(t->world, failed, err))
        return -1;
    comm_bcast(t->world, &found, sizeof found, 0);
    if (found) {
        t->saving.best_step = step;
        t->saving.best_loss = loss;
    }
    return 0;
}

int saving_init(struct trainer *t, struct err *err)
{
    const struct ckpt_info *info = t->start.ckpt ? ckpt_info(t->start.ckpt) : NULL;
    t->saving.best_step = -1;
    t->saving.valid_loss = NAN;
    if (!t->start.resumed || !t->run.checkpoint.best)
        return 0;
    const char *step = ckpt_info_value(info, best_step);
    const char *loss = ckpt_info_value(info, best_loss);
    if (!step || !loss)
        return 0;
    return find_best(t, strtoll(step, NULL, 10), strtod(loss, NULL), err);
}

/* Into the values of the next checkpoint. */
static int record_best(struct trainer *t, int64_t step, double loss, struct err *err)
{
    char step_text[32], loss_text[40];
    bool none = step < 0;
    snprintf(step_text, sizeof step_text, "%" PRId64, step);
    snprintf(loss_text, sizeof loss_text, "%.17g", loss);
    return ckpt_info_set(&t->start.info, best_step, none ? NULL : step_text, err) ||
                   ckpt_info_set(&t->start.info, best_loss, none ? NULL : loss_text,
                                 err)
               ? -1
               : 0;
}

static bool is_best(const struct trainer *t)
{
    const struct saving *s = &t->saving;
    return t->run.checkpoint.best && isfinite(s->valid_loss) &&
           (s->best_step < 0 || s->valid_loss < s->best_loss);
}

static int save_failed(struct trainer *t, bool must, struct err *err)
{
    struct saving *s = &t->saving;
    bool goes_on = t->run.checkpoint.on_error == RUN_CONTINUE && err->code == ERR_IO;
    s->failed = true;
    s->failure = *err;
    err_prefix(&s->failure, "CHECKPOINT NOT SAVED at step %" PRId64, t->at.step);
    if (must || !goes_on) {
        *err = s->failure;
        return -1;
    }
    log_warning(t->log, "%s; training goes on (checkpoint.on_error: continue)",
                s->failure.text);
    return 0;
}

int saving_save(struct trainer *t, bool must, struct err *err)
{
    struct saving *s = &t->saving;
    const struct run *r = &t->run;
    *err = t->late;
    if (comm_agree(t->world, t->late_failed, err))
        return -1;
    if (s->saved_step == t->at.step)
        return 0;
    ticker_pause(&t->ticker);
    bool best = is_best(t);
    int64_t step = best ? t->at.step : s->best_step;
    double loss = best ? s->valid_loss : s->best_loss;
    if (comm_agree(t->world, record_best(t, step, loss, err), err))
        return -1;
    struct retention what = {.newest = t->at.step,
                             .keep = r->checkpoint.keep,
                             .keep_every = r->checkpoint.keep_every,
                             .best = step};
    double start_s = clock_s();
    watch_phase(comm_watch(t->world), "saving", WATCH_IO);
    if (save_state(t->engine, t->checkpoints, &t->start.info, &t->at, &what, t->log,
                   err))
        return save_failed(t, must, err);
    deadline_took_save(&t->deadline, clock_s() - start_s);
    if (s->failed)
        log_line(t->log, "checkpoints can be written again");
    s->failed = false;
    s->saved_step = t->at.step;
    s->best_step = step;
    s->best_loss = loss;
    return 0;
}

int saving_evaluated_late(struct trainer *t, struct err *err)
{
    struct saving *s = &t->saving;
    int failed = 0;
    if (s->saved_step != t->at.step || !is_best(t))
        return 0;
    if (comm_root(t->world))
        failed = checkpoints_link(t->checkpoints, "best", t->at.step, err);
    if (comm_agree(t->world, failed, err))
        return -1;
    s->best_step = t->at.step;
    s->best_loss = s->valid_loss;
    return 0;
}

int saving_excuse_metrics(struct trainer *t, int failed, const struct err *why)
{
    bool was_late = t->saving.metrics_late;
    t->saving.metrics_late = failed && why->code == ERR_IO;
    if (failed && (why->code != ERR_IO || t->run.checkpoint.on_error == RUN_STOP))
        return -1;
    if (failed && !was_late) {
        ticker_pause(&t->ticker);
        log_warning(t->log, "%s; its lines wait in memory (checkpoint.on_error)",
                    why->text);
    }
    return 0;
}

int saving_end(struct trainer *t, struct err *err)
{
    int failed = 0;
    if (t->metrics.open)
        failed = metrics_flush(&t->metrics, err);
    if (comm_agree(t->world, failed, err))
        return -1;
    if (!t->saving.failed)
        return 0;
    *err = t->saving.failure;
    return -1;
}
