/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/trainer.h"

#include "mpi/watch.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/train/dpo.h"
#include "src/train/learn.h"
#include "src/train/nonfinite.h"
#include "src/train/setup.h"
#include "src/train/slurm.h"
#include "src/train/stop.h"
#include "src/train/validation.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- one step ---- */

/* This rank's wish to stop before the next step. */
static int wish_to_stop(const struct trainer *t)
{
    if (deadline_before_step(&t->deadline, validation_due(t, t->at.step + 1)))
        return STOP_TIME;
    return stop_signal();
}

/* Reads this step's samples on the first stage and sends them down the pipeline. Agrees
 * with all ranks on failure and on a wish to stop, t->stop. */
static int step_data(struct trainer *t, struct amount *all, struct err *err)
{
    const struct grid *g = engine_grid(t->engine);
    struct amount mine = {0};
    double begin_s = trace_now(account_trace(t->account));
    int failed = t->late_failed;
    if (failed)
        *err = t->late;
    else if (g->stage == 0)
        failed = learn_read(t, &mine, err);
    int64_t agreed[] = {failed ? 1 : 0, mine.counted,    mine.tokens,
                        mine.chosen,    wish_to_stop(t), account_wants(t->account)};
    comm_sum_i64(t->world, agreed, 4);
    comm_max_i64(t->world, agreed + 4, 2);
    if (agreed[0] > 0)
        return comm_agree(t->world, failed, err);
    *all =
        (struct amount){.counted = agreed[1], .tokens = agreed[2], .chosen = agreed[3]};
    t->stop = (int)agreed[4];
    if (t->stop)
        return 0;
    if (agreed[5])
        account_due(t->account);
    comm_bcast(g->pipe_axis, t->tokens, t->tokens_bytes, 0);
    trace_add(account_trace(t->account), TRACE_DATA, -1, begin_s);
    return 0;
}

/* What a step came to. */
struct outcome {
    double loss, mean[PREFERENCE_METRICS]; /* mean: of dpo */
    struct zero_step update;
};

/* Loss, and update or, with NaN or Inf in loss or gradient, none; all ranks agree. */
static void step_compute(struct trainer *t, const struct amount *all, struct outcome *o)
{
    const struct run *r = &t->run;
    struct engine_objective objective;
    double wait_s = 0;
    learn_begin(t, all, &objective);
    engine_pass(t->engine, t->batches, &objective, t->segment_nll, &wait_s);
    double begin_s = trace_now(account_trace(t->account));
    o->loss = learn_loss(t, all, o->mean);
    trace_add(account_trace(t->account), TRACE_LOSS, -1, begin_s);
    if (isnan(o->loss))
        o->loss = NAN; /* without a sign that would be printed */
    struct zero_step *z = &o->update;
    *z = (struct zero_step){
        .adamw = {.beta1 = r->optim.beta1,
                  .beta2 = r->optim.beta2,
                  .eps = r->optim.eps,
                  .weight_decay = r->optim.weight_decay},
        .t = t->at.adam_t + 1,
        .lr = lr_at(&t->lr, t->at.step - t->chunks.step[t->chunks.at]),
        .clip = r->optim.clip,
        .norm = NAN};
    if (isfinite(o->loss))
        engine_update(t->engine, z);
    else
        engine_discard(t->engine);
    if (isnan(z->norm))
        z->norm = NAN;
}

/* The run's place after the step: a skipped update advances all but AdamW's count. */
static void advance(struct trainer *t, int64_t tokens, const struct outcome *o)
{
    struct position *at = &t->at;
    double loss = o->loss;
    const struct zero_step *z = &o->update;
    at->step++;
    at->samples += t->run.train.global_batch;
    at->tokens += tokens;
    if (z->finite) {
        at->adam_t++;
        at->skipped_in_a_row = 0;
        return;
    }
    at->skipped++;
    at->skipped_in_a_row++;
    ticker_pause(&t->ticker);
    log_warning(t->log,
                "step %" PRId64 ": %s is %g, the update is skipped (%" PRId64
                " in a row, %" PRId64 " in all)",
                at->step, isfinite(loss) ? "the gradient's norm" : "the loss",
                isfinite(loss) ? z->norm : loss, at->skipped_in_a_row, at->skipped);
}

