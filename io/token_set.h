/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_TOKEN_SET_H
#define DUSK_IO_TOKEN_SET_H

/* A token set: one stream of token ids with the ends of its documents, in a sealed HDF5
 * file.
 *
 *   /tokens         [tokens] U16 (vocabulary up to 65,536) or U32
 *   /document_ends  [documents] I64: the stream offset after each document's last token
 *   attributes of /: format "dusk token set", version, vocab, tokenizer (hash), bos,
 *   eos, tokens, documents, source_bytes, source, document */

#include "io/sealed.h"

struct token_set_info {
    int64_t tokens, documents;
    int64_t source_bytes; /* of the documents' text */
    int vocab;
    char tokenizer[33]; /* tokenizer_identity, hex */
    bool bos, eos;      /* written before / after each document */
    char *source;       /* names of the input files, without folders */
    char *document;     /* what a document was: "line", "blank", "file", "field:text" */
};                      /* strings are owned by the set that gives it */

struct token_set;

/* Owned; NULL on every rank with err set. Collective over c. */
struct token_set *token_set_open(struct comm *c, const char *path, struct err *err);
void token_set_close(struct token_set *t); /* NULL is fine. Local. */
const struct token_set_info *token_set_info(const struct token_set *t);
uint64_t token_set_identity(const struct token_set *t);

/* ids of stream positions [begin, begin + n); an id >= vocab is ERR_INPUT naming file
 * and position. Blocks are verified once. Local. */
int token_set_read(struct token_set *t, int64_t begin, int64_t n, int32_t *ids,
                   struct err *err);

/* Ends of documents [first, first + n); ends that fall or leave the stream are
 * ERR_INPUT. Local. */
int token_set_document_ends(struct token_set *t, int64_t first, int64_t n,
                            int64_t *ends, struct err *err);

/* Writing. The arrays of the file, by index, in the form that sealed_write takes. */
enum { TOKEN_SET_TOKENS, TOKEN_SET_DOCUMENT_ENDS };
size_t token_set_id_bytes(int vocab); /* of one id in the file: 2 or 4 */

/* A file with this info (rank 0's counts), tokens and documents >= 1, to be filled by
 * sealed_write and finished by sealed_commit. As sealed_create. Collective over c. */
struct sealed_writer *token_set_create(struct comm *c, const char *path, bool replace,
                                       const struct token_set_info *info,
                                       struct err *err);

#endif
