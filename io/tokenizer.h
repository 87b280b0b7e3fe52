/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKENIZER_H
#define DUSK_IO_TOKENIZER_H

/* SentencePiece behind a C face (io/spm_shim.cc). Encoding is const: threads may share
 * one tokenizer. All local. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/err.h"
#include "src/base/record.h"

struct tokenizer;

/* From the bytes of a tokenizer.model. `name` is for messages. The model is bounded and
 * checked before SentencePiece sees it (hostile files crash it). Owned; NULL with err
 * set (ERR_INPUT). */
struct tokenizer *tokenizer_create(const void *model, size_t bytes, const char *name,
                                   struct err *err);
void tokenizer_destroy(struct tokenizer *t);

int tokenizer_vocab(const struct tokenizer *t);
int tokenizer_bos(const struct tokenizer *t); /* -1: none; also eos, unk */
int tokenizer_eos(const struct tokenizer *t);
int tokenizer_unk(const struct tokenizer *t);
void tokenizer_hash(const struct tokenizer *t, char *hex,
                    size_t size); /* as ckpt_tokenizer_hash */

struct token_ids {
    int32_t *id;
    int64_t n, room;
}; /* grows; id is owned by the caller (free) */

int token_ids_push(struct token_ids *ids, int32_t id, struct err *err);

/* Appends the ids of text[bytes] (no BOS, no EOS). Invalid UTF-8 becomes U+FFFD, as in
 * SentencePiece. parse_special: the model's own BOS, EOS and UNK pieces ("<s>", "</s>",
 * "<unk>") written in the text become their ids and the stretches between are encoded
 * one by one; else they are plain text. On failure ids is as before. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes,
                     bool parse_special, struct token_ids *ids, struct err *err);

/* Ids with the bytes of the text that each stands for. */
struct spanned_ids {
    int32_t *id;
    struct text_span *span;
    int64_t n, room;
}; /* grows; {0} is empty; owned by the caller */

void spanned_ids_fini(struct spanned_ids *ids);
int spanned_ids_push(struct spanned_ids *ids, int32_t id, struct text_span span,
                     struct err *err);

/* As tokenizer_encode of plain text, the same ids, with spans, to which `offset` is
 * added. They follow one another in the text; each byte piece of a character has the
 * span of the character, and what the model puts in front of a text is empty. On
 * failure ids is as before. */
int tokenizer_encode_spans(const struct tokenizer *t, const char *text, size_t bytes,
                           size_t offset, struct spanned_ids *ids, struct err *err);

/* Text of n ids, owned (free), NUL-terminated. ids out of range: ERR_INPUT. */
char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t n,
                       struct err *err);
const char *tokenizer_piece(const struct tokenizer *t,
                            int32_t id); /* borrowed; NULL: none */

#endif
