/* SPDX-License-Identifier: Apache-2.0 */
#include "io/add_tokens.h"

#include "io/spm_model.h"
#include "io/tokenizer_load.h"
#include "src/base/mem.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* None of the new ones is the tokenizer's already. */
static int check_new(const struct tokenizer *t, const struct added_tokens *new,
                     const char *name, struct err *err)
{
    for (int i = 0; i < new->n; i++) {
        int32_t id = tokenizer_find(t, new->token[i].text);
        if (id >= 0)
            return err_set(err, ERR_USAGE,
                           "--add-tokens: token \"%.60s\": expected a new one, but the "
                           "tokenizer of %s has it as id %d",
                           new->token[i].text, name, (int)id);
    }
    return 0;
}

/* What the files list without a row is either what its row is added for, or would get
 * the row of another. */
static int check_rowless(const struct added_tokens *old, const struct added_tokens *new,
                         const char *name, struct err *err)
{
    for (int i = old->n; i < old->all; i++) {
        int k = old->token[i].id - new->token[0].id;
        if (k < new->n && strcmp(old->token[i].text, new->token[k].text) == 0)
            continue;
        return err_set(
            err, ERR_USAGE,
            "--add-tokens: the tokenizer of %s lists \"%.60s\" as id %d, for "
            "which the model has no row: expected that token there in the "
            "list, the first being id %d",
            name, old->token[i].text, (int)old->token[i].id, (int)new->token[0].id);
    }
    return 0;
}

/* The text that a list has for an id; NULL: none. */
static const char *text_of(const struct added_tokens *a, int32_t id)
{
    for (int i = 0; i < a->all; i++)
        if (a->token[i].id == id)
            return a->token[i].text;
    return NULL;
}

/* Every id from the pieces on: what there was, unused rows, new tokens. */
static int write_tokens(struct ckpt_info *info, const struct added_tokens *old,
                        const struct added_tokens *new, int pieces, struct err *err)
{
    int n = 0, end = info->shape.vocab + new->n, failed = 0;
    int room = end - pieces;
    struct added_token *list = mem_array(room, sizeof *list, err);
    char **unused = mem_array(room, sizeof *unused, err);
    failed = !list || !unused;
    for (; n < room && !failed; n++) {
        int id = pieces + n;
        const char *text = text_of(id < info->shape.vocab ? old : new, id);
        if (!text)
            text = unused[n] = mem_printf(err, "<unused_%d>", id);
        failed = !text;
        list[n] = (struct added_token){text, id};
    }
    if (!failed)
        failed = added_tokens_write(info, list, n, err);
    for (int i = 0; i < n && unused; i++)
        free(unused[i]);
    mem_free(unused);
    mem_free(list);
    return failed ? -1 : 0;
}

/* The files, read back, must say what was meant. */
static int check_written(const struct ckpt_info *info, const struct added_tokens *new,
                         const char *name, struct err *err)
{
    struct tokenizer *t = tokenizer_of_files(info, name, err);
    int failed = t ? 0 : -1;
    for (int i = 0; i < new->n && !failed; i++) {
        int32_t id = tokenizer_special(t, new->token[i].text);
        if (id != new->token[i].id)
            failed =
                err_set(err, ERR_INPUT,
                        "%s: its tokenizer's files give token \"%.60s\" the id %d, "
                        "but its row is %d",
                        name, new->token[i].text, (int)id, (int)new->token[i].id);
    }
    tokenizer_destroy(t);
    return failed;
}

int add_tokens(struct ckpt_info *info, const char *list, const char *name,
               struct err *err)
{
    const struct ckpt_file *f = ckpt_info_file(info, "tokenizer.model");
    struct added_tokens old = {0}, new = {0};
    int vocab = info->shape.vocab, n = -1;
    if (added_tokens_parse(&new, list, vocab, err))
        return -1;
    if (new.n > INT_MAX - 1 - vocab) {
        added_tokens_fini(&new);
        return err_set(err, ERR_USAGE, "--add-tokens: too many tokens");
    }
    int pieces = f ? spm_model_pieces(f->data, f->bytes) : 0;
    struct tokenizer *t = tokenizer_of_files(info, name, err);
    if (t && !check_new(t, &new, name, err) &&
        !added_tokens_read(&old, info->file, info->files, pieces, vocab, err) &&
        !check_rowless(&old, &new, name, err) &&
        !write_tokens(info, &old, &new, pieces, err)) {
        info->shape.vocab = vocab + new.n;
        n = check_written(info, &new, name, err) ? -1 : new.n;
    }
    tokenizer_destroy(t);
    added_tokens_fini(&old);
    added_tokens_fini(&new);
    return n;
}
