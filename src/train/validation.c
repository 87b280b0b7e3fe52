/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/validation.h"

#include "mpi/watch.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/train/dpo.h"
#include "src/train/evaluate.h"
#include "src/train/setup.h"
#include "src/train/stop.h"

#include <inttypes.h>
#include <stdio.h>

bool validation_due(const struct trainer *t, int64_t step)
{
    int64_t every = t->run.eval.every;
    return every > 0 && (step % every == 0 || step == t->steps);
}

static int report_valid(struct trainer *t, const char *name, const struct evaluation *v,
                        struct err *err)
{
    static const char *const what[] = {"loss", "perplexity", "nll_sum"};
    const double value[] = {v->loss, v->perplexity, v->nll_sum};
    char key[128];
    ticker_pause(&t->ticker);
    log_line(t->log,
             "step %" PRId64 "  %s: loss %.5f  perplexity %.3f  (%" PRId64 " tokens)",
             t->at.step, name, v->loss, v->perplexity, v->count);
    if (!comm_root(t->world))
        return 0;
    struct json *j = metrics_line(&t->metrics);
    json_begin(j, NULL, '{');
    json_int(j, "step", t->at.step);
    for (int i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "eval_%s_%s", name, what[i]);
        json_double(j, key, value[i]);
    }
    snprintf(key, sizeof key, "eval_%s_count", name);
    json_int(j, key, v->count);
    json_end(j, '}');
    return metrics_write(&t->metrics, err);
}

static int report_pairs(struct trainer *t, const char *name,
                        const struct pair_figures *v, struct err *err)
{
    char key[160];
    ticker_pause(&t->ticker);
    log_line(t->log,
             "step %" PRId64
             "  %s: loss %.5f  accuracy %.3f +- %.3f  margin %.4f  (%" PRId64 " pairs)",
             t->at.step, name, v->mean[PREFERENCE_METRIC_LOSS],
             v->mean[PREFERENCE_METRIC_REWARDS_ACCURACIES], v->accuracy_error,
             v->mean[PREFERENCE_METRIC_REWARDS_MARGINS], v->pairs);
    if (!comm_root(t->world))
        return 0;
    struct json *j = metrics_line(&t->metrics);
    json_begin(j, NULL, '{');
    json_int(j, "step", t->at.step);
    for (int i = 0; i < PREFERENCE_METRICS; i++) {
        snprintf(key, sizeof key, "eval_%s_%s", name, preference_metric_names[i]);
        json_double(j, key, v->mean[i]);
    }
    snprintf(key, sizeof key, "eval_%s_pairs", name);
    json_int(j, key, v->pairs);
    json_end(j, '}');
    return metrics_write(&t->metrics, err);
}

/* Between the rounds of a validation: all ranks agree on a wish to stop. */
static int agree_to_stop(void *context, double done, double total)
{
    struct trainer *t = context;
    (void)done;
    (void)total;
    int64_t why = deadline_in_eval(&t->deadline) ? STOP_TIME : stop_signal();
    comm_max_i64(t->world, &why, 1);
    return t->stop = (int)why;
}

/* 1: t->stop came before the end. */
static int validate_one(struct trainer *t, int i, struct err *err)
{
    const struct run *r = &t->run;
    const char *name = r->data.valid[i].name;
    int64_t limit = r->eval.batches * r->train.global_batch;
    struct evaluation v;
    struct pair_figures pairs;
    int failed;
    if (r->train.objective == RUN_DPO)
        failed = dpo_validate(t, i, limit, agree_to_stop, &pairs, err);
    else
        failed = evaluate(t->engine, &t->valid[i], r->data.seq_len,
                          r->train.micro_batch, limit, agree_to_stop, t, &v, err);
    if (failed)
        return failed;
    if (i == 0)
        t->saving.valid_loss =
            r->train.objective == RUN_DPO ? pairs.mean[PREFERENCE_METRIC_LOSS] : v.loss;
    failed = r->train.objective == RUN_DPO ? report_pairs(t, name, &pairs, err)
                                           : report_valid(t, name, &v, err);
    return comm_agree(t->world, saving_excuse_metrics(t, failed, err), err);
}

int validation_run(struct trainer *t, bool rest, struct err *err)
{
    double start_s = clock_s();
    watch_phase(comm_watch(t->world), "validating", WATCH_WORK);
    for (int i = 0; i < t->run.data.valid_sets; i++) {
        char key[128];
        bool done = false;
        snprintf(key, sizeof key, "eval_%s_loss", t->run.data.valid[i].name);
        int failed = rest && t->metrics.open &&
                     metrics_holds(&t->metrics, t->at.step, key, &done, err);
        if (rest && comm_agree(t->world, failed, err))
            return -1;
        if (rest)
            comm_bcast(t->world, &done, sizeof done, 0);
        if (!done && (failed = validate_one(t, i, err)))
            return failed;
    }
    t->stop = STOP_NOT; /* it came with the end, and will be met before the next step */
    deadline_took_eval(&t->deadline, clock_s() - start_s);
    return 0;
}
