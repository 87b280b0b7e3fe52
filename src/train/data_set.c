/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/data_set.h"

#include "src/objective/sft.h"

#include <string.h>

static int check(const char *path, const char *made_with, int vocab,
                 const struct model_shape *shape, const char *tokenizer,
                 struct err *err)
{
    if (*tokenizer && *made_with && strcmp(tokenizer, made_with) != 0)
        return err_set(err, ERR_INPUT,
                       "%s: made with tokenizer %s, but the model's tokenizer is %s; "
                       "make it again with `dusk tokens --tokenizer CKPT`",
                       path, made_with, tokenizer);
    if (vocab > shape->vocab)
        return err_set(err, ERR_INPUT,
                       "%s: token ids go up to %d, but the model's vocabulary has %d",
                       path, vocab - 1, shape->vocab);
    return 0;
}

int data_set_open(struct data_set *s, struct comm *c, const char *path,
                  const struct model_shape *shape, const char *tokenizer, bool pairs,
                  struct err *err)
{
    *s = (struct data_set){0};
    if (!record_set_is(c, path)) {
        s->tokens = token_set_open(c, path, err);
        if (!s->tokens)
            return -1;
        const struct token_set_info *info = token_set_info(s->tokens);
        if (pairs)
            return err_set(err, ERR_INPUT,
                           "%s: expected a set of pairs, found a token set; make one "
                           "with `dusk tokens --template`",
                           path);
        return check(path, info->tokenizer, info->vocab, shape, tokenizer, err);
    }
    s->records = record_set_open(c, path, err);
    if (!s->records)
        return -1;
    const struct record_set_info *info = record_set_info(s->records);
    enum record_set_kind wanted = pairs ? RECORD_SET_PAIRS : RECORD_SET_RECORDS;
    if (info->kind != wanted)
        return err_set(err, ERR_INPUT, "%s: expected a set of %s, found one of %s%s",
                       path, record_set_kind_name(wanted),
                       record_set_kind_name(info->kind),
                       pairs ? ""
                             : "; those are for train.objective: dpo and for dusk eval "
                               "--reference");
    return check(path, info->tokenizer, info->vocab, shape, tokenizer, err);
}

void data_set_close(struct data_set *s)
{
    token_set_close(s->tokens);
    record_set_close(s->records);
    *s = (struct data_set){0};
}

uint64_t data_set_identity(const struct data_set *s)
{
    return s->records ? record_set_identity(s->records) : token_set_identity(s->tokens);
}

int data_set_fits(const struct data_set *s, int seq_len, bool packing, struct err *err)
{
    if (!s->records)
        return 0;
    const struct record_set_info *info = record_set_info(s->records);
    const char *path = record_set_path(s->records);
    if (packing && !info->packs)
        return err_set(
            err, ERR_INPUT,
            "%s: is not packed, but data.packing is true; make it again with "
            "`dusk tokens --pack %d`",
            path, seq_len);
    if (packing && info->pack_length != seq_len)
        return err_set(err, ERR_INPUT,
                       "%s: expected packs of %d tokens (the sequence length), found "
                       "packs of %lld",
                       path, seq_len, (long long)info->pack_length);
    if (info->longest > seq_len)
        return err_set(err, ERR_INPUT,
                       "%s: expected records of at most %d tokens (the sequence "
                       "length), found one of %lld; make it again with `dusk tokens "
                       "--max-length %d`",
                       path, seq_len, (long long)info->longest, seq_len);
    return 0;
}

int data_set_read_record(struct data_set *s, int64_t record, bool packing, int seq_len,
                         struct record_tokens *scratch, int32_t *slot, struct err *err)
{
    int failed = packing ? record_set_read_pack(s->records, record, NULL, scratch, err)
                         : record_set_read(s->records, record, 1, scratch, err);
    if (failed)
        return -1;
    if (scratch->n > seq_len)
        return err_set(err, ERR_INPUT,
                       "%s: %s %lld: expected at most %d tokens, found %lld",
                       record_set_path(s->records), packing ? "pack" : "record",
                       (long long)record, seq_len, (long long)scratch->n);
    sft_store(slot, seq_len, scratch->n, scratch->id, scratch->counted, scratch->parts,
              scratch->end);
    return 0;
}

int data_set_read_pair(struct data_set *s, int64_t pair, int seq_len,
                       struct pair_sums reference, struct record_tokens *scratch,
                       int32_t *slot, struct err *err)
{
    if (record_set_read(s->records, pair, 1, scratch, err))
        return -1;
    const int64_t *end = scratch->end;
    int64_t chosen = end[1], rejected = end[0] + end[2] - end[1];
    int64_t longer = chosen > rejected ? chosen : rejected;
    if (longer > seq_len)
        return err_set(err, ERR_INPUT,
                       "%s: pair %lld: expected at most %d tokens of prompt and "
                       "answer, found %lld",
                       record_set_path(s->records), (long long)pair, seq_len,
                       (long long)longer);
    struct pair_tokens x = {scratch->id, scratch->counted, end};
    pairs_store(slot, seq_len, &x, reference);
    return 0;
}
