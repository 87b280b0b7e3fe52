/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/data.h"

#include "io/sample_order.h"
#include "src/base/mem.h"
#include "src/objective/sft.h"
#include "src/train/data_set.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct data {
    int sets, seq_len, global_batch, micro_batch;
    enum run_objective objective;
    bool packing, sharing;
    uint64_t seed;
    bool shuffle;
    struct data_set *set; /* [sets] */
    int64_t *samples;     /* [sets] */
    struct sample_order *order;
    char *identity;
    int64_t *length, *key; /* [global_batch] records and pairs: of a step */
    struct record_tokens scratch;
    struct pair_sums **reference; /* [sets] of pairs, or NULL: zeros */
    int64_t begin;                /* position of the first sample of `order` */
    int64_t *chosen;              /* the pairs in order, NULL: all */
};

static bool windows(const struct data *d)
{
    return d->objective == RUN_PRETRAIN;
}

/* Samples of a set, 0 with err set. */
static int64_t samples_of(const struct data *d, const struct data_set *s,
                          const char *path, struct err *err)
{
    if (windows(d) != (s->tokens != NULL)) {
        err_set(err, ERR_INPUT,
                windows(d) ? "%s: is a record set, but train.objective is pretrain"
                           : "%s: is a token set, but train.objective is sft; make a "
                             "record set with `dusk tokens --template`",
                path);
        return 0;
    }
    if (s->records) {
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
        if (data_set_open(&d->set[i], c, s->path, shape, tokenizer,
                          d->objective == RUN_DPO, err))
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
    d->reference = mem_array(d->sets, sizeof *d->reference, err);
    if (!d->reference)
        return -1;
    if (windows(d))
        return 0;
    int64_t tokens = d->objective == RUN_DPO ? 2 * (int64_t)d->seq_len : d->seq_len;
    d->length = mem_array(n, sizeof *d->length, err);
    d->key = mem_array(n, sizeof *d->key, err);
    return !d->length || !d->key ||
                   record_tokens_reserve(&d->scratch, tokens, d->seq_len + 3, err)
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
        d->objective = run->train.objective;
        d->packing = run->data.packing;
        d->sharing = run->dpo.prefix_sharing;
        d->seed = run->run.seed;
        d->shuffle = run->data.shuffle;
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
    for (int i = 0; d->reference && i < d->sets; i++)
        mem_free(d->reference[i]);
    mem_free(d->reference);
    mem_free(d->chosen);
    sample_order_destroy(d->order);
    record_tokens_fini(&d->scratch);
    mem_free(d->length);
    mem_free(d->key);
    mem_free(d->set);
    mem_free(d->samples);
    free(d->identity);
    mem_free(d);
}

/* Where sample `position` lies. */
static struct sample sample_at(const struct data *d, int64_t position)
{
    struct sample s = sample_order_at(d->order, position - d->begin);
    if (d->chosen)
        s.window = d->chosen[s.window];
    return s;
}

/* What a record or a pair costs, by which those of a step are ordered. */
static int cost(struct data *d, struct sample s, int64_t *length, struct err *err)
{
    int64_t part[3];
    if (record_set_lengths(d->set[s.set].records, s.window, 1, part, err))
        return -1;
    *length = d->objective == RUN_DPO ? pairs_cost(part, d->sharing) : part[0];
    return 0;
}

int data_order(struct data *d, int64_t position, int replicas, int32_t *order,
               struct err *err)
{
    int n = d->global_batch;
    bool by_length = !windows(d) && !d->packing;
    for (int i = 0; i < n; i++) {
        order[i] = i;
        if (by_length && cost(d, sample_at(d, position + i), &d->length[i], err))
            return -1;
    }
    if (by_length)
        sft_order(n, d->micro_batch, replicas, d->length, d->key, order);
    return 0;
}

static int read_sample(struct data *d, struct sample s, int32_t *to, struct err *err)
{
    struct data_set *set = &d->set[s.set];
    const struct pair_sums *reference = d->reference[s.set];
    switch (d->objective) {
    case RUN_PRETRAIN:
        return token_set_read(set->tokens, s.window * d->seq_len, d->seq_len + 1, to,
                              err);
    case RUN_SFT:
        return data_set_read_record(set, s.window, d->packing, d->seq_len, &d->scratch,
                                    to, err);
    case RUN_DPO:
        break;
    }
    return data_set_read_pair(set, s.window, d->seq_len,
                              reference ? reference[s.window] : (struct pair_sums){0},
                              &d->scratch, to, err);
}

int data_read(struct data *d, int64_t position, int n, const int32_t *order,
              int32_t *tokens, struct err *err)
{
    int words = d->objective == RUN_DPO ? pairs_slot_words(d->seq_len) : d->seq_len + 1;
    for (int i = 0; i < n; i++)
        if (read_sample(d, sample_at(d, position + order[i]),
                        tokens + (int64_t)i * words, err))
            return -1;
    return 0;
}

void data_give_reference(struct data *d, int i, struct pair_sums *sums)
{
    mem_free(d->reference[i]);
    d->reference[i] = sums;
}

int data_narrow(struct data *d, int64_t position, int64_t n, const int64_t *pair,
                struct err *err)
{
    int64_t *chosen = mem_array(n, sizeof *chosen, err);
    double weight = 1;
    struct sample_order *order =
        sample_order_create(1, &n, &weight, d->shuffle, d->seed, err);
    if (!chosen || !order) {
        mem_free(chosen);
        sample_order_destroy(order);
        return -1;
    }
    memcpy(chosen, pair, (size_t)n * sizeof *chosen);
    sample_order_destroy(d->order);
    mem_free(d->chosen);
    d->order = order;
    d->chosen = chosen;
    d->begin = position;
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
    return sample_order_at(d->order, position - d->begin).epoch;
}

struct data_set *data_set_at(struct data *d, int i)
{
    return &d->set[i];
}

const struct record_set *data_records(const struct data *d, int i)
{
    return d->set[i].records;
}
