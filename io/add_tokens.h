/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DUSK_IO_ADD_TOKENS_H
#define DUSK_IO_ADD_TOKENS_H

/* New tokens for a checkpoint's tokenizer, by the description of the checkpoint alone.
 * They get the ids from vocab_size on, which grows by their number and no more.
 *
 * transformers numbers added tokens one after another, whatever its files say. Where a
 * model has rows without a token (its vocabulary was padded), they become tokens
 * "<unused_ID>", so that the new ones have the same ids everywhere. */

#include "io/ckpt.h"

/* Adds the tokens of "A,B" to info's files and shape. `name` is the checkpoint's, for
 * messages. Their number, or -1 with err set, the info then only good to be freed.
 * ERR_USAGE: a bad list (added_tokens_parse), a token that the tokenizer has, tokens
 * that its files list behind the rows and that are not named first; ERR_INPUT: no
 * tokenizer.model, or files that added_tokens_read refuses. Local. */
int add_tokens(struct ckpt_info *info, const char *list, const char *name,
               struct err *err);

#endif