/* Too many skipped updates: says where NaN or Inf comes from, keeps the weights aside.
 */
static int give_up(struct trainer *t, const struct amount *all, struct err *err)
{
    char place[512];
    struct engine_objective objective;
    ticker_pause(&t->ticker);
    learn_begin(t, all, &objective);
    nonfinite_find(t->engine, t->batches, t->micro_batches, &objective, t->segment_nll,
                   place, sizeof place);
    struct err unsaved = {0};
    int failed = save_nonfinite(t->engine, t->checkpoints, &t->start.info, &t->at,
                                t->log, &unsaved);
    return err_set(err, ERR_NUMERIC,
                   "step %" PRId64 ": %" PRId64
                   " updates in a row were skipped for NaN or Inf (train.max_skipped): "
                   "%s; %s%s",
                   t->at.step, t->at.skipped_in_a_row, place,
                   failed ? "the weights could not be saved: "
                          : "the weights before them are saved beside the checkpoints, "
                            "which stay as they are",
                   failed ? unsaved.text : "");
}

static int report_step(struct trainer *t, const struct outcome *o,
                       const struct amount *all, double begin_s, struct err *err)
{
    struct account_figures times;
    char note[512];
    bool told = account_end(t->account, t->at.step, &o->update, begin_s, &times);
    double spent_s = told ? times.step_s : clock_s() - begin_s;
    double tokens = (double)all->tokens;
    if (told)
        account_describe(&times, note, sizeof note);
    struct ticker_step shown = {.step = t->at.step,
                                .loss = o->loss,
                                .lr = o->update.lr,
                                .grad_norm = o->update.norm,
                                .tokens_per_s = tokens / spent_s,
                                .note = told ? note : NULL};
    ticker_step(&t->ticker, &shown);
    if (!comm_root(t->world))
        return 0;
    struct json *j = metrics_line(&t->metrics);
    json_begin(j, NULL, '{');
    json_int(j, "step", t->at.step);
    json_double(j, "loss", o->loss);
    json_double(j, "lr", o->update.lr);
    json_double(j, "grad_norm", o->update.norm);
    json_int(j, "tokens", t->at.tokens);
    json_int(j, "counted_tokens", all->counted);
    json_double(j, "tokens_per_s", tokens / spent_s);
    json_double(j, "step_s", spent_s);
    if (told)
        account_json(&times, j);
    json_int(j, "epoch", data_epoch(t->data, t->at.samples - 1));
    json_int(j, "skipped", t->at.skipped);
    if (t->run.train.objective == RUN_DPO)
        for (int i = PREFERENCE_METRIC_LOSS + 1; i < PREFERENCE_METRICS; i++)
            json_double(j, preference_metric_names[i], o->mean[i]);
    json_end(j, '}');
    return metrics_write(&t->metrics, err);
}

/* ---- what follows a step ---- */

static int next_chunk(struct trainer *t, struct err *err)
{
    ticker_pause(&t->ticker);
    if (dpo_enter(t, err))
        return -1;
    trainer_set_rates(t);
    return 0;
}

/* A failure is told with the next step's agreement. */
static void write_timeline(struct trainer *t, bool over)
{
    struct err err = {0};
    if (!account_timeline(t->account, t->at.step, over, &err) || t->late_failed)
        return;
    t->late_failed = -1;
    t->late = err;
}

/* Validation and checkpoint, where they are due. */
static int follow_up(struct trainer *t, struct err *err)
{
    bool last = t->at.step == t->steps, turns = dpo_chunk_ends(t);
    int64_t every = t->run.checkpoint.every;
    bool saves = (every > 0 && t->at.step % every == 0) || turns || last;
    int stopped = validation_due(t, t->at.step) ? validation_run(t, false, err) : 0;
    if (stopped < 0 || ((saves || stopped) && saving_save(t, turns || stopped, err)))
        return -1;
    return turns && !stopped ? next_chunk(t, err) : 0;
}

