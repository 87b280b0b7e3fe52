/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKEN_SET_H
#define DUSK_IO_TOKEN_SET_H

/* A token set: one stream of token ids with the ends of its documents, in a sealed HDF5
 * file.
 *
 *   /tokens          [n] U16 (vocabulary up to 65,536) or U32
 *   /document_ends   [documents] I64: the stream offset after each document's last
 * token attributes of /  format, vocab, tokenizer (hash), bos, eos, source, counts */

#include "io/sealed.h"

struct token_set_info {
    int64_t tokens, documents, source_bytes;
    int vocab;
    char tokenizer[33]; /* XXH3-128 of tokenizer.model, hex */
    bool bos, eos;      /* written before / after each document */
    char *source;       /* names of the input files; owned by the set */
};

struct token_set;

/* Owned; NULL on every rank with err set. Collective over c. */
struct token_set *token_set_open(struct comm *c, const char *path, struct err *err);
void token_set_close(struct token_set *t); /* local */
const struct token_set_info *token_set_info(const struct token_set *t);
uint64_t token_set_identity(const struct token_set *t);

/* ids of stream positions [begin, begin + n); an id >= vocab is ERR_INPUT naming file
 * and position. Blocks are verified once. Local. */
int token_set_read(struct token_set *t, int64_t begin, int64_t n, int32_t *ids,
                   struct err *err);
int token_set_document_ends(struct token_set *t, int64_t first, int64_t n,
                            int64_t *ends, struct err *err);

#endif
