/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_SPM_SHIM_H
#define DUSK_IO_SPM_SHIM_H

/* The few calls of SentencePiece (C++) that io/tokenizer.c needs, as C. No exception
 * leaves it. Encoding and decoding are const: threads may share one. All local. */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct spm;

/* Owned; NULL with the reason in why[why_bytes]. The model was checked by
 * spm_model_check. */
struct spm *spm_create(const void *model, size_t bytes, char *why, size_t why_bytes);
void spm_destroy(struct spm *s); /* NULL is fine */

int spm_vocab(const struct spm *s);
int spm_bos(const struct spm *s); /* -1: none; also eos, unk */
int spm_eos(const struct spm *s);
int spm_unk(const struct spm *s);
const char *spm_piece(const struct spm *s, int id); /* borrowed; 0 <= id < vocab */
int spm_is_byte(const struct spm *s, int id);       /* a byte of what has no piece */

/* Gives the n ids to take(), which returns 0, or -1 to report failure. 0, or -1 with
 * `why` set. */
int spm_encode(const struct spm *s, const char *text, size_t bytes,
               int (*take)(void *context, const int *ids, size_t n), void *context,
               char *why, size_t why_bytes);

/* A token and the bytes [begin, end) of the text that it stands for. */
struct spm_token {
    int32_t id;
    uint32_t begin, end;
};

/* As spm_encode. Of a character that became several byte pieces only the last one has
 * its bytes, the others are empty at its beginning; the space put in front of a text is
 * empty at 0. */
int spm_encode_tokens(const struct spm *s, const char *text, size_t bytes,
                      int (*take)(void *context, const struct spm_token *tokens,
                                  size_t n),
                      void *context, char *why, size_t why_bytes);

/* Text of n ids, 0 <= id < vocab; owned (free), NUL-terminated. NULL with `why` set. */
char *spm_decode(const struct spm *s, const int32_t *ids, size_t n, char *why,
                 size_t why_bytes);

#ifdef __cplusplus
}
#endif

#endif
