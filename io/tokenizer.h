/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKENIZER_H
#define DUSK_IO_TOKENIZER_H

/* SentencePiece behind a C face (io/spm_shim.cc), with the added tokens of a checkpoint
 * (io/added_tokens.h). Encoding is const: threads may share one tokenizer. All local.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/added_tokens.h"
#include "io/token_ids.h"
#include "src/base/err.h"

struct tokenizer;

/* From the bytes of a tokenizer.model. `name` is for messages. The model is bounded and
 * checked before SentencePiece sees it (hostile files crash it). Owned; NULL with err
 * set (ERR_INPUT). */
struct tokenizer *tokenizer_create(const void *model, size_t bytes, const char *name,
                                   struct err *err);

/* The same with n added tokens, by rising id, copied. ERR_INPUT too where one has no
 * text, an id that is a piece's or another's, or the text of another or of BOS, EOS or
 * UNK. */
struct tokenizer *tokenizer_create_added(const void *model, size_t bytes,
                                         const struct added_token *added, int n,
                                         const char *name, struct err *err);
void tokenizer_destroy(struct tokenizer *t);

int tokenizer_vocab(const struct tokenizer *t); /* ids are below it */
int tokenizer_bos(const struct tokenizer *t);   /* -1: none; also eos, unk */
int tokenizer_eos(const struct tokenizer *t);
int tokenizer_unk(const struct tokenizer *t);
void tokenizer_hash(const struct tokenizer *t, char *hex,
                    size_t size); /* as ckpt_tokenizer_hash */

/* The id of a piece or an added token by its text; -1: none has it. Slow. */
int32_t tokenizer_find(const struct tokenizer *t, const char *text);

/* Special tokens are the model's BOS, EOS and UNK pieces ("<s>", "</s>", "<unk>") and
 * the added ones. The id of the longest that text[bytes] begins with, and its length;
 * -1: none. */
int32_t tokenizer_special_at(const struct tokenizer *t, const char *text, size_t bytes,
                             size_t *length);
int32_t tokenizer_special(const struct tokenizer *t,
                          const char *text); /* -1: text is none */

/* Appends the ids of text[bytes] (no BOS, no EOS). Invalid UTF-8 becomes U+FFFD, as in
 * SentencePiece. parse_special: special tokens written in the text become their ids and
 * the stretches between are encoded one by one; else they are plain text. On failure
 * ids is as before. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes,
                     bool parse_special, struct token_ids *ids, struct err *err);

/* As tokenizer_encode of plain text, the same ids, with spans, to which `offset` is
 * added. They follow one another in the text; each byte piece of a character has the
 * span of the character, and what the model puts in front of a text is empty. On
 * failure ids is as before. */
int tokenizer_encode_spans(const struct tokenizer *t, const char *text, size_t bytes,
                           size_t offset, struct spanned_ids *ids, struct err *err);

/* Text of n ids, owned (free), NUL-terminated: the stretches between added tokens one
 * by one, and their texts. Ids that are none: ERR_INPUT. */
char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t n,
                       struct err *err);
const char *tokenizer_piece(const struct tokenizer *t,
                            int32_t id); /* borrowed; NULL: none */

#endif
