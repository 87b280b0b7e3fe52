/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_ADDED_TOKENS_H
#define DUSK_IO_ADDED_TOKENS_H

/* Added tokens: those of a tokenizer that are not pieces of its tokenizer.model, such
 * as "<|im_start|>". They have the ids behind the pieces, text is cut at them, and the
 * model has a row of embed_tokens and lm_head for each.
 *
 * A checkpoint keeps them where Hugging Face does, in the files beside tokenizer.model:
 * tokenizer.json ("added_tokens"), tokenizer_config.json ("added_tokens_decoder") and
 * added_tokens.json. A token of any of them is one; where two files give an id or a
 * text twice, the first of them in this order is right. Ids below the number of pieces
 * are the model's own and not read. Flags (lstrip, rstrip, single_word) are not
 * followed: a token is exactly its text. All local. */

#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"

struct ckpt_file;
struct ckpt_info;

struct added_token {
    const char *text;
    int32_t id;
};

struct added_tokens {
    struct added_token *token; /* [all], by id; the texts are owned too */
    int n;                     /* those with a row in the model: token[0..n) */
    int all; /* and those whose id it has no row for, which are not cut at */
};           /* {0} is empty */

void added_tokens_fini(struct added_tokens *a);

/* Those of a checkpoint's or folder's files. `pieces` is the number of tokenizer.model,
 * `vocab` the model's rows. -1 with err set (ERR_INPUT, naming the file) and nothing to
 * free: bad JSON, an entry without id or text. */
int added_tokens_read(struct added_tokens *a, const struct ckpt_file *file, int files,
                      int pieces, int vocab, struct err *err);

/* The tokens of "A,B" get the ids first, first + 1, ... ERR_USAGE: an empty one, white
 * space at an end, one that is there twice, no UTF-8. */
int added_tokens_parse(struct added_tokens *a, const char *list, int32_t first,
                       struct err *err);

/* Writes those of n tokens that the info's files do not have into them as transformers
 * does: added_tokens.json and tokenizer_config.json, which are made where there are
 * none, and tokenizer.json where there is one. All are special and found as they are.
 * -1 with err set (ERR_INPUT: a file is no JSON); the info is then only good to be
 * freed. */
int added_tokens_write(struct ckpt_info *info, const struct added_token *token, int n,
                       struct err *err);

enum { TOKENIZER_HASH_ROOM = 33 };

/* What the ids of a tokenizer mean: XXH3-128 of tokenizer.model in hex, and with added
 * tokens (by id) a hash of that and of them. hex[TOKENIZER_HASH_ROOM]. */
void tokenizer_identity(const void *model, size_t bytes,
                        const struct added_token *token, int n, char *hex);

#endif
