/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/data.h"

#include "io/sample_order.h"
#include "io/token_set.h"
#include "src/base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct data {
    int sets, seq_len;
    struct token_set **set; /* [sets] */
    int64_t *windows;       /* [sets] */
    struct sample_order *order;
    char *identity;
};

int data_check_set(const struct token_set *set, const char *path,
                   const struct model_shape *shape, const char *tokenizer,
                   struct err *err)
{
    const struct token_set_info *info = token_set_info(set);
    if (*tokenizer && *info->tokenizer && strcmp(tokenizer, info->tokenizer) != 0)
        return err_set(err, ERR_INPUT,
                       "%s: made with tokenizer %s, but the model's tokenizer is %s; "
                       "make it again with `dusk tokens --tokenizer CKPT`",
                       path, info->tokenizer, tokenizer);
    if (info->vocab > shape->vocab)
        return err_set(err, ERR_INPUT,
                       "%s: token ids go up to %d, but the model's vocabulary has %d",
                       path, info->vocab - 1, shape->vocab);
    return 0;
}

static int open_sets(struct data *d, struct comm *c, const struct run *run,
                     const struct model_shape *shape, const char *tokenizer,
                     double *weights, struct err *err)
{
    for (int i = 0; i < d->sets; i++) {
        const struct run_set *s = &run->data.train[i];
        d->set[i] = token_set_open(c, s->path, err);
        if (!d->set[i] || data_check_set(d->set[i], s->path, shape, tokenizer, err))
            return -1;
        int64_t tokens = token_set_info(d->set[i])->tokens;
        d->windows[i] = (tokens - 1) / d->seq_len;
        weights[i] = s->weight;
        if (d->windows[i] < 1)
            return err_set(err, ERR_INPUT,
                           "%s: has %" PRId64 " tokens, expected at least %d "
                           "(data.seq_len + 1)",
                           s->path, tokens, d->seq_len + 1);
        char *longer =
            mem_printf(err, "%s%s%016" PRIx64 "*%.17g", d->identity ? d->identity : "",
                       i ? " " : "", token_set_identity(d->set[i]), s->weight);
        free(d->identity);
        d->identity = longer;
        if (!longer)
            return -1;
    }
    return 0;
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
        d->set = mem_array(n, sizeof *d->set, err);
        d->windows = mem_array(n, sizeof *d->windows, err);
    }
    if (comm_agree(c, !d || !weights || !d->set || !d->windows, err))
        goto fail;
    if (open_sets(d, c, run, shape, tokenizer, weights, err))
        goto fail;
    d->order = sample_order_create(n, d->windows, weights, run->data.shuffle,
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
        token_set_close(d->set[i]);
    sample_order_destroy(d->order);
    mem_free(d->set);
    mem_free(d->windows);
    free(d->identity);
    mem_free(d);
}

int data_read(struct data *d, int64_t position, int n, int32_t *tokens, struct err *err)
{
    for (int i = 0; i < n; i++) {
        struct sample s = sample_order_at(d->order, position + i);
        if (token_set_read(d->set[s.set], s.window * d->seq_len, d->seq_len + 1,
                           tokens + (int64_t)i * (d->seq_len + 1), err))
            return -1;
    }
    return 0;
}

const char *data_identity(const struct data *d)
{
    return d->identity;
}

int64_t data_windows(const struct data *d)
{
    int64_t n = 0;
    for (int i = 0; i < d->sets; i++)
        n += d->windows[i];
    return n;
}

int64_t data_epoch(const struct data *d, int64_t position)
{
    return sample_order_at(d->order, position).epoch;
}