/* One step with what follows it; t->stop is set when it is not to be done, or is the
 * last. */
static int step(struct trainer *t, struct err *err)
{
    account_begin(t->account, t->at.step + 1);
    double begin_s = clock_s();
    struct amount all = {0};
    struct outcome o;
    watch_phase(comm_watch(t->world), "training", WATCH_WORK);
    watch_step(comm_watch(t->world), t->at.step + 1);
    if (step_data(t, &all, err))
        return -1;
    if (t->stop)
        return 0;
    step_compute(t, &all, &o);
    advance(t, all.tokens, &o);
    t->saving.valid_loss = NAN;
    t->late_failed =
        saving_excuse_metrics(t, report_step(t, &o, &all, begin_s, &t->late), &t->late);
    bool hopeless = t->at.skipped_in_a_row >= t->run.train.max_skipped;
    write_timeline(t, t->at.step == t->steps || hopeless);
    if (hopeless)
        return give_up(t, &all, err);
    deadline_took_step(&t->deadline, clock_s() - begin_s);
    return follow_up(t, err);
}

/* Ends before the last step: all is saved. */
static int leave_early(struct trainer *t, int64_t first, struct err *err)
{
    char why[STOP_NAME];
    write_timeline(t, true);
    ticker_pause(&t->ticker);
    log_line(t->log, "%s: saving and leaving", stop_name(t->stop, why));
    if (saving_save(t, true, err) || saving_end(t, err))
        return -1;
    if (t->stop == STOP_TIME && t->at.step == first && t->at.step < t->steps)
        return err_set(err, ERR_NO_REQUEUE,
                       "step %" PRId64 " of %" PRId64
                       ": the time limit (run.walltime) leaves no time for a step and "
                       "a save; give the job more",
                       t->at.step, t->steps);
    return err_set(err, ERR_STOPPED,
                   "stopped by %s at step %" PRId64 " of %" PRId64
                   ", all is saved; the same command goes on",
                   why, t->at.step, t->steps);
}

/* What a stop during validation left to do at the step that is resumed from. */
static int finish_validation(struct trainer *t, struct err *err)
{
    if (!t->start.resumed || !validation_due(t, t->at.step))
        return 0;
    int stopped = validation_run(t, true, err);
    return stopped < 0 || (!stopped && saving_evaluated_late(t, err)) ? -1 : 0;
}

static int run_steps_to_end(struct trainer *t, struct err *err)
{
    int64_t first = t->at.step;
    ticker_begin(&t->ticker, t->log, t->run.log.every, t->at.step, t->steps);
    if (finish_validation(t, err))
        return -1;
    if (!t->stop && t->at.step >= t->steps)
        log_line(t->log, "nothing to do: step %" PRId64 " of %" PRId64 " is saved",
                 t->at.step, t->steps);
    while (!t->stop && t->at.step < t->steps)
        if (step(t, err))
            return -1;
    return t->stop ? leave_early(t, first, err) : saving_end(t, err);
}

/* What was planned and what it came to, on the fullest rank. */
static void log_memory(const struct trainer *t)
{
    int64_t bytes[2] = {mem_peak_rss_bytes(), memory_plan_total(&t->plan)};
    comm_max_i64(t->world, bytes, 2);
    log_line(t->log, "memory: %.3f GB at most on the fullest rank, %.3f GB planned",
             (double)bytes[0] * 1e-9, (double)bytes[1] * 1e-9);
}

int train(struct comm *world, const struct log *log, const char *path,
          const char *const *sets, int sets_n, struct err *err)
{
    struct trainer t = {.world = world, .log = log, .saving.saved_step = -1};
    stop_watch();
    int failed =
        trainer_setup(&t, path, sets, sets_n, err) || run_steps_to_end(&t, err);
    watch_phase(comm_watch(world), "ending", WATCH_IO);
    if (!failed)
        log_memory(&t);
    bool requeues = failed && err->code == ERR_STOPPED && t.run.run.requeue &&
                    stop_requeues(t.stop);
    trainer_fini(&t);
    if (requeues && comm_root(world))
        slurm_requeue(log);
    return failed ? -1 : 0;
}
