/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/data.h"

#include "io/sample_order.h"
#include "src/base/mem.h"
#include "src/objective/sft.h"
#include "src/train/data_set.h"

#include <inttypes.h>
#include <stdlib.h>

struct data {
    int sets, seq_len, global_batch, micro_batch;
    bool records, packing; /* what a sample is */
    struct data_set *set;  /* [sets] */
    int64_t *samples;      /* [sets] */
    struct sample_order *order;
    char *identity;
    int64_t *length, *key; /* [global_batch] records: of a step */
    struct record_tokens scratch;
};

/* Samples of a set, 0 with err set. */
static int64_t samples_of(const struct data *d, const struct data_set *s,
                          const char *path, struct err *err)
{
    if (d->records != (s->records != NULL)) {
        err_set(err, ERR_INPUT,
                d->records ? "%s: is a token set, but train.objective is sft; make a "
                             "record set with `dusk tokens --template`"
                           : "%s: is a record set, but train.objective is pretrain",
                path);
        return 0;
    }
    if (d->records) {
        const struct record_set_info *info = record_set_info(s->records);
        if (data_set_fits(s, d->seq_len, d->packing, err))
            return 0;
        return d->packing ? info->packs : info->records;
    }
    int64_t tokens = token_set_info(s->tokens)->tokens;
    int64_t windows = (tokens - 1) / d->seq_len;
    if (windows < 1)
        err_set(err, ERR_INPUT,
                "%s: has %" PRId64 " tokens, expected at least %d (data.seq_len + 1)",
                path, tokens, d->seq_len + 1);
    return windows;
}

static int open_sets(struct data *d, struct comm *c, const struct run *run,
                     const struct model_shape *shape, const char *tokenizer,
                     double *weights, struct err *err)
{
    for (int i = 0; i < d->sets; i++) {
        const struct run_set *s = &run->data.train[i];
        if (data_set_open(&d->set[i], c, s->path, shape, tokenizer, err))
            return -1;
        d->samples[i] = samples_of(d, &d->set[i], s->path, err);
        weights[i] = s->weight;
        if (d->samples[i] < 1)
            return -1;
        char *longer =
            mem_printf(err, "%s%s%016" PRIx64 "*%.17g", d->identity ? d->identity : "",
                       i ? " " : "", data_set_identity(&d->set[i]), s->weight);
        free(d->identity);
        d->identity = longer;
        if (!longer)
            return -1;
    }
    return 0;
}

/* What reading takes, so that a step takes nothing. */
static int reserve(struct data *d, struct err *err)
{
    int n = d->global_batch;
    if (!d->records)
        return 0;
    d->length = mem_array(n, sizeof *d->length, err);
    d->key = mem_array(n, sizeof *d->key, err);
    return !d->length || !d->key ||
                   record_tokens_reserve(&d->scratch, d->seq_len, d->seq_len, err)
               ? -1
               : 0;
}

struct data *data_create(struct comm *c, const struct run *run,
                         const struct model_shape *shape, const char *tokenizer,
                         struct err *err)
{
    struct data *d = mem_array(1, sizeof *d, err);
    int n = run->data.train_sets;
    double *weights = mem_array(n, sizeof *weights, err);
    if (d) {
        d->sets = n;
        d->seq_len = run->data.seq_len;
        d->global_batch = run->train.global_batch;
        d->micro_batch = run->train.micro_batch;
        d->records = run->train.objective == RUN_SFT;
        d->packing = run->data.packing;
        d->set = mem_array(n, sizeof *d->set, err);
        d->samples = mem_array(n, sizeof *d->samples, err);
    }
    int failed = !d || !weights || !d->set || !d->samples || reserve(d, err);
    if (comm_agree(c, failed, err))
        goto fail;
    if (open_sets(d, c, run, shape, tokenizer, weights, err))
        goto fail;
    d->order = sample_order_create(n, d->samples, weights, run->data.shuffle,
                                   run->run.seed, err);
    if (comm_agree(c, !d->order, err))
        goto fail;
    mem_free(weights);
    return d;
fail:
    mem_free(weights);
    data_destroy(d);
    return NULL;
}

void data_destroy(struct data *d)
{
    if (!d)
        return;
    for (int i = 0; d->set && i < d->sets; i++)
        data_set_close(&d->set[i]);
    sample_order_destroy(d->order);
    record_tokens_fini(&d->scratch);
    mem_free(d->length);
    mem_free(d->key);
    mem_free(d->set);
    mem_free(d->samples);
    free(d->identity);
    mem_free(d);
}

int data_order(struct data *d, int64_t position, int replicas, int32_t *order,
               struct err *err)
{
    int n = d->global_batch;
    bool by_length = d->records && !d->packing;
    for (int i = 0; i < n; i++) {
        order[i] = i;
        if (!by_length)
            continue;
        struct sample s = sample_order_at(d->order, position + i);
        if (record_set_lengths(d->set[s.set].records, s.window, 1, &d->length[i], err))
            return -1;
    }
    if (by_length)
        sft_order(n, d->micro_batch, replicas, d->length, d->key, order);
    return 0;
}

int data_read(struct data *d, int64_t position, int n, const int32_t *order,
              int32_t *tokens, struct err *err)
{
    for (int i = 0; i < n; i++) {
        struct sample s = sample_order_at(d->order, position + order[i]);
        int32_t *to = tokens + (int64_t)i * (d->seq_len + 1);
        struct data_set *set = &d->set[s.set];
        int failed = d->records ? data_set_read_record(set, s.window, d->packing,
                                                       d->seq_len, &d->scratch, to, err)
                                : token_set_read(set->tokens, s.window * d->seq_len,
                                                 d->seq_len + 1, to, err);
        if (failed)
            return -1;
    }
    return 0;
}

const char *data_identity(const struct data *d)
{
    return d->identity;
}

int64_t data_samples(const struct data *d)
{
    int64_t n = 0;
    for (int i = 0; i < d->sets; i++)
        n += d->samples[i];
    return n;
}

int64_t data_epoch(const struct data *d, int64_t position)
{
    return sample_order_at(d->order, position).epoch;
}

const struct record_set *data_records(const struct data *d, int i)
{
    return d->set[i].records;
}
