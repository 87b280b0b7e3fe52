/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/evaluate.h"

#include "src/base/mem.h"
#include "src/objective/sft.h"

#include <math.h>

/* Groups of windows that a replica takes in one go; as many as fill the pipeline. */
enum { GROUPS = 16 };

struct work {
    struct engine *e;
    struct data_set *set;
    struct record_tokens record; /* scratch */
    int seq_len, batch;
    int64_t windows; /* or records */
    int64_t targets; /* of windows: all; of records: counted by the last stages */
    int *length;     /* [GROUPS * batch] */
    int32_t *tokens; /* [GROUPS * batch][seq_len + 1] windows, or slots of sft.h */
    double *nll;     /* [windows], zero where another rank computes */
};

/* Windows of this replica in round `round`; their numbers go to `window`. */
static int round_windows(const struct work *w, int64_t round, int64_t *window)
{
    const struct grid *g = engine_grid(w->e);
    int n = 0;
    for (int i = 0; i < GROUPS; i++) {
        int64_t group = (round * GROUPS + i) * g->data + g->replica;
        for (int j = 0; j < w->batch; j++) {
            int64_t k = group * w->batch + j;
            if (k < w->windows)
                window[n++] = k;
        }
    }
    return n;
}

static int read_records(struct work *w, int n, const int64_t *record, struct err *err)
{
    if (engine_grid(w->e)->stage > 0)
        return 0;
    for (int i = 0; i < n; i++)
        if (data_set_read_record(w->set, record[i], false, w->seq_len, &w->record,
                                 w->tokens + (int64_t)i * (w->seq_len + 1), err))
            return -1;
    return 0;
}

static int read_windows(struct work *w, int n, const int64_t *window, struct err *err)
{
    for (int i = 0; i < n; i++) {
        int64_t begin = window[i] * w->seq_len, left = w->targets - begin;
        w->length[i] = left < w->seq_len ? (int)left : w->seq_len;
        if (engine_grid(w->e)->stage == 0 &&
            token_set_read(w->set->tokens, begin, w->length[i] + 1,
                           w->tokens + (int64_t)i * (w->seq_len + 1), err))
            return -1;
    }
    return 0;
}

static int run_round(struct work *w, int64_t round, int64_t *window, double *nll,
                     struct err *err)
{
    const struct grid *g = engine_grid(w->e);
    int n = round_windows(w, round, window);
    int failed = w->set->records ? read_records(w, n, window, err)
                                 : read_windows(w, n, window, err);
    if (comm_agree(g->world, failed, err))
        return -1;
    size_t bytes = (size_t)n * (size_t)(w->seq_len + 1) * sizeof *w->tokens;
    comm_bcast(g->pipe_axis, w->tokens, bytes, 0);
    if (w->set->records)
        engine_forward_records(w->e, n, w->tokens, nll);
    else
        engine_forward(w->e, n, w->length, w->tokens, nll);
    for (int i = 0; i < n && engine_has_head(w->e); i++) {
        w->nll[window[i]] = nll[i];
        if (w->set->records)
            w->targets += sft_counted(w->tokens + (int64_t)i * (w->seq_len + 1));
    }
    return 0;
}

static int run_rounds(struct work *w, int (*shown)(void *, double, double),
                      void *context, int64_t *window, double *nll, struct err *err)
{
    const struct grid *g = engine_grid(w->e);
    int64_t per_round = (int64_t)GROUPS * w->batch * g->data;
    for (int64_t round = 0; round * per_round < w->windows; round++) {
        if (run_round(w, round, window, nll, err))
            return -1;
        int64_t done = (round + 1) * per_round;
        bool all = done >= w->windows;
        if (shown &&
            shown(context, (double)(all ? w->windows : done), (double)w->windows) &&
            !all)
            return 1;
    }
    return 0;
}

static void sum_up(struct work *w, struct evaluation *result)
{
    comm_sum_f64(engine_grid(w->e)->world, w->nll, w->windows);
    *result = (struct evaluation){.windows = w->windows};
    for (int64_t k = 0; k < w->windows; k++)
        result->nll_sum += w->nll[k];
    int64_t end = w->windows * w->seq_len;
    result->count = end < w->targets ? end : w->targets;
    if (w->set->records) {
        result->count = w->targets;
        comm_sum_i64(engine_grid(w->e)->world, &result->count, 1);
    }
    result->loss = result->nll_sum / (double)result->count;
    result->perplexity = exp(result->loss);
}

int64_t evaluate_samples(const struct data_set *set, int seq_len)
{
    if (set->records)
        return record_set_info(set->records)->records;
    return (token_set_info(set->tokens)->tokens - 1 + seq_len - 1) / seq_len;
}

static int check(const struct work *w, struct err *err)
{
    if (w->windows < 1)
        return err_set(err, ERR_INPUT,
                       "the token set has %lld tokens, expected 2 or more",
                       (long long)(w->targets + 1));
    return data_set_fits(w->set, w->seq_len, false, err);
}

int evaluate(struct engine *e, struct data_set *set, int seq_len, int batch,
             int64_t limit, int (*shown)(void *context, double done, double total),
             void *context, struct evaluation *result, struct err *err)
{
    struct work w = {.e = e, .set = set, .seq_len = seq_len, .batch = batch};
    w.targets = set->tokens ? token_set_info(set->tokens)->tokens - 1 : 0;
    w.windows = evaluate_samples(set, seq_len);
    if (limit > 0 && limit < w.windows)
        w.windows = limit;
    int64_t room = (int64_t)GROUPS * batch;
    w.length = mem_array(room, sizeof *w.length, err);
    w.tokens = mem_array(room * (seq_len + 1), sizeof *w.tokens, err);
    w.nll = mem_array(w.windows, sizeof *w.nll, err);
    int64_t *window = mem_array(room, sizeof *window, err);
    double *nll = mem_array(room, sizeof *nll, err);
    int failed = !w.length || !w.tokens || !w.nll || !window || !nll;
    failed = failed || check(&w, err);
    failed = comm_agree(engine_grid(e)->world, failed, err);
    if (!failed)
        failed = run_rounds(&w, shown, context, window, nll, err);
    if (!failed)
        sum_up(&w, result);
    mem_free(w.length);
    mem_free(w.tokens);
    mem_free(w.nll);
    record_tokens_fini(&w.record);
    mem_free(window);
    mem_free(nll);
    return failed;
}
